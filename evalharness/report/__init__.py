"""Render ``result.json``: HTML, Markdown, JUnit, terminal, GitHub annotations.

    Result ──► page.render_html          report.html, one self-contained page
           ├─► markdown.render_markdown  summary.md
           ├─► junit.render_junit        junit.xml
           ├─► terminal.print_summary    the terminal
           ├─► github.annotations        workflow commands
           └─► combined.render_combined  many candidates of one reference

A :class:`~evalharness.spec.result.Result` is the only input, and nothing is estimated here.

    sections/                              one file a section; section.py says what one is
    estimates, gate_rows, task_rows,
    layer_tables                           a result looked up and arranged
    charts/, interval_bars, heat_map       what is drawn, as inline SVG
    numbers, glossary, safe_text           digits, words, and characters that would hide themselves
    after_fail                             what to do next
    bisect_text                            what `bisect` prints
"""

from __future__ import annotations

from evalharness.report.after_fail import next_step
from evalharness.report.combined import combined_text, render_combined
from evalharness.report.github import annotations as github_annotations
from evalharness.report.junit import render_junit
from evalharness.report.markdown import render_markdown
from evalharness.report.page import render_html
from evalharness.report.section import Section
from evalharness.report.terminal import print_summary, text_summary

__all__ = [
    "Section",
    "combined_text",
    "github_annotations",
    "next_step",
    "print_summary",
    "render_combined",
    "render_html",
    "render_junit",
    "render_markdown",
    "text_summary",
]
