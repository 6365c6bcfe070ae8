"""Tasks of a result, from records: flips, groups, and what was taken of the items."""

from __future__ import annotations

import numpy as np
import pandas as pd

from evalharness.metrics import Evidence
from evalharness.report.task_rows import _note
from evalharness.results.tasks import flipped, tasks
from evalharness.run import records
from evalharness.run.directory import InMemory
from evalharness.spec.result import TaskResult
from evalharness.testing.records import Arrow, Tables, synthetic


def evidence(tables: Tables) -> Evidence:
    """The records of a run."""
    return Evidence(InMemory({}, Arrow(tables)))


def only(found: list[TaskResult]) -> TaskResult:
    """The one row."""
    (row,) = found
    return row


def test_an_item_without_a_score_is_no_flip() -> None:
    """Whichever side has none, and whatever the other scored."""
    tables = synthetic()
    items = tables["items"]
    changed = items["score_ref"] != items["score_cand"]
    before = flipped(evidence(tables))
    assert len(before) == changed.sum() > 4
    lost = items.index[changed][:2].append(items.index[~changed][:2])
    items.loc[lost[::2], "score_cand"] = np.nan
    items.loc[lost[1::2], "score_ref"] = np.nan
    after = flipped(evidence(tables))
    gone = {str(items["doc_id"][i]) for i in lost}
    assert [f for f in before if f.item not in gone] == after
    row = only(tasks(evidence(tables)))
    assert (row.right_to_wrong or 0) + (row.wrong_to_right or 0) == len(after)


def test_flips_are_told_by_their_direction_and_losses_come_first() -> None:
    """From the scores alone."""
    tables = synthetic()
    found = flipped(evidence(tables))
    by_item = tables["items"].set_index("doc_id")
    for flip in found:
        row = by_item.loc[int(flip.item)]
        lost = row["score_ref"] > row["score_cand"]
        assert flip.change == ("right→wrong" if lost else "wrong→right")
    changes = [flip.change for flip in found]
    assert changes == sorted(changes, key=lambda change: change != "right→wrong")


def test_what_was_taken_of_the_items_is_said() -> None:
    """Whether they are right or wrong, and which count as one."""
    tables = synthetic()
    row = only(tasks(evidence(tables)))
    assert (row.binary, row.clusters, row.clusters_by) == (True, len(tables["items"]), None)
    tables["items"]["cluster"] = [f"context:{i // 5}" for i in range(len(tables["items"]))]
    tables["items"]["binary"] = False
    row = only(tasks(evidence(tables)))
    assert (row.binary, row.clusters, row.clusters_by) == (False, 12, "context")
    assert row.right_to_wrong is row.wrong_to_right is None


def test_a_group_stands_after_the_tasks_with_its_leaves() -> None:
    """It has lm-eval's scores and no items of its own."""
    tables = synthetic()
    group = {
        "task": "all",
        "metric": "acc",
        "reference": 0.5,
        "candidate": np.nan,
        "higher_is_better": True,
        "items": 60,
        "num_fewshot": 0,
        "leaves": ["quiz"],
        "weights": [1.0],
    }
    tables["groups"] = pd.DataFrame([group], columns=records.GROUPS.names)
    leaf, found = tasks(evidence(tables))
    assert (leaf.task, leaf.leaves) == ("quiz", [])
    assert (found.task, found.leaves, found.items) == ("all", ["quiz"], 60)
    assert (found.reference, found.candidate) == (0.5, None)
    assert found.binary is found.clusters is None
    assert (found.right_to_wrong, found.wrong_to_right) == (
        leaf.right_to_wrong,
        leaf.wrong_to_right,
    )


def test_a_task_says_how_it_was_asked() -> None:
    """The chat template and the system message, in the result and in the report's note."""
    tables = synthetic()
    name = tables["items"]["task"].iloc[0]
    how = {"chat_template": "default", "system": "Be\nbrief.", "fewshot_as_multiturn": True}
    asked = Evidence(InMemory({"task_prompts": {name: how}}, Arrow(tables)))
    row = only(tasks(asked))
    assert (row.chat_template, row.system) == ("default", "Be\nbrief.")
    row = row.model_copy(update={"clusters_by": None})
    assert _note(row) == "chat template; system message"
    named = row.model_copy(update={"chat_template": "rag", "system": None})
    assert _note(named) == "chat template 'rag'"
    assert only(tasks(evidence(tables))).chat_template is None
