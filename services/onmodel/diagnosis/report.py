"""A diagnosis to read: lines for a terminal, and Markdown."""

from typing import TYPE_CHECKING

from onmodel.core.markdown import plain
from onmodel.dataset.recommended import LABELS
from onmodel.diagnosis.diagnose import Diagnosis, Finding

if TYPE_CHECKING:
    from rich.table import Table


def subject(diagnosis: Diagnosis) -> str:
    """What was diagnosed."""
    if diagnosis.trial is None:
        return diagnosis.dataset or "nothing"
    return f"{diagnosis.trial}, {diagnosis.checkpoint}"


def _scenarios(finding: Finding) -> str:
    if len(finding.scenarios) >= 5:
        return f"{len(finding.scenarios)} scenarios"
    return ", ".join(LABELS[name] for name in finding.scenarios)


def _points(gain: float) -> str:
    return f"{100 * gain:.1f}"


def table(diagnosis: Diagnosis) -> "Table":
    """The findings by rank; without a row where there is none."""
    from rich.table import Table

    shown = Table(title=f"Causes found: {subject(diagnosis)}", title_justify="left", show_lines=True)
    for heading in ("", "cause", "evidence", "explains", "gain"):
        shown.add_column(heading, overflow="fold", justify="right" if heading == "gain" else "left")
    for number, finding in enumerate(diagnosis.findings, 1):
        evidence = "\n".join(each.text for each in finding.evidence)
        shown.add_row(
            str(number), finding.cause, evidence, _scenarios(finding), f"≤ {_points(finding.expected_gain)} points"
        )
    return shown


def markdown(diagnosis: Diagnosis) -> str:
    """The whole diagnosis: findings with evidence and commands, what could not be judged, what was looked for."""
    lines = [f"# Diagnosis of {plain(subject(diagnosis))}", "", plain(diagnosis.conclusion), ""]
    for number, finding in enumerate(diagnosis.findings, 1):
        lines += [
            f"## {number}. {plain(finding.cause)}",
            "",
            f"Explains {_scenarios(finding)}; mending it should add at most {_points(finding.expected_gain)} points to "
            f"the average over all scenarios. Strength of the evidence {100 * finding.strength:.0f} %.",
            "",
            *(f"- {plain(e.text)} (threshold {e.threshold:g}: {plain(e.why)})" for e in finding.evidence),
            "",
            plain(finding.fix),
            "",
            "```bash",
            *finding.commands,
            "```",
            "",
        ]
    if diagnosis.unjudged:
        lines += ["## Not judged", "", "| cause | not measured | what measures it |", "| --- | --- | --- |"]
        lines += [
            f"| {plain(u.cause)} | {plain(', '.join(u.missing))} | `{u.command.replace('|', chr(92) + '|')}` |"
            for u in diagnosis.unjudged
        ]
        lines.append("")
    if diagnosis.cleared:
        lines += ["## Looked for and not found", "", "| cause | why not |", "| --- | --- |"]
        lines += [f"| {plain(c.cause)} | {plain(c.reason)} |" for c in diagnosis.cleared]
        lines.append("")
    return "\n".join(lines)
