"""Work beside the main thread, which stays free for Ctrl-C."""

import threading
from collections.abc import Callable
from concurrent.futures import Future

POLL_S = 0.25


def beside(name: str, work: Callable[[], object], poll: Callable[[], None] = lambda: None) -> None:
    """Do `work` in a thread called `name` and wait for its end; what it raises is raised here.

    Libraries that take Ctrl-C for themselves in the main thread cannot there. An interrupt ends the wait, and leaves
    the thread to end with the process.

    Args:
        poll: called in the waiting thread some times a second.
    """
    outcome: Future[None] = Future()

    def run() -> None:
        try:
            work()
        except BaseException as error:
            outcome.set_exception(error)
        else:
            outcome.set_result(None)

    thread = threading.Thread(target=run, name=name, daemon=True)
    thread.start()
    while thread.is_alive():
        thread.join(POLL_S)
        poll()
    outcome.result()
