"""A model is replaced while it answers, and stays where its successor fails."""

import asyncio
import threading

import pytest

from onmodel.common.reload import Reloading, by_model
from onmodel.core.errors import NotFoundError


def test_the_former_one_answers_until_the_next_is_there() -> None:
    may_go = threading.Event()
    told: list[bool] = []

    def load(wanted: str) -> str:
        if wanted == "second":
            assert may_go.wait(30)
        return f"model {wanted}"

    async def go() -> None:
        model = Reloading(load, told.append)
        await model.ask("first")
        asked = asyncio.ensure_future(model.ask("second"))
        await asyncio.sleep(0.05)
        assert model.loaded == "model first" and not asked.done()
        may_go.set()
        await asked
        assert model.loaded == "model second" and model.error == ""

    asyncio.run(go())
    assert told == [True, True]


def test_one_that_cannot_be_loaded_leaves_the_former_and_a_reason() -> None:
    told: list[bool] = []
    calls: list[str] = []

    def load(wanted: str) -> str:
        calls.append(wanted)
        if wanted == "missing":
            raise NotFoundError("missing: no such folder")
        if wanted == "broken":
            raise RuntimeError("bad magic number")
        return wanted

    async def go() -> None:
        model = Reloading(load, told.append)
        with pytest.raises(NotFoundError):
            await model.ask("missing")
        await model.ask("good")
        await model.ask("missing")
        assert (model.loaded, model.error) == ("good", "missing: no such folder")
        await model.ask("broken")
        assert (model.loaded, model.error) == ("good", "RuntimeError: bad magic number")
        # Asked for what it has: nothing to load, and nothing is wrong any more.
        await model.ask("good")
        assert (model.loaded, model.error) == ("good", "")

    asyncio.run(go())
    assert told == [False, True, False, False]
    assert calls == ["missing", "good", "missing", "broken"]


def test_the_one_asked_for_last_wins() -> None:
    async def go() -> str:
        model = Reloading(lambda wanted: wanted)
        await asyncio.gather(*(model.ask(str(n)) for n in range(20)))
        return model.loaded

    assert asyncio.run(go()) == "19"


def test_each_piece_of_a_batch_is_worked_by_the_model_that_it_came_with() -> None:
    asked: list[tuple[str, list[int]]] = []

    async def work(loaded: str, items: list[int]) -> list[str]:
        asked.append((loaded, items))
        return [f"{loaded}{item}" for item in items]

    old, new = "old", "new"
    found = asyncio.run(by_model([(old, [1, 2]), (new, [3]), (old, []), (old, [4])], work))
    assert found == [["old1", "old2"], ["new3"], [], ["old4"]]
    assert asked == [("old", [1, 2, 4]), ("new", [3])]
