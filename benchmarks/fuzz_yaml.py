"""Mutated model, suite, policy and task files: each is read or refused, fast and in little memory.

    python benchmarks/fuzz_yaml.py [--minutes 10] [--seed 0] [--kind policy]

Starts from the files that ship and from files with every key, and changes bytes, lines, values and
keys. Exits 1, with the file that did it, where reading one raises anything but `InputError`, takes
over 5 s or more than 1 GiB of memory, or runs the code beside it.
"""

from __future__ import annotations

import argparse
import contextlib
import copy
import os
import random
import resource
import signal
import tempfile
import time
import traceback
from collections import Counter
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import yaml

from evalharness.data.documents import read_texts
from evalharness.data.items import prepare_tasks
from evalharness.errors import InputError
from evalharness.gates import baseline_of, load_policy
from evalharness.run import assets
from evalharness.spec.model import load_model_spec
from evalharness.spec.suite import Suite, Task, load_suite

SECONDS, MEMORY = 5, 1 << 30
CANARY = "open(__file__ + '.canary', 'w').close()\ndef f(*a, **k): return a[0]\n"
MODEL = """version: 1
name: m
model: {path: gpt2, revision: main, tokenizer: gpt2, engine: transformers, dtype: auto, device: cpu,
  attn: sdpa, trust_remote_code: false, allow_pickle: false}
adapter: some/adapter
simulate: {weights: {bits: 4, symmetric: true, granularity: group, group_size: 32, clip: mse,
  include: ["*"], exclude: [lm_head]}}
manifest: {tool: t, bits: 4.5, group_size: 32, calibration_data: texts.jsonl, kernel: k, notes: n}
"""
SUITE = """version: 1
name: s
seed: 3
corpora:
  - {name: a, path: texts.jsonl, text_key: text, attributes: [k], labels: {language: no}}
  - {name: b, source: python:pydoc_data.topics, documents: 3, max_windows: 2}
  - {name: c, tokens: ids.jsonl}
window: {tokens: 64, stride: 32, score: second_half, min_tokens: 2}
slices: [{name: odd, where: {k: "o*", position: "0:12"}}, {by: language}]
probes: [layers, activations]
layers: {windows: 4, linears: true, errors: [total, own]}
activations: {windows: 4}
noise_floor: {windows: 2, dtype: bfloat16}
batch_size: 3
"""
POLICY = """version: 1
name: p
extends: evalharness:recommended
confidence: 0.95
baseline: base.json
defaults: {min_n: 2, severity: warn, decide: confident, on_missing: fail}
gates:
  - metric: perplexity.ratio
    max: 1.02
    unless: {max: 1.05, any: [{metric: weights.bits_per_weight, max: 4.5}]}
  - {id: tasks, metric: task.score.shift, scope: {task: arc_*}, min: -2%, relative_to: reference}
  - {id: again, metric: kl.mean, max: 5%, relative_to: baseline, decide: not-worse}
  - {metric: kl.p99, max: 1e-3, severity: info, on_inconclusive: warn}
waivers: [{gate: tasks, match: {task: arc_easy}, reason: "#12", owner: ann, expires: 2026-06-30}]
"""
TASK = """task: t
dataset_path: json
dataset_kwargs: {data_files: {test: items.jsonl}}
test_split: test
output_type: multiple_choice
doc_to_text: "{{question}}"
doc_to_choice: "{{choices}}"
doc_to_target: answer
num_fewshot: 0
metric_list: [{metric: acc, aggregation: mean, higher_is_better: true}]
filter_list: [{name: none, filter: [{function: take_first}]}]
metadata: {version: 1}
"""
VALUES: list[Any] = [
    None, True, False, 0, -1, 1, 2**63, 2**64, 10**30, 0.5, -0.0, float("inf"), float("nan"), 1e308,
    "", " ", "no", "off", "~", "a/b", "../..", "/", "/dev/zero", "/dev/stdin", "/etc/passwd", ".",
    "a" * 300, "a" * 5000, "\0", "\n", "\x1b[31m", "\u2028", "\u202e", "[b]", "[/b]", "::error::x",
    "{{ ''.__class__.__mro__ }}", "{% for a in range(10**9) %}{% endfor %}", "(", "*", "**", "[",
    "python:beside", "evalharness:strict", "package:x/y", "~nobody-at-all/x", "99%", "1e999",
    [], {}, [[]], [None], {"": None}, {"a": {"b": {}}}, ["a"] * 50, "beside.f", "0:0", "-1pp",
]  # fmt: skip
PIECES = [
    "!function beside.f", "!!python/name:os.system", "&a [*a]", "*a", "<<: *a", "<<: [x]", "? {a",
    "---\n", "...\n", "%YAML 9.9\n", "!!binary x", "!!set {a}", "\ufeff", "\t", "\0", '"\\ud800"',
    "[" * 70, "{a: " * 70, "9" * 500, "'", '"', "|\n", ">\n", ": ", "- ", "#", "1:30", "2026-13-45",
]  # fmt: skip


