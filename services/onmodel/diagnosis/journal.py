"""What a project did, round by round: decided before it is done, and written down after it is."""

from pathlib import Path
from typing import Literal, TypeVar

from onmodel.core.config import Config, load
from onmodel.core.errors import UserError
from onmodel.core.files import write_text
from onmodel.diagnosis.diagnose import Diagnosis
from onmodel.diagnosis.project import Project
from onmodel.diagnosis.rules import Change
from onmodel.evaluation.metrics import Figure, TargetResult

Action = Literal["applied", "not allowed", "not possible", "tried before"]
Step = Literal["captions", "extract", "augment", "mix", "parameters"]
STEPS: tuple[Step, ...] = ("captions", "extract", "augment", "mix", "parameters")
"""In the order in which they are applied."""
PROJECT_FILE = "project.json"
DECISION_FILE = "decision.json"
RESULT_FILE = "result.json"
T = TypeVar("T", bound=Config)


class Choice(Config):
    """What was decided about one finding."""

    rule: str
    cause: str
    expected_gain: float
    action: Action
    step: Step | None = None
    """How it is mended; None where it is not."""
    why: str
    evidence: tuple[str, ...]
    changes: tuple[Change, ...] = ()
    """Of the training config."""


class Decision(Config):
    """What a round does, and why."""

    number: int
    dataset: str
    """That it starts from."""
    trial: str | None
    """The best so far, whose config it starts from; None in the first round."""
    conclusion: str
    """Of the diagnosis."""
    choices: tuple[Choice, ...]

    @property
    def steps(self) -> tuple[Step, ...]:
        """Those to be taken, in their order."""
        wanted = {choice.step for choice in self.choices if choice.action == "applied"}
        return tuple(step for step in STEPS if step in wanted)

    @property
    def changes(self) -> tuple[Change, ...]:
        """Of the training config, the dataset's place left out: that is where the steps put it."""
        return tuple(
            change
            for choice in self.choices
            if choice.action == "applied"
            for change in choice.changes
            if change.key != "data.train_data_dir"
        )


class Result(Config):
    """What came of a round."""

    number: int
    dataset: str
    """That it was trained on."""
    pictures: int
    shares: dict[str, float]
    """Per cent of what training saw, by category."""
    made: tuple[str, ...]
    """A sentence for each step that was taken."""
    trial: str
    """The trial's folder."""
    config: str
    checkpoint: str
    checkpoint_hash: str
    evaluation: str
    """Folder with its figures and pictures."""
    headline: Figure
    """Share of pictures on model over all scenarios."""
    targets: tuple[TargetResult, ...]
    recommended: str
    """A sentence: which checkpoint and strength to use of those that were evaluated, and why."""
    verdict: str
    """Against the best before: better, worse, not decided; first in round 1."""
    best: int
    """Number of the round that is the best after this one."""
    sentence: str


class Journal:
    """The rounds of a project on disk. What is decided stays decided: a stopped run goes on with it."""

    def __init__(self, folder: Path) -> None:
        self.folder = folder

    def claim(self, project: Project) -> None:
        """Mark the folder as this project's. Raises UserError where it is another's, or holds something else."""
        # Going on for more rounds, or elsewhere, changes nothing of what was done.
        fixed = project.model_copy(update={"rounds": 1, "num_workers": 1, "device": "auto"})
        marker = self.folder / PROJECT_FILE
        if marker.is_file():
            if load(Project, marker) != fixed:
                raise UserError(
                    f"{self.folder}: holds a project with other settings; give the project file another output_dir, "
                    "or remove the folder"
                )
            return
        if self.folder.exists() and (not self.folder.is_dir() or any(self.folder.iterdir())):
            raise UserError(f"{self.folder}: exists and is not a project's folder; choose another output_dir")
        write_text(marker, fixed.model_dump_json(indent=1, by_alias=True) + "\n")

    def round(self, number: int) -> Path:
        """Folder of a round."""
        return self.folder / "rounds" / str(number)

    def decision(self, number: int) -> Decision | None:
        """What was decided for a round, if it was."""
        return self._read(Decision, self.round(number) / DECISION_FILE)

    def result(self, number: int) -> Result | None:
        """What came of a round, if it is finished."""
        return self._read(Result, self.round(number) / RESULT_FILE)

    def results(self) -> list[Result]:
        """Of the finished rounds, in their order."""
        found: list[Result] = []
        while (result := self.result(len(found) + 1)) is not None:
            found.append(result)
        return found

    def write(self, item: Decision | Result) -> None:
        """Write down a decision or a result."""
        name = DECISION_FILE if isinstance(item, Decision) else RESULT_FILE
        write_text(self.round(item.number) / name, item.model_dump_json(indent=1) + "\n")

    def diagnosis(self, number: int) -> Diagnosis | None:
        """The diagnosis that a round's decision rests on."""
        return self._read(Diagnosis, self.round(number) / "diagnosis" / "diagnosis.json")

    @staticmethod
    def _read(model: type[T], path: Path) -> T | None:
        return load(model, path) if path.is_file() else None
