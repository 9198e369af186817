"""Pictures of checkpoints, made and measured: for the comparison at the end, and for a search on the way."""

from collections.abc import Sequence
from contextlib import nullcontext
from dataclasses import dataclass, replace
from pathlib import Path

from filelock import FileLock

from onmodel.evaluation.evaluate import evaluate
from onmodel.evaluation.observe import Looking
from onmodel.evaluation.planned import missing
from onmodel.evaluation.record import Evaluation
from onmodel.evaluation.suite import TestSuite
from onmodel.evaluation.tasks import Options, draw, make_tasks
from onmodel.evaluation.trial import open_trial
from onmodel.serving.local import Services, open_services


@dataclass(frozen=True)
class Measured:
    """What came of a checkpoint."""

    evaluation: Evaluation
    folder: Path
    """Its pictures."""


@dataclass(frozen=True)
class Measuring:
    """How checkpoints are evaluated; goes to other processes, which reach the services by their address."""

    suite: TestSuite
    options: Options
    scale: float
    folder: Path
    """Holds a folder of pictures a checkpoint, and one for the base model, which all share."""
    trigger: str | None = None
    address: str | None = None
    """HOST:PORT of running services."""

    def at(self, services: Services) -> "Measuring":
        """The same for other processes, with the services started."""
        services.start("detection", "scoring")
        return replace(self, address=services.address)

    def evaluate(self, checkpoints: Sequence[Path], services: Looking | None = None) -> list[Measured]:
        """Draw what is missing and measure, in the order of `checkpoints` (LoRA files of trial folders).

        Args:
            services: None: those at `address`.

        Raises:
            UserError: no trigger word or no reference pictures known.
            ServiceError: a service does not answer.
        """
        trials = [open_trial(file, trigger=self.trigger) for file in checkpoints]
        tasks = make_tasks(trials, self.suite, self.options, scales=[self.scale], output_dir=self.folder)
        # The base model's pictures are the same for all: drawn by whoever comes first, and once.
        strangers = tasks[0].strangers if tasks else ()
        self.folder.mkdir(parents=True, exist_ok=True)
        with FileLock(self.folder / ".lock") if missing(strangers) else nullcontext():
            draw([replace(task, pictures=()) for task in tasks[:1]], self.suite, self.options)
        with open_services(self.address) if services is None else nullcontext(services) as opened:
            results = evaluate(tasks, self.suite, self.options, opened)
        return [Measured(result, task.folder) for result, task in zip(results, tasks, strict=True)]
