"""Preparing task items: names, paths, samples, errors."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import pytest

from evalharness.compat.lm_eval import task_folder
from evalharness.data.items import PreparedTasks, draw, prepare_tasks
from evalharness.data.task_names import SHIPPED, mentioned, read_names
from evalharness.errors import InputError
from evalharness.spec.suite import Task

TASKS = Path(__file__).parent / "lm_tasks"


def prepare(*tasks: dict[str, Any], seed: int = 0) -> PreparedTasks:
    return prepare_tasks(tuple(Task.model_validate(t) for t in tasks), seed=seed)


def local(name: str, **options: Any) -> dict[str, Any]:
    return {"path": str(TASKS / f"{name}.yaml"), **options}


def error_of(*tasks: dict[str, Any]) -> str:
    with pytest.raises(InputError) as caught:
        prepare(*tasks)
    assert caught.value.exit_code == 2
    return str(caught.value)


# -- the sample


def test_a_sample_is_seeded_ascending_and_not_the_first_items() -> None:
    """The same seed draws the same documents; another seed draws others."""
    sample = draw("t", 200, 20, seed=0)
    assert sample is not None
    assert sample == draw("t", 200, 20, seed=0) == tuple(sorted(set(sample)))
    assert len(sample) == 20
    assert sample != tuple(range(20))
    assert sample != draw("t", 200, 20, seed=1)
    assert sample != draw("u", 200, 20, seed=0)


def test_a_larger_limit_keeps_the_items_of_a_smaller_one() -> None:
    """Raising the limit adds evidence to what was measured."""
    small, large = draw("t", 200, 20, seed=3), draw("t", 200, 60, seed=3)
    assert small is not None
    assert large is not None
    assert set(small) < set(large)


def test_a_limit_of_all_items_or_more_takes_all() -> None:
    """No sample is drawn where there is nothing to choose."""
    assert draw("t", 20, 20, seed=0) is None
    assert draw("t", 20, None, seed=0) is None


# -- the shipped task


def test_mmlu_dev_cloze_holds_every_question_of_the_57_subjects() -> None:
    """Five questions a subject, four in three of them; four choices, once five."""
    from evalharness.data.tasks.mmlu_dev import read_questions

    rows = read_questions()
    subjects = [r["subject"] for r in rows]
    assert (len(rows), len(set(subjects))) == (282, 57)
    assert subjects[:57] == list(dict.fromkeys(subjects))  # one of each before the second of any
    assert sorted({len(r["choices"]) for r in rows}) == [4, 5]
    assert all(0 <= r["answer"] < len(r["choices"]) for r in rows)
    assert all(c == c.strip() and c for r in rows for c in r["choices"])
    assert rows[1] == {
        "subject": "anatomy",
        "question": "Which of the following is the body cavity that contains the pituitary gland?",
        "choices": ["Abdominal", "Cranial", "Pleural", "Spinal"],
        "answer": 1,
    }


def test_shipped_tasks_resolve_from_any_directory(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Neither the data nor the YAML depends on where the command runs."""
    monkeypatch.chdir(tmp_path)
    (task,) = prepare({"name": "mmlu_dev_cloze", "limit": 7}).tasks
    assert (task.name, task.items, task.num_fewshot) == ("mmlu_dev_cloze", 7, 0)
    assert task.requests in (28, 29)
    assert not list(tmp_path.iterdir())


def test_few_shot_examples_are_shared_and_never_the_item_itself() -> None:
    """Items after the first five see the same examples; the first five not their own answer."""
    (task,) = prepare({"name": "mmlu_dev_cloze", "num_fewshot": 5}).tasks
    prompts = {i.doc_id: (i.args[0], i.doc["question"].strip()) for i in task.task.instances}
    heads = {d: p.rpartition("Question: ")[0] for d, (p, _) in prompts.items()}
    assert len({h for d, h in heads.items() if d >= 5}) == 1
    assert all(q not in heads[d] for d, (_, q) in prompts.items() if d < 5)
    assert heads[10].count("Question: ") == 5
    assert task.num_fewshot == 5


# -- what is to be known of the prompts

ROWS = """task: own
dataset_path: json
dataset_kwargs: {data_files: {test: test.jsonl, examples: examples.jsonl}}
test_split: test
fewshot_split: examples
fewshot_config: {sampler: first_n}
"""
FORMS = {
    "choices": """output_type: multiple_choice
doc_to_text: "{{q}}"
doc_to_choice: ["yes", "no"]
doc_to_target: "{{a}}"
""",
    "blank": """output_type: multiple_choice
doc_to_text: "{{a}}"
doc_to_choice: "{{[q + ' yes', q + ' no']}}"
doc_to_target: " indeed"
""",
    "generated": """output_type: generate_until
doc_to_text: "{{q}}"
doc_to_target: "{{a}}"
""",
}


