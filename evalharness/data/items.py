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
from collections.abc import Iterable, Iterator, Mapping
from dataclasses import dataclass, field
from functools import cached_property
from pathlib import Path
from typing import Any

import numpy as np

from evalharness.compat import lm_eval
from evalharness.compat.lm_eval_prompts import Built, Chat, build_requests
from evalharness.compat.silence import quiet
from evalharness.data.chat_templates import chat_of, templates_of
from evalharness.data.task_code import guard_tasks
from evalharness.data.task_errors import explain
from evalharness.data.task_names import SHIPPED, mentioned, read_names
from evalharness.errors import InputError, nearest, short
from evalharness.run.manifest import RecordedPrompts
from evalharness.spec.suite import Task

MOST_NAMED = 10  # items in a message


@dataclass(frozen=True)
class PreparedTask:
    """One leaf task. ``task`` is lm-eval's object, its requests (Instances) built once."""

    name: str
    task: Any = field(repr=False)
    samples: tuple[int, ...] | None  # document ids in ascending order; None: all of them
    items: int
    requests: int
    num_fewshot: int
    fingerprint: str  # SHA-256 of every document and request
    asked: RecordedPrompts
    repeats: Mapping[int, int] = field(default_factory=dict)  # items that ask what an earlier does
    documents: frozenset[bytes] = field(default=frozenset(), repr=False)  # a digest of each

    @property
    def identity(self) -> str:
        """SHA-256 of the documents, the requests, and how they are scored."""
        config = lm_eval.configuration(self.task)
        parts = [self.fingerprint, self.num_fewshot, self.asked, config]
        text = json.dumps(parts, sort_keys=True, default=str)
        return hashlib.sha256(text.encode("utf-8", "surrogatepass")).hexdigest()

    def fresh(self) -> Any:
        """lm-eval's task with no answers in its requests, ready for one model."""
        lm_eval.forget_answers(self.task)
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

    @property
    def sharing(self) -> list[list[str]]:
        """Names of tasks that have a document in common: what one tells, the other tells again."""
        holders: dict[bytes, list[str]] = {}
        for task in self.tasks:
            for document in task.documents:
                holders.setdefault(document, []).append(task.name)
        return [list(n) for n in dict.fromkeys(map(tuple, holders.values())) if len(n) > 1]

    @cached_property
    def fingerprint(self) -> str:
        """SHA-256 over the tasks: equal means the same items with the same prompts."""
        text = json.dumps([(t.name, t.num_fewshot, t.fingerprint) for t in self.tasks])
        return hashlib.sha256(text.encode()).hexdigest()


def prepare_tasks(tasks: tuple[Task, ...], *, seed: int, tokenizer: Any = None) -> PreparedTasks:
    """Resolve tasks and build their requests; no model is needed.

    Parameters
    ----------
    tasks : of the suite. ``limit`` holds for each leaf task of a group or tag, as in lm-eval.
    seed : of the sample. The sample of a smaller limit is part of that of a larger one.
    tokenizer : the reference's, whose chat template tasks may ask for.

    Raises
    ------
    InputError : a task is unknown, broken, given twice, or its data is not at hand.

    """
    prepared: dict[str, PreparedTask] = {}
    groups: dict[str, Any] = {}
    messages: list[str] = []
    with quiet():
        guard_tasks()
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
                _check_name(name, key)
                with _reported(entry, key, name):
                    prepared[name] = _prepare(name, leaf, entry, seed, tokenizer, messages)
            messages += _beyond(entry, {n: len(prepared[n].task.eval_docs) for n in leaves})
    return PreparedTasks(tuple(prepared.values()), groups, tuple(dict.fromkeys(messages)))


_LONGEST_NAME = 180  # bytes: files of the run are called by it


def _check_name(name: Any, key: str) -> None:
    """Refuse a task whose records could not be written under its name, before it is run."""
    if (
        not isinstance(name, str)
        or not 0 < len(name.encode("utf-8", "replace")) <= _LONGEST_NAME
        or not name.isprintable()
        or set(name) & set("/\\")
    ):
        shown = repr(name)
        raise InputError(
            f"a task cannot be called {shown if len(shown) <= 60 else shown[:60] + '…'}",
            key=key,
            remedy=f"Give it a name of printable characters without slashes, of {_LONGEST_NAME} "
            "bytes at most.",
        )


def _load(entry: Task, key: str) -> lm_eval.Loaded:
    """Leaf tasks by name, and groups by name, children before parents."""
    with _reported(entry, key, entry.name or ""):
        if entry.path is not None:
            # lm-eval resolves data_files against the working directory; here they are relative to
            # the file that names them.
            with contextlib.chdir(Path(entry.path).parent):
                return _load_path(Path(entry.path))
        assert entry.name is not None
        folders = (SHIPPED, lm_eval.task_folder())
        for folder in folders:
            path = read_names(folder).path(entry.name)
            if path is not None:
                return _load_path(path)
        if not any(mentioned(entry.name, folder) for folder in reversed(folders)):
            known: set[str] = set().union(*(read_names(folder).known for folder in folders))
            raise _unknown(entry.name, key, known)
        index = lm_eval.TaskIndex(SHIPPED)
        if entry.name not in index.names:
            raise _unknown(entry.name, key, index.names)
        return index.load(entry.name)
    raise AssertionError  # _reported never swallows


