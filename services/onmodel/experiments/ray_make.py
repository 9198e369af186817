"""The experiment's trials as Ray tasks: the one place of this package that knows Ray.

WORK must lie at the same path on every node. A worker keeps what it has loaded from one trial to the next. A task whose
worker dies is done again by another, from the trial's last state.
"""

from collections.abc import Callable, Iterator
from typing import Any

import ray
from ray.exceptions import RayError, RayTaskError

from onmodel.core.errors import OnModelError, ServiceError, first_line
from onmodel.experiments.make import Job, do
from onmodel.serving.cluster import joined_or_private

RETRIES = 2
TRIALS_PER_GPU = 8
"""A bundled UNet's kernels are too small to fill a GPU."""
OBJECT_STORE_BYTES = 256 * 2**20


def over_cluster(jobs: list[Job], go_on: Callable[[], bool]) -> Iterator[tuple[Job, float | OnModelError]]:
    """Jobs on the cluster that RAY_ADDRESS names, else on a Ray of our own; see `make.Run`."""
    if not jobs:
        return
    with joined_or_private(OBJECT_STORE_BYTES):
        gpus = ray.cluster_resources().get("GPU", 0)
        cpus = int(ray.cluster_resources().get("CPU", 1))
        task: Any = ray.remote(max_retries=RETRIES, num_cpus=1, num_gpus=1 / TRIALS_PER_GPU if gpus else 0)(do)
        most = min(cpus, int(gpus * TRIALS_PER_GPU)) if gpus else cpus
        rest = list(jobs)
        pending: dict[Any, Job] = {}
        try:
            while rest or pending:
                while rest and len(pending) < most and go_on():
                    job = rest.pop(0)
                    pending[task.remote(job)] = job
                if not pending:
                    return
                (ready, *_), _ = ray.wait(list(pending), num_returns=1)
                yield pending.pop(ready), _answer(ready)
        finally:
            for reference in pending:
                ray.cancel(reference)


def _answer(reference: Any) -> float | OnModelError:
    try:
        return float(ray.get(reference))
    except RayTaskError as error:
        if isinstance(error.cause, OnModelError):
            return error.cause
        raise
    except RayError as error:
        reason = first_line(error)
        return ServiceError(f"a worker that makes trials died {RETRIES + 1} times ({reason}); run again")
