"""Workflow commands that make GitHub annotate the lines of the policy file.

https://docs.github.com/actions/reference/workflow-commands-for-github-actions: in a message
``%``, CR and LF are escaped, in a property ``:`` and ``,`` as well.
"""

from evalharness.report import gate_rows
from evalharness.report.gate_rows import objects
from evalharness.report.glossary import sentence
from evalharness.report.safe_text import visible
from evalharness.spec.result import GateResult, Result


def annotations(result: Result) -> list[str]:
    """Return a command for each gate that is not a PASS, each anomaly and each warning.

    What blocks is an error, the rest a warning (``notice`` for severity ``info``). A run that does
    not exit 0 always has an error.
    """
    lines = [_gate(row.gate) for row in gate_rows.gate_rows(result) if row.gate.verdict != "PASS"]
    untrusted = result.verdict == "ANOMALOUS" and result.exit_code != 0
    for anomaly in result.anomalies:
        level = "error" if untrusted else "warning"
        lines.append(command(level, anomaly.message, title=f"anomaly: {anomaly.kind}"))
    if result.exit_code != 0 and not any(line.startswith("::error") for line in lines):
        lines.insert(0, command("error", result.headline, title=f"evalharness {result.verdict}"))
    lines += [command("warning", w, title="evalharness") for w in gate_rows.other_warnings(result)]
    return lines


def command(
    level: str, message: str, *, title: str, file: str | None = None, line: int | None = None
) -> str:
    """Return one workflow command, escaped."""
    properties = {"file": file, "line": None if file is None or line is None else str(line)}
    properties["title"] = title
    named = ",".join(f"{key}={_property(v)}" for key, v in properties.items() if v is not None)
    return f"::{level} {named}::{_data(visible(message, keep_newlines=True))}"


def _gate(g: GateResult) -> str:
    level = "error" if objects(g) else "notice" if g.severity == "info" else "warning"
    title = f"{g.verdict}: {gate_rows.gate_label(g)}"
    return command(level, sentence(g.reason), title=title, file=g.file, line=g.line)


def _data(text: str) -> str:
    return text.replace("%", "%25").replace("\r", "%0D").replace("\n", "%0A")


def _property(text: str) -> str:
    return _data(visible(text)).replace(":", "%3A").replace(",", "%2C")
