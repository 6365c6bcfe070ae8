"""A command is cut off at every file operation, by a kill and by a loss of power, and taken up."""
