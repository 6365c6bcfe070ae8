"""Read a page as a browser would, and say whether it can do harm."""

from __future__ import annotations

import re
from html.parser import HTMLParser

VOID = {"meta", "br", "img", "link", "input", "hr"}
TAGS = """
html head meta title style body div nav ul li a main header p span h1 h2 h3 small strong b dl dt dd
section table caption thead tbody tr th td code details summary figure svg g defs path rect circle
text tspan use desc clippath pre mark q footer br
"""


RUN_REPORT = re.compile(r"\./[\w.%-]+/report\.html")  # what a table of candidates links to


class Page(HTMLParser):
    """Parse a page; fail on a tag that is unknown, unclosed or crossed."""

    def __init__(self, html: str) -> None:
        super().__init__(convert_charrefs=True)
        self.open: list[str] = []
        self.tags: set[str] = set()
        self.attributes: list[tuple[str, str, str]] = []
        self.words: list[str] = []
        self.feed(html)
        self.close()
        assert self.open == []

    def handle_starttag(self, tag: str, attrs: list[tuple[str, str | None]]) -> None:
        """Open a tag."""
        self.tags.add(tag)
        self.attributes += [(tag, name, value or "") for name, value in attrs]
        if tag not in VOID:
            self.open.append(tag)

    def handle_startendtag(self, tag: str, attrs: list[tuple[str, str | None]]) -> None:
        """Note a tag that closes itself."""
        self.tags.add(tag)
        self.attributes += [(tag, name, value or "") for name, value in attrs]

    def handle_endtag(self, tag: str) -> None:
        """Close the tag that was opened last."""
        assert self.open.pop() == tag

    def handle_data(self, data: str) -> None:
        """Collect text."""
        if not self.open or self.open[-1] != "style":
            self.words.append(data)

    @property
    def text(self) -> str:
        """All text of the page."""
        return " ".join("".join(self.words).split())


def check_harmless(html: str) -> Page:
    """Assert that a page is well formed, knows only our tags, and can fetch or run nothing."""
    page = Page(html)
    assert page.tags <= set(TAGS.split())
    for _, name, value in page.attributes:
        assert not name.startswith("on")
        assert name not in {"src", "srcset", "action", "background", "data", "poster", "ping"}
        assert name != "href" or value.startswith("#") or RUN_REPORT.fullmatch(value)
        assert "url(" not in value or re.search(r"url\((?!#)", value) is None
    style = "".join(re.findall(r"<style>(.*?)</style>", html, re.DOTALL))
    assert "@import" not in style
    assert "url(" not in style
    assert "<script" not in html.lower()
    return page
