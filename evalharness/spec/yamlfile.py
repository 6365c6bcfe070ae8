"""A YAML file with the line of every key, so that an error can point at it.

Only the safe loader is used; a key given twice is an error (YAML would silently keep the last).
"""

from __future__ import annotations

import re
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import yaml

from evalharness.errors import InputError
from evalharness.spec.permissions import outside

KeyPath = tuple[str | int, ...]


@dataclass(frozen=True)
class YamlFile:
    """Parsed content of ``path``; ``lines`` maps each key path to its 1-based line."""

    path: Path
    data: dict[str, Any]
    lines: dict[KeyPath, int] = field(default_factory=dict)

    def line(self, key: KeyPath) -> int | None:
        """Line of ``key``, or of its nearest enclosing key that has one."""
        while key:
            if key in self.lines:
                return self.lines[key]
            key = key[:-1]
        return None

    def error(self, message: str, key: KeyPath = (), remedy: str | None = None) -> InputError:
        """An `InputError` that points at ``key`` in this file."""
        return InputError(
            message, path=self.path, line=self.line(key), key=dotted(key) or None, remedy=remedy
        )

    def named(self, name: str, key: KeyPath) -> Path:
        """The file that the value of ``key`` names, relative to this one.

        Raises
        ------
        InputError : it is no regular file, or lies where files may not reach.

        """
        try:
            path = self.path.parent / Path(name).expanduser()
            problem = outside(path, self.path)
        except (OSError, RuntimeError, ValueError) as error:
            raise self.error(f"cannot be a file name ({error})", key) from None
        if problem is not None:
            raise self.error(problem, key, "Name a file of this repository.")
        return path


def dotted(key: KeyPath) -> str:
    """``("gates", 0, "max")`` as ``gates[0].max``."""
    text = ""
    for part in key:
        text += f"[{part}]" if isinstance(part, int) else f".{part}" if text else str(part)
    return text


def load_yaml(path: str | Path) -> YamlFile:
    """Read a YAML mapping from ``path``; raise `InputError` with line and column otherwise."""
    path = Path(path)
    try:
        text = path.read_text(encoding="utf-8")
    except FileNotFoundError:
        raise InputError(
            "no such file", path=path, remedy="Check the path on the command line."
        ) from None
    except (OSError, UnicodeDecodeError) as error:
        raise InputError(f"cannot be read ({error})", path=path) from None
    return parse_yaml(text, path)


def parse_yaml(text: str, path: Path) -> YamlFile:
    """Parse ``text`` as the YAML of ``path``."""
    try:
        loader = _Loader(text)
        try:
            node = loader.get_single_node()
            lines = inspect_node(node, path)
            data = None if node is None else loader.construct_document(node)
        finally:
            loader.dispose()
    except yaml.MarkedYAMLError as error:
        mark = error.problem_mark
        where = f"column {mark.column + 1}: " if mark else ""
        problem = error.problem or error.context or "malformed"
        raise InputError(
            f"{where}not valid YAML: {problem}",
            path=path,
            line=mark.line + 1 if mark else None,
            remedy="Check indentation, quotes and brackets there.",
        ) from None
    except RecursionError:
        raise InputError(f"nested more than {_MOST_DEEP} deep", path=path) from None
    except (yaml.YAMLError, ValueError) as error:
        raise InputError(f"not valid YAML: {error}", path=path) from None
    if not isinstance(data, dict):
        found = "nothing" if data is None else type(data).__name__
        raise InputError(f"must be a mapping of keys to values (got {found})", path=path, line=1)
    return YamlFile(path, data, lines)


class _Loader(yaml.SafeLoader):
    """YAML 1.2's plain values: ``no`` and ``off`` are text, ``1:30`` and dates too; keys are text.

    YAML 1.1, which PyYAML reads, makes a Boolean of Norway's code and a number of a time of day.
    """

    nodes = 0

    def compose_node(self, parent: Any, index: Any) -> Any:
        """Stop at once where a file is too long to be one of ours."""
        self.nodes += 1
        if self.nodes > _MOST_NODES:
            mark = self.peek_event().start_mark  # type: ignore[no-untyped-call]
            raise yaml.MarkedYAMLError(
                problem=f"more than {_MOST_NODES:,} values", problem_mark=mark
            )
        return super().compose_node(parent, index)

    def construct_mapping(self, node: Any, deep: bool = False) -> dict[Any, Any]:
        """Merge what ``<<`` names, and take every key as it is written."""
        self.flatten_mapping(node)
        return {str(k.value): self.construct_object(v, deep=deep) for k, v in node.value}


