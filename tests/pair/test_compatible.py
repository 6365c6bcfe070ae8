"""When two sides are one model, and what is said where only their weights are the same."""

from __future__ import annotations

import json
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from evalharness.data.documents import Text, tokenize
from evalharness.errors import InputError
from evalharness.gates import policy_from
from evalharness.pair.compatible import MEND, check_pair, check_vocabulary, other_tokens
from evalharness.results.assemble import build
from evalharness.results.judge import judge
from evalharness.run.directory import InMemory
from evalharness.spec.suite import Suite
from evalharness.spec.yamlfile import parse_yaml
from tests.conftest import TEXT, tiny_tokenizer
from tests.synthetic.pair import Pair, run

GATE = "{metric: kl.mean, max: 1, min_n: 2, on_missing: inconclusive}"
RULES = f"version: 1\nname: n\ngates: [{GATE}]\n"


def test_the_same_weights_under_another_configuration_are_another_model(
    side: Callable[..., Any], suite: Suite
) -> None:
    """The keys that differ are named."""
    plain = side()
    assert check_pair(plain, side(), suite) == []
    # The directory's own file of weights is the same: the seed is.
    (said,) = check_pair(plain, side(rms_norm_eps=1e-2), suite)
    assert said == (
        "tiny0-None and tiny0-None hold the same weights under different configurations "
        "(rms_norm_eps: 1e-06 and 0.01), and so are not the same model"
    )


def found(**changed: str) -> Any:
    """The result of a run whose sides are alike but for these keys of the candidate's manifest."""
    made = run(
        Pair(0.2, blocks=1, without=("tokens", "items", "item_tokens"), same=True, documents=6)
    )
    side = made.manifest["sides"]["reference"]
    other = {**side, "manifest": {**side["manifest"], **changed}}
    known = made.manifest | {"sides": {"reference": side, "candidate": other}}
    changed_run = InMemory(known, made.tables)
    return build(changed_run, *judge(changed_run, policy_from(parse_yaml(RULES, Path("p.yaml")))))


@pytest.mark.parametrize(
    "key", [None, "fingerprint", "configuration_fingerprint", "tokenizer_fingerprint"]
)
def test_a_model_against_itself_is_the_same_in_everything(key: str | None) -> None:
    """Weights, configuration and tokenizer."""
    result = found(**({key: "other"} if key else {}))
    assert result.compared.same_model == (key is None)
    assert ("a model against itself" in result.headline) == (key is None)


def test_sides_that_differ_in_what_came_out_are_not_one_model() -> None:
    """Whatever their hashes say."""
    made = run(Pair(0.2, blocks=1, same=True, documents=6))
    rules = policy_from(parse_yaml(RULES, Path("p.yaml")))
    assert not build(made, *judge(made, rules)).compared.same_model


def test_what_was_wrong_on_loading_is_an_anomaly_of_the_run() -> None:
    """An exit of its own, whatever the gates say."""
    made = run(Pair(0.2, blocks=1, documents=6))
    side = made.manifest["sides"]["candidate"] | {"anomalies": ["int4: the head was replaced"]}
    known = made.manifest | {"sides": made.manifest["sides"] | {"candidate": side}}
    rules = policy_from(parse_yaml(RULES, Path("p.yaml")))
    _, decision, anomalies = judge(InMemory(known, made.tables), rules)
    assert decision.verdict == "ANOMALOUS"
    assert [(a.kind, a.message) for a in anomalies] == [("loading", "int4: the head was replaced")]


def unmerged() -> Any:
    """The tiny tokenizer with half of its merges: the same vocabulary, other tokens."""
    from tokenizers import Tokenizer
    from transformers import PreTrainedTokenizerFast

    state = json.loads(tiny_tokenizer().backend_tokenizer.to_str())
    state["model"]["merges"] = state["model"]["merges"][::2]
    backend = Tokenizer.from_str(json.dumps(state))
    return PreTrainedTokenizerFast(tokenizer_object=backend, eos_token="<eos>")


def said_of(suite: Suite, ours: Any, theirs: Any, texts: list[Text]) -> list[str]:
    """What is said of a candidate with the tokenizer ``theirs``."""
    documents = tokenize(texts, suite, ours, 300)
    return other_tokens(suite, ("base", ours), ("cand", theirs), documents, texts)


def test_a_candidate_that_reads_texts_as_other_tokens_is_said(suite: Suite) -> None:
    """How many, the first of them, and that they were fed in the reference's."""
    texts = [Text("c", "plain", "z", None, {}), Text("c", "d", TEXT, None, {})]
    texts += [Text("c", "z", "zzz", None, {}), Text("c", "e", TEXT[4:], None, {})]
    assert said_of(suite, tiny_tokenizer(), unmerged(), texts) == [
        "by the tokenizer of cand, which is not that of base, 2 of 3 documents become other tokens "
        f"(the first: c/d). Both sides were fed the tokens of base. {MEND}"
    ]
    assert said_of(suite, tiny_tokenizer(), tiny_tokenizer(), texts) == []
    assert said_of(suite, tiny_tokenizer(), unmerged(), texts[2:3]) == []  # another build, is all
    different = suite.model_copy(update={"tokenizers": "different"})
    assert said_of(different, tiny_tokenizer(), unmerged(), texts) == []


def test_a_candidate_that_expects_another_beginning_is_said(suite: Suite) -> None:
    """Whichever side puts a BOS before a text."""
    texts = [Text("c", "d", TEXT, None, {})]
    plain, bos = tiny_tokenizer(), tiny_tokenizer(bos=True)
    (more,), (less,) = said_of(suite, plain, bos, texts), said_of(suite, bos, plain, texts)
    assert ", the BOS '<eos>' comes before a text, where that of base puts no BOS. Both" in more
    assert ", no BOS comes before a text, where that of base puts the BOS '<eos>'. Both" in less


def test_a_tokenizer_has_no_say_where_ids_are_given(suite: Suite) -> None:
    """They are fed as they are."""
    ids = [Text("c", "d", None, np.arange(1, 9), {})]
    assert said_of(suite, tiny_tokenizer(), unmerged(), ids) == []


def test_tasks_alone_need_one_vocabulary_as_well() -> None:
    """Both sides are asked in the reference's tokens; else the suite says that each has its own."""
    own = tiny_tokenizer()
    own.add_tokens(["fox"])
    suite = Suite.model_validate({"name": "s", "tasks": [{"name": "t"}]})
    sides = ("base", own), ("cand", tiny_tokenizer())
    with pytest.raises(InputError, match=r"differ in 1 tokens; 'fox' is \d+ and None"):
        check_vocabulary(suite, *sides, "here")
    check_vocabulary(suite.model_copy(update={"tokenizers": "different"}), *sides, "here")
