"""Private and version-fragile parts of lm-eval: its tasks, its groups, its model, its files.

lm-eval is imported by the function that needs it: its tasks take 0.7 s to import, its model also
torch and transformers. What each item relies on, `tests/compat/test_lm_eval.py` holds against the
version that is installed.
"""

from __future__ import annotations

import functools
import json
import math
import re
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from importlib.resources import files
from pathlib import Path
from typing import Any

from evalharness.compat.silence import quiet

NO_FILTER = "none"  # the filter's name in "metric,filter" where a task has none

_ADDRESS = re.compile(r" at 0x[0-9a-f]+")  # in the name of a function without a source

Loaded = tuple[dict[str, Any], dict[str, Any]]  # tasks and groups by name, children first
Scores = dict[str, float | None]  # by "metric,filter"

# -- finding tasks


def task_folder() -> Path:
    """Where lm-eval keeps the YAML files of its own tasks; nothing is imported."""
    return Path(str(files("lm_eval"))) / "tasks"


@dataclass(frozen=True)
class Declared:
    """A group as the index knows it before anything is loaded."""

    name: str
    members: tuple[str, ...]  # names of tasks and groups, those of nested lists too


class TaskIndex:
    """Tasks, groups and tags that lm-eval finds by name, in its own folder and another."""

    def __init__(self, beside: Path | None = None, *, own: bool = True) -> None:
        """Index the YAML files below ``beside`` and, if ``own``, lm-eval's (17 s for these)."""
        from lm_eval.tasks import TaskManager

        self._manager = TaskManager(
            include_path=None if beside is None else str(beside), include_defaults=own
        )

    @property
    def names(self) -> set[str]:
        """Every name that `load` takes."""
        return set(self._manager.task_index)

    def load(self, name_or_path: str) -> Loaded:
        """Build a task, a group or a tag; only tasks may be given by their path."""
        found = self._manager.load([name_or_path])
        return dict(found["tasks"]), dict(found.get("groups") or {})

    def declared_in(self, path: Path) -> Declared | None:
        """What the file ``path`` declares; None: nothing that lm-eval takes."""
        for entry in self._manager.task_index.values():
            if entry.yaml_path and entry.yaml_path.samefile(path):
                return Declared(entry.name, tuple(_members(entry.cfg)))
        return None


def _members(config: Mapping[str, Any]) -> Iterator[str]:
    for member in config.get("task") or []:
        if isinstance(member, str):
            yield member
        elif isinstance(member.get("task"), str):
            yield member["task"]
        else:
            yield from _members(member)


# Errors are known by name: they come from datasets and huggingface_hub, out of lm-eval.
_NO_DATA = (
    "OfflineModeIsEnabled",
    "DatasetNotFoundError",
    "DataFilesNotFoundError",
    "EmptyDatasetError",
    "LocalEntryNotFoundError",
    "RepositoryNotFoundError",
    "GatedRepoError",
    "HfHubHTTPError",
)
_OFFLINE = re.compile(r"OfflineModeIsEnabled|Couldn't reach|offline mode|Connection|NotOnDisk")


def lacks_data(error: BaseException) -> bool:
    """Whether ``error`` says that a task's data cannot be had."""
    return (
        isinstance(error, ConnectionError | FileNotFoundError) or type(error).__name__ in _NO_DATA
    )


def says_offline(text: str) -> bool:
    """Whether the text of such an error says that there is no network."""
    return bool(_OFFLINE.search(text))


def unknown_key(error: BaseException) -> str | None:
    """The key of a task's YAML that lm-eval does not know, where that is the error."""
    found = re.search(r"unexpected keyword argument '(\w+)'", str(error))
    return found[1] if found and isinstance(error, TypeError) else None


def declares_nothing(error: BaseException) -> bool:
    """Whether the error is that a YAML file has neither ``task`` nor ``group``."""
    return "Unknown config shape" in str(error) or "valid YAML path" in str(error)


