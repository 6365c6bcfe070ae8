"""The pass against a brute-force float64 version, and its identities."""

from __future__ import annotations

import copy
from typing import Any

import numpy as np
import pandas as pd
import pytest
import torch

from evalharness.data.documents import Document
from evalharness.data.windows import cut
from evalharness.pair.texts.token_pass import TokenPass
from evalharness.probes.layer_watcher import LayerWatcher
from evalharness.probes.registry import watched_windows as watched
from evalharness.spec.suite import Suite


def measure(
    reference: Any, candidate: Any, documents: list[Document], suite: Suite, batch_size: int = 3
) -> dict[str, pd.DataFrame]:
    """All records of the documents as one block."""
    probe = LayerWatcher(reference, candidate, True) if "layers" in suite.probes else None
    work = TokenPass(reference, candidate, documents, batch_size=batch_size, probe=probe)
    tables = work.run(cut(documents, suite, None, watched(suite)))
    return {name: table.to_pandas() for name, table in tables.items()}


def brute_force(
    reference: Any, candidate: Any, documents: list[Document], suite: Suite
) -> pd.DataFrame:
    """One window at a time, whole logits, float64, straight from the definitions."""
    rows = []
    with torch.inference_mode():
        for window in cut(documents, suite, None):
            ids = torch.from_numpy(window.ids)[None]
            z = reference.model(ids).logits[0].double().numpy()
            w = candidate.model(ids).logits[0].double().numpy()
            for i in range(window.first, window.last):
                p = np.exp(z[i] - z[i].max())
                q = np.exp(w[i] - w[i].max())
                p, q = p / p.sum(), q / q.sum()
                target = window.ids[i + 1]
                delta = w[i] - z[i]
                top = [set(np.argsort(-x, kind="stable")[:5]) for x in (z[i], w[i])]
                rows.append(
                    {
                        "doc": window.document,
                        "position": window.start + i + 1,
                        "token": target,
                        "nll_ref": -np.log(p[target]),
                        "nll_cand": -np.log(q[target]),
                        "kl": np.sum(p * (np.log(p) - np.log(q))),
                        "kl_reverse": np.sum(q * (np.log(q) - np.log(p))),
                        "total_variation": np.abs(p - q).sum() / 2,
                        "entropy_ref": -np.sum(p * np.log(p)),
                        "entropy_cand": -np.sum(q * np.log(q)),
                        "conf_ref": p.max(),
                        "conf_cand": q.max(),
                        "argmax_ref": p.argmax(),
                        "argmax_cand": q.argmax(),
                        "top5_overlap": len(top[0] & top[1]),
                        "max_abs": np.abs(delta).max(),
                        "max_abs_token": np.abs(delta).argmax(),
                        "half_range": (delta.max() - delta.min()) / 2,
                    }
                )
    return pd.DataFrame(rows).sort_values(["doc", "position"], ignore_index=True)


def test_every_column_equals_brute_force(side: Any, documents: Any, suite: Suite) -> None:
    """Batched, padded, chunked and in float32 gives the float64 values of one window at a time."""
    a, b = side(), side(bits=4)
    found = measure(a, b, documents, suite)["tokens"].sort_values(
        ["doc", "position"], ignore_index=True
    )
    expected = brute_force(a, b, documents, suite)
    assert len(found) == len(expected) == sum(s.scored for s in cut(documents, suite, None))
    for column in expected.columns:
        np.testing.assert_allclose(
            found[column], expected[column], rtol=2e-4, atol=2e-5, err_msg=column
        )
    for column in ("nll_ref", "nll_cand", "kl", "kl_reverse", "entropy_ref", "conf_cand"):
        mean = found[column].astype("float64").mean()
        assert mean == pytest.approx(expected[column].mean(), rel=1e-5), column


def test_a_model_against_itself_is_exactly_zero(side: Any, documents: Any, suite: Suite) -> None:
    """Not nearly: bit for bit."""
    tables = measure(side(), side(), documents, suite)
    tokens, layers = tables["tokens"], tables["layers"]
    assert (tokens["kl"] == 0).all()
    assert (tokens["kl_reverse"] == 0).all()
    assert (tokens["nll_ref"] == tokens["nll_cand"]).all()
    assert (tokens["argmax_ref"] == tokens["argmax_cand"]).all()
    assert (tokens["top5_overlap"] == 5).all()
    assert (tokens["half_range"] == 0).all()
    assert (layers["err_sq"] == 0).all()
    assert (layers["max_abs"] == 0).all()
    assert len(layers) > 0


def test_swapping_the_sides_swaps_the_columns(side: Any, documents: Any, suite: Suite) -> None:
    """What is measured of a model does not depend on its role."""
    a, b = side(), side(bits=4)
    one, two = (measure(*pair, documents, suite)["tokens"] for pair in ((a, b), (b, a)))
    for x, y in (("nll_ref", "nll_cand"), ("kl", "kl_reverse"), ("argmax_ref", "argmax_cand")):
        np.testing.assert_allclose(one[x], two[y], rtol=1e-5, atol=1e-6)
        np.testing.assert_allclose(one[y], two[x], rtol=1e-5, atol=1e-6)


