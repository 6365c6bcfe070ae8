"""What runs in the process of an engine: `serve` speaks to the parent, one file drives one engine.

These files are run by path in whatever Python has the engine, without this package: the standard
library, NumPy and the engine are all that they import.
"""
