"""The commands that write, on tiny models: what each begins from, and what it is to leave."""

from __future__ import annotations

import hashlib
import json
import shutil
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from evalharness.errors import InputError
from evalharness.run.directory import Run
from evalharness.run.finished import is_judged, open_finished
from tests.crash.forks import Ended, forked, typed

LEFT_TO_TIME = ("created", "cost", "command")
Left = dict[str, Any]


def project(folder: Path) -> None:
    """Two tiny models' files, texts, two suites and two policies."""
    import torch
    from transformers import LlamaConfig, LlamaForCausalLM

    from tests.conftest import TEXT, tiny_tokenizer

    tokenizer = tiny_tokenizer()
    torch.manual_seed(0)
    model = LlamaForCausalLM(
        LlamaConfig(
            hidden_size=16,
            intermediate_size=32,
            num_hidden_layers=1,
            num_attention_heads=2,
            vocab_size=len(tokenizer),
            max_position_embeddings=128,
            tie_word_embeddings=False,
            bos_token_id=None,
            eos_token_id=0,
        )
    )
    with torch.no_grad():
        for parameter in model.parameters():
            if parameter.ndim == 2:
                parameter.mul_(8)
    model.save_pretrained(folder / "model")
    tokenizer.save_pretrained(folder / "model")
    rows = [{"id": i, "text": TEXT[i:] + TEXT[: 20 + 9 * i]} for i in range(9)]
    (folder / "texts.jsonl").write_text("".join(json.dumps(r) + "\n" for r in rows))
    files = {
        "base": f"name: base\nmodel: {{path: {folder}/model, dtype: float32, device: cpu}}\n",
        "suite": f"name: tiny\ncorpora: [{{name: texts, path: {folder}/texts.jsonl}}]\n"
        "window: {tokens: 32}\nprobes: [layers]\nlayers: {windows: 4}\nbatch_size: 3\n",
        "gates": "defaults: {min_n: 2}\n"
        "gates: [{metric: kl.mean, max: 0.15}, {metric: top1.agreement, min: 1%}]\n",
        "other": "defaults: {min_n: 2}\ngates: [{metric: kl.mean, max: 100}]\n",
    }
    for bits in (2, 4):
        files[f"int{bits}"] = (
            f"from: {folder}/base.yaml\nname: int{bits}\n"
            f"simulate: {{weights: {{bits: {bits}, granularity: channel}}}}\n"
        )
    for name, text in files.items():
        (folder / f"{name}.yaml").write_text(text)


def run_left(path: Path) -> Left:
    """What a finished run says, without what time decides."""
    run = open_finished(path)
    run.verify(("",))
    data = json.loads((path / "result.json").read_text())
    for key in LEFT_TO_TIME:
        data.pop(key)
    for gate in data["gates"]:
        gate.pop("file")
    data["metrics"] = [m for m in data["metrics"] if not m["id"].startswith("latency")]
    records = {
        n: d
        for n, d in run.manifest["files"].items()
        if n.startswith("records/") and not n.startswith(("records/timings-", "records/done-"))
    }
    files = sorted(run.manifest["files"])
    strays = [str(p.relative_to(path)) for p in path.rglob("*.tmp")]
    return {"result": data, "records": records, "files": files, "strays": strays}


@dataclass(frozen=True)
class Command:
    """A command that writes below the folder it is called in.

    Attributes
    ----------
    name : of the sweep.
    typed : its arguments, from the folder of the project's files.
    begins : makes what it begins from, in a new folder; of the project's and that folder.
    again : the arguments that take it up in a folder; None: nothing is left to do.
    left : what it has left in a folder.
    before : as ``left``, of a folder that it was cut off in, where what it changes could be read
        before; raises where that can no longer be.
    """

    name: str
    typed: Callable[[Path], list[str]]
    begins: Callable[[Path, Path], None]
    again: Callable[[Path, Path], list[str] | None]
    left: Callable[[Path], Left]
    before: Callable[[Path], Left] | None = None

    def run(self, arguments: list[str], folder: Path) -> Ended:
        """Type it in ``folder``."""
        return forked(typed(*arguments), folder, EVALHARNESS_CACHE=str(folder / "cache"))


