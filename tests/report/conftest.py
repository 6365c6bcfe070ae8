"""Results to render: synthetic records, decided by a policy and put together by the builder.

Functions of a single number, gate or layer are tested on those, where a test sweeps them.
"""

from __future__ import annotations

import json
from collections.abc import Callable
from functools import cache
from typing import Any

import pytest

from evalharness.report import render_html
from evalharness.run import records
from evalharness.spec.estimate import Verdict
from evalharness.spec.result import Result

from ..synthetic.pair import Pair
from ..synthetic.pair import result as built
from ..synthetic.policies import policy

HOSTILE = (
    "</script><img src=x onerror=alert(1)>|`*_[x](http://evil)\x1b[31m\x00\u202etxt.exe\u200b"
    "\r\n::error::%0A]]>&amp;{{7*7}}"
)
DAMAGE: dict[Verdict, float] = {"PASS": 0.15, "FAIL": 0.4, "INCONCLUSIVE": 0.24, "ANOMALOUS": 0.15}
INTERNALS = ("weights", "activations", "outliers", "channels", "routing", "sensitivity")
_PLACE = "«any text»"


def make_result(verdict: Verdict = "PASS", *, rules: str | None = None, **more: Any) -> Result:
    """The result of a run that a policy decides so; ``more`` are fields of `Pair`.

    A failing run has four ``blocks``, of 7 linears each, and others two.
    """
    fields: dict[str, Any] = {"damage": DAMAGE[verdict], "blocks": 4 if verdict == "FAIL" else 2}
    fields["broken"] = 1 if verdict == "ANOMALOUS" else 0
    if rules is not None:  # a policy of its own, for which few documents and records do
        fields |= {"documents": 12, "items": 0.1, "without": INTERNALS}
    found = built(Pair(**fields | more), policy() if rules is None else rules)
    assert rules is not None or found.verdict == verdict
    return found


def make_hostile(prefix: str = HOSTILE, **more: Any) -> Result:
    """A small result in which ``prefix`` begins every name and text that is not ours."""
    small = {"damage": 0.4, "blocks": 1, "documents": 6, "items": 0.02, "broken": 1}
    small |= {"repair": ("model.layers.0.mlp.down_proj",), **more}
    return built(Pair(prefix=prefix, **small), policy(prefix, layers="*"))


def make_any(text: str, **more: Any) -> Result:
    """As `make_hostile`, for tests with many texts: built once, and ``text`` put in place after.

    Names only pass through the builder, which `test_names_pass_through_the_builder` holds.
    """
    whole = make_hostile(_PLACE, **more).model_dump_json()
    return Result.model_validate_json(whole.replace(_PLACE, json.dumps(text)[1:-1]))


@pytest.fixture(scope="session")
def result() -> Callable[..., Result]:
    """The factory of complete results."""
    return make_result


@pytest.fixture(scope="session")
def page() -> Callable[..., str]:
    """The pages of complete results, each rendered once."""
    return cache(lambda *args, **more: render_html(make_result(*args, **more)))


@pytest.fixture(scope="session")
def bare() -> Result:
    """A model against itself, with a suite that measures nothing but the weights."""
    rules = "version: 1\nname: none\ngates: [{metric: kl.mean, max: 1, on_missing: inconclusive}]\n"
    return make_result(
        "INCONCLUSIVE", rules=rules, without=tuple(records.SCHEMAS), same=True, documents=6
    )


@pytest.fixture(scope="session")
def hostile() -> Callable[..., Result]:
    """The factory of results in which every name is hostile."""
    return make_hostile


@pytest.fixture(scope="session")
def any_text() -> Callable[..., Result]:
    """The factory of results in which every name begins with a given text."""
    return make_any
