"""The thin Ray Tune adapter: each variant is a trial of a Tune function. All else is in `variant` and `watch`.

Where a variant has one worker, the function itself is that worker; with several it launches a Ray Train run (see
`training.ray_train`). A Train run brings a controller, a worker, a coordinator, a cleaner and a synchronisation actor,
each a process that imports for seconds: on two busy cores, two variants of six steps took 284 s that way and 137 s with
the function as the worker, to the same losses.

Nothing is resumed by Tune: a restart finds the trials' own states and records, and runs what is missing. What a trial
finds wrong is its outcome; only where its process is gone does Tune start it again.
"""

import logging
import os
import shutil
import signal
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from types import SimpleNamespace
from typing import Any
from uuid import uuid4

import ray
from ray import tune
from ray.tune.progress_reporter import TrialProgressCallback
from ray.tune.schedulers import AsyncHyperBandScheduler, FIFOScheduler, TrialScheduler
from ray.util.scheduling_strategies import NodeAffinitySchedulingStrategy

from onmodel.ablation.config import SearchSection
from onmodel.ablation.record import Record, Rung, Status, write_record
from onmodel.ablation.variant import Task, run_variant
from onmodel.core.beside import beside
from onmodel.core.errors import UserError
from onmodel.training.ray_cluster import check_resources

_SETTINGS = {
    # Relative paths of a training config mean the folder that the command was given in.
    "RAY_CHDIR_TO_TRIAL_DIR": "0",
    "TUNE_DISABLE_AUTO_CALLBACK_LOGGERS": "1",
    # The older output says nothing when it is told to.
    "RAY_AIR_NEW_OUTPUT": "0",
}


@dataclass(frozen=True)
class Slots:
    """How variants share the cluster."""

    at_once: int
    gpu: bool
    """Each worker has one."""
    threads: int
    """Processor threads of each variant, however many of them run at a time."""


