"""A comparison from its inputs to a sealed run: plan, measure, judge, write."""
