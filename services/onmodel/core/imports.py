"""Importing much at once."""

import contextlib
import gc
from collections.abc import Generator


@contextlib.contextmanager
def collector_paused() -> Generator[None]:
    """Import in this block what brings torch, diffusers or transformers.

    An import makes objects and next to no garbage, and those three make more than half a million, which the collector
    goes through again and again as they come: a quarter of the time that the training worker's imports take.
    """
    was = gc.isenabled()
    gc.disable()
    try:
        yield
    finally:
        if was:
            gc.enable()
