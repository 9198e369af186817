"""The parts of films spread over a Ray cluster by Ray Data: the one place of this package that knows Ray.

Films must lie at the same path on every node. Each worker loads its own models, on one GPU where `device` asks for
one; answers come back as rows of bytes and are put in order here.
"""

import pickle
from collections.abc import Callable, Generator, Sequence
from typing import Any, cast

import ray
import ray.data

from onmodel.film.chunk import Task, work
from onmodel.film.decode import Reader
from onmodel.film.look import LookConfig
from onmodel.film.run import Done, Runner
from onmodel.serving.cluster import join_cluster, workers_that_fit

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
        join_cluster()
        ray.data.DataContext.get_current().enable_progress_bars = False
        rows = [{"number": n, "task": pickle.dumps(task)} for n, task in enumerate(tasks)]
        room, each = workers_that_fit(_WORKER_CPUS)
        workers = min(len(tasks), room)
        answers = (
            ray.data.from_items(rows, override_num_blocks=len(rows))
            .map(cast(Any, _Worker), fn_constructor_args=(config,), num_cpus=each, concurrency=workers)
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
