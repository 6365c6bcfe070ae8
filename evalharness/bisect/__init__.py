"""Which modules to keep as the reference has them, so that the policy passes."""
