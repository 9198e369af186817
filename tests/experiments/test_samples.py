"""Likeness and attributes of samples: what is known of the measures themselves."""

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from onmodel.core.vocabulary import ShotType
from onmodel.experiments.probe_pictures import character_of
from onmodel.experiments.samples import asked, frechet, measure, right
from onmodel.toybox.character import HELD_OUT
from onmodel.toybox.scene import random_scene
from onmodel.toybox.wording import describe, looks

from .people import person


@given(st.integers(0, 10_000), st.floats(-3, 3))
@settings(max_examples=25, deadline=None)
def test_the_distance_of_shifted_rows_is_the_shift_squared(seed: int, shift: float) -> None:
    rows = np.random.default_rng(seed).normal(size=(40, 5))
    moved = rows + shift
    assert frechet(rows, moved) == pytest.approx(5 * shift**2, abs=1e-6)
    assert frechet(moved, rows) == pytest.approx(frechet(rows, moved), abs=1e-6)


def test_the_distance_of_gaussians_of_one_dimension_is_that_of_their_formula() -> None:
    rng = np.random.default_rng(0)
    first, second = rng.normal(0, 1, size=(4000, 1)), rng.normal(2, 3, size=(4000, 1))
    assert frechet(first, second) == pytest.approx(2**2 + (3 - 1) ** 2, rel=0.05)


@given(st.integers(0, 500))
@settings(max_examples=30, deadline=None)
def test_a_caption_asks_for_what_it_names(number: int) -> None:
    character = character_of(number)
    phrases = ", ".join(looks(character, np.random.default_rng(number)))
    every = asked(f"full body of a {character.noun} with {phrases}, plain background", character)
    lacking = {"hat"} if character.hat == "none" else set[str]()
    lacking |= {"hair_colour"} if character.hair_style == "bald" else set()
    assert every == {"age", "skin", "hair_style", "hair_colour", "shirt", "legs", "hat"} - lacking
    assert asked(f"a {character.noun}, full body, in a park", character) == {"age"}
    scene = random_scene(np.random.default_rng(number), character=character)
    named = asked(describe(scene, np.random.default_rng(number), keep=1.0), character)
    assert named <= every


def test_the_largest_person_is_judged_and_nobody_shows_nothing() -> None:
    zibo, mirel = HELD_OUT["zibo"], HELD_OUT["mirel"]
    assert right([person(zibo, ShotType.FULL_BODY)], zibo, {"age", "shirt"}) == {"age": True, "shirt": True}
    assert not any(right([person(mirel, ShotType.FULL_BODY)], zibo, {"shirt", "hair_colour"}).values())
    assert right([], zibo, {"age"}) == {"age": False}


def test_samples_are_measured_beside_renders() -> None:
    found = measure(8)
    assert found["pictures"] == 8
    assert found["frechet_samples_to_other_renders"] > 0
    assert found["attributes_right_in_renders"]["close_up"] > 0.5
