"""A YAML file with the line of every key, so that an error can point at it.

Only the safe loader is used; a key given twice is an error (YAML would silently keep the last).
"""

from __future__ import annotations

from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import yaml

from evalharness.errors import InputError

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
        node = yaml.compose(text, Loader=yaml.SafeLoader)
        lines: dict[KeyPath, int] = {}
        if node is not None:
            _walk(node, (), lines, path)
        data = yaml.safe_load(text)
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
    except (yaml.YAMLError, RecursionError, ValueError) as error:
        raise InputError(f"not valid YAML: {error}", path=path) from None
    if not isinstance(data, dict):
        found = "nothing" if data is None else type(data).__name__
        raise InputError(f"must be a mapping of keys to values (got {found})", path=path, line=1)
    return YamlFile(path, data, lines)


def _walk(node: yaml.Node, key: KeyPath, lines: dict[KeyPath, int], path: Path) -> None:
    lines.setdefault(key, node.start_mark.line + 1)
    if isinstance(node, yaml.MappingNode):
        seen: set[str] = set()
        for name, value in node.value:
            child = (*key, str(name.value))
            if name.value in seen:
                raise InputError(
                    "given twice", path=path, line=name.start_mark.line + 1, key=dotted(child)
                )
            seen.add(name.value)
            lines[child] = name.start_mark.line + 1
            _walk(value, child, lines, path)
    elif isinstance(node, yaml.SequenceNode):
        for index, value in enumerate(node.value):
            _walk(value, (*key, index), lines, path)
