"""What breaks when lm-eval moves: each test names what of ours would no longer hold."""

from __future__ import annotations

import inspect
import math
import sys
from collections.abc import Callable
from importlib.metadata import version
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import pytest

from evalharness.compat import lm_eval
from evalharness.compat.lm_eval_prompts import FEWSHOT_SEED, build_requests
from tests.pair.tasks.lm_sides import TASKS, side

Tiny = Callable[..., Path]


@pytest.fixture(scope="module")
def load() -> Callable[[str], Any]:
    """A task of tests/data/lm_tasks by its name."""

    def task(name: str) -> Any:
        with pytest.MonkeyPatch.context() as patched:
            patched.chdir(TASKS)  # where its data_files lie
            return lm_eval.TaskIndex(own=False).load(str(TASKS / f"{name}.yaml"))[0][name]

    return task


def model(loaded: Any, answered: Callable[[int], None] = lambda n: None) -> Any:
    """Our subclass over a tiny model."""
    return lm_eval.model_class()(
        loaded.model, loaded.tokenizer, batch_size=2, max_length=64, answered=answered
    )


# -- finding tasks


def test_its_tasks_lie_where_names_are_read() -> None:
    """Names are read from YAML files there, without an import."""
    assert (lm_eval.task_folder() / "arc" / "arc_easy.yaml").is_file()
    assert version("lm_eval").startswith("0.4.")


def test_an_index_knows_names_groups_and_the_file_of_each() -> None:
    """`TaskManager.task_index`: names, and entries with ``yaml_path`` and ``cfg``."""
    index = lm_eval.TaskIndex(TASKS, own=False)
    assert {"choose", "finish", "read", "write", "both"} <= index.names
    assert index.declared_in(TASKS / "both.yaml") == lm_eval.Declared("both", ("choose", "finish"))
    assert index.declared_in(Path(__file__)) is None


