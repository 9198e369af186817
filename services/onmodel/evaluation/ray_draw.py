"""Test pictures drawn by Ray tasks on whatever a cluster has: the one place of this package that knows Ray.

Base models and LoRA files must lie at the same path on every node; pictures come back as bytes and are written by the
process that asked. A worker keeps its pipeline loaded from one task to the next. A task whose worker dies is drawn
again by another; should the asking process die, the next run draws what is missing.
"""

import math
from collections.abc import Callable, Sequence
from enum import Enum, auto
from typing import Any

import ray
from ray.exceptions import RayError, RayTaskError

from onmodel.core.errors import OnModelError, ResourceError, ServiceError, first_line
from onmodel.core.files import write_bytes
from onmodel.core.imports import collector_paused
from onmodel.evaluation.planned import DrawingModel, Planned
from onmodel.evaluation.suite import TestSuite
from onmodel.evaluation.tasks import Pipelines, Work
from onmodel.serving.cluster import joined_or_private, workers_that_fit

RETRIES = 3
"""How often a task is drawn again whose worker died."""
TASKS_PER_WORKER = 4
"""Pieces that a worker gets of all pictures, about: enough that none waits long for the last one."""
LEAST_PICTURES = 8
"""A smaller task would take longer to start than to draw."""
OBJECT_STORE_BYTES = 512 * 2**20
"""Of a Ray of our own: holds pictures on their way."""
_WORKER_CPUS = 2
"""Of a worker without a GPU: one pipeline, whose kernels use both."""

_kept: dict[str, Pipelines] = {}
"""In a worker: its pipelines by device, from task to task."""


class Place(Enum):
    """Where in a Ray cluster this process is."""

    OUTSIDE = auto()
    WITHIN = auto()
    """A task or an actor: it holds a part of the cluster already, and could wait for the rest for ever."""
    DRIVER = auto()
    DRIVER_OF_SEVERAL = auto()
    """There is room for several workers."""


def place() -> Place:
    """Where this process is now."""
    if not ray.is_initialized():
        return Place.OUTSIDE
    context = ray.get_runtime_context()
    if context.get_task_id() is not None or context.get_actor_id() is not None:
        return Place.WITHIN
    resources = ray.cluster_resources()
    several = resources.get("GPU", 0) > 1 or resources.get("CPU", 0) >= 2 * _WORKER_CPUS
    return Place.DRIVER_OF_SEVERAL if several else Place.DRIVER


def draw_over_cluster(
    work: Work,
    suite: TestSuite,
    device: str,
    batch_size: int | None,
    advance: Callable[[int, str], None],
) -> None:
    """Draw and write what is missing, several tasks at once.

    Args:
        device: `auto` takes the cluster's GPUs where it has some; as for a single process else.
        batch_size: pictures in one call of a pipeline; None chooses by size and device.
        advance: called with the number of pictures just written and their model's label.

    Raises:
        ServiceError: no cluster answers, or workers die again and again.
        ResourceError: a GPU is asked for and the cluster has none, or as `drawn`.
    """
    with joined_or_private(OBJECT_STORE_BYTES):
        workers, cpus, gpus = _workers(device)
        draw: Any = ray.remote(max_retries=RETRIES, num_cpus=cpus, num_gpus=gpus)(_draw)
        size = max(LEAST_PICTURES, math.ceil(sum(len(p) for _, p in work) / (workers * TASKS_PER_WORKER)))
        rest = [
            (model, pictures[start : start + size])
            for model, pictures in work
            for start in range(0, len(pictures), size)
        ]
        pending: dict[Any, tuple[DrawingModel, Sequence[Planned]]] = {}
        try:
            while rest or pending:
                while rest and len(pending) < 2 * workers:
                    piece = rest.pop(0)
                    pending[draw.remote(piece[1], suite, piece[0], device, batch_size)] = piece
                (ready, *_), _ = ray.wait(list(pending), num_returns=1)
                model, pictures = pending.pop(ready)
                for picture, data in zip(pictures, _answer(ready), strict=True):
                    write_bytes(picture.path, data)
                advance(len(pictures), model.label)
        finally:
            for reference in pending:
                ray.cancel(reference)


def _draw(
    pictures: Sequence[Planned], suite: TestSuite, model: DrawingModel, device: str, batch_size: int | None
) -> list[bytes]:
    """In a worker: PNG files' bytes of `pictures`."""
    # Imported here: the process that asks gets this function too, and has no need of torch.
    with collector_paused():
        from onmodel.evaluation.generate import drawn

    if device not in _kept:
        _kept[device] = Pipelines(device)
    pipeline = _kept[device].get(model)
    batches = drawn(pictures, suite, model, pipeline, batch_size=batch_size, encoded=_kept[device].encoded(suite))
    return [data for batch in batches for _, data in batch]


def _answer(reference: Any) -> list[bytes]:
    try:
        return ray.get(reference)
    except RayTaskError as error:
        if isinstance(error.cause, OnModelError):
            raise error.cause from None
        raise
    except RayError as error:
        reason = first_line(error)
        raise ServiceError(
            f"a worker that draws test pictures died {RETRIES + 1} times ({reason}); give it more memory or lower "
            "--batch-size, and run again: what was drawn is kept"
        ) from None


def _workers(device: str) -> tuple[int, int, int]:
    """How many tasks run at once, and the CPUs and GPUs that each asks for."""
    gpus = int(ray.cluster_resources().get("GPU", 0))
    if device.startswith("cuda") and not gpus:
        raise ResourceError(f"--device {device}: the Ray cluster has no GPU; pass --device auto or cpu")
    if gpus and device != "cpu":
        return gpus, 1, 1
    return *workers_that_fit(_WORKER_CPUS), 0
