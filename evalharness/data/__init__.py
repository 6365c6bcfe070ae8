"""What is measured on: documents, windows of tokens, task items."""
