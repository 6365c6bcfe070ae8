"""The memory plan, and what happens when memory runs out all the same."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path
from typing import Any

import pandas as pd
import pytest
import torch
from torch import Tensor

from evalharness.data.documents import Document
from evalharness.data.windows import cut
from evalharness.engines.loading import load
from evalharness.errors import RunError
from evalharness.pair.faults import OutOfMemoryError
from evalharness.pair.side import default_chunk
from evalharness.pair.texts.token_pass import SMALLEST_CHUNK, TokenPass
from evalharness.probes.layer_watcher import LayerWatcher
from evalharness.spec.model import ModelSpec
from evalharness.spec.suite import Suite
from evalharness.workflow import memory_plan as module
from evalharness.workflow.memory_plan import MemoryPlan, plan_memory, size

Load = Callable[..., Any]


def spec(path: Path, name: str = "m", **more: Any) -> ModelSpec:
    return ModelSpec.model_validate(
        {"name": name, "model": {"path": str(path), "dtype": "float32", "device": "cpu"}} | more
    )


@pytest.fixture
def free(monkeypatch: pytest.MonkeyPatch) -> Callable[[float], None]:
    """Pretend that so many bytes are free."""

    def pretend(count: float) -> None:
        monkeypatch.setattr(module, "free_bytes", lambda device: int(count))

    return pretend


@pytest.fixture
def plain(suite: Suite) -> Suite:
    """The suite without the layer probe."""
    return suite.model_copy(update={"probes": ()})


def test_the_weights_are_those_that_loading_makes(tiny: Callable[..., Path]) -> None:
    """Counted from the files' headers alone."""
    for dtype in ("float32", "bfloat16"):
        made = spec(tiny())
        made = made.model_copy(update={"model": made.model.model_copy(update={"dtype": dtype})})
        found = size(made)
        model = load(made).model
        assert found.weights == sum(p.numel() * p.element_size() for p in model.parameters())
        assert (found.hidden, found.intermediate) == (32, 64)
        assert found.vocabulary == model.config.vocab_size


def test_with_room_enough_the_sizes_are_the_suite_s(
    tiny: Callable[..., Path], suite: Suite, free: Callable[[float], None]
) -> None:
    """And the plan says so in a few lines."""
    free(8 << 30)
    plan = plan_memory(spec(tiny(), "a"), spec(tiny(1), "b"), suite)
    assert (plan.mode, plan.batch_size, plan.chunk) == ("together", suite.batch_size, 1024)
    assert plan.lines[-1] == "both models at once; 8 windows at a time, logits of 1024 positions"


def test_both_sides_logits_take_a_quarter_of_a_gibibyte_at_most_on_a_cpu() -> None:
    """Fewer positions for a large vocabulary and wide numbers; a GPU has the room."""
    cpu, gpu = torch.device("cpu"), torch.device("cuda")
    assert default_chunk(cpu, 49_152, 2) == 1024
    assert default_chunk(cpu, 128_256, 2) == 512
    assert default_chunk(cpu, 128_256, 4) == 256
    assert default_chunk(cpu, 10**7, 4) == 128
    assert default_chunk(gpu, 128_256, 4) == 1024


def test_with_less_room_the_batch_is_halved_and_then_the_chunk(
    tiny: Callable[..., Path], suite: Suite, free: Callable[[float], None]
) -> None:
    """Never beyond what the estimate asks for."""
    weights = 2 * (size(spec(tiny())).weights or 0)
    seen: list[MemoryPlan] = []
    for extra in (8e6, 6e5, 3.2e5):
        free((weights + extra) / module.SPARE)
        seen.append(plan_memory(spec(tiny(), "a"), spec(tiny(1), "b"), suite))
    assert [p.mode for p in seen] == ["together"] * 3
    sizes = [(p.batch_size, p.chunk) for p in seen]
    assert sizes[0] == (8, 1024)
    assert sizes[0][0] > sizes[1][0] >= sizes[2][0]
    assert sizes[2][1] < 1024
    assert "batch_size 8 of the suite does not fit" in seen[2].lines


def test_models_that_do_not_fit_together_run_one_after_the_other(
    tiny: Callable[..., Path], suite: Suite, plain: Suite, free: Callable[[float], None]
) -> None:
    """Where texts alone are measured; else what to do is said."""
    one = size(spec(tiny())).weights or 0
    free((one + 3e5) / module.SPARE)
    pair = (spec(tiny(), "a"), spec(tiny(1), "b"))
    assert plan_memory(*pair, plain).mode == "in_turn"
    with pytest.raises(RunError, match=r"a and b need .* without tasks and probes, runs them one"):
        plan_memory(*pair, suite)
    free(one / 2)
    with pytest.raises(RunError, match=r"on cpu. Use a smaller dtype"):
        plan_memory(*pair, plain)


def test_on_a_gpu_weights_may_stay_in_the_machine_s_memory(
    tiny: Callable[..., Path], suite: Suite, monkeypatch: pytest.MonkeyPatch
) -> None:
    """When neither way fits, accelerate moves them block by block."""
    monkeypatch.setattr(module, "pick_device", torch.device)
    monkeypatch.setattr(
        module, "free_bytes", lambda device: 8 << 30 if device.type == "cpu" else 1 << 18
    )
    plan = plan_memory(spec(tiny(), "a"), spec(tiny(1), "b"), suite, "cuda")
    assert plan.mode == "offload"
    inside = suite.model_copy(update={"probes": ("layers", "activations")})
    with pytest.raises(RunError, match="Take it out of the suite's probes"):
        plan_memory(spec(tiny(), "a"), spec(tiny(1), "b"), inside, "cuda")


