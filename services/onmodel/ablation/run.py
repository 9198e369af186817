"""An ablation or a search from its file to its comparison; the same again goes on where it was."""

import contextlib
from collections.abc import Generator, Sequence
from dataclasses import dataclass, replace
from pathlib import Path

from filelock import FileLock, Timeout

from onmodel.ablation import ray_tune
from onmodel.ablation.config import SearchSection
from onmodel.ablation.measuring import Measuring
from onmodel.ablation.outcome import Outcome, outcome_of, write_outcome
from onmodel.ablation.record import Status, write_record
from onmodel.ablation.variant import Task
from onmodel.ablation.variants import Ablation, Variant, epochs_of
from onmodel.ablation.watch import Watch
from onmodel.core.errors import UserError
from onmodel.core.files import content_hash
from onmodel.core.progress import console
from onmodel.evaluation.samples import samples_of
from onmodel.serving.local import Services
from onmodel.training.config import TrainConfig
from onmodel.training.job import CONFIG
from onmodel.training.pictures import dataset_hash
from onmodel.training.ray_cluster import cluster
from onmodel.training.resuming import find_start
from onmodel.training.run import checked_pictures

RECORDS = "variants"
"""Folder of the records, inside the ablation's."""
_LEFTOVERS = ".tune"


@dataclass(frozen=True)
class Evaluating:
    """What the comparison at the end needs, beside the trained variants."""

    measuring: Measuring
    services: Services


def run_ablation(ablation: Ablation, evaluating: Evaluating | None = None) -> Outcome:
    """Train what is not trained yet, several variants at once, then evaluate and compare them all.

    A variant that fails is in the outcome with its reason, and is tried again when the same is run again.

    Args:
        evaluating: None compares losses alone.

    Raises:
        UserError, NotFoundError: a wrong dataset or base model, or a folder that is another trial's.
        ResourceError: a variant has more workers than the cluster can have.
        ServiceError: the services that pictures need do not start or answer.
    """
    if (ablation.folder / CONFIG).is_file():
        raise UserError(f"{ablation.folder}: is a trial's folder, and the ablation would use it; give another `name`")
    tasks = [_task(ablation, variant, _check(variant)) for variant in ablation.variants]
    with _alone(ablation.folder):
        todo = _todo(tasks)
        if todo:
            with cluster():
                _train(ablation, tasks, todo, evaluating)
        if evaluating is None:
            outcome = outcome_of(ablation, tasks)
        else:
            outcome = outcome_of(ablation, tasks, evaluating.measuring, evaluating.services)
        write_outcome(ablation, outcome)
    return outcome


@contextlib.contextmanager
def _alone(folder: Path) -> Generator[None]:
    """Hold the ablation's folder for the block. Raises UserError where another run does."""
    folder.mkdir(parents=True, exist_ok=True)
    try:
        with FileLock(folder / ".lock", timeout=0):
            yield
    except Timeout:
        raise UserError(f"{folder}: another run of this ablation is under way; wait for it, or stop it first") from None


def _check(variant: Variant) -> str:
    """Look for what would stop a variant, before anything is started; the key of its record. Raises UserError."""
    config = variant.config
    content = dataset_hash(checked_pictures(config))
    find_start(config, None, content, None)
    return content_hash(f"{config.identity} {content}".encode())


def _task(ablation: Ablation, variant: Variant, key: str) -> Task:
    search = ablation.settings.search
    config = variant.config
    if search is not None:
        # Every epoch may be a rung. None of these keys changes the weights.
        config = config.with_changes(
            training={"save_every_n_epochs": 1, "save_last_n_epochs": None, "validate_every_n_epochs": 1}
        )
    return Task(
        name=variant.name,
        config=config,
        record=(ablation.folder / RECORDS / f"{variant.name}.json").resolve(),
        key=key,
        num_workers=ablation.settings.ablation.num_workers,
        samples=samples_of(config),
        metric=search.metric if search else None,
        rungs=rungs(search, config) if search else (),
    )


def rungs(search: SearchSection, config: TrainConfig) -> tuple[int, ...]:
    """Epochs after which a sample is compared: `first_rung` times powers of `reduction`, and the last."""
    last = epochs_of(config)
    assert last is not None
    found: list[int] = []
    at = float(search.first_rung)
    while at < last:
        found.append(-int(-at // 1))
        at *= search.reduction
    return (*found, last) if not found or found[-1] < last else tuple(found)


def _todo(tasks: Sequence[Task]) -> list[Task]:
    """Those to run, their records made ready for it: what failed or was cut off is tried again."""
    found = [task for task in tasks if task.read().status not in (Status.FINISHED, Status.STOPPED)]
    for task in found:
        # What a search knows of it already is told to the scheduler again, and not measured again.
        write_record(task.record, task.waiting.changed(rungs=task.read().rungs))
    return found


def _plan(ablation: Ablation, tasks: Sequence[Task], todo: Sequence[Task], slots: ray_tune.Slots) -> str:
    what = "sample" if ablation.settings.search else "variant"
    done = len(tasks) - len(todo)
    before = f", {done} {'is' if done == 1 else 'are'} trained already" if done else ""
    threads = f"{slots.threads} thread{'s' if slots.threads > 1 else ''}"
    device = "a GPU a worker" if slots.gpu else f"{threads} each"
    return f"{len(todo)} {what}{'s' if len(todo) > 1 else ''} to train{before}; {slots.at_once} at once, {device}"


def _train(ablation: Ablation, tasks: Sequence[Task], todo: Sequence[Task], evaluating: Evaluating | None) -> None:
    """Train `todo` on the connected cluster; their records say what came of each."""
    options, search = ablation.settings.ablation, ablation.settings.search
    slots = ray_tune.share_out(
        # Of all, whatever is done already: the last bits of weights depend on the threads.
        len(tasks),
        num_workers=options.num_workers,
        max_concurrent=options.max_concurrent,
        threads=options.threads,
    )
    measuring = None
    if evaluating is not None and search is not None and search.needs_evaluation:
        measuring = evaluating.measuring.at(evaluating.services)
    ready = [replace(task, threads=slots.threads, measuring=measuring) for task in todo]
    _say(_plan(ablation, tasks, todo, slots))
    with Watch(
        ready, stalled_after_s=options.stalled_after_s, timeout_s=options.timeout_s, end=ray_tune.end_process
    ) as watch:
        ray_tune.run_tasks(
            ready,
            slots,
            done=[task.read() for task in tasks if task not in todo],
            storage=ablation.folder / _LEFTOVERS,
            max_failures=options.max_failures,
            search=search,
            poll=watch.poll,
        )


def _say(text: str) -> None:
    console.print(text, highlight=False, soft_wrap=True, markup=False)
