"""A candidate behind a server, by the public function: what is exact, bounded and not measured."""

from __future__ import annotations

import json
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from transformers import AutoModelForCausalLM

from evalharness.api import LoadedRun
from evalharness.errors import InputError, RunError
from evalharness.metrics import REGISTRY
from evalharness.run.directory import Run
from tests.engines.completions_server import Server, serving
from tests.workflow.jobs import compared, job

GATES = """version: 1
name: served
gates:
  - {id: far, metric: kl.mean, max: 1.0e-3}
  - {id: near, metric: kl.mean, max: 50}
  - {id: point, metric: kl.mean, max: 50, decide: point}
  - {id: loss, metric: perplexity.ratio, max: 1.0e+9}
  - {id: agreement, metric: top1.agreement, min: 0%}
  - {id: logits, metric: logit.half_range.p999, max: 1000}
defaults: {min_n: 2}
"""


@pytest.fixture
def served(project: Path, tiny: Callable[..., Path]) -> Iterator[Server]:
    """Another tiny model behind a server, which candidate.yaml of the project names."""
    model = AutoModelForCausalLM.from_pretrained(tiny(1), dtype=torch.float32).eval()
    with serving(model) as server:
        (project / "candidate.yaml").write_text(
            "from: base.yaml\nname: served\n"
            f"model: {{engine: openai, base_url: {server.url}, options: {{retries: 1}}}}\n"
        )
        (project / "gates.yaml").write_text(GATES)
        yield server


def options(project: Path, text: str) -> None:
    file = project / "candidate.yaml"
    file.write_text(file.read_text().replace("{retries: 1}", f"{{retries: 1, {text}}}"))


def truth(project: Path, server: Server, k: int) -> dict[str, Any]:
    """What the run's tokens are in float64 from the models, and KL of ``k`` tokens and a bin."""
    run = Run.open(project / "run")
    tokens = run.table("tokens").to_pandas()
    base = AutoModelForCausalLM.from_pretrained(
        run.manifest["reference"]["model"]["path"], dtype=torch.float32
    ).eval()
    found: dict[str, list[float]] = {
        n: [] for n in ("ref", "cand", "kl", "coarse", "top_cand", "conf")
    }
    asked = [body["prompt"] for body in server.asked[1:]]
    for ids in asked:
        with torch.inference_mode():
            p, q = (
                torch.log_softmax(m(torch.tensor([ids])).logits[0].double(), -1)
                for m in (base, server.model)
            )
        for at, token in enumerate(ids[1:]):
            found["ref"].append(-float(p[at, token]))
            found["cand"].append(-float(q[at, token]))
            found["kl"].append(float((p[at].exp() * (p[at] - q[at])).sum()))
            kept = {token, *q[at].topk(k).indices.tolist()}
            rest = [t for t in range(q.shape[1]) if t not in kept]
            bins = [[t] for t in kept] + [rest]
            a, b = (torch.stack([x[at][s].logsumexp(0) for s in bins]) for x in (p, q))
            found["coarse"].append(float((a.exp() * (a - b)).sum()))
            found["top_cand"].append(int(q[at].argmax()))
            found["conf"].append(float(q[at].max().exp()))
    assert len(tokens) == len(found["kl"])
    return {name: np.array(values) for name, values in found.items()} | {"tokens": tokens}


def gates(run: LoadedRun) -> dict[str, Any]:
    return {g.id: g for g in run.result.gates}


@pytest.mark.parametrize("via", ["echo", "prompt_logprobs"])
def test_what_a_server_says_is_exact_and_kl_is_bounded(
    project: Path, served: Server, via: str
) -> None:
    """Every token's loss and top token are the model's own, and no KL is above the true one."""
    options(project, f"via: {via}, top_logprobs: 100")
    run = compared(project)
    real = truth(project, served, 100)
    tokens = real["tokens"]

    def by_value(name: str, values: np.ndarray[Any, Any]) -> None:
        np.testing.assert_allclose(np.sort(tokens[name]), np.sort(values), atol=1e-5)

    by_value("nll_ref", real["ref"])
    by_value("nll_cand", real["cand"])
    by_value("conf_cand", real["conf"])
    assert sorted(tokens["argmax_cand"]) == sorted(real["top_cand"])
    order = np.lexsort((real["ref"], real["cand"]))
    mine = np.lexsort((tokens["nll_ref"], tokens["nll_cand"]))
    bound, kl = tokens["kl"].to_numpy(np.float64)[mine], real["kl"][order]
    assert (bound <= kl * (1 + 1e-6)).all()
    np.testing.assert_allclose(bound, real["coarse"][order], atol=2e-5)
    found = {m.id: m for m in run.result.metrics if m.scope == {}}
    ratio = np.exp(real["cand"].mean() - real["ref"].mean())
    assert found["perplexity.ratio"].value == pytest.approx(ratio, rel=1e-4)
    assert not found["perplexity.ratio"].at_least
    assert {id for id, m in found.items() if m.at_least} == {
        id for id in found if REGISTRY[id].grows
    }
    assert "not measured: the candidate's server gives 100" in str(
        found["logit.max_abs_diff"].reason
    )
    assert found["ece.candidate"].value is not None