def share_out(variants: int, *, num_workers: int, max_concurrent: int | None, threads: int | None) -> Slots:
    """What the connected cluster has for so many variants.

    Raises:
        ResourceError: not even one of them can have its workers.
    """
    gpu = check_resources(num_workers)
    resources = ray.cluster_resources()
    cpus = int(resources.get("CPU", 1))
    fit = (int(resources["GPU"]) if gpu else cpus) // num_workers
    at_once = max(1, min(fit, variants, max_concurrent or variants))
    return Slots(at_once, gpu, threads or max(1, cpus // (at_once * num_workers)))


def run_tasks(
    tasks: Sequence[Task],
    slots: Slots,
    *,
    done: Sequence[Record],
    storage: Path,
    max_failures: int,
    search: SearchSection | None,
    poll: Callable[[], None],
) -> None:
    """Train all `tasks`, `slots.at_once` at a time; their records say what came of each.

    Args:
        done: what is known of those that were trained before; a search judges the others by them too.
        storage: folder for Tune's own files, removed at the end.
        max_failures: how often the process of one may die before that is its outcome.
        search: decides who goes on; None: everyone.
        poll: called some times a second in this thread; an interrupt ends the run there.
    """
    for name, value in _SETTINGS.items():
        os.environ[name] = value
    for name in ("ray.tune", "ray.train"):
        logging.getLogger(name).setLevel(logging.CRITICAL)
    several = tasks[0].num_workers > 1
    # Train's own workers ask for their CPUs, which Tune does not count; a trial has to ask for something.
    each: dict[str, float] = {"CPU": 0, "memory": 1} if several else {"CPU": 1, "GPU": int(slots.gpu)}
    known = {task.name: task for task in tasks}
    function: Any = tune.with_parameters(_trial, tasks=known, folder=str(Path.cwd()))
    tuner = tune.Tuner(
        tune.with_resources(function, each),
        param_space={"variant": tune.grid_search(list(known))},
        tune_config=tune.TuneConfig(
            max_concurrent_trials=slots.at_once, scheduler=_scheduler(tasks, done, search), reuse_actors=False
        ),
        run_config=tune.RunConfig(
            name=uuid4().hex,
            storage_path=str(storage.resolve()),
            failure_config=tune.FailureConfig(max_failures=max_failures),
            callbacks=[_Outcomes(known)],
            verbose=0,
        ),
    )
    try:
        # In the main thread Tune would take Ctrl-C for itself and finish at leisure.
        beside("ray-tune-fit", tuner.fit, poll)
    finally:
        shutil.rmtree(storage, ignore_errors=True)


def _trial(settings: Mapping[str, Any], tasks: Mapping[str, Task], folder: str) -> None:
    """Runs in the process of each trial."""
    task = tasks[settings["variant"]]
    context = ray.get_runtime_context()
    try:
        os.chdir(folder)
    except OSError as error:
        reason = f"{folder} cannot be entered on its machine ({error.strerror}); run where all machines see the folder"
        write_record(task.record, task.read().changed(status=Status.FAILED, reason=reason))
        return

    def report(rung: Rung) -> None:
        tune.report(_result(rung))

    run_variant(task, pid=os.getpid(), node=context.get_node_id(), report=report)


def _result(rung: Rung) -> dict[str, float]:
    """A rung for Tune, whose schedulers leave what is not a number out of their cutoffs."""
    return {"epoch": rung.epoch, "metric": float("nan") if rung.value is None else rung.value}


def _scheduler(tasks: Sequence[Task], done: Sequence[Record], search: SearchSection | None) -> TrialScheduler:
    """FIFO for an ablation: who is ended early cannot be compared."""
    if search is None or search.scheduler == "fifo":
        return FIFOScheduler()
    scheduler: Any = AsyncHyperBandScheduler(
        time_attr="epoch",
        metric="metric",
        mode="max" if search.higher_is_better else "min",
        max_t=tasks[0].rungs[-1],
        grace_period=search.first_rung,
        reduction_factor=search.reduction,
        stop_last_trials=False,
    )
    for record in done:
        past = SimpleNamespace(trial_id=record.name)
        scheduler.on_trial_add(None, past)
        for rung in record.rungs:
            if rung.epoch < tasks[0].rungs[-1]:
                scheduler.on_trial_result(None, past, _result(rung))
    return scheduler


class _Outcomes(TrialProgressCallback):
    """Writes down what a trial's own process cannot: that it was ended, or died for good.

    Tune adds a callback that prints results, however quiet it was told to be, unless it finds one of that kind.
    """

    def __init__(self, tasks: Mapping[str, Task]) -> None:
        super().__init__()
        self._tasks = tasks

    def on_trial_result(self, *args: Any, **info: Any) -> None:
        return

    def on_trial_complete(self, iteration: int, trials: list[Any], trial: Any, **info: Any) -> None:
        record = self._task(trial).read()
        if record.status is Status.RUNNING:
            last = record.rungs[-1] if record.rungs else None
            reason = f"after epoch {last.epoch} others were better" if last else "the search ended it"
            write_record(self._task(trial).record, record.changed(status=Status.STOPPED, reason=reason))

    def on_trial_recover(self, iteration: int, trials: list[Any], trial: Any, **info: Any) -> None:
        record = self._task(trial).read()
        if record.status is Status.RUNNING:
            # Until its next process is there nobody can be expected to do anything.
            write_record(self._task(trial).record, record.changed(status=Status.WAITING))

    def on_trial_error(self, iteration: int, trials: list[Any], trial: Any, **info: Any) -> None:
        record = self._task(trial).read()
        if record.status in (Status.RUNNING, Status.WAITING):
            times = "once" if record.starts <= 1 else f"{record.starts} times"
            reason = f"its process died {times} (killed, or out of memory); give the same command to go on"
            write_record(self._task(trial).record, record.changed(status=Status.FAILED, reason=reason))

    def _task(self, trial: Any) -> Task:
        return self._tasks[trial.config["variant"]]


def end_process(record: Record) -> None:
    """Kill a variant's process, on whatever machine it is, and however it hangs."""
    assert record.pid is not None
    assert record.node is not None
    if record.node == ray.get_runtime_context().get_node_id():
        _kill(record.pid)
        return
    place = NodeAffinitySchedulingStrategy(record.node, soft=False)
    ray.remote(_kill).options(num_cpus=0, scheduling_strategy=place).remote(record.pid)


def _kill(pid: int) -> None:
    try:
        os.kill(pid, signal.SIGKILL)
    except ProcessLookupError:
        return
    except PermissionError as error:
        raise UserError(f"process {pid} cannot be ended ({error.strerror})") from None
