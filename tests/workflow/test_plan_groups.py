"""The groups of a suite's tasks are known while it is planned."""

from __future__ import annotations

from evalharness.spec.suite import Suite, Task
from evalharness.workflow.plan import sizes
from tests.pair.tasks.lm_sides import prepare

SUITE = Suite(name="s", tasks=(Task(name="any"),))


def test_a_group_has_lm_evals_weights_before_it_is_run() -> None:
    """And the mean over all is none where the suite names but one."""
    prepared = prepare("both.yaml", limit=4)
    found = sizes(SUITE, [], prepared)
    assert found.items == {"choose": 4, "finish": 4}
    assert found.groups == {"both": {"choose": 0.5, "finish": 0.5}}
    assert prepared.sharing == [["choose", "finish"]]  # of one file
    assert prepare("choose.yaml", limit=4).sharing == []


def test_two_tasks_are_a_group_of_all() -> None:
    """Each with the same weight."""
    found = sizes(SUITE, [], prepare("choose.yaml", "finish.yaml", limit=3))
    assert found.groups == {"all": {"choose": 0.5, "finish": 0.5}}
