"""Runs the parts of films on this machine: several at once where there are cores for it, answers in order."""

import os
import threading
from collections import deque
from collections.abc import Callable, Generator, Sequence
from concurrent.futures import Future, ThreadPoolExecutor

from onmodel.film.chunk import Part, Task, work
from onmodel.film.decode import Reader
from onmodel.film.look import Look

Done = tuple[Task, Part, dict[str, bytes]]
"""A part, what is known of it, and its packed pictures."""
Runner = Callable[[Sequence[Task], Callable[[int], object]], Generator[Done]]
"""Works through parts; answers come in the parts' order. The second argument is told of frames as they are done."""
_CORES_A_PART = 4
"""One part decodes and measures in one or two threads and detects on all cores: more at once only where many idle."""


def local(look: Look, *, parts_at_once: int = 0) -> Runner:
    """A runner in this process. `parts_at_once`: 0 chooses by the number of cores."""
    at_once = parts_at_once or max(1, len(os.sched_getaffinity(0)) // _CORES_A_PART)

    def run(tasks: Sequence[Task], advance: Callable[[int], object]) -> Generator[Done]:
        kept = threading.local()

        def one(task: Task) -> Done:
            # One reader a film and thread: where a film cannot be entered in the middle its parts follow each other in
            # one pass, since to go back would mean to decode from the beginning again.
            readers: dict[str, Reader] = vars(kept).setdefault("readers", {})
            if task.film.hash not in readers:
                readers.clear()
                readers[task.film.hash] = Reader(task.film)
            return (task, *work(task, look, readers[task.film.hash], advance=advance))

        several = at_once if all(task.film.seekable for task in tasks) else 1
        if several == 1:
            yield from map(one, tasks)
            return
        with ThreadPoolExecutor(several, thread_name_prefix="part") as pool:
            waiting: deque[Future[Done]] = deque()
            try:
                for task in tasks:
                    waiting.append(pool.submit(one, task))
                    if len(waiting) > several:
                        yield waiting.popleft().result()
                while waiting:
                    yield waiting.popleft().result()
            finally:
                for future in waiting:
                    future.cancel()

    return run