def flan_cot_prompts() -> tuple[str, dict[str, str]]:
    """The file of few-shot prompts of ``mmlu_flan_cot_fewshot``, and its prompts by subject.

    Raises
    ------
    FileNotFoundError : this version of lm-eval does not hold the file.

    """
    parts = ("tasks", "mmlu", "flan_cot_fewshot", "_cot_prompts.json")
    file = files("lm_eval").joinpath(*parts)
    if not file.is_file():
        raise FileNotFoundError(
            f"lm-eval does not hold {'/'.join(parts)}: install lm-eval 0.4.13 again"
        )
    prompts: dict[str, str] = json.loads(file.read_text(encoding="utf-8"))
    return "/".join(parts), prompts


# -- a task


def reads_images_or_sound(task: Any) -> bool:
    """Whether a task needs more than text."""
    return bool(getattr(task, "MULTIMODAL", False))


def runs_written_code(task: Any) -> bool:
    """Whether scoring a task runs what the model wrote."""
    return bool(getattr(task, "UNSAFE_CODE", False))


def fewshot_of(task: Any) -> int | None:
    """The number of few-shot examples that a task sets; None: it sets none."""
    number = task.get_config("num_fewshot")
    return None if number is None else int(number)


def configuration(task: Any) -> dict[str, Any]:
    """What a task's file says, its functions by their source."""
    config = task.dump_config()
    return {
        key: _ADDRESS.sub("", repr(value)) for key, value in config.items() if key != "metadata"
    }


def set_fewshot(task: Any, number: int) -> None:
    """Ask for ``number`` examples a prompt."""
    task.set_config(key="num_fewshot", value=number)


def forget_answers(task: Any) -> None:
    """Make the requests of ``task`` ready for another model."""
    for request in task.instances:
        request.resps, request.filtered_resps = [], {}


def repeats(request: Any) -> int:
    """How often a request is put to a model."""
    return int(request.repeats or 1)


def output_type(task: Any) -> str:
    """``multiple_choice``, ``loglikelihood``, ``loglikelihood_rolling`` or ``generate_until``."""
    return str(task.OUTPUT_TYPE)


def higher_is_better(task: Any, metric: str) -> bool:
    """Whether more of ``metric`` is better; it is unless the task says that it is not."""
    return task.higher_is_better().get(metric) is not False


def aggregation(task: Any, metric: str) -> Callable[[list[Any]], float] | None:
    """What makes a score of the items' values of ``metric``."""
    found: Callable[[list[Any]], float] | None = task.aggregation().get(metric)
    return found


def choices_of(task: Any, doc: Any) -> tuple[tuple[str, ...], tuple[int, ...]] | None:
    """The choices of an item and the indices of those that are right, by lm-eval's own rules.

    They are those of ``process_results`` of ``lm_eval/api/task.py``. A label outside the choices
    is never right. None: the task is no multiple choice, or scores its items by code of its own.
    """
    if output_type(task) != "multiple_choice" or callable(task.get_config("process_results")):
        return None
    choices = tuple(str(c) for c in task.doc_to_choice(doc))
    gold = task.doc_to_text(doc) if task.multiple_input else task.doc_to_target(doc)
    if isinstance(gold, str):
        gold = choices.index(gold) if gold in choices else -100
    golds = gold if isinstance(gold, list) else [gold]
    return choices, tuple(int(g) for g in golds if 0 <= int(g) < len(choices))


def evaluate_task(
    lm: Any, name: str, task: Any, samples: Sequence[int] | None
) -> tuple[dict[str, Any], list[dict[str, Any]]]:
    """Aggregates by "metric,filter", and one logged sample a document and filter, of one model."""
    from lm_eval.evaluator import evaluate

    found = evaluate(
        lm,
        {"tasks": {name: task}, "groups": {}},
        samples=None if samples is None else {name: list(samples)},
        bootstrap_iters=0,
        log_samples=True,
    )
    return found["results"][name], found["samples"][name]


# -- a group


def group_leaves(group: Any) -> list[str]:
    """Names of the tasks in ``group`` and its subgroups; empty where it has no aggregate."""
    return [t.task_name for t in group.get_all_tasks()] if group.has_aggregation else []


def aggregate_group(
    group: Any, scores: Mapping[str, Scores], items: Mapping[str, int]
) -> dict[str, Any]:
    """lm-eval's aggregates of ``group`` by "metric,filter", from scores and sizes of its leaves."""
    leaves = {
        name: {k: math.nan if v is None else v for k, v in own.items()}
        | {"sample_len": items[name]}
        for name, own in scores.items()
    }
    found = group.aggregate(leaves)
    return {k: v for k, v in found.items() if "," in k and "_stderr" not in k}


