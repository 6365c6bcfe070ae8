"""``junit.xml``: one test case a gate, so that any CI shows the verdict.

FAIL is a failure. INCONCLUSIVE and ANOMALOUS are errors: they do not pass in silence. What does
not block is reported in ``system-out``; what is waived is skipped, with the reason. Where the run
does not exit 0 and no gate says why, a test case of its own does.
"""

from __future__ import annotations

import re
from datetime import datetime
from xml.etree import ElementTree as ET

from evalharness.report import gate_rows, numbers
from evalharness.report.gate_rows import is_waived, objects
from evalharness.report.glossary import EXIT_CODES, sentence, unit_beside
from evalharness.report.safe_text import visible
from evalharness.spec.result import GateResult, Result

# What XML 1.0 cannot hold even escaped; visible() spells most of it out before.
_NOT_XML = re.compile("[^\t\n\r\u0020-\ud7ff\ue000-\ufffd\U00010000-\U0010ffff]")


def render_junit(result: Result) -> str:
    """Return the JUnit XML of a result."""
    cases = [_case(result, gate) for gate in result.gates]
    cases += _anomalies(result)
    if result.exit_code != 0 and not any(_objection(case) for case in cases):
        cases.append(_verdict(result))
    counts = {
        "tests": len(cases),
        "failures": sum(case.find("failure") is not None for case in cases),
        "errors": sum(case.find("error") is not None for case in cases),
        "skipped": sum(case.find("skipped") is not None for case in cases),
    }
    attributes = {name: str(n) for name, n in counts.items()}
    # Only a suite may count what is skipped, by the schema that Jenkins and pytest go by.
    whole = {name: value for name, value in attributes.items() if name != "skipped"}
    root = ET.Element("testsuites", {"name": "evalharness", **whole})
    named = {"name": clean(f"{result.suite}: {result.candidate} against {result.reference}")}
    suite = ET.SubElement(root, "testsuite", {**named, **attributes, **_timestamp(result)})
    properties = ET.SubElement(suite, "properties")
    for name, value in _properties(result):
        ET.SubElement(properties, "property", {"name": clean(name), "value": clean(value)})
    suite.extend(cases)
    ET.indent(root)
    text = ET.tostring(root, encoding="unicode")
    return f'<?xml version="1.0" encoding="UTF-8"?>\n{text}\n'


def clean(text: str) -> str:
    """Return ``text`` with what hides itself spelled out, and nothing that XML cannot hold."""
    return _NOT_XML.sub("\ufffd", visible(text, keep_newlines=True))


def _case(result: Result, g: GateResult) -> ET.Element:
    """Return the test case of one gate."""
    attributes = {"classname": clean(result.policy), "name": clean(gate_rows.gate_label(g))}
    if g.file:
        attributes["file"] = clean(g.file)
        if g.line is not None:
            attributes["line"] = str(g.line)
    case = ET.Element("testcase", attributes)
    if g.verdict == "PASS":
        return case
    if is_waived(g):
        ET.SubElement(case, "skipped", {"message": clean(f"waived: {g.waiver}")})
    elif objects(g):
        name = "failure" if g.verdict == "FAIL" else "error"
        node = ET.SubElement(case, name, {"message": clean(_message(g)), "type": g.verdict})
        node.text = clean(sentence(g.reason))
        return case
    ET.SubElement(case, "system-out").text = clean(
        f"{'waived' if is_waived(g) else f'not blocking ({g.severity})'}: {sentence(g.reason)}"
    )
    return case


def _message(g: GateResult) -> str:
    """Return one line: what was measured, the limit, the worst offender."""
    if g.only_reason:
        return f"{g.verdict}: {sentence(g.reason)}"
    n, unit = numbers.gate(g), unit_beside(g.unit)
    measured = f"{g.metric} {n.observed}" + (f" {unit}" if unit else "")
    worst = f"; worst: {g.worst}" if g.worst else ""
    return f"{g.verdict}: {measured}, limit {n.limit}{worst}"


def _anomalies(result: Result) -> list[ET.Element]:
    """Return an error for each anomaly of a run that nobody may trust."""
    cases = []
    for k, anomaly in enumerate(result.anomalies, 1):
        name = f"anomaly {k}: {anomaly.kind}"
        case = ET.Element("testcase", {"classname": clean(result.policy), "name": clean(name)})
        if result.verdict == "ANOMALOUS" and result.exit_code != 0:
            attributes = {"message": clean(anomaly.message), "type": "ANOMALOUS"}
            ET.SubElement(case, "error", attributes).text = clean(anomaly.message)
        else:
            ET.SubElement(case, "system-out").text = clean(anomaly.message)
        cases.append(case)
    return cases


def _verdict(result: Result) -> ET.Element:
    """Return a test case for a run that exits other than 0 although no gate objects."""
    case = ET.Element("testcase", {"classname": clean(result.policy), "name": "verdict"})
    name = "failure" if result.verdict == "FAIL" else "error"
    attributes = {"message": clean(result.headline), "type": result.verdict}
    why = EXIT_CODES.get(result.exit_code, "see the log")
    ET.SubElement(case, name, attributes).text = f"exit code {result.exit_code}: {why}"
    return case


def _objection(case: ET.Element) -> bool:
    return case.find("failure") is not None or case.find("error") is not None


def _timestamp(result: Result) -> dict[str, str]:
    """Return the suite's timestamp, where ``created`` is one (ISO 8601)."""
    try:
        when = datetime.fromisoformat(result.created)
    except ValueError:
        return {}
    return {"timestamp": when.replace(microsecond=0, tzinfo=None).isoformat()}


def _properties(result: Result) -> list[tuple[str, str]]:
    return [
        ("verdict", result.verdict),
        ("headline", result.headline),
        ("exit_code", str(result.exit_code)),
        ("reference", result.reference),
        ("candidate", result.candidate),
        ("suite", result.suite),
        ("policy", result.policy),
        ("created", result.created),
        ("evalharness_version", result.evalharness_version),
        ("schema_version", str(result.schema_version)),
        *((f"environment.{key}", value) for key, value in result.environment.items()),
        ("command", result.command),
    ]
