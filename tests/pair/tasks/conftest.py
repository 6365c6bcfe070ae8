"""What the tests of tasks share."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

from tests.pair.tasks.lm_sides import side


@pytest.fixture
def pair(tiny: Callable[..., Path]) -> tuple[Any, Any]:
    """Two different tiny models."""
    return side(tiny, 0), side(tiny, 1)