def test_a_group_loads_with_its_leaves_and_says_how_it_aggregates(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    """`Group.get_all_tasks`, `has_aggregation`, `aggregate`; no score of a leaf gives NaN."""
    monkeypatch.chdir(TASKS)
    tasks, groups = lm_eval.TaskIndex(TASKS, own=False).load("both")
    assert set(tasks) == {"choose", "finish"}
    assert lm_eval.group_leaves(groups["both"]) == ["choose", "finish"]
    scores: dict[str, lm_eval.Scores] = {"choose": {"acc,none": 0.25}, "finish": {"acc,none": 1.0}}
    found = lm_eval.aggregate_group(groups["both"], scores, {"choose": 1, "finish": 2})
    assert found == {"acc,none": pytest.approx(0.75)}  # weighted by size
    scores["finish"]["acc,none"] = None
    found = lm_eval.aggregate_group(groups["both"], scores, {"choose": 1, "finish": 2})
    assert math.isnan(found["acc,none"])


def test_what_it_says_of_a_bad_file_is_known(tmp_path: Path) -> None:
    """Errors are told apart by their words: an unknown key, a file that declares nothing."""
    raised = {}
    for name, text in {"key": "task: t\nno_such_key: 1\n", "nothing": "a: 1\n"}.items():
        file = tmp_path / f"{name}.yaml"
        file.write_text(text)
        with pytest.raises(Exception) as caught:  # whatever it is, its words count
            lm_eval.TaskIndex(own=False).load(str(file))
        raised[name] = caught.value
    assert lm_eval.unknown_key(raised["key"]) == "no_such_key"
    assert lm_eval.declares_nothing(raised["nothing"])
    assert lm_eval.unknown_key(raised["nothing"]) is None


def test_the_errors_of_missing_data_have_the_names_that_are_known() -> None:
    """datasets and huggingface_hub raise them; a renamed one would lose its message."""
    import datasets.data_files
    import datasets.exceptions
    import huggingface_hub.errors

    libraries = (datasets.exceptions, datasets.data_files, huggingface_hub.errors)
    unknown = [n for n in lm_eval._NO_DATA if not any(hasattr(m, n) for m in libraries)]
    assert unknown == []
    assert lm_eval.lacks_data(FileNotFoundError())
    assert not lm_eval.lacks_data(ValueError())


def test_the_prompts_of_the_shipped_task_are_there() -> None:
    """One file of the package, 57 subjects."""
    file, prompts = lm_eval.flan_cot_prompts()
    assert file.endswith("_cot_prompts.json")
    assert len(prompts) == 57


# -- a task


def test_requests_are_built_once_and_can_be_asked_again(load: Callable[[str], Any]) -> None:
    """Samples choose documents; the evaluator's own build is shadowed; answers can be dropped."""
    task = load("choose")
    assert lm_eval.fewshot_of(task) is None
    lm_eval.set_fewshot(task, 1)
    assert lm_eval.fewshot_of(task) == 1
    built = build_requests(task, [1, 3]).requests
    assert [lm_eval.repeats(r) for r in built] == [1] * 6
    assert {r.doc["answer"] for r in built} == {"under the oak", "a sphinx"}
    task.build_all_requests(limit=None)
    assert task.instances is built
    built[0].resps.append((-1.0, True))
    lm_eval.forget_answers(task)
    assert built[0].resps == []


def test_the_seed_of_few_shot_examples_is_that_of_its_command() -> None:
    """Another default there would mean other examples than ``lm_eval run`` draws."""
    from lm_eval.evaluator import simple_evaluate

    default = inspect.signature(simple_evaluate).parameters["fewshot_random_seed"].default
    assert default == FEWSHOT_SEED


def test_a_task_says_its_type_metrics_and_directions(load: Callable[[str], Any]) -> None:
    """``OUTPUT_TYPE``, ``higher_is_better``, ``aggregation``."""
    task = load("choose")
    assert lm_eval.output_type(task) == "multiple_choice"
    assert lm_eval.higher_is_better(task, "acc")
    assert not lm_eval.higher_is_better(task, "brier_score")
    mean = lm_eval.aggregation(task, "acc")
    assert mean is not None
    assert mean([0.0, 1.0]) == 0.5
    assert lm_eval.aggregation(task, "no such metric") is None
    assert not lm_eval.reads_images_or_sound(task)
    assert not lm_eval.runs_written_code(task)


def test_tasks_still_carry_the_marks_of_what_is_refused() -> None:
    """``MULTIMODAL`` and ``UNSAFE_CODE`` are set by `ConfigurableTask`; unset, all would pass."""
    import lm_eval.api.task as module

    source = inspect.getsource(module)
    assert "self.MULTIMODAL = True" in source
    assert "self.UNSAFE_CODE = True" in source


def test_the_right_choice_is_the_one_that_its_own_scoring_takes(
    load: Callable[[str], Any],
) -> None:
    """`choices_of` repeats the rules of ``process_results``: every choice in turn is likeliest."""
    task = load("choose")
    for doc in task.eval_docs:
        found = lm_eval.choices_of(task, doc)
        assert found is not None
        choices, gold = found
        for picked in range(len(choices)):
            answers = [(0.0 if i == picked else -9.0, False) for i in range(len(choices))]
            assert task.process_results(doc, answers)["acc"] == float(picked in gold)
    assert lm_eval.choices_of(load("finish"), {}) is None


@pytest.mark.parametrize(
    ("gold", "expected"), [(1, (1,)), ("b", (1,)), ("z", ()), (7, ()), ([0, 2], (0, 2)), ([9], ())]
)
def test_a_label_outside_the_choices_is_never_right(gold: Any, expected: tuple[int, ...]) -> None:
    """In every form in which a task may give its label."""
    task = SimpleNamespace(
        OUTPUT_TYPE="multiple_choice",
        multiple_input=0,
        get_config=lambda key: None,
        doc_to_choice=lambda doc: ["a", "b", "c"],
        doc_to_target=lambda doc: gold,
    )
    assert lm_eval.choices_of(task, {}) == (("a", "b", "c"), expected)


# -- the model


def test_evaluating_gives_aggregates_and_a_sample_a_document(
    load: Callable[[str], Any], tiny: Tiny
) -> None:
    """``evaluate``: keys "metric,filter", and per sample what pairs and shows an item."""
    task = load("choose")
    lm_eval.set_fewshot(task, 0)
    build_requests(task, [0, 2])
    told: list[int] = []
    scores, samples = lm_eval.evaluate_task(model(side(tiny), told.append), "choose", task, [0, 2])
    assert {"acc,none", "acc_norm,none", "brier_score,none"} <= set(scores)
    assert len(samples) == 2
    assert {
        *("doc_id", "doc", "target", "arguments", "resps", "filtered_resps", "filter", "metrics"),
        *("doc_hash", "prompt_hash", "target_hash", "acc"),
    } <= set(samples[0])
    assert len(samples[0]["filtered_resps"]) == 3
    assert sum(told) == 6  # `cache_hook.add_partial` is called for every request


def test_building_its_model_ties_weights_and_ours_does_not(tiny: Tiny) -> None:
    """``HFLM.__init__`` calls ``model.tie_weights``; the shadow is gone afterwards."""
    from lm_eval.models.huggingface import HFLM

    loaded = side(tiny)
    calls: list[str] = []
    real = type(loaded.model).tie_weights

    def tie(self: Any, *args: Any, **options: Any) -> Any:
        calls.append("tied")
        return real(self, *args, **options)

    with pytest.MonkeyPatch.context() as patched:
        patched.setattr(type(loaded.model), "tie_weights", tie)
        model(loaded)
        assert calls == []
        assert "tie_weights" not in vars(loaded.model)
        HFLM(pretrained=loaded.model, tokenizer=loaded.tokenizer)
        assert calls == ["tied"]


def test_the_methods_that_ours_replaces_take_what_ours_hands_on() -> None:
    """``_loglikelihood_tokens`` is told to draw no bar, ``_model_generate`` takes options."""
    from lm_eval.models.huggingface import HFLM

    scoring = inspect.signature(HFLM._loglikelihood_tokens).parameters
    assert {"requests", "disable_tqdm"} <= set(scoring)
    generating = inspect.signature(HFLM._model_generate).parameters
    assert list(generating)[1:4] == ["context", "max_length", "stop"]
    assert generating["generation_kwargs"].kind is inspect.Parameter.VAR_KEYWORD
    for name in ("loglikelihood", "loglikelihood_rolling", "generate_until"):
        assert "disable_tqdm" in inspect.signature(getattr(HFLM, name)).parameters


@pytest.mark.parametrize("broken", [False, True])
def test_generation_from_broken_logits_is_counted(
    load: Callable[[str], Any], tiny: Tiny, broken: bool
) -> None:
    """Our logits processor reaches ``generate`` by way of ``_model_generate``'s options."""
    import torch

    loaded = side(tiny)
    if broken:
        with torch.no_grad():
            loaded.model.lm_head.weight[7] = math.nan
    task = load("write")
    lm_eval.set_fewshot(task, 0)
    build_requests(task, None)
    lm = lm_eval.model_class()(
        loaded.model, loaded.tokenizer, batch_size=2, max_length=512, answered=lambda n: None
    )
    lm_eval.evaluate_task(lm, "write", task, None)
    assert lm.nonfinite_generations == (5 if broken else 0)


def test_the_length_that_a_model_reads_is_that_of_its_configuration(tiny: Tiny) -> None:
    """``resolve_max_length`` and ``_DEFAULT_MAX_LENGTH``: the rule of ``HFLM.max_length``."""
    from lm_eval.models.huggingface import HFLM

    loaded = side(tiny, max_position_embeddings=77)
    own = HFLM(pretrained=loaded.model, tokenizer=loaded.tokenizer).max_length
    assert lm_eval.context_length(loaded.model.config, loaded.tokenizer) == own == 77
    unknown = SimpleNamespace(get_text_config=lambda: SimpleNamespace())
    assert lm_eval.context_length(unknown, None) == HFLM._DEFAULT_MAX_LENGTH


def test_importing_the_file_imports_neither_lm_eval_nor_torch() -> None:
    """The command line reads names of tasks before it needs either."""
    import subprocess

    code = (
        "import sys, evalharness.compat.lm_eval as ours\n"
        "ours.task_folder()\n"
        "print([m for m in ('lm_eval.tasks', 'torch', 'transformers') if m in sys.modules])"
    )
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    assert done.stdout.strip() == "[]"
