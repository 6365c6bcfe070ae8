"""What watches a forward pass or a generation. One file a probe, which holds a `Probe`."""

from evalharness.probes.probe import Apart, Probe, ProbeRun

__all__ = ["Apart", "Probe", "ProbeRun"]
