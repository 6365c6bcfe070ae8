"""Policies as a file gives them, decided on synthetic runs."""

from __future__ import annotations

import datetime as dt
import json

EXPIRES = dt.date.today() + dt.timedelta(days=8)


def every_kind() -> str:
    """A gate of each verdict and standing; the ids say which. The last waiver is expired."""
    far, near = "metric: kl.mean, max: 1e-3", "metric: task.score.shift, scope: {task: arc_*}"
    return f"""\
version: 1
name: kinds
gates:
  - {{id: pass, metric: kl.mean, max: 1.5}}
  - {{id: fail, {far}}}
  - {{id: undecided, {near}, min: -1pp}}
  - {{id: fail-warn, {far}, severity: warn}}
  - {{id: fail-info, {far}, severity: info}}
  - {{id: undecided-warn, {near}, min: -1pp, severity: warn}}
  - {{id: undecided-let, {near}, min: -1pp, on_inconclusive: warn}}
  - {{id: fail-waived, {far}}}
  - {{id: pass-waived, metric: kl.mean, max: 1.5}}
  - {{id: missing, metric: latency.decode.ratio, max: 1}}
defaults: {{min_n: 2}}
waivers:
  - {{gate: fail-waived, reason: known outlier, expires: {EXPIRES}}}
  - {{gate: pass-waived, reason: known outlier, expires: {EXPIRES}}}
  - {{gate: pass, reason: once needed, expires: 2025-01-01}}
"""


def policy(prefix: str = "", layers: str = "**.mlp.down_proj") -> str:
    """Six gates: one that a run passes or not by its damage, one waived, one that only warns.

    ``prefix`` stands before every name and text that is the author's own.
    """

    def said(text: str) -> str:
        return json.dumps(prefix + text)  # a JSON string is a YAML string

    return f"""\
version: 1
name: {said("default")}
gates:
  - {{id: {said("perplexity")}, metric: perplexity.ratio, max: 1.03}}
  - {{id: {said("kl")}, metric: kl.mean, max: 1.5}}
  - {{id: {said("agreement")}, metric: top1.agreement, min: 0.2}}
  - id: {said("arc-drop")}
    metric: task.score.shift
    scope: {{task: "*arc_*"}}
    min: -1pp
    severity: warn
  - id: {said("layer-error")}
    metric: layer.error.own
    scope: {{layer: "{layers}"}}
    max: 0.04
  - {{id: {said("calibration")}, metric: calibration.score.shift, max: 0.9}}
waivers:
  - gate: {said("layer-error")}
    reason: {said("outlier channel 1512, kept at 4 bits until the next calibration")}
    owner: {said("ada")}
    expires: {EXPIRES}
"""
