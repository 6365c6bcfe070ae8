"""MMLU's development questions, read from the lm-eval package.

lm-eval ships the few-shot prompts of ``mmlu_flan_cot_fewshot`` as one JSON file: for each of the 57
subjects its (at most five) development questions, with options, reasoning and the answer's letter.
The questions are parsed out of there, so that nothing is copied and nothing is fetched.
Source: Hendrycks et al. 2009.03300; the file is lm-eval's ``_cot_prompts.json``.
"""

from __future__ import annotations

import re
from typing import Any

from evalharness.compat.lm_eval import flan_cot_prompts

_ANSWER = re.compile(r"The answer is \(([A-Z])\)\.?\s*$")
_OPTION = re.compile(r"\s*\(([A-Z])\)\s")


def read_questions() -> list[dict[str, Any]]:
    """Return the questions: ``subject``, ``question``, ``choices`` (texts), ``answer`` (index).

    The first question of every subject comes first, then the second of every subject, and so on.

    Raises
    ------
    FileNotFoundError : this version of lm-eval does not hold the file.
    ValueError : the file's form has changed.

    """
    file, prompts = flan_cot_prompts()
    ranked = [
        (rank, subject, block)
        for subject, prompt in prompts.items()
        for rank, block in enumerate(re.split(r"(?:^|\n)Q: ", prompt)[1:])
    ]
    ranked.sort(key=lambda r: r[0])  # stable: subjects stay in the file's order
    return [_parse(file, subject, block) for _, subject, block in ranked]


def _parse(file: str, subject: str, block: str) -> dict[str, Any]:
    """``question\\n(A) text (B) text …\\nA: reasoning. The answer is (B).``"""
    body, _, reasoning = block.rpartition("\nA: ")
    question, _, options = body.partition("\n(A) ")
    parts = _OPTION.split("(A) " + options)  # "", "A", text, "B", text, …
    letters, choices = parts[1::2], [p.strip() for p in parts[2::2]]
    found = _ANSWER.search(reasoning)
    expected = [chr(ord("A") + i) for i in range(len(choices))]
    if not question or found is None or letters != expected or found[1] not in letters:
        raise ValueError(f"{file}: {subject}: cannot be parsed: {block[:80]!r}")
    return {
        "subject": subject,
        "question": question.strip(),
        "choices": choices,
        "answer": letters.index(found[1]),
    }


def questions(**_: object) -> dict[str, Any]:
    """Return the data set as lm-eval's ``custom_dataset`` expects it."""
    from datasets import Dataset

    return {"test": Dataset.from_list(read_questions())}
