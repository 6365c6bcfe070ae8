"""Files that would run Python: each is refused, and none runs."""

from __future__ import annotations

import json
import subprocess
import sys
from pathlib import Path

import pytest

from evalharness.data.documents import read_texts
from evalharness.data.items import prepare_tasks
from evalharness.engines.locate import check_directory, resolve_adapter
from evalharness.errors import InputError
from evalharness.spec.model import load_model_spec
from evalharness.spec.permissions import REMEDY, granted
from evalharness.spec.suite import Suite, Task, load_suite
from tests.cli.command import cli
from tests.hostile.conftest import CANARY

ITEMS = {"question": "a?", "choices": ["x", "y"], "answer": 0, "spare": [1]}
KEYS = {
    "task": "t",
    "dataset_path": "json",
    "dataset_kwargs": "{data_files: {test: items.jsonl}}",
    "test_split": "test",
    "output_type": "multiple_choice",
    "doc_to_text": '"{{question}}"',
    "doc_to_choice": '"{{choices}}"',
    "doc_to_target": "answer",
    "metric_list": "[{metric: acc}]",
}


def task_file(tmp_path: Path, name: str = "task.yaml", **changed: str) -> Path:
    """A task of one item beside a module that leaves a canary."""
    (tmp_path / "evil.py").write_text(CANARY + "def f(*_, **__): return _[0] if _ else []\n")
    (tmp_path / "items.jsonl").write_text(json.dumps(ITEMS) + "\n")
    path = tmp_path / name
    keys = {**KEYS, **changed}
    path.write_text("".join(f"{k}: {v}\n" for k, v in keys.items()))
    return path


def refused(path: Path) -> str:
    """What is said of the task at ``path``."""
    with pytest.raises(InputError) as caught:
        prepare_tasks((Task(path=str(path)),), seed=0)
    return str(caught.value)


FUNCTIONS = {
    "process_docs": "!function evil.f",
    "custom_dataset": "!function evil.f",
    "doc_to_text": "!function evil.f",
    "doc_to_choice": "!function evil.f",
    "doc_to_target": "!function evil.f",
    "process_results": "!function evil.f",
    "class": "!function evil.f",
    "metric_list": "[{metric: !function evil.f, aggregation: mean}]",
    "filter_list": "[{name: n, filter: [{function: custom, filter_fn: !function evil.f}]}]",
    "fewshot_config": "{samples: !function evil.f}",
    "metadata": "{deep: [{er: !function os.system}]}",
}


@pytest.mark.parametrize("key", FUNCTIONS)
def test_a_function_is_refused_with_its_line(tmp_path: Path, key: str) -> None:
    """Wherever it stands, in the task's own file or in one that it includes."""
    path = task_file(tmp_path, **{key: FUNCTIONS[key]})
    name = "os.system" if key == "metadata" else "evil.f"
    line = 1 + [text.partition(":")[0] for text in path.read_text().splitlines()].index(key)
    expected = f"{path}:{line}: !function {name}: a task file that runs Python code. {REMEDY}"
    assert refused(path) == expected
    outer = tmp_path / "outer.yaml"
    outer.write_text("include: task.yaml\ntask: other\n")
    assert refused(outer) == expected


@pytest.mark.parametrize("tag", ["!!python/object/apply:evil.f []", "!!python/name:evil.f", "!x y"])
def test_other_tags_are_no_yaml(tmp_path: Path, tag: str) -> None:
    """Neither in a task nor in a file of ours."""
    path = task_file(tmp_path, doc_to_target=tag)
    assert "not valid YAML" in refused(path)
    (tmp_path / "suite.yaml").write_text(f"name: {tag}\n")
    code, _, said = cli("plan", tmp_path / "suite.yaml")
    assert (code, "not valid YAML" in said) == (2, True)


def test_a_group_is_refused_where_a_member_runs_code(tmp_path: Path) -> None:
    """The member lies beside it."""
    task_file(tmp_path, process_docs="!function evil.f")
    (tmp_path / "group.yaml").write_text("group: g\ntask: [t]\n")
    assert "task.yaml:10: !function evil.f" in refused(tmp_path / "group.yaml")


