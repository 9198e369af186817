"""A model that is replaced while it answers. Knows nothing of Ray."""

import asyncio
import logging
from collections.abc import Awaitable, Callable, Iterable, Sequence
from typing import Generic, TypeVar

from onmodel.core.errors import OnModelError

logger = logging.getLogger("ray.serve")

Wanted = TypeVar("Wanted")
Loaded = TypeVar("Loaded")
Item = TypeVar("Item")
Result = TypeVar("Result")


class Reloading(Generic[Wanted, Loaded]):
    """Holds what was loaded last. While another is loaded, and should that fail, the former goes on answering."""

    def __init__(self, load: Callable[[Wanted], Loaded], told: Callable[[bool], object] = lambda well: None) -> None:
        """`load` runs in a thread; `told` hears of every attempt whether it went well."""
        self._load = load
        self._told = told
        self._wanted: Wanted | None = None
        self._loaded: Loaded | None = None
        self._lock = asyncio.Lock()
        self.error = ""
        """Why the one asked for last is not the one that answers; empty when it is."""

    @property
    def loaded(self) -> Loaded:
        """What answers now. A request takes it once and is answered by it alone."""
        assert self._loaded is not None, "nothing was asked for yet"
        return self._loaded

    async def ask(self, wanted: Wanted) -> None:
        """Load `wanted` and answer by it from then on. The first load raises what it fails of; later ones keep it."""
        async with self._lock:
            if wanted == self._wanted:
                self.error = ""
                return
            try:
                self._loaded = await asyncio.to_thread(self._load, wanted)
            except Exception as error:
                self._told(False)
                if self._loaded is None:
                    raise
                logger.exception("the model asked for could not be loaded; the former one goes on answering")
                self.error = str(error) if isinstance(error, OnModelError) else f"{type(error).__name__}: {error}"
            else:
                self._told(True)
                self._wanted, self.error = wanted, ""


async def by_model(
    pieces: Sequence[tuple[Loaded, list[Item]]], work: Callable[[Loaded, list[Item]], Awaitable[Iterable[Result]]]
) -> list[list[Result]]:
    """Results of the pieces of a batch, item by item, each by the model that the piece came with.

    That is one model, and one call of `work`, but for the moment in which it is replaced.
    """
    found: dict[int, list[Result]] = {}
    for loaded in {id(loaded): loaded for loaded, _ in pieces}.values():
        own = [index for index, (model, _) in enumerate(pieces) if model is loaded]
        results = iter(await work(loaded, [item for index in own for item in pieces[index][1]]))
        found |= {index: [next(results) for _ in pieces[index][1]] for index in own}
    return [found[index] for index in range(len(pieces))]
