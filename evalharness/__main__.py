"""``python -m evalharness``."""

from evalharness.cli.main import main

main()
