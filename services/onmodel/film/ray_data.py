"""The parts of films spread over a Ray cluster by Ray Data: the one place of this package that knows Ray.

Films must lie at the same path on every node. Each worker loads its own models, on one GPU where `device` asks for
one; answers come back as rows of bytes and are put in order here.
"""

import os
import pickle
import socket
from collections.abc import Callable, Generator, Sequence
from typing import Any, cast

import ray
import ray.data

from onmodel.core.errors import ServiceError
from onmodel.film.chunk import Task, work
from onmodel.film.decode import Reader
from onmodel.film.look import LookConfig
from onmodel.film.run import Done, Runner

_WORKER_CPUS = 2
"""One decodes, one looks."""


class _Worker:
    """Looks at one part after another, with models loaded once."""

    def __init__(self, config: LookConfig) -> None:
        self._look = config.open(workers=_WORKER_CPUS)

    def __call__(self, row: dict[str, Any]) -> dict[str, Any]:
        task: Task = pickle.loads(row["task"])
        part, pictures = work(task, self._look, Reader(task.film))
        return {"number": row["number"], "answer": pickle.dumps((part, pictures))}


def over_cluster(config: LookConfig) -> Runner:
    """A runner on the cluster that RAY_ADDRESS names. Its use raises ServiceError where none answers."""

    def run(tasks: Sequence[Task], advance: Callable[[int], object]) -> Generator[Done]:
        if not tasks:
            return
        _connect()
        rows = [{"number": n, "task": pickle.dumps(task)} for n, task in enumerate(tasks)]
        workers = max(1, min(len(tasks), int(ray.cluster_resources().get("CPU", 1)) // _WORKER_CPUS))
        answers = (
            ray.data.from_items(rows, override_num_blocks=len(rows))
            .map(cast(Any, _Worker), fn_constructor_args=(config,), num_cpus=_WORKER_CPUS, concurrency=workers)
            .iter_rows()
        )
        early: dict[int, Any] = {}
        wanted = 0
        for answer in answers:
            early[answer["number"]] = answer["answer"]
            while wanted in early:
                part, pictures = pickle.loads(early.pop(wanted))
                advance(part.frames)
                yield tasks[wanted], part, pictures
                wanted += 1

    return run


def _connect() -> None:
    if ray.is_initialized():
        return
    address = os.environ.get("RAY_ADDRESS", "")
    try:
        _knock(address)
        ray.init(log_to_driver=False)
    except (OSError, RuntimeError, ValueError) as error:
        raise ServiceError(
            f"RAY_ADDRESS={address}: no Ray cluster answers there ({type(error).__name__}); start it, or unset it to"
            " work on this machine alone"
        ) from None
    ray.data.DataContext.get_current().enable_progress_bars = False


def _knock(address: str) -> None:
    """Raise OSError where nothing listens at HOST:PORT: Ray itself waits for minutes."""
    host, _, port = address.rpartition("://")[2].rpartition(":")
    if host and port.isdigit():
        socket.create_connection((host.strip("[]"), int(port)), timeout=10).close()