TEMPLATES = [
    "{{ ''.__class__.__mro__[1].__subclasses__() | length }}",
    "{{ cycler.__init__.__globals__.os.system('touch canary') }}",
    "{{ question.__init__.__globals__ }}",
    "{{ '%s'.__mod__.__self__.__class__ }}",
    "{{ '{0.__class__.__init__.__globals__}'.format(question) }}",
    "{{ spare.append(2) }}",
    "{% for a in range(1000000000) %}{% endfor %}",
    "{{ ''|attr('__class__') }}",
]


@pytest.mark.parametrize("template", TEMPLATES)
@pytest.mark.parametrize("key", ["doc_to_text", "doc_to_choice", "doc_to_target"])
def test_a_template_reaches_nothing_but_data(tmp_path: Path, template: str, key: str) -> None:
    """As in Jinja's immutable sandbox."""
    path = task_file(tmp_path, **{key: json.dumps(template)})
    assert str(path) in refused(path)


def test_templates_of_items_render_as_before(tmp_path: Path) -> None:
    """Filters, methods of text and lm-eval's own filter."""
    template = "{{question.strip()|upper}} {{choices.index('y')}} {{'ab'|regex_replace('a','c')}}"
    path = task_file(tmp_path, doc_to_text=json.dumps(template))
    found = prepare_tasks((Task(path=str(path)),), seed=0)
    assert found.tasks[0].task.instances[0].args[0] == "A? 1 cb"


@pytest.mark.parametrize("metric", ["{metric: evil}", "{metric: evil, hf_evaluate: true}"])
def test_a_metric_is_no_script_of_the_folder(tmp_path: Path, metric: str) -> None:
    """`evaluate` would run evil/evil.py."""
    path = task_file(tmp_path, metric_list=f"[{metric}]")
    (tmp_path / "evil").mkdir()
    (tmp_path / "evil/evil.py").write_text(CANARY)
    assert refused(path) == (
        f"{path}: tasks[0].path: the metric 'evil' is none of lm-eval's: `evaluate` would run a "
        f"script of that name. {REMEDY}"
    )


def test_what_the_user_allows_runs(tmp_path: Path) -> None:
    """The refusal is about permission, not about the file."""
    path = task_file(tmp_path, process_docs="!function evil.f")
    (tmp_path / "evil.py").write_text("def f(docs): return docs\n")
    with granted(allow_code=True):
        assert prepare_tasks((Task(path=str(path)),), seed=0).items == 1
    assert "!function evil.f" in refused(path)


@pytest.mark.parametrize("source", ["evil", "pydoc_data.topics"])
def test_a_corpus_is_no_module_of_the_working_directory(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, source: str
) -> None:
    """Even where it is called like one that Python ships."""
    module = tmp_path / f"{source.replace('.', '/')}.py"
    module.parent.mkdir(exist_ok=True)
    (module.parent / "__init__.py").write_text(CANARY)
    module.write_text(CANARY + "texts = {'a': 'b'}\n")
    monkeypatch.syspath_prepend(str(tmp_path))
    for name in ("pydoc_data", "pydoc_data.topics"):
        monkeypatch.delitem(sys.modules, name, raising=False)
    suite = Suite(name="s", corpora=({"name": "c", "source": f"python:{source}"},))
    with pytest.raises(InputError, match="is no module that an installed package ships"):
        read_texts(suite)


@pytest.mark.e2e
def test_python_m_does_not_import_from_the_working_directory(tmp_path: Path) -> None:
    """A file called like a library that is imported later."""
    for name in ("numpy", "pandas", "lm_eval", "rich"):
        (tmp_path / f"{name}.py").write_text(CANARY)
    (tmp_path / "p.yaml").write_text("gates:\n  - {metric: kl.mean, max: 1.0}\n")
    command = [sys.executable, "-m", "evalharness", "plan", "p.yaml"]
    done = subprocess.run(command, capture_output=True, text=True)
    assert done.returncode == 0, done.stderr


