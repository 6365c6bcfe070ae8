"""lm-eval tasks that ship with evalharness: one YAML each, and the data they read.

The tasks need no network: their items are read from files that the lm-eval package already holds.
``lm_eval --include_path`` pointed at this folder runs them too.
"""
