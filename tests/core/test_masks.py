"""Masks of characters: against the renderer's exact ones, and what is answered when nothing can be cut."""

import numpy as np
import pytest

from onmodel.core.masks import character_mask
from onmodel.core.vocabulary import Box, Instance, ShotType
from onmodel.toybox.render import render
from onmodel.toybox.scene import random_scene


def overlap(shot: ShotType, seed: int, *, busy: bool) -> float:
    scene = random_scene(
        np.random.default_rng([77, seed]), shot_type=shot, multi_character=False, occlusion=seed % 3 == 0,
        complex_background=busy,
    )  # fmt: skip
    drawn = render(scene, 96)
    person = drawn.truth.characters[0]
    assert person.visible_box is not None
    instance = Instance(person.visible_box, 1.0, "character", person.face_box)
    mask = character_mask(drawn.image, instance, occluders=[o.box for o in drawn.truth.occluders])
    if mask is None:
        return 0.0
    return float((mask & drawn.masks[0]).sum() / (mask | drawn.masks[0]).sum())


@pytest.mark.parametrize(
    ("shot", "least"), [(ShotType.CLOSE_UP, 0.85), (ShotType.MEDIUM, 0.7), (ShotType.FULL_BODY, 0.6)]
)
def test_a_box_is_cut_to_the_character(shot: ShotType, least: float) -> None:
    found = [overlap(shot, seed, busy=seed % 2 == 0) for seed in range(10)]
    assert np.mean(found) > least


def test_the_same_picture_gives_the_same_mask() -> None:
    assert overlap(ShotType.MEDIUM, 4, busy=True) == overlap(ShotType.MEDIUM, 4, busy=True)


def test_an_outline_is_taken_as_it_is() -> None:
    image = np.zeros((20, 30, 3), dtype=np.uint8)
    instance = Instance(Box(5, 5, 15, 15), 1.0, "person", outline=((5, 5), (14, 5), (14, 14), (5, 14)))
    mask = character_mask(image, instance)
    assert mask is not None and mask.shape == (20, 30)
    assert mask[5:15, 5:15].all() and mask.sum() == 100


def test_nothing_believable_is_no_mask() -> None:
    flat = np.full((64, 64, 3), 90, dtype=np.uint8)
    assert character_mask(flat, Instance(Box(10, 10, 12, 12), 1.0, "character")) is None
    assert character_mask(flat, Instance(Box(0, 0, 64, 64), 1.0, "character")) is None