def _load_path(path: Path) -> lm_eval.Loaded:
    if re.search(rb"^group[ \t]*:", path.read_bytes(), re.M):
        return _load_group(path)
    return lm_eval.TaskIndex(own=False).load(str(path))


def _load_group(path: Path) -> lm_eval.Loaded:
    """A group by its file: lm-eval takes groups by name only. Members may lie beside the file."""
    beside = lm_eval.TaskIndex(path.parent, own=False)
    group = beside.declared_in(path)
    if group is None:  # not valid: this says why
        return beside.load(str(path))
    local = set(group.members) <= beside.names
    return (beside if local else lm_eval.TaskIndex(path.parent)).load(group.name)


def _prepare(
    name: str, leaf: Any, entry: Task, seed: int, tokenizer: Any, messages: list[str]
) -> PreparedTask:
    if lm_eval.reads_images_or_sound(leaf):
        raise InputError(f"task {name!r} needs images or sound, which no text model reads")
    if lm_eval.runs_written_code(leaf):
        raise InputError(f"task {name!r} runs code that the model writes: not supported")
    fixed = lm_eval.fewshot_of(leaf)
    if entry.num_fewshot is not None and fixed == 0 and entry.num_fewshot != 0:
        # lm-eval's rule: what a task fixes at 0 is not to be changed (its prompt holds examples).
        messages.append(
            f"task {name!r} fixes num_fewshot at 0: {entry.num_fewshot} is ignored, as lm-eval does"
        )
    elif entry.num_fewshot is not None:
        lm_eval.set_fewshot(leaf, entry.num_fewshot)
    elif fixed is None:
        lm_eval.set_fewshot(leaf, 0)
    samples = draw(name, len(leaf.eval_docs), entry.limit, seed)
    chat = chat_of(entry, tokenizer)
    multiturn = entry.fewshot_as_multiturn
    asked: RecordedPrompts = {
        "chat_template": entry.template,
        "system": entry.system,
        "fewshot_as_multiturn": chat is not None if multiturn is None else multiturn,
    }
    built = build_requests(
        leaf,
        samples,
        chat=chat,
        system=entry.system,
        multiturn=asked["fewshot_as_multiturn"],
    )
    items = len({r.doc_id for r in built.requests})
    if entry.template is not None and "strftime_now" in templates_of(tokenizer)[entry.template]:
        messages.append(
            f"task {name!r}: the chat template asks for today's date: a run of another day may be "
            "of other prompts, and is then not comparable"
        )
    messages += [f"task {name!r}{text}" for text in _noticed(built, items, chat)]
    return PreparedTask(
        name=name,
        task=leaf,
        samples=samples,
        items=items,
        requests=sum(lm_eval.repeats(r) for r in built.requests),
        num_fewshot=lm_eval.fewshot_of(leaf) or 0,
        fingerprint=_fingerprint(built.requests),
        asked=asked,
        repeats=built.repeats,
        documents=frozenset(hashlib.sha256(_document(r)).digest() for r in built.requests),
    )


def _noticed(built: Built, items: int, chat: Chat | None) -> Iterator[str]:
    """What a reader of the scores should know of the prompts."""
    for text in chat.left_out if chat is not None else ():
        yield (
            f": the chat template does not take the system message {short(text)}, which is in no "
            "prompt or not in all of them"
        )
    if built.shown:
        yield (
            f": {len(built.shown)} of {items} items are among their own few-shot examples, answer "
            f"and all ({_named(built.shown)})"
        )
    if built.repeats:
        yield (
            f": {len(built.repeats)} of {items} items ask what another one asks "
            f"({_named(built.repeats)}); those that ask the same are one cluster"
        )


def _named(items: Iterable[int]) -> str:
    found = list(items)
    return f"item{'s' * (len(found) > 1)} {', '.join(map(str, found[:MOST_NAMED]))}" + (
        ", …" if len(found) > MOST_NAMED else ""
    )


def _beyond(entry: Task, sizes: Mapping[str, int]) -> list[str]:
    """Say that ``limit`` asks for more items than there are."""
    if entry.limit is None:
        return []
    fewer = {name: size for name, size in sizes.items() if size < entry.limit}
    if not fewer:
        return []
    most = list(fewer.items())[:MOST_NAMED]
    named = ", ".join(f"{name!r} ({size})" for name, size in most)
    more = ", …" if len(fewer) > len(most) else ""
    return [f"limit {entry.limit} is above the items of {named}{more}: all of them are measured"]


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


def _document(instance: Any) -> bytes:
    text = json.dumps(instance.doc, sort_keys=True, default=str)
    return text.encode("utf-8", "surrogatepass")


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
        if error.key is not None or error.path is not None:
            raise
        raise InputError(error.message, path=entry.path, key=key, remedy=error.remedy) from None
    except Exception as error:  # lm-eval and datasets raise anything
        raise explain(error, name, entry.path, key) from None
