"""What watches a forward pass or a generation. One file a probe, which holds a `Probe`."""

from evalharness.probes.probe import Probe, ProbeRun

__all__ = ["Probe", "ProbeRun"]