@pytest.mark.parametrize(
    ("key", "what"),
    [
        ("trust_remote_code", "runs Python code that the model ships"),
        ("allow_pickle", "loads pickled weights, which can run any code"),
    ],
)
def test_a_model_file_cannot_trust_itself(tmp_path: Path, key: str, what: str) -> None:
    """The file asks and the user allows; a file that it is based on is no user either."""
    path = tmp_path / "m.yaml"
    path.write_text(f"name: m\nmodel:\n  path: gpt2\n  {key}: true\n")
    with pytest.raises(InputError) as caught:
        load_model_spec(path)
    assert str(caught.value) == f"{path}:4: model.{key}: {what}. {REMEDY}"
    (tmp_path / "n.yaml").write_text("from: m.yaml\nname: n\n")
    with pytest.raises(InputError, match=what):
        load_model_spec(tmp_path / "n.yaml")
    with granted(allow_code=True):
        assert getattr(load_model_spec(path).model, key)


@pytest.mark.parametrize("index", ["model.safetensors.index.json", "pytorch_model.bin.index.json"])
def test_an_index_of_pickles_is_pickled_weights(tmp_path: Path, index: str) -> None:
    """Whatever the index is called."""
    (tmp_path / "config.json").write_text("{}")
    (tmp_path / index).write_text(json.dumps({"weight_map": {"w": "shard.bin"}}))
    (tmp_path / "shard.bin").write_bytes(b"\x80\x04cevil\nf\n.")
    (tmp_path / "pytorch_model-1.bin").write_bytes(b"")
    with pytest.raises(InputError, match="only pickled weights there"):
        check_directory(tmp_path, "model.path")


def test_a_pickled_adapter_is_refused(tmp_path: Path) -> None:
    """As pickled weights are."""
    (tmp_path / "adapter_config.json").write_text("{}")
    (tmp_path / "adapter_model.bin").write_bytes(b"\x80\x04cevil\nf\n.")
    with pytest.raises(InputError, match="only pickled weights there"):
        resolve_adapter(str(tmp_path))


CONFIGS = [
    {"attn_implementation": "kernels-community/evil"},
    {"attn_implementation": {"": "sdpa", "text_config": "a/evil@main:f"}},
    {"text_config": {"_attn_implementation": "a/evil"}},
    {"experts_implementation": "a/evil"},
]


@pytest.mark.parametrize("config", CONFIGS)
def test_a_configuration_names_no_kernels_of_the_hub(
    tmp_path: Path, config: dict[str, object]
) -> None:
    """transformers would fetch and run them, unasked."""
    (tmp_path / "config.json").write_text(json.dumps(config))
    with pytest.raises(InputError, match="names kernels of the hub under") as caught:
        check_directory(tmp_path, "model.path")
    assert REMEDY in str(caught.value)
    (tmp_path / "config.json").write_text('{"attn_implementation": "sdpa"}')
    with pytest.raises(InputError, match="no weights in"):
        check_directory(tmp_path, "model.path")


def test_an_adapter_names_no_module(tmp_path: Path) -> None:
    """PEFT would import it."""
    config = {"megatron_config": {"a": 1}, "megatron_core": "evil"}
    (tmp_path / "adapter_config.json").write_text(json.dumps(config))
    with pytest.raises(InputError, match="names a module to import under 'megatron_config'"):
        resolve_adapter(str(tmp_path))


@pytest.mark.parametrize("key", ["allow_code", "confined", "trust_remote_code"])
def test_a_suite_cannot_allow_it_to_itself(tmp_path: Path, key: str) -> None:
    """There is no such key."""
    (tmp_path / "s.yaml").write_text(f"name: s\n{key}: true\ntasks: [{{name: arc_easy}}]\n")
    with pytest.raises(InputError, match=f"s.yaml:2: {key}: unknown key"):
        load_suite(tmp_path / "s.yaml")


def test_a_dry_run_runs_nothing(project: Path) -> None:
    """It reads tasks, and refuses them as the run itself would."""
    path = task_file(project, process_docs="!function evil.f")
    (project / "suite.yaml").write_text(f"name: s\ntasks: [{{path: {path}}}]\n")
    files = ("base.yaml", "candidate.yaml", "--suite", "suite.yaml", "--gates", "gates.yaml")
    code, _, said = cli("compare", *files, "--dry-run")
    assert (code, said) == (
        2,
        f"{path}:10: !function evil.f: a task file that runs Python code. {REMEDY}",
    )
