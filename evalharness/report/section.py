"""What a section of the report is; `report.page` finds them all.

A section is one file of `report.sections` that holds a ``SECTION``, or what another package offers
under the entry point group ``evalharness.sections`` (see `spec.plugins`).
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass

from evalharness.spec.result import Result


@dataclass(frozen=True)
class Section:
    """An anchor, a title, a function from the result to HTML, and its place on the page.

    Attributes
    ----------
    id : of the anchor, unique.
    title : the heading.
    render : HTML of the section, which stands on the page as it is, so escape every name and text;
        ``""`` says that nothing of it was measured. Where one of another package raises, the page
        names it and says why.
    place : sections stand in this order; ours are at 10, 20, … 150, the environment at 140.
    missing : what the page says where ``render`` gives nothing.

    """

    id: str
    title: str
    render: Callable[[Result], str]
    place: int = 135
    missing: str = "Not measured in this run."