def own_task(folder: Path, form: str, test: list[str], examples: list[str]) -> str:
    """A task of these questions; ids tell rows apart that ask the same."""
    for name, questions in (("test", test), ("examples", examples)):
        rows = [{"id": f"{name}{n}", "q": q, "a": len(q) % 2} for n, q in enumerate(questions)]
        text = "".join(json.dumps(row) + "\n" for row in rows)
        (folder / f"{name}.jsonl").write_text(text)
    (folder / "own.yaml").write_text(ROWS + FORMS[form])
    return str(folder / "own.yaml")


@pytest.mark.parametrize("form", FORMS)
def test_items_that_are_their_own_examples_are_named(tmp_path: Path, form: str) -> None:
    """By what is asked, whatever else a row holds; lm-eval leaves them in from another split."""
    path = own_task(tmp_path, form, ["is it so", "was it so", "is he", "is it so?"], ["x", "is he"])
    prepared = prepare({"path": path, "num_fewshot": 2})
    assert prepared.messages == (
        "task 'own': 1 of 4 items are among their own few-shot examples, answer and all (item 2)",
    )
    assert prepare({"path": path, "num_fewshot": 1}).messages == ()
    assert prepare({"path": path}).messages == ()


@pytest.mark.parametrize("shots", [0, 1])
@pytest.mark.parametrize("form", FORMS)
def test_items_that_ask_the_same_are_known(tmp_path: Path, form: str, shots: int) -> None:
    """With and without examples, by their ids in the data where they are a sample."""
    questions = ["one", "two", "three", "one", "four", "two", "one"]
    path = own_task(tmp_path, form, questions, ["x"])
    entry = {"path": path, "num_fewshot": shots}
    (task,) = prepare(entry).tasks
    assert task.repeats == {3: 0, 5: 1, 6: 0}
    assert prepare(entry).messages == (
        "task 'own': 3 of 7 items ask what another one asks (items 3, 5, 6); those that ask the "
        "same are one cluster",
    )
    (part,) = prepare({**entry, "limit": 5}).tasks
    assert part.samples is not None
    kept = [questions[i] for i in part.samples]
    assert {questions[i] for i in part.repeats} == {q for q in kept if kept.count(q) > 1}
    for later, first in part.repeats.items():
        assert (questions[later], first in part.samples) == (questions[first], True)


def test_a_limit_above_the_data_is_said(tmp_path: Path) -> None:
    """Once for an entry; all that there is is measured."""
    assert prepare(local("both", limit=5)).messages == ()
    prepared = prepare(local("both", limit=6))
    assert prepared.messages == (
        "limit 6 is above the items of 'choose' (5), 'finish' (5): all of them are measured",
    )
    assert [t.items for t in prepared.tasks] == [5, 5]


# -- names and paths


def test_names_read_from_files_agree_with_lm_evals_files() -> None:
    """A plain task is found by its one file; groups, tags and duplicates are left to lm-eval."""
    names = read_names(task_folder())
    assert names.path("arc_easy") == task_folder() / "arc" / "arc_easy.yaml"
    assert names.path("hellaswag") == task_folder() / "hellaswag" / "hellaswag.yaml"
    assert names.path("mmlu") is None  # a group
    assert names.path("ai2_arc") is None  # a tag
    assert names.path("no_such_task") is None
    assert read_names(SHIPPED).path("mmlu_dev_cloze") == SHIPPED / "mmlu_dev_cloze.yaml"


def test_an_unknown_task_is_named_with_the_nearest_names() -> None:
    """A typo is answered within seconds and with a hint."""
    text = error_of({"name": "mmlu_dev_clozee"})
    assert text.startswith(
        "tasks[0].name: no lm-eval task, group or tag is named 'mmlu_dev_clozee'. "
        "did you mean 'mmlu_dev_cloze'"
    )


def test_data_that_is_not_here_is_said_to_be_unavailable_offline() -> None:
    """No traceback from the hub client."""
    text = error_of(local("choose"), {"name": "arc_easy", "limit": 5})
    assert text.startswith("tasks[1].name: the data of task 'arc_easy' is not available offline (")
    assert "allenai/ai2_arc" in text
    assert "task YAML over local files" in text


