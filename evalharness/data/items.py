"""Task items: what a suite's ``tasks`` stand for, with every request built, before any model.

Tasks are lm-eval's: any task, group or tag it knows, the tasks that ship in ``data/tasks``, or a
YAML by path. Items are a seeded random sample, not lm-eval's first N: benchmark files are sorted by
subject or difficulty, and the first N are no sample of them.
"""

from __future__ import annotations

import contextlib
import hashlib
import json
import re
import zlib
from collections.abc import Iterator, Mapping
from dataclasses import dataclass, field
from functools import cached_property
from pathlib import Path
from typing import Any

import numpy as np

from evalharness.compat.silence import quiet
from evalharness.data.task_errors import explain
from evalharness.data.task_names import SHIPPED, default_folder, mentioned, read_names
from evalharness.errors import InputError, nearest
from evalharness.spec.suite import Task

# lm-eval's own default: the few-shot examples are those that its command draws.
FEWSHOT_SEED = 1234


@dataclass(frozen=True)
class PreparedTask:
    """One leaf task. ``task`` is lm-eval's object, its requests (Instances) built once."""

    name: str
    task: Any = field(repr=False)
    samples: tuple[int, ...] | None  # document ids in ascending order; None: all of them
    items: int
    requests: int
    num_fewshot: int
    output_type: str
    fingerprint: str  # SHA-256 of every document and request

    def fresh(self) -> Any:
        """lm-eval's task with no answers in its requests, ready for one model."""
        for instance in self.task.instances:
            instance.resps, instance.filtered_resps = [], {}
        return self.task


@dataclass(frozen=True)
class PreparedTasks:
    """All leaf tasks of a suite in order, and lm-eval's groups over them, children first."""

    tasks: tuple[PreparedTask, ...]
    groups: Mapping[str, Any] = field(default_factory=dict, repr=False)
    messages: tuple[str, ...] = ()  # warnings for the user

    @property
    def items(self) -> int:
        """Documents over all tasks."""
        return sum(t.items for t in self.tasks)

    @property
    def requests(self) -> int:
        """Requests to one model over all tasks."""
        return sum(t.requests for t in self.tasks)

    @cached_property
    def fingerprint(self) -> str:
        """SHA-256 over the tasks: equal means the same items with the same prompts."""
        text = json.dumps([(t.name, t.num_fewshot, t.fingerprint) for t in self.tasks])
        return hashlib.sha256(text.encode()).hexdigest()


def prepare_tasks(tasks: tuple[Task, ...], *, seed: int) -> PreparedTasks:
    """Resolve tasks and build their requests; no model is needed.

    Parameters
    ----------
    tasks : of the suite. ``limit`` holds for each leaf task of a group or tag, as in lm-eval.
    seed : of the sample. The sample of a smaller limit is part of that of a larger one.

    Raises
    ------
    InputError : a task is unknown, broken, given twice, or its data is not at hand.

    """
    prepared: dict[str, PreparedTask] = {}
    groups: dict[str, Any] = {}
    messages: list[str] = []
    with quiet():
        for number, entry in enumerate(tasks):
            key = f"tasks[{number}].{'path' if entry.path else 'name'}"
            leaves, found = _load(entry, key)
            groups.update(found)
            for name, leaf in leaves.items():
                if name in prepared:
                    raise InputError(
                        f"task {name!r} is already part of the suite",
                        key=key,
                        remedy="Give every task once, alone or in one group.",
                    )
                with _reported(entry, key, name):
                    prepared[name] = _prepare(name, leaf, entry, seed, messages)
    return PreparedTasks(tuple(prepared.values()), groups, tuple(dict.fromkeys(messages)))


def _load(entry: Task, key: str) -> tuple[dict[str, Any], dict[str, Any]]:
    """Leaf tasks by name, and groups by name, children before parents."""
    with _reported(entry, key, entry.name or ""):
        if entry.path is not None:
            # lm-eval resolves data_files against the working directory; here they are relative to
            # the file that names them.
            with contextlib.chdir(Path(entry.path).parent):
                return _load_path(Path(entry.path))
        assert entry.name is not None
        for folder in (SHIPPED, default_folder()):
            path = read_names(folder).path(entry.name)
            if path is not None:
                return _load_path(path)
        if not mentioned(entry.name, default_folder()) and not mentioned(entry.name, SHIPPED):
            raise _unknown(entry.name, key, _declared())
        from lm_eval.tasks import TaskManager

        manager = TaskManager(include_path=str(SHIPPED))
        if entry.name not in manager.task_index:
            raise _unknown(entry.name, key, set(manager.task_index))
        return _flat(manager.load([entry.name]))
    raise AssertionError  # _reported never swallows


