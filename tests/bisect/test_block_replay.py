"""Passes that begin at the block that has changed, against whole ones."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import numpy as np
import pytest
import torch

from evalharness.bisect.block_replay import Replayed
from evalharness.bisect.swap import restored
from evalharness.bisect.trials import Trials, _joined, searchable
from evalharness.data.documents import Document
from evalharness.data.windows import Window, cut
from evalharness.pair.matching import match
from evalharness.pair.texts.token_pass import TokenPass
from evalharness.probes.layer_watcher import LayerWatcher
from evalharness.spec.policy import Policy
from evalharness.spec.suite import Suite


def windows() -> list[Window]:
    return [Window(0, 0, 0, np.arange(1, 30), 0, 29)]


def test_a_pass_from_the_changed_block_equals_a_whole_one(side: Callable) -> None:
    """Bit for bit, whichever block the restored module is in."""
    a, b = side(num_hidden_layers=4), side(num_hidden_layers=4, bits=2)
    pairs = [p for p in match(a.model, b.model)[0] if p.kind == "linear"]
    ran: list[int] = []
    for i, layer in enumerate(b.model.model.layers):
        layer.self_attn.register_forward_hook(lambda m, a, o, i=i: ran.append(i))
    replayed = Replayed(b, windows())
    assert replayed.usable
    ids = torch.arange(1, 30)[None]
    with torch.inference_mode():
        replayed.begin(None)
        replayed.hidden(ids)
        replayed.keep()
        for pair in pairs:
            with restored([pair]):
                replayed.begin(pair.candidate_names)
                expected = b.hidden(ids)
                ran.clear()
                assert torch.equal(replayed.hidden(ids), expected)
            block = int(pair.block.rpartition(".")[2]) if pair.block else 4
            assert ran == list(range(block, 4))


def test_a_block_that_writes_into_its_input_is_run_whole(side: Callable) -> None:
    one = side(num_hidden_layers=4)
    layer = one.model.model.layers[2]
    own = layer.forward

    def in_place(x: Any, *args: Any, **kwargs: Any) -> Any:
        x.mul_(1.5)
        return own(x, *args, **kwargs)

    layer.forward = in_place
    # Only a block whose input was kept can be spoilt: the one after the half that is left out.
    assert not Replayed(one, windows()).usable


def policy(tmp_path: Any, error: str | None) -> Policy:
    from evalharness.gates import load_policy

    file = tmp_path / f"{error}.yaml"
    gate = f'  - {{metric: layer.error.{error}, scope: {{layer: "model.layers.*"}}, max: 9}}\n'
    text = "version: 1\nname: p\ndefaults: {min_n: 2}\ngates:\n  - {metric: kl.mean, max: 1000}\n"
    file.write_text(text + (gate if error else ""))
    return load_policy(file)


@pytest.mark.parametrize("error", [None, "total", "own", "inherited"])
def test_trials_give_the_records_of_whole_passes(
    side: Callable, documents: list[Document], suite: Suite, tmp_path: Any, error: str | None
) -> None:
    documents = documents[:3]  # one a stage
    a, b = side(num_hidden_layers=4), side(num_hidden_layers=4, bits=2)
    pairs = {p.name: p for p in match(a.model, b.model)[0] if p.kind == "linear"}
    every = [
        Window(**{**vars(s), "probed": error is not None}) for s in cut(documents, suite, None)
    ]
    trials = Trials(
        a,
        b,
        pairs=pairs.values(),
        documents=documents,
        windows=every,
        policy=policy(tmp_path, error),
        manifest={},
        batch_size=4,
    )
    probe = LayerWatcher(a, b, False, [error]) if error else None
    plain = TokenPass(a, b, documents, batch_size=4, probe=probe)
    names = list(pairs)
    for chosen in ([], names[:20], names[:19], names[:10], names[5:20], names):
        parts = list(trials._passes(frozenset(chosen)))
        trials._keep(frozenset(chosen), parts)  # as of a set that passes
        found = _joined(parts)
        with restored([pairs[n] for n in chosen]):
            expected = _joined([plain.run(stage) for stage in trials.stages])
        assert found["tokens"].equals(expected["tokens"])
        if error:
            assert found["layers"].equals(expected["layers"])


def test_a_set_is_given_up_once_it_would_fail_even_with_the_rest_as_good_as_before(
    side: Callable, documents: list[Document], suite: Suite, tmp_path: Any
) -> None:
    """And one that passes is passed on all documents."""
    from evalharness.gates import load_policy

    a, b = side(), side(bits=2)
    pairs = [p for p in match(a.model, b.model)[0] if p.kind == "linear"]
    names = [p.name for p in pairs]
    (tmp_path / "p.yaml").write_text(
        "version: 1\nname: p\ngates:\n  - {metric: kl.mean, max: 0.000001, min_n: 2}\n"
    )
    trials = Trials(
        a,
        b,
        pairs=pairs,
        documents=documents,
        windows=cut(documents, suite, None),
        policy=load_policy(tmp_path / "p.yaml"),
        manifest={},
        batch_size=4,
    )
    assert [len({s.document for s in stage}) for stage in trials.stages] == [3, 3, 3]
    whole = trials.attempt(names)
    assert (whole.decision.verdict, whole.documents) == ("PASS", 9)
    smaller = trials.attempt(names[:-1], names)
    assert smaller.decision.verdict != "PASS"
    assert smaller.documents < 9
    # Held against the set of before, which is run again where something else was kept.
    trials._kept = None
    again = trials.attempt(names[:-1], names)
    assert again.decision.gates == smaller.decision.gates


def test_a_search_is_stricter_than_its_policy(tmp_path: Any) -> None:
    """So that what it picks passes on other documents too."""
    given = policy(tmp_path, None)
    search, left_out = searchable(given)
    assert (given.confidence, search.confidence, left_out) == (0.95, 0.99, [])
