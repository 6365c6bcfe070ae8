"""``python -m evalharness``."""

import os
import sys

# ``-m`` puts the working directory first among the places of modules: a file of whoever wrote it,
# called like a library that is imported later, would be run in its stead.
if not sys.flags.safe_path and sys.path and sys.path[0] == os.getcwd():
    del sys.path[0]

from evalharness.cli.main import main

main()
