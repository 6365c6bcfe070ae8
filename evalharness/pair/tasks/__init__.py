"""The pass over task items: packed scoring, or lm-eval's own model."""
