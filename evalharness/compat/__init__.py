"""Private and version-fragile parts of other libraries, one file a library."""
