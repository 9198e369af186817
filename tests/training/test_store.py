"""The cache of encoded arrays: few files, read by memory map, shared, and safe when broken."""

import threading
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch

from onmodel.core.files import content_hash
from onmodel.training import store
from onmodel.training.store import ArrayCache, kept_on_the_way, one_at_a_time


def key(number: int) -> str:
    return content_hash(str(number).encode())


def value(number: int, *shape: int) -> Any:
    return np.full(shape or (2, 3), number, dtype=np.float32)


def filled(folder: Path, numbers: range) -> ArrayCache:
    cache = ArrayCache(folder)
    for number in numbers:
        cache.put(key(number), value(number))
    cache.flush()
    return cache


def test_many_arrays_of_a_shape_are_one_file_and_come_back_as_they_were(tmp_path: Path) -> None:
    cache = filled(tmp_path, range(100))
    cache.put(key(1000), value(7, 5))
    cache.flush()
    assert len(list(tmp_path.iterdir())) == 2
    again = ArrayCache(tmp_path)
    assert all(torch.equal(again.get(key(n)), torch.full((2, 3), float(n))) for n in range(100))  # pyright: ignore[reportArgumentType]
    assert again.get(key(1000)) is not None
    assert again.get(key(100)) is None


def test_what_is_added_is_seen_at_once_and_by_others_after_a_refresh(tmp_path: Path) -> None:
    mine, theirs = ArrayCache(tmp_path), ArrayCache(tmp_path)
    mine.put(key(1), value(1))
    assert mine.get(key(1)) is not None
    assert theirs.get(key(1)) is None
    mine.flush()
    theirs.refresh()
    assert theirs.get(key(1)) is not None


def test_sections_do_not_mix(tmp_path: Path) -> None:
    cache = ArrayCache(tmp_path)
    cache.section("a" * 64).put(key(1), value(1))
    cache.flush()
    again = ArrayCache(tmp_path)
    assert again.section("a" * 64).get(key(1)) is not None
    assert again.section("b" * 64).get(key(1)) is None
    assert again.get(key(1)) is None
    alone = ArrayCache(None)
    alone.section("a" * 64).put(key(1), value(1))
    assert alone.section("a" * 64).get(key(1)) is not None


def test_a_damaged_file_counts_as_absent_and_its_arrays_are_made_again(tmp_path: Path) -> None:
    filled(tmp_path, range(3))
    file = next(tmp_path.iterdir())
    file.write_bytes(file.read_bytes()[:20])
    cache = ArrayCache(tmp_path)
    assert cache.get(key(1)) is None
    cache.put(key(1), value(1))
    cache.flush()
    assert ArrayCache(tmp_path).get(key(1)) is not None


def test_small_files_are_joined_and_readers_keep_what_they_have(tmp_path: Path) -> None:
    reader: ArrayCache | None = None
    count = store.JOIN_ABOVE + 3
    for number in range(count):
        filled(tmp_path, range(number, number + 1))
        if number == 4:
            reader = ArrayCache(tmp_path)
    assert reader is not None
    assert len(list(tmp_path.iterdir())) < 5
    again = ArrayCache(tmp_path)
    for number in range(count):
        found = again.get(key(number))
        assert found is not None
        assert float(found[0, 0]) == number
    assert float(reader.get(key(2))[0, 0]) == 2  # pyright: ignore[reportOptionalSubscript]
    reader.refresh()
    assert reader.get(key(count - 1)) is not None


def test_much_is_written_before_the_end_and_an_interrupt_loses_nothing(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(store, "SEGMENT_BYTES", 10 * 24)
    cache = ArrayCache(tmp_path)
    with pytest.raises(KeyboardInterrupt), kept_on_the_way(cache):
        for number in range(25):
            cache.put(key(number), value(number))
            if number == 23:
                assert len(list(tmp_path.iterdir())) == 2
        raise KeyboardInterrupt
    again = ArrayCache(tmp_path)
    assert all(again.get(key(number)) is not None for number in range(25))


def test_who_comes_second_waits_and_then_has_the_folder(tmp_path: Path) -> None:
    waited: list[int] = []
    events: list[str] = []
    told = threading.Event()

    def waiting(seconds: int) -> None:
        waited.append(seconds)
        told.set()

    def second() -> None:
        with one_at_a_time(tmp_path / "cache", waiting):
            events.append("second")

    thread = threading.Thread(target=second)
    with one_at_a_time(tmp_path / "cache", waited.append):
        thread.start()
        assert told.wait(30)
        events.append("first")
    thread.join(30)
    assert events == ["first", "second"]
    assert waited[0] == 1
    with one_at_a_time(None, waited.append), one_at_a_time(None, waited.append):
        events.append("nothing is shared")
