"""One diagnosis from what lies on disk: measured where something is missing, judged, and written."""

from collections.abc import Sequence
from dataclasses import dataclass, field
from pathlib import Path

from onmodel.core.errors import UserError
from onmodel.core.files import write_text
from onmodel.dataset.analysis import Analysis
from onmodel.diagnosis.diagnose import RESULT_FILE, Diagnosis, diagnose
from onmodel.diagnosis.next_trial import next_config
from onmodel.diagnosis.report import markdown
from onmodel.diagnosis.sources import Names, Sources, slots_of
from onmodel.diagnosis.training_run import read_config
from onmodel.diagnosis.training_set import MeasuredSet, measure_set
from onmodel.evaluation.observe import Looking
from onmodel.evaluation.record import Evaluation
from onmodel.evaluation.trial import Trial
from onmodel.training.config import to_toml

ANALYSIS_FILE = "analysis.json"
MEASURED_FILE = "training_set.json"


@dataclass(frozen=True)
class Request:
    """What is to be diagnosed, with what is known of it."""

    out: Path
    """For the diagnosis, and the configs of the next trials."""
    trial: Trial | None = None
    evaluations: Sequence[Evaluation] = ()
    analysis: Analysis | None = None
    references: Sequence[Path] = ()
    """Held-back pictures; without them the training set is not compared."""
    strangers: Sequence[Path] = ()
    """Pictures of others, such as what the base model drew for the same prompts."""
    trigger: str | None = None
    """The trigger word; None takes the evaluation's, or the captions'."""
    names: Names = field(default_factory=Names)
    notes: list[str] = field(default_factory=list[str])
    """Gets a sentence for each thing that could not be measured."""


def run_diagnosis(request: Request, services: Looking, measured_with: str) -> Diagnosis:
    """Measure, judge and write `diagnosis.json`, `.md`, the analysis and a config for each finding's next trial.

    Raises:
        UserError: nothing is known of the trial.
        ServiceError: a service is needed and fails.
    """
    trial, analysis = request.trial, request.analysis
    if not request.evaluations and analysis is None:
        path = trial.checkpoint.parent if trial is not None else "the dataset"
        raise UserError(
            f"{path}: was not evaluated and its dataset is not known, so nothing can be said; run "
            f"`onmodel evaluate {path}` first, or give --analysis"
        )
    out = request.out
    sources = Sources(trial, request.evaluations, analysis, _measure(request, services, measured_with), request.trigger)
    result = diagnose(
        sources.facts(),
        slots_of(sources, out, request.names),
        trial=trial.name if trial is not None else None,
        checkpoint=trial.checkpoint.name if trial is not None else None,
        dataset=str(trial.dataset) if trial is not None and trial.dataset else analysis.dataset if analysis else None,
    )
    if analysis is not None and request.names.analysis is None:
        write_text(out / ANALYSIS_FILE, analysis.model_dump_json(indent=1) + "\n")
    write_text(out / RESULT_FILE, result.model_dump_json(indent=1) + "\n")
    write_text((out / RESULT_FILE).with_suffix(".md"), markdown(result))
    config = read_config(trial.checkpoint.parent) if trial is not None else None
    if config is not None:
        for finding in result.findings:
            made = next_config(config, finding.changes, f"{config.training.output_name}_{finding.rule}")
            write_text(out / f"next_{finding.rule}.toml", to_toml(made))
    return result


def _measure(request: Request, services: Looking, measured_with: str) -> MeasuredSet | None:
    """Training pictures against references, where both are there."""
    if not request.references or request.trial is None:
        return None
    lacking = [
        what
        for what, files in (
            ("training pictures", request.trial.training_pictures),
            ("pictures of strangers", request.strangers),
        )
        if not files
    ]
    if lacking:
        request.notes.append(
            f"The training set is not compared with the references: there are no {lacking[0]}; "
            "evaluate the trial first, or give --impostors."
        )
        return None
    keep = request.out / MEASURED_FILE
    return measure_set(
        request.trial.training_pictures, request.references, request.strangers, services, keep, measured_with
    )
