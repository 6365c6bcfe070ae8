"""What files say: YAML in, `result.json` out."""
