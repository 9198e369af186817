"""Crops show the whole character, squared, and what is greyed out lies where it should."""

from pathlib import Path

import numpy as np
import pytest

from onmodel.core.cutouts import GREY, LARGEST_CROP, grey_boxes, grey_surroundings, square_crop
from onmodel.core.errors import ImageError
from onmodel.core.images import encode_png
from onmodel.core.vocabulary import Box
from onmodel.evaluation.observe import Seen, observe

from .world import World, draw


def test_a_tall_character_keeps_head_and_feet() -> None:
    image = np.zeros((100, 60, 3), dtype=np.uint8)
    image[10:90, 20:40] = 200
    crop, square = square_crop(image, Box(20, 10, 40, 90))
    assert crop.shape[0] == crop.shape[1]
    assert (crop == 200).all(axis=2).sum() == 80 * 20
    assert square.width == pytest.approx(square.height)
    assert (crop[:, 0] == GREY).all(), "padded with grey, not with the neighbourhood"


def test_boxes_beyond_the_edge_and_large_ones() -> None:
    image = np.full((50, 50, 3), 9, dtype=np.uint8)
    crop, _ = square_crop(image, Box(-10, 30, 20, 80))
    assert crop.shape[0] == crop.shape[1]
    assert 0 < (crop == 9).all(axis=2).sum() <= 23 * 23
    large, _ = square_crop(np.full((2000, 2000, 3), 9, dtype=np.uint8), Box(0, 0, 2000, 2000))
    assert large.shape == (LARGEST_CROP, LARGEST_CROP, 3)
    assert square_crop(image, Box(10, 10, 10.2, 10.2))[0].shape == (1, 1, 3)


def test_surroundings_are_greyed_and_the_middle_is_kept() -> None:
    crop = np.zeros((80, 80, 3), dtype=np.uint8)
    masked = grey_surroundings(crop, aspect=0.5)
    assert (masked[40, 40] == 0).all()
    assert (masked[2, 2] == GREY).all()
    assert (masked[40, 5] == GREY).all(), "a narrow character's sides"
    assert (masked[8, 40] == 0).all(), "its head stays"


def test_what_stands_in_front_is_greyed_in_place() -> None:
    crop = np.zeros((40, 40, 3), dtype=np.uint8)
    masked = grey_boxes(crop, [Box(0.5, 0.25, 0.75, 2.0)])
    assert (masked[10:40, 20:30] == GREY).all()
    assert (masked == GREY).all(axis=2).sum() == 30 * 10
    assert (crop == 0).all(), "the crop itself is left alone"


def test_a_hidden_character_is_seen_with_what_hides_it() -> None:
    world = World()
    data = world.add(draw("occlusion", 5))
    (seen,) = observe([data], world)
    assert isinstance(seen, Seen)
    (part,) = seen.parts
    assert part.hidden
    assert all(-1.5 < v < 2.5 for box in part.hidden for v in box.as_tuple())
    assert part.visible is not None
    assert part.crop is not None
    assert not np.array_equal(part.visible, seen.crops[0])


def test_errors_stay_with_their_picture(tmp_path: Path) -> None:
    world = World()
    good = world.add(draw("close_up", 1))
    found = observe([b"", good, encode_png(np.zeros((4, 4, 3), dtype=np.uint8)), good], world)
    assert [isinstance(f, ImageError) for f in found] == [True, False, True, False]
    assert observe([], world) == []