def _compare(project: Path, *candidates: str) -> list[str]:
    files = [str(project / f"{name}.yaml") for name in ("base", *candidates)]
    more = [str(project / f"{name}.yaml") for name in ("suite", "gates")]
    return ["compare", *files, "--suite", more[0], "--gates", more[1], "-q"]


def _nothing(project: Path, folder: Path) -> None:
    folder.mkdir()


def _finished(project: Path, folder: Path) -> None:
    """A failing run, made once."""
    if not (project / "run").exists():
        made = forked(typed(*_compare(project, "int2"), "--out", "run"), project)
        assert made.code == 1, made.said
    folder.mkdir()
    shutil.copytree(project / "run", folder / "run")


def _complete(run: Path) -> bool:
    """Whether nothing is left to resume."""
    try:
        return is_judged(Run.open(run).manifest)
    except InputError:
        return False


def _compare_again(project: Path, folder: Path) -> list[str] | None:
    if _complete(folder / "run"):
        return None
    begun = (folder / "run" / "manifest.json").exists()
    return [*_compare(project, "int2"), "--resume" if begun else "--out", "run"]


def _several(project: Path) -> list[str]:
    return [*_compare(project, "int2", "int4"), "--out", "runs"]


def _several_again(project: Path, folder: Path) -> list[str] | None:
    begun = any(folder.glob("runs/*/manifest.json"))
    return [*_compare(project, "int2", "int4"), "--resume" if begun else "--out", "runs"]


def _several_left(folder: Path) -> Left:
    left = {name: run_left(folder / "runs" / name) for name in ("int2", "int4")}
    table = (folder / "runs" / "combined.html").read_bytes()
    data = json.loads((folder / "runs" / "combined.json").read_text())
    strays = [p.name for p in folder.glob("runs/*.tmp")]
    return {**left, "strays": strays, "table": len(table), "data": data}


def _gate(project: Path) -> list[str]:
    return ["gate", "run", "--gates", str(project / "other.yaml"), "--write"]


def _bisect(project: Path) -> list[str]:
    return ["bisect", "run", "-q", "--evaluations", "12"]


def _bless(project: Path) -> list[str]:
    return ["baseline", "bless", "run", "--to", "baseline.json"]


def _save(project: Path) -> list[str]:
    return ["baseline", "save", "run", "--to", "baseline.json"]


def _passing(project: Path, folder: Path) -> None:
    """A run that passes, and a baseline of the same run that is older."""
    _finished(project, folder)
    made = forked(typed(*_gate(project)), folder)
    assert made.code == 0, made.said
    made = forked(typed(*_save(project)), folder)
    assert made.code == 0, made.said


def _baseline(folder: Path) -> Left:
    data = json.loads((folder / "baseline.json").read_text())
    return {"digest": hashlib.sha256(json.dumps(data).encode()).hexdigest()}


def _run(folder: Path) -> Left:
    return run_left(folder / "run")


def _readable(folder: Path) -> Left:
    """What the run says; until it is taken up, more may lie beside that, or be recorded."""
    return {"result": _run(folder)["result"]}


COMMANDS = {
    c.name: c
    for c in (
        Command(
            "compare",
            lambda p: [*_compare(p, "int2"), "--out", "run"],
            _nothing,
            _compare_again,
            _run,
        ),
        Command("several", _several, _nothing, _several_again, _several_left),
        Command("gate", _gate, _finished, lambda p, f: _gate(p), _run, _readable),
        Command("bisect", _bisect, _finished, lambda p, f: _bisect(p), _run, _readable),
        Command(
            "baseline",
            _save,
            _finished,
            lambda p, f: None if (f / "baseline.json").exists() else _save(p),
            _baseline,
        ),
        Command("bless", _bless, _passing, lambda p, f: _bless(p), _baseline, _baseline),
    )
}
