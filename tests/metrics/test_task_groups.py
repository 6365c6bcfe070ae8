"""Tasks brought together: whose weights, which intervals, which scopes, and what they share."""

from __future__ import annotations

from collections.abc import Mapping, Sequence

import numpy as np
import pandas as pd
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from evalharness import stats
from evalharness.gates import decide
from evalharness.gates.scopes import chosen
from evalharness.metrics import Estimates, Evidence
from evalharness.metrics.task_groups import outermost, together
from evalharness.run import records
from evalharness.run.directory import InMemory
from evalharness.testing.records import MANIFEST, Arrow, Tables, synthetic
from tests.gates.fakes import gate

properties = settings(deadline=None, max_examples=10)
SHIFT, FLIPS = "task.score.shift", "task.flips"
Counts = tuple[int, int, int]  # wrong to right, right to wrong, items


def suite_of(
    tasks: Mapping[str, Counts], groups: Mapping[str, Mapping[str, float]], metric: str = "acc"
) -> Tables:
    """Records of right-or-wrong tasks, and of groups with the weights of their leaves."""
    tables = synthetic()
    one = tables["items"].iloc[[0]].drop(columns=["task", "doc_id", "score_ref", "score_cand"])
    frames, scores = [], []
    for task, (up, down, items) in tasks.items():
        frame = one.iloc[np.zeros(items, int)].reset_index(drop=True)
        place = np.arange(items)
        frame["task"], frame["doc_id"], frame["metric"] = task, place, metric
        frame["cluster"] = frame["doc_id"].astype(str)
        right = place < items * 0.6
        right[:down], right[items - up :] = True, False
        frame["score_ref"] = right.astype(float)
        frame["score_cand"] = frame["score_ref"]
        frame.loc[frame.index[:down], "score_cand"] = 0.0
        frame.loc[frame.index[items - up :], "score_cand"] = 1.0
        frames.append(frame)
        sides = {s: frame[f"score_{s[:3] if s[0] == 'r' else 'cand'}"].mean() for s in SIDES}
        scores.append({"task": task, "metric": metric, **sides, **KINDS})
    tables["items"] = pd.concat(frames)
    tables["tasks"] = pd.DataFrame(scores)
    made = []
    for name, weights in groups.items():
        sides = {
            side: sum(w * s[side] for t, w in weights.items() for s in scores if s["task"] == t)
            for side in SIDES
        }
        size = sum(tasks[leaf][2] for leaf in weights)
        leaves = {"leaves": list(weights), "weights": list(weights.values()), "items": size}
        made.append({"task": name, "metric": metric, **sides, **leaves, **KINDS})
    tables["groups"] = pd.DataFrame(made, columns=records.GROUPS.names)
    return tables


SIDES = ("reference", "candidate")
KINDS = {"higher_is_better": True, "num_fewshot": 0}


def estimates_of(tables: Tables, **manifest: object) -> Estimates:
    """What a run with these records would estimate."""
    return Estimates(Evidence(InMemory({**MANIFEST, **manifest}, Arrow(tables))))  # type: ignore[arg-type]


THREE = {"law": (2, 4, 200), "art": (0, 5, 100), "sea": (1, 1, 50)}
BY_SIZE = {"law": 200 / 350, "art": 100 / 350, "sea": 50 / 350}
PLAIN = dict.fromkeys(THREE, 1 / 3)


@pytest.mark.parametrize("weights", [BY_SIZE, PLAIN], ids=["by size", "plain"])
def test_a_groups_shift_is_lm_evals_and_its_interval_movers(weights: dict[str, float]) -> None:
    """Of Tango's intervals of its tasks, and no narrower than Tango's of all items alike."""
    found = estimates_of(suite_of(THREE, {"know": weights}))
    scope = {"group": "know", "metric": "acc"}
    assert scope in found.scopes(SHIFT)
    group = found.estimate(SHIFT, scope, 0.9)
    leaves = [stats.paired_shift(*counts, 0.9) for counts in THREE.values()]
    expected = stats.mean_of_parts(leaves, list(weights.values()))
    assert group.value == pytest.approx(expected.value)
    sides = [found.estimate(f"task.score.{s}", scope, 0.9).value for s in SIDES]
    assert group.value == pytest.approx(sides[1] - sides[0])
    own = found.estimate("task.score.reference", scope, 0.9)
    assert own.low < own.value < own.high
    n = 1 / sum(w**2 / THREE[t][2] for t, w in weights.items())
    rates = [sum(w * THREE[t][k] / THREE[t][2] for t, w in weights.items()) for k in (0, 1)]
    alike = stats.tango(n * rates[0], n * rates[1], n, 0.9)
    assert group.low == pytest.approx(min(expected.low, alike.low))
    assert group.high == pytest.approx(max(expected.high, alike.high))
    assert (group.n, group.clusters, group.worst) == (350, 350, "task art at -0.05")


