"""What a policy file may say, and how files extend each other; messages are exact."""

from __future__ import annotations

import textwrap
from pathlib import Path

import pytest

from evalharness.errors import InputError
from evalharness.gates.policy_files import read_policy, resolve_policy
from evalharness.spec.limit import Limit, parse_limit
from evalharness.spec.policy import Policy, PolicySpec
from evalharness.spec.yamlfile import parse_yaml


def read(text: str) -> Policy:
    return resolve_policy(parse_yaml(textwrap.dedent(text), Path("p.yaml")))


def refused(text: str) -> str:
    with pytest.raises(InputError) as error:
        read(text)
    return str(error.value)


@pytest.mark.parametrize(
    ("written", "number", "suffix"),
    [
        (1.02, 1.02, ""),
        (-1, -1.0, ""),
        ("1e-3", 0.001, ""),
        ("2%", 0.02, "%"),
        ("-2.9%", -0.029, "%"),
        ("+.5 pp", 0.005, "pp"),
    ],
)
def test_a_limit_is_a_number_a_percentage_or_points(
    written: object, number: float, suffix: str
) -> None:
    """Percentages are exact decimals: 2.9% is 0.029 and not 0.028999…"""
    assert parse_limit(written) == Limit(number, suffix)  # type: ignore[arg-type]


@pytest.mark.parametrize("limit", [Limit(0.02), Limit(-0.029, "%"), Limit(0.005, "pp")])
def test_a_limit_is_written_as_it_was_read(limit: Limit) -> None:
    """What a message shows can be pasted back."""
    assert parse_limit(str(limit)) == limit


@pytest.mark.parametrize(
    "written", ["two", "2 percent", "%", "", True, ".nan", ".inf", "1e999", "[1]"]
)
def test_anything_else_is_no_limit(written: object) -> None:
    """NaN, infinities and booleans are no limits."""
    shown = {".nan": "nan", ".inf": "inf", "1e999": "inf", "[1]": "[1]", True: "True"}.get(
        written if isinstance(written, str | bool) else "", repr(written)
    )
    quoted = f"'{written}'" if written in ("", "%", "2 percent") else written
    text = f"gates:\n  - metric: kl.mean\n    max: {quoted}\n"
    expected = f"p.yaml:3: gates[0].max: must be a number or a percentage (got {shown})"
    assert refused(text) == expected


def test_the_message_names_file_line_and_key(tmp_path: Path) -> None:
    """The form that editors and CI annotations parse."""
    file = tmp_path / "default.yaml"
    file.write_text("gates:\n  - metric: kl.mean\n    max: 1\n  - metric: kl.p99\n    max: two\n")
    with pytest.raises(InputError) as error:
        read_policy(file)
    assert str(error.value) == (
        f"{file}:5: gates[1].max: must be a number or a percentage (got 'two')"
    )


def test_an_unknown_key_names_the_nearest() -> None:
    """`maximum` is not `max`."""
    assert refused("gates:\n  - {metric: kl.mean, maxi: 1}\n") == (
        "p.yaml:2: gates[0].maxi: unknown key. Did you mean 'max' or 'min'?"
    )


def test_two_gates_of_one_id_are_refused() -> None:
    """Neither may win in silence."""
    text = """
        gates:
          - {id: kl, metric: kl.mean, max: 1}
          - {id: kl, metric: kl.p99, max: 2}
    """
    assert refused(text) == (
        "p.yaml:4: gates[1].id: a second gate with the id 'kl' (the first is on line 3). "
        "Give one of them another id."
    )


def test_two_gates_of_one_metric_and_scope_need_ids() -> None:
    """The default id is the metric and its scope."""
    text = "gates:\n  - {metric: kl.mean, max: 1}\n  - {metric: kl.mean, max: 2}\n"
    assert refused(text) == (
        "p.yaml:3: gates[1]: a second gate with the id 'kl.mean' (the first is on line 2). "
        "Give one of them another id."
    )


def test_the_default_id_holds_the_scope() -> None:
    """So that one metric can be gated in several scopes."""
    text = "gates:\n  - {metric: kl.mean, scope: {corpus: wiki}, max: 1}\n"
    assert [g.id for g in read(text).gates] == ["kl.mean[corpus=wiki]"]


def test_a_policy_without_gates_is_refused() -> None:
    """What cannot fail is no policy."""
    assert refused("version: 1\ngates: []\n") == (
        "p.yaml:2: gates: no gate is given, so nothing could fail. Add one."
    )


def test_a_gate_without_a_metric_is_refused() -> None:
    """Unless it changes a gate of the policy that is extended."""
    assert refused("gates:\n  - {id: kl, max: 1}\n") == (
        "p.yaml:2: gates[0].metric: required and missing. Name a metric, such as kl.mean."
    )


@pytest.mark.parametrize("confidence", ["95", "0.5", "1", "1.0"])
def test_a_confidence_is_a_fraction(confidence: str) -> None:
    """A level read as a percentage is a well-known bug."""
    text = f"confidence: {confidence}\ngates: [{{metric: kl.mean, max: 1}}]\n"
    assert refused(text) == (
        "p.yaml:1: confidence: must be a fraction above 0.5 and below 1, as 0.95 "
        f"(got {float(confidence):g})"
    )


