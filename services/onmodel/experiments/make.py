"""Trains and draws the experiment's trials: needs the sets alone, no service and no Ray; several processes at once.

A trial counts when its record `made.json` lies in its folder, which is written last. One that was stopped goes on
where it was: training from its last state, drawing with the pictures that are missing.
"""

import json
import os
import shutil
import time
from collections.abc import Callable, Iterator, Sequence
from concurrent.futures import FIRST_COMPLETED, Future, ProcessPoolExecutor, wait
from concurrent.futures.process import BrokenProcessPool
from dataclasses import dataclass
from multiprocessing import get_context
from pathlib import Path
from typing import TYPE_CHECKING

from onmodel import __version__
from onmodel.core.config import Config, load_whole
from onmodel.core.errors import InternalError, OnModelError, ResourceError, UserError
from onmodel.core.files import folder_aside, write_text
from onmodel.core.progress import bar, console
from onmodel.core.vocabulary import CATEGORIES
from onmodel.experiments.copies import categories_in
from onmodel.experiments.plan import Layout, Settings, TrialPlan, config_of, prompts_in, suite_for, trials_of
from onmodel.experiments.rate import RATES, tried, try_rate

if TYPE_CHECKING:
    from onmodel.evaluation.planned import DrawingModel
    from onmodel.evaluation.tasks import Pipelines

RECORD = "made.json"
LOSSES = 50
"""Last steps whose mean loss is kept."""


class Made(Config):
    """What was made of a trial, and with what; the content of `made.json`."""

    trial: str
    checkpoint: str
    """File name of the LoRA."""
    checkpoint_hash: str
    base_hash: str
    loss: float
    """Mean of the last steps."""
    steps: int
    training_s: float
    drawing_s: float
    device: str
    versions: dict[str, str]


@dataclass(frozen=True, slots=True)
class Job:
    """One trial; or the pictures of the base model for a character; or a trial of a learning rate."""

    settings: Settings
    work: Path
    character: str
    trial: TrialPlan | None = None
    rate: float | None = None

    @property
    def name(self) -> str:
        """For a person."""
        if self.rate is not None:
            return f"learning rate {self.rate:g}"
        return f"base model for {self.character}" if self.trial is None else self.trial.name

    @property
    def made(self) -> bool:
        """Whether it lies there whole."""
        layout = Layout(self.work)
        if self.rate is not None:
            return tried(layout, self.rate) is not None
        if self.trial is None:
            return (layout.pictures(self.character) / RECORD).is_file()
        return read_made(layout, self.trial) is not None


def read_made(layout: Layout, trial: TrialPlan) -> Made | None:
    """The record of a trial that is whole; None of any other."""
    return load_whole(Made, layout.trial(trial) / RECORD)


def model_of(layout: Layout, trial: TrialPlan, made: Made) -> "DrawingModel":
    """What drew a trial's pictures; its checkpoint need not be there, its hash is known."""
    from onmodel.evaluation.planned import DrawingModel

    return DrawingModel("toybox", made.base_hash, layout.trial(trial) / made.checkpoint, made.checkpoint_hash)


def jobs_of(settings: Settings, layout: Layout) -> list[Job]:
    """All that is to be made, in order: a character's base pictures before its first trial."""
    jobs: list[Job] = []
    seen: set[str] = set()
    for trial in trials_of(settings):
        character = trial.unit.character
        # Strangers of the product's figures, which curves do without.
        if character not in seen and not settings.dose:
            seen.add(character)
            jobs.append(Job(settings, layout.work, character))
        jobs.append(Job(settings, layout.work, character, trial))
    return jobs


def rate_jobs(settings: Settings, layout: Layout) -> list[Job]:
    """One for each learning rate that is tried."""
    return [Job(settings, layout.work, "", rate=rate) for rate in RATES]


Run = Callable[[list[Job], Callable[[], bool]], Iterator[tuple[Job, float | OnModelError]]]
"""Does jobs, asking before each whether to go on; yields each with its seconds, or what went wrong."""


def make(layout: Layout, jobs: Sequence[Job], run: Run, seconds: float | None = None) -> int:
    """Do all of `jobs` that are not done; returns how many are left.

    Args:
        run: does them, here in processes or on a cluster.
        seconds: begin no job that would, if it took as long as the longest so far, end after so many seconds.

    Raises:
        UserError: a set is missing.
        OnModelError: what the first job that failed was stopped by; the others are done all the same.
    """
    started = time.monotonic()
    left = [job for job in jobs if not job.made]
    for job in left:
        folder = layout.sets(job.trial.unit) / job.trial.dataset if job.trial is not None else layout.work / "sets"
        if not folder.is_dir():
            raise UserError(f"{folder}: is missing; run the step prepare first, or unpack its sets")
    longest, failed = 0.0, list[OnModelError]()

    def go_on() -> bool:
        return seconds is None or time.monotonic() - started + longest < seconds

    with bar("trials", len(left)) as shown:
        for job, came in run(left, go_on):
            if isinstance(came, OnModelError):
                failed.append(came)
                console.print(f"{job.name}: {came}", style="red", highlight=False, markup=False)
                continue
            longest = max(longest, came)
            shown.advance(1)
            console.print(f"{job.name}: {came:.0f} s", highlight=False, markup=False)
    if failed:
        raise failed[0]
    return sum(not job.made for job in left)


