"""The run directory: its files, the columns of its records, where shipped files are."""