def test_a_bound_fails_a_gate_and_passes_none(project: Path, served: Server) -> None:
    """What is certainly too far is a FAIL; what may be near enough is INCONCLUSIVE."""
    found = gates(compared(project))
    verdicts = {id: g.verdict for id, g in found.items()}
    assert verdicts == {
        "far": "FAIL",
        "near": "INCONCLUSIVE",
        "point": "INCONCLUSIVE",
        "loss": "PASS",
        "agreement": "PASS",
        "logits": "INCONCLUSIVE",
    }
    assert "lower bound" in found["near"].reason
    assert found["far"].reason.startswith("kl.mean is at least ")
    assert "not the vocabulary" in found["logits"].reason
    assert "≥ " in (project / "run" / "report.html").read_text()
    assert "≥ " in (project / "run" / "summary.md").read_text()


def test_the_key_is_in_no_file(
    project: Path, served: Server, monkeypatch: pytest.MonkeyPatch
) -> None:
    """It is read from the environment and sent; nothing that a run leaves holds it."""
    served.key = "sk-hidden-0123456789"
    monkeypatch.setenv("SERVED_KEY", served.key)
    options(project, "api_key_env: SERVED_KEY")
    compared(project)
    for file in (project / "run").rglob("*"):
        if file.is_file():
            assert served.key.encode() not in file.read_bytes(), file


def test_a_key_that_is_refused_is_not_repeated(
    project: Path, served: Server, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Also where the server sends it back."""
    served.key = "the right one"
    monkeypatch.setenv("SERVED_KEY", "sk-wrong-0123456789")
    options(project, "api_key_env: SERVED_KEY")
    with pytest.raises(InputError, match="status 401") as caught:
        compared(project)
    assert "sk-wrong" not in str(caught.value)
    assert not (project / "run").exists()


def test_a_server_that_turns_bad_ends_the_run_and_keeps_it(project: Path, served: Server) -> None:
    """What worked at the start is no wrong input: exit 4, and what was recorded stays."""
    served.fail = lambda number: 400 if number > 4 else 200
    with pytest.raises(RunError, match="status 400"):
        compared(project)
    assert (project / "run" / "manifest.json").exists()


def test_a_short_outage_changes_nothing(project: Path, served: Server) -> None:
    """A request without an answer is sent again."""
    served.fail = lambda number: 503 if number == 4 else 200
    assert gates(compared(project))["far"].verdict == "FAIL"


@pytest.mark.parametrize(
    ("file", "old", "new", "said"),
    [
        ("suite.yaml", "batch_size", "tokenizers: different\nbatch_size", "token ids"),
        ("base.yaml", "device: cpu", "engine: openai, base_url: 'http://x/v1'", "candidate only"),
    ],
)
def test_what_a_server_cannot_be_asked_is_refused(
    project: Path, served: Server, file: str, old: str, new: str, said: str
) -> None:
    """Before anything is asked of it."""
    path = project / file
    path.write_text(path.read_text().replace(old, new))
    with pytest.raises(InputError, match=said):
        job(project)
    assert served.asked == []


def test_the_result_says_what_is_a_bound(project: Path, served: Server) -> None:
    """A program reads it from result.json."""
    compared(project)
    result = json.loads((project / "run" / "result.json").read_text())
    bounds = {m["id"]: m["at_least"] for m in result["metrics"] if not m["scope"]}
    assert bounds["kl.mean"]
    assert not bounds["nll.shift"]