def test_the_batch_size_changes_nothing(side: Any, documents: Any, suite: Suite) -> None:
    """Padding and batching are exact up to float32 rounding."""
    a, b = side(), side(bits=4)
    one, many = (measure(a, b, documents, suite, n) for n in (1, 8))
    assert (one["tokens"]["window"] == many["tokens"]["window"]).all()
    for column in ("nll_ref", "nll_cand", "kl", "half_range"):
        np.testing.assert_allclose(
            one["tokens"][column], many["tokens"][column], atol=1e-5, rtol=1e-5
        )
    for column in ("err_sq", "ref_sq", "tokens", "pos0_err_sq"):
        np.testing.assert_allclose(one["layers"][column], many["layers"][column], rtol=1e-4)


def test_layer_sums_equal_plain_hooks(side: Any, documents: Any, suite: Suite) -> None:
    """Lock-step running sums against whole activations of every module, kept by plain hooks."""
    a, b = side(), side(bits=4)
    layers = measure(a, b, documents, suite)["layers"].groupby("layer")
    probed = [s for s in cut(documents, suite, None, watched(suite)) if s.probed]
    kept: dict[str, list[list[torch.Tensor]]] = {}

    def keep(name: str, which: int) -> Any:
        def hook(module: Any, args: Any, output: Any) -> None:
            out = output[0] if isinstance(output, tuple) else output
            kept.setdefault(name, [[], []])[which].append(out[0].double())

        return hook

    names = set(layers.groups)
    assert "model.layers.1" in names
    assert "lm_head" in names
    assert len(names) == 2 * 8 + 1
    for which, one in enumerate((a, b)):
        for name, module in one.model.named_modules():
            if name in names:
                module.register_forward_hook(keep(name, which))
        with torch.inference_mode():
            for window in probed:
                one.model(torch.from_numpy(window.ids)[None])
    for name, (ref, cand) in kept.items():
        rows = layers.get_group(name)
        # The head runs on scored positions only: a window's last token is not one.
        end = -1 if name == "lm_head" else None
        err = sum(float(((y - x)[1:end] ** 2).sum()) for x, y in zip(ref, cand, strict=True))
        size = sum(float((x[1:end] ** 2).sum()) for x in ref)
        first = sum(float(((y - x)[0] ** 2).sum()) for x, y in zip(ref, cand, strict=True))
        largest = max(float((y - x)[1:end].abs().max()) for x, y in zip(ref, cand, strict=True))
        assert rows["err_sq"].sum() == pytest.approx(err, rel=1e-4), name
        assert rows["ref_sq"].sum() == pytest.approx(size, rel=1e-4), name
        assert rows["pos0_err_sq"].sum() == pytest.approx(first, rel=1e-4), name
        assert rows["max_abs"].max() == pytest.approx(largest, rel=1e-3), name


def test_nan_logits_are_counted_and_named(side: Any, documents: Any, suite: Suite) -> None:
    """First window, position and model are in the message."""
    a, b = side(), side()
    with torch.no_grad():
        b.model.lm_head.weight[7] = float("nan")
    tables = measure(a, b, documents, suite)
    message = tables["anomalies"]["message"].item()
    assert message.startswith(f"tiny0-None: NaN or Inf logits at {len(tables['tokens'])} positions")
    assert "first in document c/d0, window 0, position 1" in message


def test_extremes_come_with_their_context(side: Any, documents: Any, suite: Suite) -> None:
    """The largest KL of the records is the first context."""
    tables = measure(side(), side(bits=4), documents, suite)
    contexts = tables["contexts"]
    largest = contexts[contexts["by"] == "kl"].iloc[0]
    row = tables["tokens"].loc[tables["tokens"]["kl"].idxmax()]
    assert largest["value"] == pytest.approx(row["kl"])
    assert (largest["doc"], largest["position"]) == (row["doc"], row["position"])


def test_two_devices_give_what_one_gives(side: Any, documents: Any, suite: Suite) -> None:
    """The head's copy and the turns that blocks take there change no number."""
    a, b = side(), side(bits=4)
    plain = suite.model_copy(update={"probes": ()})
    windows = cut(documents, plain, None)
    here = TokenPass(a, b, documents, batch_size=3, probe=None)
    assert here.head_there is None
    assert not here.in_turn
    there = TokenPass(a, b, documents, batch_size=3, probe=None)
    there.head_there = copy.deepcopy(a.head)
    there.in_turn = list(zip(a.model.model.layers, b.model.model.layers))
    for name in ("tokens", "documents", "contexts"):
        assert here.run(windows)[name].equals(there.run(windows)[name])