def test_a_model_whose_weights_visit_the_device_gives_the_same_logits(
    tiny: Callable[..., Path],
) -> None:
    """accelerate's offload, with the CPU as the device."""
    from evalharness.progress import Progress
    from evalharness.workflow.reference import load_side

    ids = torch.arange(1, 9)[None]
    plans = [MemoryPlan(mode, 1, 32, ()) for mode in ("together", "offload")]
    here, visiting = (load_side(spec(tiny()), None, plan, Progress()) for plan in plans)
    assert all(p.device.type == "meta" for p in visiting.model.parameters())
    with torch.inference_mode():
        assert torch.equal(
            here.logits(here.hidden(ids)[0]), visiting.logits(visiting.hidden(ids)[0])
        )


@pytest.mark.parametrize("tied", [False, True])
def test_a_pair_whose_weights_visit_the_device_has_the_same_layer_report(
    tiny: Callable[..., Path], tied: bool
) -> None:
    """All four errors of blocks and linears, the head's among them."""
    from evalharness.probes.layer_watcher import LayerWatcher
    from evalharness.progress import Progress
    from evalharness.workflow.reference import load_side

    ids = torch.arange(1, 9)[None]
    docs, at = torch.zeros_like(ids), torch.arange(8)[None]
    reports = []
    for mode in ("together", "offload"):
        plan = MemoryPlan(mode, 1, 32, ())
        a, b = (
            load_side(spec(tiny(seed, tie_word_embeddings=tied)), None, plan, Progress())
            for seed in (0, 1)
        )
        probe = LayerWatcher(a, b, True, ("total", "own", "inherited", "own_on_clean"))
        probe.begin([0])
        with torch.inference_mode():
            h, k = probe.run(ids, ids, docs, at)
            probe.add_head(a.logits(h[0]), b.logits(k[0]), docs[0], at[0], k[0])
        reports.append(probe.table())
    assert reports[0].equals(reports[1])


class Scarce:
    """Fails, as torch does, when asked for more than so many windows, or logits, at a time."""

    def __init__(self, side: Any, windows: int = 1000, positions: int = 1000) -> None:
        self.hidden, self.logits = side.hidden, side.logits
        self.windows, self.positions = windows, positions
        side.hidden, side.logits = self.few, self.short

    def few(self, ids: Tensor, *_: Any) -> Any:
        if len(ids) > self.windows:
            raise RuntimeError("[enforce fail] DefaultCPUAllocator: can't allocate memory")
        return self.hidden(ids)

    def short(self, hidden: Tensor) -> Any:
        if len(hidden) > self.positions:
            raise torch.OutOfMemoryError("CUDA out of memory. Tried to allocate 4 GiB")
        return self.logits(hidden)


@pytest.mark.parametrize("probed", [False, True])
def test_out_of_memory_halves_the_batch_and_goes_on(
    side: Load, documents: list[Document], suite: Suite, probed: bool
) -> None:
    """Every record is there, once, and equal but for rounding."""
    windows = cut(documents, suite, None, suite.layers.windows if probed else 0)
    tables = []
    said: list[str] = []
    counted: list[int] = []
    for fits in (1000, 2):
        reference, candidate = side(), side(bits=4)
        Scarce(candidate, fits, 64)
        probe = LayerWatcher(reference, candidate, True) if probed else None
        work = TokenPass(
            reference,
            candidate,
            documents,
            batch_size=8,
            probe=probe,
            say=said.append,
            progress=counted.append,
        )
        tables.append({k: t.to_pandas() for k, t in work.run(windows).items()})
        assert sum(counted) == sum(len(s.ids) for s in windows) * len(tables)
    assert (work.batch_size, work.chunk) == (1, 64) if fits < 2 else (2, 256)
    assert "out of memory: continuing with 4 windows at a time" in said[-2]
    names = ["tokens", "layers"] if probed else ["tokens"]
    for name in names:
        number = tables[0][name].select_dtypes("number").columns
        pd.testing.assert_frame_equal(
            tables[0][name][number].drop(
                columns=["max_abs_channel", "max_abs_position"], errors="ignore"
            ),
            tables[1][name][number].drop(
                columns=["max_abs_channel", "max_abs_position"], errors="ignore"
            ),
            rtol=2e-3,
            atol=1e-4,
        )


def test_out_of_memory_with_one_window_and_the_smallest_chunk_is_an_error(
    side: Load, documents: list[Document], plain: Suite
) -> None:
    """Exit 4, with what to change."""
    candidate = side(bits=4)
    Scarce(candidate, positions=SMALLEST_CHUNK - 1)
    work = TokenPass(side(), candidate, documents, batch_size=4, probe=None)
    with pytest.raises(OutOfMemoryError, match=r"with 1 window at a time .CUDA out") as caught:
        work.run(cut(documents, plain, None))
    assert caught.value.exit_code == 4


def test_another_error_is_not_taken_for_memory(
    side: Load, documents: list[Document], plain: Suite
) -> None:
    """It comes through at once."""
    candidate = side(bits=4)

    def broken(ids: Tensor, *_: Any) -> Any:
        raise RuntimeError("mat1 and mat2 shapes cannot be multiplied")

    candidate.hidden = broken
    work = TokenPass(side(), candidate, documents, batch_size=4, probe=None)
    with pytest.raises(RuntimeError, match="mat1 and mat2"):
        work.run(cut(documents, plain, None))
