"""``python -m evalharness``."""

from evalharness.cli import main

main()
