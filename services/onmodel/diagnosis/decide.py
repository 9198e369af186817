"""Which of a diagnosis's fixes a round applies, and why not the others."""

from collections.abc import Collection

from onmodel.dataset.analysis import Analysis
from onmodel.diagnosis.diagnose import Diagnosis, Finding
from onmodel.diagnosis.journal import Choice, Decision, Step
from onmodel.diagnosis.project import Project

_INSTEAD: dict[Step, str] = {
    "augment": "Without a film: what the set has is cropped, widened and shown more often.",
    "mix": "Without a film: what little there is is shown more often.",
}
"""What is done where new pictures are asked for and there is no film to take them from."""


def decide(
    number: int,
    diagnosis: Diagnosis,
    analysis: Analysis,
    project: Project,
    tried: Collection[str],
    *,
    dataset: str,
    trial: str | None,
) -> Decision:
    """Choose for every finding, the most promising first.

    Fixes of the dataset go together, since each adds other pictures; of those of the training parameters only the
    first is taken, since two would not be told apart.

    Args:
        tried: rules that an earlier round applied.
    """
    choices: list[Choice] = []
    parameters_taken = False
    for finding in diagnosis.findings:
        choice = _choose(finding, analysis, project, tried)
        if choice.step == "parameters":
            if parameters_taken:
                why = "one change of the parameters a round, so that it can be told what it did"
                choice = choice.model_copy(update={"action": "not possible", "step": None, "why": why})
            parameters_taken = True
        choices.append(choice)
    return Decision(
        number=number,
        dataset=dataset,
        trial=trial,
        conclusion=diagnosis.conclusion,
        choices=tuple(choices),
    )


def _choose(finding: Finding, analysis: Analysis, project: Project, tried: Collection[str]) -> Choice:
    base = Choice(
        rule=finding.rule,
        cause=finding.cause,
        expected_gain=finding.expected_gain,
        action="not possible",
        why="",
        evidence=tuple(each.text for each in finding.evidence),
        changes=finding.changes,
    )
    if finding.rule in tried:
        return base.model_copy(update={"action": "tried before", "why": "an earlier round applied it"})
    if finding.kind == "curate":
        why = f"a person must look: {' ; '.join(finding.commands[:2])}"
        return base.model_copy(update={"why": why})
    ways = _ways(finding, analysis, project)
    if not ways:
        return base.model_copy(update={"why": _lacking(finding, project)})
    allowed: list[Step] = [way for way in ways if way in project.allowed]
    if not allowed:
        why = f"`allowed` of the project names none of {', '.join(ways)}"
        return base.model_copy(update={"action": "not allowed", "why": why})
    why = _INSTEAD.get(allowed[0], "") if finding.kind == "extract" else ""
    return base.model_copy(update={"action": "applied", "step": allowed[0], "why": why or finding.fix})


def _ways(finding: Finding, analysis: Analysis, project: Project) -> list[Step]:
    """Steps that can mend a finding with what the project has, the best first."""
    if finding.kind in ("captions", "parameters"):
        return [finding.kind]
    ways: list[Step] = ["extract"] if project.film is not None and finding.wants else []
    if finding.material is None or getattr(project.materials, finding.material):
        ways.append("augment")
    if any(analysis.categories[name].count for name in finding.wants):
        # What there is a little of can be shown more often.
        ways.append("mix")
    return ways


def _lacking(finding: Finding, project: Project) -> str:
    return f"the project has no film and no {finding.material or 'pictures'} to make it from"
