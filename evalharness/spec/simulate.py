"""``simulate:`` of a model file: a what-if candidate made from the model's own weights.

What each recipe computes, with its formula and source, stands in `evalharness.engines`: `rounding`
(grids of weights), `pruning`.
"""

from __future__ import annotations

from typing import Any, Literal

from pydantic import ConfigDict, Field, model_validator

from evalharness.spec.base import Spec

Format = Literal["int", "nf4", "fp8_e4m3", "fp8_e5m2", "mxfp4"]
# What a format fixes, and what it takes where nothing is said.
_FIXED: dict[str, dict[str, Any]] = {
    "nf4": {"bits": 4},
    "fp8_e4m3": {"bits": 8},
    "fp8_e5m2": {"bits": 8},
    "mxfp4": {"bits": 4, "granularity": "group", "group_size": 32},
}
_USUAL: dict[str, dict[str, Any]] = {
    "nf4": {"granularity": "group", "group_size": 64},
    "fp8_e4m3": {"granularity": "channel"},
    "fp8_e5m2": {"granularity": "channel"},
}


class Selection(Spec):
    """Which linear modules, fused experts among them."""

    include: tuple[str, ...] = Field(
        ("*",),
        description="Globs of module names; a head that is tied to the embedding is left alone "
        "unless one of them other than * names it.",
    )
    exclude: tuple[str, ...] = Field((), description="Globs of module names to leave alone.")


def _bits_may_follow_from_format(schema: dict[str, Any]) -> None:
    schema.pop("required", None)


class WeightQuantizer(Selection):
    """Weights on a narrow grid: quantised, then dequantised."""

    model_config = ConfigDict(json_schema_extra=_bits_may_follow_from_format)

    format: Format = Field(
        "int", description="Integers, or values of NF4, FP8 (e4m3, e5m2) or MXFP4."
    )
    bits: int = Field(ge=2, le=8, description="Of integers; the other formats say it themselves.")
    symmetric: bool = True
    granularity: Literal["tensor", "channel", "group"] = "group"
    group_size: int | None = Field(
        default=None, ge=2, description="Input columns that share a scale."
    )
    clip: Literal["minmax", "mse"] = "minmax"
    scale: Literal["restricted", "full"] = Field(
        default="restricted",
        description="Of a symmetric scheme: max|x| is code 2^(b-1) - 1 (at 4 bits max/7), or "
        "2^(b-1) - 0.5 (max/7.5, as llm-compressor has it).",
    )

    @model_validator(mode="before")
    @classmethod
    def _of_the_format(cls, data: Any) -> Any:
        """Fill in what the format says, and refuse what it is not."""
        name = data.get("format") if isinstance(data, dict) else None
        if not isinstance(name, str) or name not in _FIXED:
            return data
        fixed = _FIXED[name] | {"symmetric": True, "clip": "minmax", "scale": "restricted"}
        for key, value in fixed.items():
            if data.get(key, value) != value:
                shown = str(value).lower() if isinstance(value, bool) else value
                raise ValueError(f"format: {name} has {key}: {shown} (got {data[key]!r})")
        said = "granularity" in data or "group_size" in data
        return {**({} if said else _USUAL.get(name, {})), **_FIXED[name], **data}

    @model_validator(mode="after")
    def _group(self) -> WeightQuantizer:
        if (self.granularity == "group") != (self.group_size is not None):
            raise ValueError("group_size must be given with granularity: group, and only then")
        if self.scale == "full" and not self.symmetric:
            raise ValueError("scale: full is of symmetric schemes; an affine one has none")
        return self


class Pruning(Selection):
    """Weights of least magnitude set to zero, matrix by matrix."""

    share: float | None = Field(
        default=None, gt=0, lt=1, description="Share of each matrix that becomes zero."
    )
    pattern: Literal["2:4"] | None = Field(
        default=None, description="Two of every four consecutive input columns become zero."
    )

    @model_validator(mode="after")
    def _one_of_them(self) -> Pruning:
        if (self.share is None) == (self.pattern is None):
            raise ValueError("give either share or pattern")
        return self


class Simulate(Spec):
    """A what-if candidate made from the model's own weights."""

    weights: WeightQuantizer | None = None
    pruning: Pruning | None = None

    @model_validator(mode="after")
    def _something(self) -> Simulate:
        if not self.parts:
            raise ValueError(f"give at least one of {', '.join(type(self).model_fields)}")
        return self

    @property
    def parts(self) -> tuple[str, ...]:
        """The keys that are given."""
        return tuple(k for k in ("weights", "pruning") if getattr(self, k) is not None)

    def __str__(self) -> str:
        """In a few words: ``int4 weights, 2:4 pruning``."""
        said = []
        if self.weights:
            name = self.weights.format
            said.append(f"{name}{self.weights.bits if name == 'int' else ''} weights")
        if self.pruning:
            share = f"{self.pruning.share:.0%}" if self.pruning.share else self.pruning.pattern
            said.append(f"{share} pruning")
        return ", ".join(said)
