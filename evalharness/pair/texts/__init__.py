"""The pass over texts: both models, the same batches, one look at the logits."""
