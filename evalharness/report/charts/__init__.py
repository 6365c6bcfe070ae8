"""The charts of the report, drawn with matplotlib and returned as inline SVG.

A file holds one chart and what it takes from a Result; where there is nothing to draw it returns
``""``. matplotlib is imported inside the functions: the terminal summary must not wait for it.
"""
