"""Checks that the metrics of other packages may be held to, as ours are.

from evalharness.testing import check_metric

def test_my_metric():
    check_metric("my.metric")
"""

from evalharness.testing.invariance import (
    check_identity,
    check_measured,
    check_metric,
    check_nan,
    check_one_document,
    check_order,
    check_swap,
)
from evalharness.testing.records import Tables, estimates, swapped, synthetic

__all__ = [
    "Tables",
    "check_identity",
    "check_measured",
    "check_metric",
    "check_nan",
    "check_one_document",
    "check_order",
    "check_swap",
    "estimates",
    "swapped",
    "synthetic",
]