@pytest.mark.parametrize(
    ("line", "message"),
    [
        (
            "{gate: kl, expires: 2026-01-01}",
            "waivers[0].reason: required and missing. Give reason: Why the loss is accepted, such "
            "as an issue.",
        ),
        (
            "{gate: kl, reason: known}",
            "waivers[0].expires: required and missing. Give expires: The last day it holds, as "
            "2026-03-31.",
        ),
        (
            "{gate: kl, reason: known, expires: soon}",
            "waivers[0].expires: must be a date such as 2026-03-31 (got 'soon')",
        ),
        (
            "{gate: kl, reason: '', expires: 2026-01-01}",
            "waivers[0].reason: string should have at least 1 character (got '')",
        ),
    ],
)
def test_a_waiver_needs_a_reason_and_a_date(line: str, message: str) -> None:
    """Nothing is waived for nothing, nor for ever."""
    text = f"gates:\n  - {{id: kl, metric: kl.mean, max: 1}}\nwaivers:\n  - {line}\n"
    assert refused(text) == f"p.yaml:4: {message}"


def test_a_gate_of_the_same_id_changes_what_it_names(tmp_path: Path) -> None:
    """Keys of the extending file replace those of the base; others stay."""
    (tmp_path / "base.yaml").write_text(
        "confidence: 0.9\ndefaults: {min_n: 30}\n"
        "gates:\n  - {id: kl, metric: kl.mean, max: 1, severity: warn}\n"
        "  - {id: ppl, metric: perplexity.ratio, max: 1.1}\n"
    )
    child = tmp_path / "child.yaml"
    child.write_text(
        "extends: base.yaml\ndefaults: {decide: point}\n"
        "gates:\n  - {id: kl, max: 2}\n  - {metric: top1.agreement, min: 90%}\n"
    )
    policy = read_policy(child)
    assert [(g.id, g.severity, g.min_n, g.decide) for g in policy.gates] == [
        ("kl", "warn", 30, "point"),
        ("ppl", "error", 30, "point"),
        ("top1.agreement", "error", 30, "point"),
    ]
    assert (policy.name, policy.confidence) == ("child", 0.9)
    assert policy.gates[0].max == Limit(2.0)
    assert (policy.gates[0].file, policy.gates[0].line) == (str(child), 4)


def test_an_error_points_at_the_file_that_gave_the_key(tmp_path: Path) -> None:
    """A limit inherited from the base is wrong in the base."""
    base, child = tmp_path / "base.yaml", tmp_path / "child.yaml"
    base.write_text("gates:\n  - {id: kl, metric: kl.mean, max: 1}\n")
    child.write_text("extends: base.yaml\ngates:\n  - {id: kl, severity: warn}\n")
    gate = read_policy(child).gates[0]
    assert str(gate.error("no", ("max",))) == f"{base}:2: gates[0].max: no"
    assert str(gate.error("no", ("severity",))) == f"{child}:3: gates[0].severity: no"
    assert str(gate.error("no", ("min",))) == f"{child}:3: gates[0].min: no"


def test_a_policy_that_extends_itself_is_refused(tmp_path: Path) -> None:
    """Through another file, too."""
    (tmp_path / "a.yaml").write_text("extends: b.yaml\n")
    (tmp_path / "b.yaml").write_text("extends: a.yaml\n")
    with pytest.raises(InputError) as error:
        read_policy(tmp_path / "a.yaml")
    assert str(error.value) == (f"{tmp_path}/a.yaml:1: extends: refers to itself through `extends`")


def test_an_unknown_shipped_policy_names_the_nearest() -> None:
    """Two ship for extending."""
    assert refused("extends: evalharness:strickt\n") == (
        "p.yaml:1: extends: no policy 'strickt' ships. Did you mean 'strict'?"
    )


def test_a_missing_base_is_named(tmp_path: Path) -> None:
    """Relative to the file that names it."""
    file = tmp_path / "a.yaml"
    file.write_text("extends: nowhere.yaml\n")
    with pytest.raises(InputError) as error:
        read_policy(file)
    assert str(error.value) == (
        f"{file}:1: extends: no such file: {tmp_path}/nowhere.yaml. Give a file relative to this "
        "one, evalharness:recommended or evalharness:strict."
    )


def test_the_baseline_is_relative_to_the_policy(tmp_path: Path) -> None:
    """As every path in a YAML file."""
    file = tmp_path / "a.yaml"
    file.write_text("baseline: main.json\ngates: [{metric: kl.mean, max: 1}]\n")
    assert read_policy(file).baseline == tmp_path / "main.json"


def test_the_schema_takes_what_the_parser_takes() -> None:
    """Editors validate against the same model."""
    schema = PolicySpec.model_json_schema()
    limit = schema["$defs"]["GateSpec"]["properties"]["max"]["anyOf"][0]
    assert limit["anyOf"][0] == {"type": "number"}