def test_a_groups_flips_come_of_clopper_and_pearsons() -> None:
    """In the same weights."""
    found = estimates_of(suite_of(THREE, {"know": PLAIN}))
    flips = found.estimate(FLIPS, {"group": "know", "metric": "acc"}, 0.9)
    parts = [stats.clopper_pearson(up + down, n, 0.9) for up, down, n in THREE.values()]
    expected = stats.mean_of_parts(parts, list(PLAIN.values()))
    assert flips.value == pytest.approx(expected.value)
    assert flips.high >= expected.high - 1e-12
    assert flips.low <= expected.low + 1e-12


def test_all_tasks_of_a_suite_are_a_group_in_which_a_group_counts_as_one() -> None:
    """The plain mean over what the suite names; nothing where it names but one."""
    tasks = {**THREE, "alone": (0, 8, 80)}
    found = estimates_of(suite_of(tasks, {"know": BY_SIZE}))
    every = found.estimate(SHIFT, {"group": "all", "metric": "acc"}, 0.9)
    know = found.estimate(SHIFT, {"group": "know", "metric": "acc"}, 0.9)
    assert every.value == pytest.approx((know.value - 0.1) / 2)
    assert found.leaves({"group": "all", "metric": "acc"}) == set(tasks)
    one = estimates_of(suite_of(THREE, {"know": BY_SIZE}))
    assert not any(scope.get("group") == "all" for scope in one.scopes(SHIFT))


def test_a_gate_is_decided_over_the_tasks_that_the_suite_names() -> None:
    """Groups for their tasks, the outermost for the rest; what a gate names is what it gets."""
    tasks = {**THREE, "alone": (0, 8, 80)}
    inner = {"law": 2 / 3, "art": 1 / 3}
    found = estimates_of(suite_of(tasks, {"inner": inner, "know": BY_SIZE}))

    def names(**globs: str) -> list[str]:
        return [s.get("task") or s["group"] for s in chosen(found, SHIFT, globs)]

    assert names() == names(metric="acc") == ["alone", "know"]
    assert names(task="*") == [*THREE, "alone"]
    assert names(task="art") == ["art"]
    assert names(group="*") == ["inner", "know", "all"]
    assert names(group="inner") == ["inner"]
    assert names(metric="f1") == []


def test_tasks_that_share_items_are_no_more_evidence_than_each() -> None:
    """Whether the manifest names them, or a passage does, or nobody says that they do not."""
    halves = {"a": (2, 4, 100), "b": (2, 4, 100)}
    tables = suite_of(halves, {"both": {"a": 0.5, "b": 0.5}})
    scope = {"group": "both", "metric": "acc"}
    leaf = stats.tango(2, 4, 100, 0.9)
    whole = estimates_of(tables).estimate(SHIFT, scope, 0.9)
    assert whole.low > leaf.low
    for known in ([["a", "b"]], None):
        shared = estimates_of(tables, shared_items=known).estimate(SHIFT, scope, 0.9)
        assert (shared.low, shared.high) == pytest.approx((leaf.low, leaf.high))
        assert shared.clusters == 100
    passages = {**tables, "items": tables["items"].assign(cluster="passage:1")}
    found = estimates_of(passages)
    assert found.together([{"task": "a"}, {"task": "b"}]) == [0, 0]
    assert estimates_of(tables).together([{"task": "a"}, {"task": "b"}]) == [0, 1]


def test_corpora_are_of_different_documents_and_slices_may_not_be() -> None:
    """What is over all documents shares them with everything; so does what was stopped early."""
    found = estimates_of(synthetic())
    assert found.together([{"corpus": "a"}, {"corpus": "b"}]) == [0, 1]
    assert found.together([{"corpus": "a"}, {"slice": "xs"}, {"corpus": "b"}]) == [0, 0, 0]
    assert found.together([{"corpus": "a"}, {}]) == [0, 0]
    assert found.together([{"layer": "x"}, {"layer": "y"}]) == [0, 0]
    early = estimates_of(synthetic(), stop_early={"rule": "looks", "looks": 5, "taken": []})
    assert early.together([{"corpus": "a"}, {"corpus": "b"}]) == [0, 0]


