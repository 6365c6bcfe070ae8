"""The tiny pair of the pass's tests."""

from tests.pair.conftest import documents, side, suite  # noqa: F401
