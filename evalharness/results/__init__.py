"""Records and a policy's decision to `result.json`; no model, no torch."""
