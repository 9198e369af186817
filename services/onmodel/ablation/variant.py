"""One variant, trained from first to last in the process that is given to it. Knows nothing of Ray."""

import importlib
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path

from onmodel.ablation.config import LOSSES
from onmodel.ablation.measuring import Measuring
from onmodel.ablation.record import Record, Rung, Status, read_record, write_record
from onmodel.core.errors import OnModelError, first_line
from onmodel.core.imports import collector_paused
from onmodel.evaluation.metrics import ALL
from onmodel.training.config import TrainConfig
from onmodel.training.job import EVERY_PICTURE, METRICS, VALIDATION, Samples, TakenOverError, read_metrics
from onmodel.training.resuming import checkpoints, epoch_of
from onmodel.training.run import train


@dataclass(frozen=True)
class Task:
    """A variant as its process gets it."""

    name: str
    config: TrainConfig
    record: Path
    """File of its `Record`."""
    key: str
    num_workers: int
    threads: int = 1
    samples: Samples | None = None
    """What the config's `sample_prompts` names."""
    metric: str | None = None
    """Of a search; None: it is trained to its end."""
    rungs: tuple[int, ...] = ()
    """Epochs after which the metric is taken."""
    measuring: Measuring | None = None
    """How pictures are made and looked at, for a metric that needs them."""

    @property
    def waiting(self) -> Record:
        """Its record before anything happened."""
        return Record(name=self.name, key=self.key, threads=self.threads)

    def read(self) -> Record:
        """Its record."""
        return read_record(self.record, self.waiting)


def run_variant(task: Task, *, pid: int, node: str, report: Callable[[Rung], None]) -> Record:
    """Train `task`, going on where an earlier process stood; what goes wrong with it is its outcome and not raised.

    Args:
        pid, node: where it runs, for whoever has to end it.
        report: gets each rung of a search; may not return, where the search ends the sample.
    """
    if task.num_workers == 1:
        # Torch and diffusers take seconds, in which nothing can be told from a process that hangs.
        with collector_paused():
            importlib.import_module("onmodel.training.worker")
    known = task.read()
    if known.status not in (Status.WAITING, Status.RUNNING):
        return known  # ended from outside while its process was on the way
    running = known.changed(status=Status.RUNNING, starts=known.starts + 1, pid=pid, node=node, threads=task.threads)
    write_record(task.record, running)
    try:
        ended = _train(task, running, report).changed(status=Status.FINISHED)
    except TakenOverError:
        # Its machine was cut off and given up for dead: the record is the other's.
        return task.read()
    except OnModelError as error:
        ended = task.read().changed(status=Status.FAILED, reason=str(error))
    except Exception as error:
        ended = task.read().changed(status=Status.FAILED, reason=f"{type(error).__name__}: {first_line(error)}")
    write_record(task.record, ended)
    return ended


def _train(task: Task, record: Record, report: Callable[[Rung], None]) -> Record:
    def tell(rung: Rung) -> None:
        # Not the last: a search would compare what is at its end anyway, and call half of it stopped.
        if rung.epoch < task.rungs[-1]:
            report(rung)

    for rung in record.rungs:
        tell(rung)

    def on_epoch(epoch: int) -> None:
        nonlocal record
        if epoch not in task.rungs or any(rung.epoch == epoch for rung in record.rungs):
            return
        rung = Rung(epoch=epoch, value=metric_after(task, epoch))
        record = record.changed(rungs=(*record.rungs, rung))
        write_record(task.record, record)
        tell(rung)

    for checkpoint in checkpoints(task.config.trial_dir, task.config.training.output_name):
        # Of a run that was killed between an epoch's end and its metric.
        on_epoch(epoch_of(checkpoint))
    if task.num_workers > 1:
        train(task.config, num_workers=task.num_workers, samples=task.samples)
        return record
    import torch

    # Ray pins OMP_NUM_THREADS to the CPUs of the process; the count decides the last bits, so it is the task's.
    torch.set_num_threads(task.threads)
    train(task.config, num_workers=0, samples=task.samples, on_epoch=on_epoch)
    return record


def metric_after(task: Task, epoch: int) -> float | None:
    """The search's metric of the checkpoint that `epoch` left; None where there is nothing to measure.

    Raises:
        OnModelError: pictures cannot be made or looked at.
    """
    folder = task.config.trial_dir
    if task.metric == LOSSES[0]:
        return validation_loss(folder, epoch)
    if task.metric == LOSSES[1]:
        return training_loss(folder, epoch)
    assert task.metric is not None
    assert task.measuring is not None
    files = checkpoints(folder, task.config.training.output_name)
    file = next(file for file in files if epoch_of(file) == epoch)
    scenario, _, figure = task.metric.partition(".")
    found = task.measuring.evaluate([file])[0].evaluation
    return (found.overall if scenario == ALL else found.scenarios[scenario])[figure].mean


def training_loss(folder: Path, epoch: int | None = None) -> float | None:
    """Mean loss over the steps of `epoch`, of the last one where it is None; None without steps."""
    steps = read_metrics(folder / METRICS)
    wanted = epoch if epoch is not None else (steps[-1]["epoch"] if steps else 0)
    losses = [float(step["loss"]) for step in steps if step["epoch"] == wanted]
    return sum(losses) / len(losses) if losses else None


def validation_loss(folder: Path, epoch: int | None = None) -> float | None:
    """Loss of the held-back pictures after `epoch`, or the last one taken; None where none are held back."""
    lines = [line for line in read_metrics(folder / VALIDATION) if epoch is None or line["epoch"] == epoch]
    return float(lines[-1]["losses"][EVERY_PICTURE]) if lines else None