def read_task(path: Path) -> object:
    """Build a task's requests."""
    return prepare_tasks((Task(path=str(path)),), seed=0)


def read_suite(path: Path) -> object:
    """Read a suite and the texts that it names, those of the hub aside."""
    suite: Suite = load_suite(path)
    here = tuple(c for c in suite.corpora if c.hub is None)
    return read_texts(suite.model_copy(update={"corpora": here}))


def read_policy(path: Path) -> object:
    """Read a policy and its baseline."""
    return baseline_of(load_policy(path))


KINDS: dict[str, tuple[str, Callable[[Path], object]]] = {
    "model": (MODEL, load_model_spec),
    "suite": (SUITE, read_suite),
    "policy": (POLICY, read_policy),
    "task": (TASK, read_task),
}


def seeds(kind: str) -> list[str]:
    """Texts to start from."""
    folder = {"suite": "suites", "policy": "gates"}.get(kind)
    shipped = [p.read_text() for p in assets.shipped(folder).values()] if folder else []
    return [KINDS[kind][0], *shipped]


def places(data: Any) -> Iterator[tuple[Any, Any]]:
    """Every container of ``data`` with each of its keys."""
    if isinstance(data, dict | list):
        for key in list(data) if isinstance(data, dict) else range(len(data)):
            yield data, key
            yield from places(data[key])


def restructured(text: str, draw: random.Random) -> str:
    """A value replaced, moved or repeated, or a key renamed."""
    data = yaml.safe_load(text)
    for _ in range(draw.choice([1, 1, 1, 2, 4])):
        container, key = draw.choice(list(places(data)) or [({"": 0}, "")])
        choice = draw.random()
        if choice < 0.6:
            container[key] = copy.deepcopy(draw.choice(VALUES))
        elif choice < 0.75:
            other, other_key = draw.choice(list(places(data)))
            container[key] = yaml.safe_load(yaml.safe_dump(other[other_key]))
        elif choice < 0.9 and isinstance(container, dict):
            container[str(draw.choice(VALUES))[:400]] = container.pop(key)
        else:
            del container[key]
            if not data:
                break
    return yaml.safe_dump(data, allow_unicode=draw.random() < 0.5)


def rewritten(text: str, draw: random.Random) -> str:
    """Bytes, pieces and lines changed."""
    for _ in range(draw.choice([1, 1, 2, 4, 8])):
        at = draw.randrange(len(text) + 1)
        choice = draw.random()
        if choice < 0.4:
            text = text[:at] + draw.choice(PIECES) + text[at:]
        elif choice < 0.6:
            text = (
                text[:at]
                + chr(draw.choice([draw.randrange(128), draw.randrange(0xD800)]))
                + text[at:]
            )
        elif choice < 0.8:
            text = text[:at] + text[at + draw.randrange(1, 20) :]
        else:
            lines = text.splitlines(keepends=True) or [""]
            lines.insert(draw.randrange(len(lines)), draw.choice(lines))
            text = "".join(lines)
    return text


