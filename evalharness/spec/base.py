"""The common base of every YAML model, and how pydantic's errors become ours."""

from __future__ import annotations

from typing import Any, TypeVar, get_args

from pydantic import BaseModel, ConfigDict, ValidationError

from evalharness.errors import InputError, nearest, short
from evalharness.spec.yamlfile import KeyPath, YamlFile


class Spec(BaseModel):
    """A frozen model that refuses keys it does not know."""

    model_config = ConfigDict(
        extra="forbid", frozen=True, populate_by_name=True, allow_inf_nan=False
    )


S = TypeVar("S", bound=Spec)


def parse(kind: type[S], file: YamlFile, data: dict[str, Any] | None = None, at: KeyPath = ()) -> S:
    """Validate ``data`` (default: the file's content) as ``kind``; errors name key and line.

    ``at`` : where ``data`` stands in the file.
    """
    try:
        return kind.model_validate(file.data if data is None else data)
    except ValidationError as error:
        raise _input_error(kind, file, error, at) from None


def unknown_key(kind: type[Spec], file: YamlFile, key: KeyPath, at: KeyPath = ()) -> InputError:
    """The error for a key that ``kind``, which stands ``at`` a place of the file, does not have."""
    known = _keys_at(kind, key[len(at) : -1])
    hint = nearest(str(key[-1]), known)
    remedy = hint[:1].upper() + hint[1:] if hint else f"Known keys: {', '.join(sorted(known))}."
    return file.error("unknown key", key, remedy)


def _input_error(
    kind: type[Spec], file: YamlFile, error: ValidationError, at: KeyPath
) -> InputError:
    first = error.errors(include_url=False)[0]
    # Names of union branches that pydantic puts into the location are not keys of the file.
    key = _real_key(file.data, (*at, *first["loc"]))
    if first["type"] == "extra_forbidden":
        return unknown_key(kind, file, key, at)
    if first["type"] == "missing":
        return file.error("required and missing", key, _described(kind, key[len(at) :]))
    message = first["msg"].removeprefix("Value error, ").removeprefix("Input ")
    message = message[:1].lower() + message[1:]
    got = first.get("input")
    shown = "" if isinstance(got, dict | list | BaseModel) else f" (got {short(got, 200)})"
    return file.error(message + ("" if "got " in message else shown), key)


def _described(kind: type[BaseModel], key: KeyPath) -> str | None:
    """What a field is for, in the words of its schema, as the remedy where it is missing."""
    found = {
        info.description
        for model in _models_at(kind, key[:-1])
        for name, info in model.model_fields.items()
        if key and key[-1] in (name, info.alias) and info.description
    }
    return f"Give {key[-1]}: {found.pop().rstrip('.')}." if len(found) == 1 else None


def _real_key(data: Any, loc: tuple[str | int, ...]) -> KeyPath:
    key: list[str | int] = []
    for index, part in enumerate(loc):
        if isinstance(data, dict) and (part in data or index == len(loc) - 1):
            key.append(part)
            data = data.get(part)
        elif isinstance(data, list) and isinstance(part, int) and part < len(data):
            key.append(part)
            data = data[part]
    return tuple(key)


def _keys_at(kind: type[BaseModel], key: KeyPath) -> list[str]:
    """The keys a mapping at ``key`` below ``kind`` may have."""
    kinds = _models_at(kind, key)
    return [info.alias or name for model in kinds for name, info in model.model_fields.items()]


def _models_at(kind: type[BaseModel], key: KeyPath) -> list[type[BaseModel]]:
    """The models that a mapping at ``key`` below ``kind`` may be."""
    kinds: list[type[BaseModel]] = [kind]
    for part in key:
        if isinstance(part, int):
            continue
        inner: list[type[BaseModel]] = []
        for model in kinds:
            for name, info in model.model_fields.items():
                if part in (name, info.alias):
                    inner += _models_in(info.annotation)
        kinds = inner or kinds
    return kinds


def _models_in(annotation: Any) -> list[type[BaseModel]]:
    if isinstance(annotation, type) and issubclass(annotation, BaseModel):
        return [annotation]
    return [model for arg in get_args(annotation) for model in _models_in(arg)]
