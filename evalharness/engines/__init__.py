"""Where a model is, how it is loaded and run, and what is measured of its weights."""
