"""Parts on disk, packed pictures, and the thread that decodes ahead."""

import threading
from collections.abc import Iterator
from pathlib import Path

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from onmodel.core.errors import InternalError
from onmodel.core.vocabulary import Attribute, Box, Decision, Detections, Instance, Keypoint, ShotType
from onmodel.detection.convert import Detected
from onmodel.film.chunk import Looked, Part, ahead, pack, read, save, unpack

from .made import scene


@given(st.integers(1, 40), st.integers(1, 40), st.integers(0, 1000))
def test_a_packed_picture_is_the_very_picture(height: int, width: int, seed: int) -> None:
    image = np.random.default_rng(seed).integers(0, 256, (height, width, 3), dtype=np.uint8)
    assert np.array_equal(unpack(pack(image)), image)


def test_a_damaged_picture_is_said() -> None:
    data = pack(scene(1))
    for wrong in (data[:20], b"", b"x y\n" + data):
        with pytest.raises(InternalError, match="cannot be read again"):
            unpack(wrong)


def test_a_part_is_read_as_it_was_saved(tmp_path: Path) -> None:
    points = tuple(Keypoint(float(n), 0.1 * n, 0.5) for n in range(17))
    instance = Instance(Box(1.25, 2, 3, 4), 0.1 + 0.2, "bird", Box(1, 2, 2, 3), points, ((1.0, 2.0), (3.0, 4.0)))
    found = Detections(10, 20, (instance, Instance(Box(0, 0, 1, 1), 0.5, "cow")), (Box(0, 0, 2, 2),))
    decision = Decision(ShotType.MEDIUM, frozenset({Attribute.OCCLUSION}), 0, "because")
    looked = Looked(1 / 3, 2, 0.1, 2**64 - 1, None, Detected(found, decision), ((0.7, 0.2),), 0.05, (0.1,), "a.rgb")
    part = Part(30, 3, True, 1, [looked, Looked(0.5, 2, 0.2, 7, "blur")])
    assert read(tmp_path / "part") is None
    save(tmp_path / "part", part, {"a.rgb": pack(scene(1))})
    assert read(tmp_path / "part") == part
    assert np.array_equal(unpack((tmp_path / "part" / "a.rgb").read_bytes()), scene(1))


def test_items_are_made_ahead_in_order_and_errors_come_through() -> None:
    assert list(ahead(range(50), 2)) == list(range(50))

    def failing() -> Iterator[int]:
        yield 1
        raise KeyError("here")

    items = ahead(failing(), 1)
    assert next(items) == 1
    with pytest.raises(KeyError, match="here"):
        next(items)


def test_who_stops_listening_stops_the_maker() -> None:
    before = threading.active_count()
    items = ahead(iter(range(10**9)), 1)
    assert next(items) == 0
    items.close()  # pyright: ignore[reportAttributeAccessIssue]
    assert threading.active_count() == before