_Loader.yaml_implicit_resolvers = {}  # its own: those of YAML 1.1 are all inherited
for _tag, _pattern, _first in (
    ("bool", r"true|True|TRUE|false|False|FALSE", "tTfF"),
    ("int", r"[-+]?[0-9]+|0x[0-9a-fA-F]+", "-+0123456789"),
    (
        "float",
        r"[-+]?(\.[0-9]+|[0-9]+(\.[0-9]*)?)([eE][-+]?[0-9]+)?|[-+]?\.(inf|Inf|INF)|\.(nan|NaN|NAN)",
        "-+0123456789.",
    ),
    ("null", r"~|null|Null|NULL|", ["~", "n", "N", ""]),
    ("merge", r"<<", "<"),
):
    _Loader.add_implicit_resolver(
        f"tag:yaml.org,2002:{_tag}", re.compile(rf"(?:{_pattern})\Z"), list(_first)
    )


def _whole_number(loader: yaml.SafeLoader, node: Any) -> int:
    text = node.value
    if len(text) > _MOST_DIGITS:
        raise yaml.MarkedYAMLError(
            problem=f"a number of {len(text):,} digits", problem_mark=node.start_mark
        )
    return int(text, 16 if text[:2] == "0x" else 10)


_CORE = ("null", "bool", "float", "str", "seq", "map")
_Loader.yaml_constructors = {  # sets, binaries and dates are no part of our files
    tag: yaml.SafeLoader.yaml_constructors[tag]
    for tag in (*(f"tag:yaml.org,2002:{name}" for name in _CORE), None)
}
_Loader.add_constructor("tag:yaml.org,2002:int", _whole_number)

_MOST_DIGITS = 250  # any number that a float can hold, hexadecimal too
_MOST_DEEP = 64
_MOST_NODES = 100_000  # with every alias counted as often as it is used
_SURROGATE = re.compile(r"[\ud800-\udfff]")


def inspect_node(root: yaml.Node | None, path: Path) -> dict[KeyPath, int]:
    """Check the tree of a YAML file before anything is made of it; return the line of each key.

    Raises
    ------
    InputError
        A key is given twice or is not plain text, a text holds half a character, or the tree,
        its aliases and merges written out, is too large: 300 bytes of nested anchors may stand
        for more than any memory holds.

    """
    lines: dict[KeyPath, int] = {}
    if root is not None:
        _Walk(path, lines).visit(root, ())
    return lines


@dataclass
class _Walk:
    path: Path
    lines: dict[KeyPath, int]
    nodes: int = 0

    def visit(self, node: yaml.Node, key: KeyPath) -> None:
        line = node.start_mark.line + 1
        self.nodes += 1
        if self.nodes > _MOST_NODES or len(key) > _MOST_DEEP:
            what = (
                f"nested more than {_MOST_DEEP} deep"
                if len(key) > _MOST_DEEP
                else f"holds more than {_MOST_NODES:,} values, its aliases written out"
            )
            raise InputError(what, path=self.path, line=line, remedy="Write a smaller file.")
        self.lines.setdefault(key, line)
        if isinstance(node, yaml.MappingNode):
            self._mapping(node, key)
        elif isinstance(node, yaml.SequenceNode):
            for index, value in enumerate(node.value):
                self.visit(value, (*key, index))
        else:
            self._readable(node, key)

    def _mapping(self, node: yaml.MappingNode, key: KeyPath) -> None:
        seen: set[str] = set()
        for name, value in node.value:
            line = name.start_mark.line + 1
            if not isinstance(name, yaml.ScalarNode):
                raise InputError(
                    "a key must be plain text", path=self.path, line=line, key=dotted(key) or None
                )
            self._readable(name, key)
            child = (*key, str(name.value))
            if name.value in seen:
                raise InputError("given twice", path=self.path, line=line, key=dotted(child))
            seen.add(name.value)
            self.lines[child] = line
            self.visit(value, child)

    def _readable(self, node: Any, key: KeyPath) -> None:
        if found := _SURROGATE.search(node.value):
            raise InputError(
                f"holds U+{ord(found[0]):04X}, half of a character, which no file can hold",
                path=self.path,
                line=node.start_mark.line + 1,
                key=dotted(key) or None,
                remedy="Remove it.",
            )
