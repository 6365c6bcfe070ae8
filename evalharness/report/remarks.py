"""What stands once below the gates: what their verdicts do not show."""

from __future__ import annotations

from evalharness.errors import plural
from evalharness.report import numbers
from evalharness.report.glossary import scope_words
from evalharness.report.safe_text import visible
from evalharness.spec.result import Result


def remarks(result: Result) -> list[str]:
    """Return the sentences, each for the page, the summary and the terminal alike."""
    return [text for text in (_unseen(result), _near_lossless(result)) if text]


def _unseen(result: Result) -> str:
    found = result.unseen
    if found is None:
        return ""
    where = f" of {scope_words(found.scope)}" if found.scope else ""
    return (
        f"A fault in fewer than {100 * found.share:.2g}% of texts may not show in "
        f"{plural(found.documents, 'document')}{where}: no mean sees what was not drawn."
    )


def _near_lossless(result: Result) -> str:
    found = result.near_lossless
    if found is None or result.compared.same_model:
        return ""
    ids = ", ".join(visible(id) for id in found.gates)
    kl, limit = numbers.figures(found.kl, 2), numbers.figures(found.limit, 2)
    return (
        f"Mean KL, at most {kl} nats a token, is near-lossless (up to {limit}), where KL does not "
        "follow task scores (arXiv 2606.19558): "
        + (f"what decides is {ids}." if ids else "no gate on a signed metric decides here.")
    )
