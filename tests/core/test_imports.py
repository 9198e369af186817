"""Imports with the collector paused."""

import gc
import importlib

import pytest

from onmodel.core.imports import collector_paused


def test_the_collector_is_afterwards_as_it_was_before() -> None:
    assert gc.isenabled()
    with pytest.raises(ModuleNotFoundError), collector_paused():
        assert not gc.isenabled()
        importlib.import_module("no_such_module")
    assert gc.isenabled()
    gc.disable()
    try:
        with collector_paused():
            pass
        assert not gc.isenabled()
    finally:
        gc.enable()
