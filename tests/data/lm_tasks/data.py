"""The rows of passages.jsonl as an lm-eval ``custom_dataset``."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any


def rows(**_: object) -> dict[str, Any]:
    from datasets import Dataset

    text = Path(__file__).with_name("passages.jsonl").read_text(encoding="utf-8")
    return {"test": Dataset.from_list([json.loads(line) for line in text.splitlines()])}