def _load_path(path: Path) -> tuple[dict[str, Any], dict[str, Any]]:
    from lm_eval.tasks import TaskManager

    if re.search(rb"^group[ \t]*:", path.read_bytes(), re.M):
        return _load_group(path)
    return _flat(TaskManager(include_defaults=False).load([str(path)]))


def _load_group(path: Path) -> tuple[dict[str, Any], dict[str, Any]]:
    """A group by its file: lm-eval takes groups by name only. Members may lie beside the file."""
    from lm_eval.tasks import TaskManager

    beside = TaskManager(include_path=str(path.parent), include_defaults=False)
    own = [e for e in beside.task_index.values() if e.yaml_path and e.yaml_path.samefile(path)]
    if not own:  # not valid: this says why
        return _flat(beside.load([str(path)]))
    local = all(member in beside.task_index for member in _members(own[0].cfg))
    manager = beside if local else TaskManager(include_path=str(path.parent))
    return _flat(manager.load([own[0].name]))


def _members(config: Mapping[str, Any]) -> Iterator[str]:
    for member in config.get("task") or []:
        if isinstance(member, str):
            yield member
        elif isinstance(member.get("task"), str):
            yield member["task"]
        else:
            yield from _members(member)


def _flat(loaded: Any) -> tuple[dict[str, Any], dict[str, Any]]:
    return dict(loaded["tasks"]), dict(loaded.get("groups") or {})


def _prepare(name: str, leaf: Any, entry: Task, seed: int, messages: list[str]) -> PreparedTask:
    if getattr(leaf, "MULTIMODAL", False):
        raise InputError(f"task {name!r} needs images or sound, which no text model reads")
    if getattr(leaf, "UNSAFE_CODE", False):
        raise InputError(f"task {name!r} runs code that the model writes: not supported")
    fixed = leaf.get_config("num_fewshot")
    if entry.num_fewshot is not None and fixed == 0 and entry.num_fewshot != 0:
        # lm-eval's rule: what a task fixes at 0 is not to be changed (its prompt holds examples).
        messages.append(
            f"task {name!r} fixes num_fewshot at 0: {entry.num_fewshot} is ignored, as lm-eval does"
        )
    elif entry.num_fewshot is not None:
        leaf.set_config(key="num_fewshot", value=entry.num_fewshot)
    elif fixed is None:
        leaf.set_config(key="num_fewshot", value=0)
    leaf.set_fewshot_seed(seed=FEWSHOT_SEED)
    samples = draw(name, len(leaf.eval_docs), entry.limit, seed)
    leaf.build_all_requests(
        limit=None, samples=None if samples is None else list(samples), rank=0, world_size=1
    )
    # Built once: both models get these very requests, and few-shot draws are not repeated.
    leaf.build_all_requests = lambda **_: None
    documents = {i.doc_id for i in leaf.instances}
    return PreparedTask(
        name=name,
        task=leaf,
        samples=samples,
        items=len(documents),
        requests=sum(i.repeats or 1 for i in leaf.instances),
        num_fewshot=int(leaf.get_config("num_fewshot") or 0),
        output_type=str(leaf.OUTPUT_TYPE),
        fingerprint=_fingerprint(leaf.instances),
    )


def draw(name: str, size: int, limit: int | None, seed: int) -> tuple[int, ...] | None:
    """Document ids of a seeded sample of ``limit`` out of ``size``; None: all of them.

    Ascending, because lm-eval walks its documents in order and would label an unsorted sample
    with the wrong ids.
    """
    if limit is None or limit >= size:
        return None
    rng = np.random.Generator(np.random.PCG64([seed, zlib.crc32(name.encode())]))
    return tuple(sorted(int(i) for i in rng.permutation(size)[:limit]))


def _fingerprint(instances: list[Any]) -> str:
    digest = hashlib.sha256()
    for instance in instances:
        parts = [instance.doc_id, instance.idx, instance.doc, instance.args]
        digest.update(json.dumps(parts, sort_keys=True, default=str).encode())
    return digest.hexdigest()


def _declared() -> set[str]:
    return read_names(SHIPPED).known | read_names(default_folder()).known


def _unknown(name: str, key: str, known: set[str]) -> InputError:
    return InputError(
        f"no lm-eval task, group or tag is named {name!r}",
        key=key,
        remedy=nearest(name, known) or "`lm_eval ls tasks` lists them; path: takes a task YAML.",
    )


@contextlib.contextmanager
def _reported(entry: Task, key: str, name: str) -> Iterator[None]:
    """Turn whatever lm-eval or datasets raise into an `InputError` that names the entry."""
    try:
        yield
    except InputError as error:
        if error.key is not None:
            raise
        raise InputError(error.message, path=entry.path, key=key, remedy=error.remedy) from None
    except Exception as error:  # lm-eval and datasets raise anything
        raise explain(error, name, entry.path, key) from None