@contextlib.contextmanager
def watched() -> Iterator[None]:
    """At most so many seconds inside."""

    def late(*_: object) -> None:
        raise TimeoutError(f"over {SECONDS} s")

    signal.signal(signal.SIGALRM, late)
    signal.alarm(SECONDS)
    try:
        yield
    finally:
        signal.alarm(0)


def fuzz(kind: str, until: float, draw: random.Random, counts: Counter[str]) -> dict[str, str]:
    """Read mutants of ``kind`` until a time; returns one text for each kind of harm done."""
    harm: dict[str, str] = {}
    starts, read = seeds(kind), KINDS[kind][1]
    path = Path(f"{kind}.yaml")
    while time.monotonic() < until:
        mutate = draw.choice([restructured, rewritten])
        text = mutate(draw.choice(starts), draw)
        path.write_bytes(text.encode("utf-8", "surrogatepass"))
        try:
            with watched(), open(os.devnull) as nothing, contextlib.redirect_stdout(nothing):
                read(path)
            counts[f"{kind}: read"] += 1
        except InputError:
            counts[f"{kind}: refused"] += 1
        except BaseException as error:
            frames = [f for f in traceback.extract_tb(error.__traceback__) if "fuzz" not in f.name]
            where = f"{Path(frames[-1].filename).name}:{frames[-1].lineno}" if frames else "?"
            harm.setdefault(f"{type(error).__name__} at {where}: {str(error)[:200]}", text)
        if list(Path().glob("*.canary")):
            harm["the code beside the file was run"] = text
            break
        if resource.getrusage(resource.RUSAGE_SELF).ru_maxrss << 10 > MEMORY + baseline():
            harm["over 1 GiB of memory"] = text
            break
    return harm


def baseline() -> int:
    """Bytes that the libraries take once a task was read, which are no file's doing."""
    global _baseline
    _baseline = _baseline or resource.getrusage(resource.RUSAGE_SELF).ru_maxrss << 10
    return _baseline


_baseline = 0


def main() -> None:
    """Fuzz each kind for its share of the time."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--minutes", type=float, default=10)
    parser.add_argument("--seed", type=int, default=0)
    parser.add_argument("--kind", choices=[*KINDS], default=None)
    asked = parser.parse_args()
    os.environ |= {"HF_HUB_OFFLINE": "1", "HF_DATASETS_OFFLINE": "1"}
    os.environ.pop("EVALHARNESS_ALLOW_CODE", None)
    draw, counts = random.Random(asked.seed), Counter[str]()
    kinds = [asked.kind] if asked.kind else [*KINDS]
    with tempfile.TemporaryDirectory() as folder, contextlib.chdir(folder):
        os.environ["HF_DATASETS_CACHE"] = str(Path(folder) / "datasets")
        Path("beside.py").write_text(CANARY)
        Path("texts.jsonl").write_text('{"text": "some text", "k": "odd"}\n' * 3)
        Path("ids.jsonl").write_text('{"tokens": [1, 2, 3]}\n')
        Path("items.jsonl").write_text('{"question": "a?", "choices": ["x", "y"], "answer": 0}\n')
        Path("task.yaml").write_text(TASK)
        read_task(Path("task.yaml"))
        baseline()
        for kind in kinds:
            until = time.monotonic() + asked.minutes * 60 / len(kinds)
            for what, text in fuzz(kind, until, draw, counts).items():
                counts[f"{kind}: harmful"] += 1
                print(f"--- {kind}: {what}\n{text}")
    for name, count in sorted(counts.items()):
        print(f"{name:16} {count:9,}")
    raise SystemExit(any(name.endswith("harmful") for name in counts))


if __name__ == "__main__":
    main()