def test_data_files_are_relative_to_the_yaml(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """lm-eval would look for them in the working directory."""
    monkeypatch.chdir(tmp_path)
    (task,) = prepare(local("choose")).tasks
    assert (task.items, task.requests) == (5, 15)


def test_a_group_by_path_has_its_leaves_and_its_aggregate() -> None:
    """Members beside the group's file are found."""
    prepared = prepare(local("both"))
    assert [t.name for t in prepared.tasks] == ["choose", "finish"]
    assert list(prepared.groups) == ["both"]


def test_a_task_given_twice_is_refused() -> None:
    """Once alone and once with a limit would be two results of one name."""
    text = error_of(local("choose"), local("choose", limit=2))
    assert text.startswith("tasks[1].path: task 'choose' is already part of the suite")


def test_the_fingerprint_changes_with_the_prompts_and_with_nothing_else() -> None:
    """A resumed run must find the very items that it began with."""
    first = prepare(local("choose", limit=3), seed=1)
    assert first.fingerprint == prepare(local("choose", limit=3), seed=1).fingerprint
    assert first.fingerprint != prepare(local("choose", limit=3), seed=2).fingerprint
    assert first.fingerprint != prepare(local("choose", limit=3, num_fewshot=1), seed=1).fingerprint


# -- broken files


@pytest.mark.parametrize(
    ("text", "message"),
    [
        ("task: [unclosed\n", ":2: tasks[0].path: not valid YAML ("),
        ("dataset_path: json\n", ": tasks[0].path: a task YAML must have a key task: or group:"),
        ("- a list\n", ": tasks[0].path: lm-eval could not build this task ("),
        ("task: t\nno_such_key: 1\n", ": tasks[0].path: unknown key 'no_such_key' in the task"),
        (
            "task: t\ndataset_path: json\ndataset_kwargs: {data_files: {test: gone.jsonl}}\n"
            "test_split: test\n",
            ": tasks[0].path: the data of this task is not available (",
        ),
        (
            "task: t\ncustom_dataset: !function nowhere.rows\n",
            ": tasks[0].path: this task needs the Python package 'nowhere', which is not installed",
        ),
    ],
)
def test_a_broken_task_yaml_is_named_with_what_is_wrong(
    tmp_path: Path, text: str, message: str
) -> None:
    """File, key and what to do; never a traceback."""
    path = tmp_path / "t.yaml"
    path.write_text(text)
    assert error_of({"path": str(path)}).startswith(f"{path}{message}")


def test_more_examples_than_there_are_is_refused(tmp_path: Path) -> None:
    """Five rows cannot give nine examples."""
    text = error_of(local("choose", num_fewshot=9))
    assert text.startswith(f"{TASKS / 'choose.yaml'}: tasks[0].path: lm-eval could not build task")


def test_a_task_that_fixes_zero_examples_says_that_the_number_is_ignored(tmp_path: Path) -> None:
    """lm-eval's rule, but not in silence."""
    path = TASKS / "fixed.yaml"
    prepared = prepare({"path": str(path), "num_fewshot": 3})
    assert prepared.tasks[0].num_fewshot == 0
    assert prepared.messages == (
        "task 'fixed' fixes num_fewshot at 0: 3 is ignored, as lm-eval does",
    )


def test_tasks_that_run_the_models_code_are_refused(tmp_path: Path) -> None:
    """Code that a model writes is never run."""
    path = tmp_path / "t.yaml"
    path.write_text(f"include: {TASKS / 'write.yaml'}\ntask: t\nunsafe_code: true\n")
    assert error_of({"path": str(path)}) == (
        f"{path}: tasks[0].path: task 't' runs code that the model writes: not supported"
    )


def test_preparing_prints_nothing(capfd: pytest.CaptureFixture[str]) -> None:
    """lm-eval's warnings and bars do not reach the terminal."""
    prepare(local("choose"), local("finish"))
    assert capfd.readouterr() == ("", "")


# -- lm-eval's whole index (half a minute: it parses 14,000 files)


@pytest.mark.e2e
def test_every_name_found_by_reading_is_the_task_that_lm_eval_finds() -> None:
    """The quick way never answers otherwise than lm-eval's index, and knows where to ask it."""
    from lm_eval.tasks import TaskManager

    names = read_names(task_folder())
    index = TaskManager().task_index
    quick = {n: p for n in index if (p := names.path(n)) is not None}
    assert len(quick) > 10_000
    assert {n: str(index[n].yaml_path) for n in quick} == {n: str(p) for n, p in quick.items()}
    assert {index[n].kind.name for n in quick} <= {"TASK", "PY_TASK"}
    # A tag that only a template without suffix has is one of them.
    rest = ["mafand_tasks", *sorted(set(index) - set(quick))[::200]]
    assert [n for n in rest if not mentioned(n, task_folder())] == []


@pytest.mark.e2e
@pytest.mark.parametrize(("name", "data"), [("mmlu", "cais/mmlu"), ("ai2_arc", "allenai/ai2_arc")])
def test_groups_and_tags_are_resolved_by_lm_evals_index(name: str, data: str) -> None:
    """Offline their data is missing, which is what must be said."""
    text = error_of({"name": name})
    assert text.startswith(f"tasks[0].name: the data of task '{name}' is not available offline (")
    assert data in text
