"""What watches a forward pass or a generation."""
