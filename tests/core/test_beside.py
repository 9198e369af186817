"""Work beside the main thread: waited for, polled, and its errors raised where it was asked for."""

import threading

import pytest

from onmodel.core.beside import beside


def test_the_waiting_thread_polls_until_the_work_is_done() -> None:
    polled = threading.Event()
    where: list[str] = []

    def work() -> None:
        where.append(threading.current_thread().name)
        assert polled.wait(30)

    beside("elsewhere", work, polled.set)
    assert where == ["elsewhere"]


def test_what_the_work_raises_is_raised_here() -> None:
    def work() -> None:
        raise KeyError("gone")

    with pytest.raises(KeyError, match="gone"):
        beside("elsewhere", work)
