"""One worker on this machine alone: a Ray task. Where there is a cluster, or several workers, it is `ray_train`.

A Train run brings a controller, a coordinator, a cleaner and a synchronisation actor, each a process that imports for
seconds; one worker has nobody to be coordinated with. Four steps of the bundled model took 48 s that way and 28 s so.
"""

from collections.abc import Callable
from typing import Any

import ray
from ray.exceptions import RayError, RayTaskError

from onmodel.core.beside import beside
from onmodel.core.errors import InternalError, OnModelError
from onmodel.core.imports import collector_paused
from onmodel.training.job import Job, threads_per_worker
from onmodel.training.ray_cluster import check_resources


def fit(job: Job, *, max_failures: int = 0, say: Callable[[str], None] = lambda text: None) -> None:
    """Train `job` in a process of its own; a private Ray must be there (see `ray_cluster.cluster`).

    Where that process dies (killed, or out of memory) another goes on from the last state, up to `max_failures` times.
    What it raises would be raised again, so it ends the run.

    Args:
        say: gets a sentence each time that it is started again.

    Raises:
        OnModelError: what the worker raised, or InternalError when it died more often than that.
    """
    train: Any = ray.remote(num_cpus=1, num_gpus=int(check_resources(1)), max_retries=0)(_train)
    for failures in range(max_failures + 1):
        try:
            # As for Ray Train: an interrupt ends the wait, and the end of Ray the worker.
            beside("ray-train-task", lambda: ray.get(train.remote(job)))
        except RayTaskError as error:
            cause: BaseException = error.cause
            if isinstance(cause, OnModelError):
                raise cause from None
            raise InternalError(f"a training worker failed: {type(cause).__name__}: {cause}") from None
        except RayError as error:
            if failures == max_failures:
                raise InternalError(f"a training worker failed: {type(error).__name__}: {error}") from None
            say("a training worker died; another starts from the last state")
        else:
            return


def _train(job: Job) -> None:
    """Runs in the worker."""
    with collector_paused():
        import torch

        from onmodel.training.worker import OwnProcess, run_job

    # Ray pins OMP_NUM_THREADS to the CPUs that a task asks for; training takes the machine's cores.
    torch.set_num_threads(threads_per_worker(1))
    run_job(job, OwnProcess())
