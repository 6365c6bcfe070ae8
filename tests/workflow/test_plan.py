"""What is refused before anything is measured or written."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest

from evalharness.errors import InputError
from evalharness.progress import Progress
from evalharness.workflow.compare import compare
from evalharness.workflow.measure import measure_pair
from tests.workflow.jobs import job

pytestmark = pytest.mark.e2e  # whole comparisons of tiny models


def refused(project: Path, **more: Any) -> str:
    with pytest.raises(InputError) as caught:
        measure_pair(job(project, **more), Progress())
    assert caught.value.exit_code == 2
    assert not (project / "run").exists()
    return str(caught.value).replace(str(project) + "/", "")


def test_an_output_directory_that_holds_another_run_is_refused(project: Path) -> None:
    """And is left as it was."""
    compare(job(project))
    before = (project / "run" / "manifest.json").read_bytes()
    with pytest.raises(InputError, match="--out: holds another run"):
        job(project)
    assert (project / "run" / "manifest.json").read_bytes() == before


def test_a_path_that_is_no_model_is_refused(project: Path) -> None:
    """A directory without a config."""
    (project / "empty").mkdir()
    (project / "bad.yaml").write_text("name: x\nmodel: {path: ./empty}\n")
    assert "config.json" in refused(project, candidate="bad.yaml")


def test_vocabularies_of_different_size_are_refused(project: Path, tiny: Any) -> None:
    """The message says what is impossible and what still runs."""
    (project / "big.yaml").write_text(
        f"name: big\nmodel: {{path: {tiny(vocab_size=310)}, dtype: float32, device: cpu}}\n"
    )
    text = refused(project, candidate="big.yaml")
    assert "the vocabularies differ in size (base: 300, big: 310)" in text
    assert "Bits per byte and tasks still run: set `tokenizers: different`" in text


@pytest.mark.parametrize(
    ("file", "text", "expected"),
    [
        ("gates.yaml", "gates:\n  - {metric: kl.men, max: 1}\n", "kl.mean"),
        ("suite.yaml", "name: s\ncorpora:\n  - {name: a, path: none.txt}\n", "no such file"),
        ("suite.yaml", "name: s\ntasks:\n  - {name: mmlu_dev_cloz}\n", "mmlu_dev_cloze"),
        ("candidate.yaml", "from: bas.yaml\nname: x\n", "candidate.yaml:1: from: no such file"),
        (
            "candidate.yaml",
            "from: base.yaml\nname: x\nmodl: 3\n",
            "candidate.yaml:3: modl: unknown key. Did you mean 'model'?",
        ),
    ],
)
def test_bad_input_is_refused_before_any_model_is_loaded(
    project: Path, file: str, text: str, expected: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Exit 2, nothing written."""
    (project / file).write_text(text)
    monkeypatch.setattr("evalharness.engines.loading.load", lambda *a, **k: pytest.fail("loaded"))
    assert expected in refused(project)


def test_a_limit_of_zero_is_refused(project: Path) -> None:
    """It would measure nothing."""
    assert refused(project, limit=0).startswith("--limit: must be at least 1 (got 0)")


def test_a_limit_inside_the_noise_floor_is_refused_before_anything_is_written(
    project: Path,
) -> None:
    """As wrong input, with the line of the limit."""
    suite = project / "suite.yaml"
    suite.write_text(suite.read_text() + "noise_floor: {dtype: bfloat16}\n")
    with pytest.raises(InputError, match=r"gates.yaml:4: gates\[0\].max: .* inside the noise"):
        compare(job(project))
    assert not (project / "run").exists()


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ({"looks": 1}, "must be from 2 to 20"),
        ({"looks": 5, "stop_early": True}, "give one of them"),
    ],
)
def test_looks_that_make_no_sense_are_refused(
    project: Path, options: dict[str, Any], message: str
) -> None:
    """Before anything is read."""
    with pytest.raises(InputError, match=message):
        job(project, **options)
