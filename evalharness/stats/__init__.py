"""Estimators, intervals and tests: numpy in, :class:`Interval` out; no torch, no files.

Everything takes per-document totals or per-row arrays with document codes, because the document
is the unit of resampling. Every ``confidence`` is two-sided and in (0, 1): a gate that wants a
one-sided 95% bound asks for 0.90 and reads one end.
"""

from evalharness.stats.calibration import brier, calibration_score_sums
from evalharness.stats.confidence_sequence import mean_sequence, rate_sequence, sequence_of
from evalharness.stats.interval import Interval, exp_interval, within
from evalharness.stats.means import cluster_ratio_t, cluster_sums
from evalharness.stats.mover import mean_of_parts, no_narrower
from evalharness.stats.p_values import interval_p_value
from evalharness.stats.planning import (
    Reach,
    clusters_needed,
    further_documents,
    typical_documents,
    typical_lognormal,
    typical_normal,
)
from evalharness.stats.processes import LEAST_PROCESSES, PROCESSES, process_ratio_t
from evalharness.stats.proportions import clopper_pearson, paired_shift, tango
from evalharness.stats.quantiles import (
    histogram_quantile,
    histogram_quantile_bootstrap,
    quantile_bootstrap,
)
from evalharness.stats.reliability import (
    ce2_shift,
    ece,
    ece_shift,
)
from evalharness.stats.resample import MOST_CONFIDENT, TooFewReplicates
from evalharness.stats.sequential import look_confidence
from evalharness.stats.skewness import (
    bounded_mean_t,
    cluster_skew_t,
    positive_mean_t,
    rate_t,
    rms_t,
)
from evalharness.stats.temperature import temperature_shift

__all__ = [
    "LEAST_PROCESSES",
    "MOST_CONFIDENT",
    "PROCESSES",
    "Interval",
    "Reach",
    "TooFewReplicates",
    "bounded_mean_t",
    "brier",
    "calibration_score_sums",
    "ce2_shift",
    "clopper_pearson",
    "cluster_ratio_t",
    "cluster_skew_t",
    "cluster_sums",
    "clusters_needed",
    "ece",
    "ece_shift",
    "exp_interval",
    "further_documents",
    "histogram_quantile",
    "histogram_quantile_bootstrap",
    "interval_p_value",
    "look_confidence",
    "mean_of_parts",
    "mean_sequence",
    "no_narrower",
    "paired_shift",
    "positive_mean_t",
    "process_ratio_t",
    "quantile_bootstrap",
    "rate_sequence",
    "rate_t",
    "rms_t",
    "sequence_of",
    "tango",
    "temperature_shift",
    "typical_documents",
    "typical_lognormal",
    "typical_normal",
    "within",
]
