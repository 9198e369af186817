"""Fingerprints are near for what looks alike and far for what does not; sharpness falls with blur."""

import cv2
import numpy as np

from onmodel.core.images import RGB
from onmodel.core.likeness import NEAR_DUPLICATE_BITS, distance, fingerprint, sharpness
from onmodel.core.vocabulary import ShotType
from onmodel.toybox.render import render
from onmodel.toybox.scene import random_scene


def drawn(seed: int) -> RGB:
    return render(
        random_scene(np.random.default_rng(seed), shot_type=ShotType.MEDIUM, complex_background=True), 96
    ).image


def test_a_brighter_smaller_copy_is_a_near_duplicate() -> None:
    image = drawn(1)
    copy = cv2.convertScaleAbs(cv2.resize(image, (64, 64), interpolation=cv2.INTER_AREA), alpha=1.05, beta=4)
    assert distance(fingerprint(image), fingerprint(copy.astype(np.uint8))) <= NEAR_DUPLICATE_BITS


def test_other_pictures_are_none() -> None:
    prints = [fingerprint(drawn(seed)) for seed in range(6)]
    apart = [distance(a, b) for n, a in enumerate(prints) for b in prints[:n]]
    assert min(apart) > NEAR_DUPLICATE_BITS


def test_distance_counts_bits() -> None:
    assert distance(0b1011, 0b0001) == 2
    assert distance(2**63, 0) == 1


def test_blur_lowers_sharpness_and_size_does_not() -> None:
    image = drawn(3)
    blurred = cv2.GaussianBlur(image, (0, 0), 2.0).astype(np.uint8)
    assert sharpness(blurred) < 0.5 * sharpness(image)
    assert sharpness(np.full((50, 80, 3), 70, dtype=np.uint8)) == 0.0
