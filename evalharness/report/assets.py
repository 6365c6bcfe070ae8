"""Where the templates and styles are: beside the package in a wheel, at the root of a clone."""

from __future__ import annotations

from pathlib import Path

import evalharness


def reports_dir() -> Path:
    """Return the folder of templates and styles.

    A wheel installs it as ``evalharness/_data/reports``; a clone keeps it at ``reports/``.
    """
    package = Path(evalharness.__file__).resolve().parent
    for folder in (package / "_data" / "reports", package.parent / "reports"):
        if (folder / "report.html.j2").is_file():
            return folder
    raise FileNotFoundError(
        f"the report templates are missing: neither {package / '_data' / 'reports'} nor "
        f"{package.parent / 'reports'} holds report.html.j2. Install evalharness again"
    )
