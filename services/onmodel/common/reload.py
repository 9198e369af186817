"""A model that is replaced while it answers. Knows nothing of Ray."""

import asyncio
import logging
from collections.abc import Callable
from typing import Generic, TypeVar

from onmodel.core.errors import OnModelError

logger = logging.getLogger("ray.serve")

Wanted = TypeVar("Wanted")
Loaded = TypeVar("Loaded")


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