def group_metrics(group: Any) -> list[str]:
    """Keys "metric,filter" that ``group`` aggregates, as far as it names them before it is run."""
    found = group.aggregate_metric_list or ()
    return [f"{one.metric},{(one.filter_list or [NO_FILTER])[0]}" for one in found]


def group_weights(group: Any, key: str, items: Mapping[str, int]) -> dict[str, float]:
    """Weight of each leaf that has ``key``: the aggregate of a score of 1 there and 0 elsewhere."""
    with quiet():
        return {
            leaf: float(
                aggregate_group(group, {n: {key: float(n == leaf)} for n in items}, items)[key]
            )
            for leaf in items
        }


# -- the model


def context_length(config: Any, tokenizer: Any) -> int:
    """Tokens that lm-eval lets a model read at a time."""
    from lm_eval.models.huggingface import HFLM
    from lm_eval.models.utils import resolve_max_length

    return int(resolve_max_length(config, tokenizer, default=HFLM._DEFAULT_MAX_LENGTH))


@functools.cache
def model_class() -> Any:
    """lm-eval's Hugging Face model, as a class to go on from.

    Its weights are left as they are, it draws no bars, it tells of every answer, and it counts the
    answers that were generated from NaN or infinite logits.
    """
    from lm_eval.models.huggingface import HFLM
    from transformers import LogitsProcessorList

    class LoadedHFLM(HFLM):  # type: ignore[misc]  # lm-eval ships no types
        """``HFLM`` over a model that is already loaded."""

        def __init__(
            self,
            model: Any,
            tokenizer: Any,
            *,
            batch_size: int,
            max_length: int,
            answered: Callable[[int], None],
        ) -> None:
            # HFLM ties weights when it is built, which silently replaces a quantised lm_head by
            # the embedding wherever the configuration says that the two are tied. This shadows the
            # method on this one object for the time of the constructor.
            model.tie_weights = lambda *_, **__: None
            try:
                super().__init__(
                    pretrained=model,
                    tokenizer=tokenizer,
                    batch_size=batch_size,
                    max_length=max_length,
                )
            finally:
                del model.tie_weights
            self.cache_hook = _AnswerHook(answered)
            self.nonfinite_generations = 0

        def loglikelihood(self, requests: Any, disable_tqdm: bool = True) -> Any:
            return super().loglikelihood(requests, disable_tqdm=disable_tqdm)

        def loglikelihood_rolling(self, requests: Any, disable_tqdm: bool = True) -> Any:
            return super().loglikelihood_rolling(requests, disable_tqdm=disable_tqdm)

        def generate_until(self, requests: Any, disable_tqdm: bool = True) -> Any:
            return super().generate_until(requests, disable_tqdm=disable_tqdm)

        def _loglikelihood_tokens(self, requests: Any, **options: Any) -> Any:
            # The rolling form calls with tqdm on, whatever it was told.
            return super()._loglikelihood_tokens(requests, **(options | {"disable_tqdm": True}))

        def _model_generate(self, context: Any, max_length: int, stop: Any, **options: Any) -> Any:
            # A broken model still generates: the argmax of NaN is some token.
            check = _FiniteLogits()
            out = super()._model_generate(
                context, max_length, stop, logits_processor=LogitsProcessorList([check]), **options
            )
            if check.bad is not None:
                self.nonfinite_generations += int(check.bad.sum())
            return out

    return LoadedHFLM


class _AnswerHook:
    """Stands in for lm-eval's cache hook, which is told of every request once it is answered."""

    def __init__(self, answered: Callable[[int], None]) -> None:
        self._answered = answered

    def add_partial(self, attr: str, req: Any, res: Any) -> None:
        """Count one answered request."""
        self._answered(1)


class _FiniteLogits:
    """A logits processor that changes nothing; remembers rows with NaN or +Inf at any step."""

    def __init__(self) -> None:
        self.bad: Any = None  # (B,)

    def __call__(self, input_ids: Any, scores: Any) -> Any:
        top = scores.max(dim=-1).values  # NaN wins a maximum; -inf alone may be a masked token
        bad = ~top.isfinite()
        self.bad = bad if self.bad is None else self.bad | bad
        return scores
