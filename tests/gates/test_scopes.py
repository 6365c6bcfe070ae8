"""Which scopes a gate's globs mean."""

from __future__ import annotations

import pytest

from evalharness.gates.scopes import matching

LAYERS = [
    {"layer": name}
    for name in (
        "model.layers.1",
        "model.layers.10",
        "model.layers.1.mlp.down_proj",
        "model.layers.10.mlp.down_proj",
        "lm_head",
    )
]


@pytest.mark.parametrize(
    ("glob", "names"),
    [
        ("model.layers.1", ["model.layers.1"]),
        ("model.layers.*", ["model.layers.1", "model.layers.10"]),
        ("model.layers.1?", ["model.layers.10"]),
        ("model.layers.[0-4]", ["model.layers.1"]),
        ("**.[0-9]*", ["model.layers.1", "model.layers.10"]),
        ("**.down_proj", ["model.layers.1.mlp.down_proj", "model.layers.10.mlp.down_proj"]),
        ("model.**", [scope["layer"] for scope in LAYERS[:4]]),
        ("*", [scope["layer"] for scope in LAYERS]),
        ("layers.1", []),
        ("Model.layers.1", []),
    ],
)
def test_in_a_layer_only_two_stars_cross_dots(glob: str, names: list[str]) -> None:
    """layers.1 is never layers.10, and the blocks are not the modules in them."""
    assert [s["layer"] for s in matching({"layer": glob}, LAYERS)] == names


def test_elsewhere_a_star_crosses_everything() -> None:
    """Names of tasks and corpora have no parts."""
    tasks = [{"task": "arc.easy"}, {"task": "arc_hard"}, {"task": "mmlu"}]
    assert matching({"task": "arc*"}, tasks) == tasks[:2]


def test_scopes_with_the_fewest_keys_are_meant() -> None:
    """{} where it exists; each narrower one where it does not."""
    narrow = [{"task": "a", "metric": "acc"}, {"task": "a", "metric": "f1"}]
    assert matching({}, [{}, {"corpus": "x"}]) == [{}]
    assert matching({}, narrow) == narrow
    assert matching({"metric": "acc"}, narrow) == narrow[:1]
    assert matching({"corpus": "*"}, [{}, {"corpus": "x"}]) == [{"corpus": "x"}]
    assert matching({"corpus": "y"}, [{}, {"corpus": "x"}]) == []