def in_processes(count: int) -> Run:
    """Jobs in `count` processes of this machine, each of which keeps what it has loaded."""

    def run(jobs: list[Job], go_on: Callable[[], bool]) -> Iterator[tuple[Job, float | OnModelError]]:
        if not jobs:
            return
        # Read by the processes when they load their libraries: kernels are small, and there is one process a core.
        os.environ.setdefault("OMP_NUM_THREADS", "1")
        # Nothing is looked for on a hub; without a network that would take its time.
        os.environ.setdefault("HF_HUB_OFFLINE", "1")
        rest = list(jobs)
        pending: dict[Future[float], Job] = {}
        with ProcessPoolExecutor(min(count, len(jobs)), mp_context=get_context("spawn"), initializer=_quiet) as pool:
            while rest or pending:
                while rest and len(pending) < count and go_on():
                    job = rest.pop(0)
                    pending[pool.submit(do, job)] = job
                if not pending:
                    return
                done, _ = wait(pending, return_when=FIRST_COMPLETED)
                for future in done:
                    job = pending.pop(future)
                    try:
                        yield job, future.result()
                    except BrokenProcessPool:
                        reason = "a process died, maybe for lack of memory; run again with fewer --processes"
                        raise ResourceError(f"{job.name}: {reason}") from None
                    except OnModelError as error:
                        yield job, error

    return run


def _quiet() -> None:
    """In a process of the pool: no bars of its own, one thread."""
    import torch

    console.quiet = True
    torch.set_num_threads(1)


_kept: "list[Pipelines]" = []
"""In a process: its base pipeline for drawing, from one job to the next."""


def do(job: Job) -> float:
    """Do one job in this process; the seconds that it took. Raises OnModelError."""
    try:
        return _do(job)
    except (OnModelError, KeyboardInterrupt):
        raise
    except Exception as error:
        # A fault in one trial is told with the others' results, and does not cost them.
        raise InternalError(f"{job.name}: {type(error).__name__}: {error}") from error


def _do(job: Job) -> float:
    started = time.monotonic()
    layout = Layout(job.work)
    if job.rate is not None:
        try_rate(job.settings, layout, job.rate)
    elif job.trial is None:
        draw_base(job.settings, layout, job.character)
    else:
        make_trial(job.settings, layout, job.trial)
    return time.monotonic() - started


def make_trial(settings: Settings, layout: Layout, trial: TrialPlan) -> Made:
    """Train and draw one trial; what is there already is not made again. Raises as `train`."""
    import torch

    begun = time.monotonic()
    if not layout.trial(trial).is_dir():
        _train(settings, layout, trial)
    trained = time.monotonic()
    (checkpoint,) = layout.trial(trial).glob("*.safetensors")
    model = _draw(settings, layout, trial.unit.character, checkpoint, trial.scenarios)
    losses: list[float] = json.loads((layout.trial(trial) / "losses.json").read_text(encoding="utf-8"))
    cuda = torch.cuda.is_available()
    made = Made(
        trial=trial.name,
        checkpoint=checkpoint.name,
        checkpoint_hash=model.lora_hash or "",
        base_hash=model.base_hash,
        loss=round(sum(losses[-LOSSES:]) / len(losses[-LOSSES:]), 5),
        steps=len(losses),
        training_s=round(trained - begun, 1),
        drawing_s=round(time.monotonic() - trained, 1),
        device=torch.cuda.get_device_name() if cuda else "cpu",
        versions={"onmodel": __version__, "torch": torch.__version__},
    )
    write_text(layout.trial(trial) / RECORD, made.model_dump_json(indent=1) + "\n")
    return made


def _train(settings: Settings, layout: Layout, trial: TrialPlan) -> None:
    """Train in a folder of its own, and keep config, losses and the last checkpoint in half precision."""
    from onmodel.experiments.half import halve
    from onmodel.training.config import to_toml
    from onmodel.training.run import train

    categories = categories_in(layout.sets(trial.unit) / trial.dataset).values()
    config = config_of(settings, trial, layout, categories)
    result = train(config, num_workers=0)
    with folder_aside(layout.trial(trial)) as aside:
        last = result.checkpoints[-1]
        halve(last, aside / last.name)
        write_text(aside / "losses.json", json.dumps([round(loss, 5) for loss in result.losses]))
        write_text(aside / "config.toml", to_toml(config.with_changes(training={"output_dir": "trials"})))
    shutil.rmtree(layout.scratch(trial), ignore_errors=True)


def _draw(
    settings: Settings,
    layout: Layout,
    character: str,
    checkpoint: Path | None,
    scenarios: Sequence[str] = CATEGORIES,
) -> "DrawingModel":
    """Draw what is missing of a checkpoint's pictures, or of the base model's; returns what drew them."""
    from onmodel.evaluation import generate, planned
    from onmodel.evaluation.tasks import Pipelines

    suite = suite_for(settings, character)
    model = planned.drawing_model("toybox", checkpoint)
    prompts = prompts_in(suite, scenarios)
    missing = planned.missing(planned.plan(suite, prompts, model, layout.pictures(character)))
    if missing:
        if not _kept:
            _kept.append(Pipelines("auto"))
        kept = _kept[0]
        generate.generate(missing, suite, model, kept.get(model), encoded=kept.encoded(suite))
    return model


def draw_base(settings: Settings, layout: Layout, character: str) -> None:
    """What the base model draws for a character's prompts, without its trigger: the strangers of its evaluations."""
    model = _draw(settings, layout, character, None)
    write_text(layout.pictures(character) / RECORD, json.dumps({"base_hash": model.base_hash}) + "\n")
