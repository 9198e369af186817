"""Where a trial's facts lie on disk, and what commands name."""

import shlex
from collections import Counter
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path

from onmodel.core.config import Config
from onmodel.dataset.ages import age_words
from onmodel.dataset.analysis import Analysis
from onmodel.dataset.audit import expect
from onmodel.dataset.mend import Expected, own_part
from onmodel.diagnosis.facts import Fact, age_groups, analysis_facts, judged, order, trial_facts
from onmodel.diagnosis.training_run import training_facts
from onmodel.diagnosis.training_set import MeasuredSet, set_facts
from onmodel.evaluation.record import Evaluation, evaluations_in
from onmodel.evaluation.suite import PACKAGED
from onmodel.evaluation.trial import CONFIG_FILE, Trial

FOLDER = "diagnosis"
"""In the trial folder: what a diagnosis writes."""


def read_evaluations(trial: Trial, folder: Path | None = None) -> tuple[Evaluation, ...]:
    """What was evaluated of a trial up to its checkpoint, all with one suite: the one that most was asked with.

    Args:
        folder: holds one folder a checkpoint; None is the trial's own.
    """
    groups: dict[tuple[object, ...], list[Evaluation]] = {}
    for found in evaluations_in(folder or trial.evaluation_folder):
        if found.trial == trial.name and order(found) <= (trial.step or 0, trial.checkpoint.name):
            groups.setdefault((found.suite, found.seeds, found.steps, found.prompts), []).append(found)
    return tuple(max(groups.values(), key=len, default=[]))


@dataclass(frozen=True)
class Sources:
    """What is known of a trial, of a dataset, or of both."""

    trial: Trial | None = None
    evaluations: Sequence[Evaluation] = ()
    analysis: Analysis | None = None
    measured: MeasuredSet | None = None
    word: str | None = None
    """The trigger word, where the user gave it."""

    def facts(self) -> dict[str, Fact]:
        """Everything that rules may look at."""
        facts: dict[str, Fact] = {}
        if self.analysis is not None:
            facts |= analysis_facts(self.analysis, self.trigger)
        facts |= trial_facts(self.evaluations)
        if self.trial is not None:
            facts |= training_facts(self.trial.checkpoint.parent)
        if self.measured is not None:
            rows = self.analysis.rows if self.analysis is not None else ()
            minority = {Path(file).name: other for file, other in age_groups(rows).items()}
            facts |= set_facts(self.measured, minority, judged(self.evaluations) if self.evaluations else None)
        return facts

    @property
    def trigger(self) -> str | None:
        """The given trigger word, else the one of the evaluation, of most captions, or of the trial's metadata.

        Metadata comes last: there trainers put what a folder is called, which need not be the word.
        """
        named = self.word or next((e.trigger for e in self.evaluations if e.trigger), None)
        if named is None and self.analysis is not None:
            named = expect([row.caption for row in self.analysis.rows], Expected()).trigger
        return named or (self.trial.trigger if self.trial is not None else None)


class Names(Config):
    """What the user has that commands need; None is written as a word in capitals to be replaced."""

    references: Path | None = None
    film: Path | None = None
    analysis: Path | None = None
    detector: tuple[str, ...] = ()
    """Options that name the detector, as the user gave them."""
    scorer: tuple[str, ...] = ()


def slots_of(sources: Sources, out: Path, names: Names) -> Mapping[str, str]:
    """What commands and changes name, quoted for a shell.

    `next` and `derived` hold RULE where a rule's name belongs.
    """
    trial, analysis = sources.trial, sources.analysis
    dataset = trial.dataset if trial is not None and trial.dataset is not None else None
    if dataset is None and analysis is not None:
        dataset = Path(analysis.dataset)
    last = judged(sources.evaluations) if sources.evaluations else None
    values: dict[str, str | Path | None] = {
        "trial": trial.checkpoint.parent if trial is not None else None,
        "checkpoint": trial.checkpoint if trial is not None else None,
        "config": trial.checkpoint.parent / CONFIG_FILE if trial is not None else None,
        "dataset": dataset,
        "analysis": names.analysis or out / "analysis.json",
        "suite": _suite(last),
        "references": names.references,
        "film": names.film,
        "trigger": sources.trigger,
        "age": usual_age(analysis) if analysis is not None else None,
        "derived": f"{dataset}_RULE" if dataset is not None else None,
        "next": out / "next_RULE.toml",
    }
    quoted = {name: name.upper() if value is None else shlex.quote(str(value)) for name, value in values.items()}
    detector = shlex.join(names.detector)
    return quoted | {"detector": detector, "looking": shlex.join([*names.detector, *names.scorer])}


def _suite(evaluation: Evaluation | None) -> str | None:
    """The packaged suite's name; a file's place is not known."""
    if evaluation is None:
        return "character"
    return evaluation.suite if (PACKAGED / f"{evaluation.suite}.json").is_file() else None


def usual_age(analysis: Analysis) -> str | None:
    """The phrase that most captions say the usual age with, as in "teenage boy"; None where none says one."""
    minority = age_groups(analysis.rows)
    said = Counter(
        word.text
        for row in analysis.rows
        if minority.get(row.file) is False
        for word in age_words(own_part(row.caption))
    )
    return max(said, key=lambda text: (said[text], text), default=None)