@pytest.mark.parametrize("missing", ["score", "items", "one item"])
def test_a_group_of_which_a_part_is_missing_has_no_interval(missing: str) -> None:
    """Nothing is left out of a mean."""
    tasks = {**THREE, "sea": (0, 0, 1)} if missing == "one item" else THREE
    tables = suite_of(tasks, {"know": PLAIN})
    scope = {"group": "know", "metric": "acc"}
    if missing == "items":
        tables["items"] = tables["items"][tables["items"]["task"] != "sea"]
        assert scope not in estimates_of(tables).scopes(SHIFT)
        return
    if missing == "score":
        tables["items"]["score_cand"] = np.where(
            (tables["items"]["task"] == "sea") & (tables["items"]["doc_id"] == 0),
            np.nan,
            tables["items"]["score_cand"],
        )
    for metric in (SHIFT, FLIPS):
        found = estimates_of(tables).estimate(metric, scope, 0.9)
        assert (found.low, found.high) == (None, None)
        assert found.reason


@properties
@given(st.data(), st.integers(4, 40), st.sampled_from([0.0, -0.02, -0.1, -0.3]))
def test_a_task_in_two_parts_passes_no_gate_that_it_did_not_pass_whole(
    data: st.DataObject, half: int, limit: float
) -> None:
    """However its changed items are dealt out: nothing was measured that was not before."""
    changed = st.integers(0, half // 2)
    parts = {t: (data.draw(changed), data.draw(changed), half) for t in ("a", "b")}
    whole = tuple(sum(counts) for counts in zip(*parts.values(), strict=True))
    sizes = {"a": 0.5, "b": 0.5}
    split = estimates_of(suite_of(parts, {"both": sizes}))
    once = estimates_of(suite_of({"one": whole}, {}))
    apart = split.estimate(SHIFT, {"group": "both", "metric": "acc"}, 0.9)
    alone = once.estimate(SHIFT, {"task": "one", "metric": "acc"}, 0.9)
    assert apart.value == pytest.approx(alone.value)
    assert not (apart.low >= limit > alone.low + 1e-9)
    assert apart.high >= alone.high - 1e-9
    flips = [
        found.estimate(FLIPS, scope, 0.9)
        for found, scope in (
            (split, {"group": "both", "metric": "acc"}),
            (once, {"task": "one", "metric": "acc"}),
        )
    ]
    assert flips[0].high >= flips[1].high - 1e-9


def test_mmlu_passes_where_nothing_is_lost_and_not_where_the_limit_is() -> None:
    """A gate without a scope: the group decides, though no leaf of it could."""
    sizes = {f"m{k}": 240 + k for k in range(24)}
    weights = {name: n / sum(sizes.values()) for name, n in sizes.items()}
    rule = gate("metric: task.score.shift, min: -1pp")
    for lost, verdict in ((3, "PASS"), (5, "INCONCLUSIVE"), (9, "FAIL")):
        tasks = {name: (3, lost, n) for name, n in sizes.items()}
        found = estimates_of(suite_of(tasks, {"mmlu": weights}))
        (result,) = decide(rule, found).gates
        assert (result.verdict, result.scope) == (verdict, {"group": "mmlu", "metric": "acc"})
        leaves = decide(gate("metric: task.score.shift, scope: {task: '*'}, min: -1pp"), found)
        assert leaves.gates[0].verdict != "PASS"


def test_a_run_without_weights_has_no_groups() -> None:
    """One recorded before there were any: its tasks stand for themselves."""
    tables = suite_of(THREE, {"know": PLAIN})
    tables["groups"]["weights"] = None
    found = estimates_of(tables)
    assert [g for g, _ in found.evidence.groups] == ["all"]
    assert len(chosen(found, SHIFT, {})) == 3


@pytest.mark.parametrize(
    ("sets", "expected"),
    [
        ([{"a"}, {"b"}], [0, 1]),
        ([{"a"}, {"a", "b"}, {"c"}], [1, 2]),
        ([{"a"}, {"a"}], [1]),
        ([{"a"}, {"a", "b"}, {"a", "b", "c"}], [2]),
        ([], []),
    ],
)
def test_the_outermost_hold_the_rest(sets: Sequence[set[str]], expected: list[int]) -> None:
    """Of equal ones the last, as a group stands after its task."""
    assert outermost(sets) == expected


def test_sharing_goes_through_others() -> None:
    """a with b and b with c: all three."""
    assert together([{1}, {2}, {1, 3}, {3, 4}, {9}]) == [0, 1, 0, 0, 4]
    assert together([]) == []
