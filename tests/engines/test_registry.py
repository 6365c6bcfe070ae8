"""``model: {engine: NAME}``: ours, another package's, and none, each through a model file."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path

import pytest

from evalharness.engines.loading import load
from evalharness.engines.registry import engine_named, find_model, own_engines
from evalharness.errors import EvalHarnessError, InputError, RunError
from evalharness.spec import plugins
from evalharness.spec.model import load_model_spec
from evalharness.workflow.compare import compare
from evalharness.workflow.memory_plan import size
from evalharness.workflow.plan import plan_job
from tests.workflow.jobs import job

# Models with no files: `path: tiny:SEED`.
MODULE = """
import torch
from evalharness.engines.base import Parts
from evalharness.engines.hub import Resolved
from evalharness.errors import InputError
from tests.conftest import tiny_tokenizer


class Random:
    NAME = "random"

    def locate(self, spec):
        kind, _, seed = spec.model.path.partition(":")
        if kind != "tiny":
            raise InputError(f"must be tiny:SEED (got {spec.model.path!r})", key="model.path")
        return Resolved("engine", name=f"the random model {int(seed)}")

    def load(self, spec, found, device, progress):
        from transformers import LlamaConfig, LlamaForCausalLM

        tokenizer = tiny_tokenizer()
        torch.manual_seed(int(spec.model.path.partition(":")[2]))
        config = LlamaConfig(
            hidden_size=32, intermediate_size=64, num_hidden_layers=2, num_attention_heads=4,
            num_key_value_heads=2, vocab_size=len(tokenizer), max_position_embeddings=256,
        )
        return Parts(LlamaForCausalLM(config).to(device), tokenizer)


class Bare(Random):
    NAME = "bare"

    def load(self, spec, found, device, progress):
        parts = super().load(spec, found, device, progress)
        return Parts(torch.nn.Linear(2, 2), parts.tokenizer)


class Failing(Random):
    NAME = "failing"

    def load(self, spec, found, device, progress):
        raise KeyError("its own trouble")


class Wrong(Random):
    NAME = "wrong"

    def load(self, spec, found, device, progress):
        return None


RANDOM, BARE, FAILING, WRONG, NOTHING = Random(), Bare(), Failing(), Wrong(), "no engine"
"""


@pytest.fixture
def installed(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> str:
    """A package beside ours that offers four engines and something that is none."""
    package = f"engines_of_{tmp_path.name}".replace("-", "_")
    site = tmp_path / "site"
    info = site / f"{package}-1.0.dist-info"
    info.mkdir(parents=True)
    (site / f"{package}.py").write_text(MODULE)
    (info / "METADATA").write_text(f"Metadata-Version: 2.1\nName: {package}\nVersion: 1.0\n")
    names = ("random", "bare", "failing", "wrong")
    lines = [f"{name} = {package}:{name.upper()}" for name in names]
    lines += [f"broken = {package}:NOTHING"]
    (info / "entry_points.txt").write_text("\n".join(["[evalharness.engines]", *lines]))
    monkeypatch.syspath_prepend(site)
    monkeypatch.setattr(plugins, "_broken", {})
    return package


@pytest.fixture
def model_file(tmp_path: Path) -> Callable[..., Path]:
    """Write a model file that names an engine."""

    def make(engine: str, path: str = "tiny:1", key: str = "engine", name: str = "base") -> Path:
        file = tmp_path / f"{name}.yaml"
        file.write_text(f"name: {name}\nmodel: {{path: '{path}', {key}: {engine}, device: cpu}}\n")
        return file

    return make


def refused(file: Path, kind: type[EvalHarnessError] = InputError) -> str:
    """What is said of a model file that cannot be used."""
    with pytest.raises(kind) as caught:
        load(load_model_spec(file))
    return str(caught.value)


_OURS = ("llama.cpp", "onnx", "openai", "transformers")


def test_ours_are_known_without_importing_them() -> None:
    """Wrong input is refused within a second, torch or not."""
    assert own_engines() == {n: n.replace(".", "_") for n in _OURS}
    assert engine_named("transformers").NAME == "transformers"


@pytest.mark.filterwarnings("ignore::evalharness.spec.plugins.PluginWarning")
def test_an_unknown_engine_names_the_file_the_key_and_what_there_is(
    installed: str, model_file: Callable[..., Path], project: Path
) -> None:
    """And which package is broken, and why."""
    file = model_file("randon")
    with pytest.raises(InputError) as caught:
        plan_job(file, project / "candidate.yaml", suite=project / "suite.yaml")
    text = str(caught.value)
    assert text.startswith(f"{file}: model.engine: unknown engine 'randon'. Did you mean 'random'")
    assert f"'broken' of {installed} could not be loaded" in text
    assert "must be an Engine (got str)" in text
    other = refused(model_file("xyz"))
    assert (
        "Known: llama.cpp, onnx, openai, transformers, bare, broken, failing, random, wrong."
        in other
    )


@pytest.mark.filterwarnings("ignore::evalharness.spec.plugins.PluginWarning")
def test_a_broken_engine_that_is_asked_for_is_an_error_and_one_that_is_not_a_warning(
    installed: str, model_file: Callable[..., Path]
) -> None:
    """Each names the package."""
    assert f"'broken' of {installed} could not be loaded" in refused(model_file("broken"))
    plugins._broken.clear()
    with pytest.warns(plugins.PluginWarning, match=f"'broken' of {installed} is left out"):
        assert engine_named("random").NAME == "random"


@pytest.mark.filterwarnings("ignore::evalharness.spec.plugins.PluginWarning")
@pytest.mark.parametrize("key", ["engine", "backend"])
def test_an_engine_finds_its_models_by_its_own_rules(
    installed: str, model_file: Callable[..., Path], key: str
) -> None:
    """Nothing is looked for on disk or on the hub; the old key is still read."""
    spec = load_model_spec(model_file("random", key=key))
    assert str(find_model(spec)) == "the random model 1"
    assert size(spec).weights is None
    got = load(spec)
    assert got.manifest.source == "tiny:1"
    assert got.manifest.architecture == "LlamaForCausalLM"
    assert "model.path: must be tiny:SEED (got 'large')" in refused(model_file("random", "large"))
    assert "the engine 'random' cannot find 'tiny:x' (ValueError" in refused(
        model_file("random", "tiny:x")
    )


@pytest.mark.filterwarnings("ignore::evalharness.spec.plugins.PluginWarning")
def test_what_an_engine_raises_or_returns_is_said_in_words(
    installed: str, model_file: Callable[..., Path]
) -> None:
    """No traceback of somebody else's, and what the pair needs is named."""
    assert refused(model_file("failing"), RunError) == (
        "base: the engine 'failing' could not load the random model 1 (KeyError: 'its own trouble')"
    )
    assert "the engine 'wrong' returned NoneType" in refused(model_file("wrong"))
    assert (
        "base cannot be compared: the Linear that the engine 'bare' loads has no "
        "get_output_embeddings (the head, which gives the logits), "
    ) in refused(model_file("bare"))


@pytest.mark.filterwarnings("ignore::evalharness.spec.plugins.PluginWarning")
def test_a_comparison_runs_on_another_packages_engine(
    installed: str, model_file: Callable[..., Path], project: Path
) -> None:
    """Both sides by the same rules; the candidate is a simulation of the reference."""
    model_file("random")
    result, run = compare(job(project))
    assert result.verdict == "FAIL"
    assert run.manifest["reference"]["model"]["engine"] == "random"
    (kl,) = (m for m in result.metrics if m.id == "kl.mean" and not m.scope)
    assert kl.value is not None
    assert kl.value > 0
