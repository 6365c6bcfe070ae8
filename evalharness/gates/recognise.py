"""Which YAML files of a folder are policies, or may be meant as one.

A policy that is taken for something else is not judged, and nobody hears of it. So whatever may be
a policy is one, and a reader that cannot make sense of it fails and says why. Other YAML, such as
a pipeline that ``extends:`` a template, is told apart by keys that no policy has.
"""

from __future__ import annotations

import re
from pathlib import Path
from typing import Any

from evalharness.errors import InputError
from evalharness.spec.policy import GateSpec, PolicySpec
from evalharness.spec.yamlfile import parse_yaml

_SUFFIXES = (".yaml", ".yml")
_MAKES_ONE = frozenset({"gates", "extends", "waivers"})
_KEY = r"['\"]?(gates|extends|waivers)['\"]?\s*:"
# A key at the top: at the beginning of a line, or in a flow mapping that begins there.
_SAYS_SO = re.compile(rf"^(\ufeff|---)?\s*(\{{[^\n]*?)?{_KEY}", re.MULTILINE)
_INDENTED = re.compile(rf"^[ \t]+{_KEY}")


def may_be_policy(path: Path) -> bool:
    """True for a YAML file that is a policy, or is so wrong that it might have been one."""
    if path.suffix.lower() not in _SUFFIXES:
        return False
    try:
        text = _text(path.read_bytes())
    except OSError:
        return True  # whoever reads it will say why that cannot be done
    try:
        data = parse_yaml(text, path).data
    except InputError:
        return any(not _INDENTED.match(found[0]) for found in _SAYS_SO.finditer(text))
    return _reads_as_policy(data)


def unreadable_policies(folder: Path) -> list[Path]:
    """What has the name of a YAML file in ``folder`` and is none: a link to nothing, a pipe."""
    named = (p for p in folder.iterdir() if p.suffix.lower() in _SUFFIXES)
    return sorted(p for p in named if not (p.is_file() or p.is_dir()))


def _reads_as_policy(data: dict[str, Any]) -> bool:
    gates = data.get("gates")
    if isinstance(gates, list):
        return True
    if not _MAKES_ONE & data.keys():
        return False
    if str(data.get("extends")).startswith("evalharness:"):
        return True
    if isinstance(gates, dict):  # a rule whose dash was forgotten, or no rule at all
        return bool(GateSpec.model_fields.keys() & gates.keys()) or (len(data) > 1 and _ours(data))
    return _ours(data)


def _ours(data: dict[str, Any]) -> bool:
    return data.keys() <= PolicySpec.model_fields.keys()


def _text(content: bytes) -> str:
    """The text of a file in whatever encoding, well enough to see its keys."""
    if content.startswith((b"\xff\xfe", b"\xfe\xff")):
        return content.decode("utf-16", "replace")
    try:
        return content.decode("utf-8")
    except UnicodeDecodeError:
        return content.decode("latin-1")
