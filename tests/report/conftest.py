"""Results to render: factories, see factory.py."""

from __future__ import annotations

from collections.abc import Callable

import pytest

from evalharness.spec.result import Result

from .factory import make_bare, make_hostile, make_result


@pytest.fixture(scope="session")
def result() -> Callable[..., Result]:
    """The factory of complete results."""
    return make_result


@pytest.fixture(scope="session")
def bare() -> Result:
    """A result with no section measured."""
    return make_bare()


@pytest.fixture(scope="session")
def hostile() -> Callable[..., Result]:
    """The factory of results whose every string is hostile."""
    return make_hostile
