"""On model by truth: the character is there, framed as asked, six of seven features, a head of its height."""

import dataclasses
from typing import Any

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from onmodel.core.vocabulary import ShotType
from onmodel.experiments.probe_pictures import FEATURES, Feature, twin
from onmodel.experiments.truth import MARKS, Mark, asked_framing, compare, on_model, reads_as
from onmodel.toybox.character import HELD_OUT, any_character
from onmodel.toybox.scene import FRAMED

from .people import person

ZIBO, MIREL = HELD_OUT["zibo"], HELD_OUT["mirel"]
SEEDS = st.integers(0, 2**32 - 1)
FULL = ShotType.FULL_BODY


@pytest.mark.parametrize("shot", FRAMED)
@pytest.mark.parametrize("name", HELD_OUT)
def test_a_character_is_itself_in_every_framing_and_no_other(name: str, shot: ShotType) -> None:
    for other, character in HELD_OUT.items():
        assert on_model([person(character, shot)], HELD_OUT[name], shot.value) is (other == name)


@given(seed=SEEDS, marks=st.sets(st.sampled_from(list(MARKS)), max_size=7))
def test_six_of_seven_features_must_agree(seed: int, marks: set[Mark]) -> None:
    character = any_character(np.random.default_rng(seed))
    if character.hair_style == "bald":
        character = dataclasses.replace(character, hair_style="short")
    other: dict[Feature, str] = {}
    for mark in marks:
        name = MARKS[mark][seed % len(MARKS[mark])]
        # Another value; hair stays hair, since a bald head would be a second difference.
        other[name] = next(v for v in FEATURES[name] if v not in (getattr(character, name), "bald"))
    read = person(character, FULL, reads=other)
    assert {mark for mark, same in compare(read, character).items() if not same} == marks
    assert reads_as(read, character) is (len(marks) <= 1)


@given(seed=SEEDS, shot=st.sampled_from(FRAMED))
def test_a_near_twin_is_somebody_else(seed: int, shot: ShotType) -> None:
    rng = np.random.default_rng(seed)
    character = any_character(rng)
    near = twin(rng, character)
    # Without hair, a twin differs in its shirt alone, which one feature may.
    assert reads_as(person(near, shot), character) is (character.hair_style == "bald")


@pytest.mark.parametrize(("factor", "right"), [(1.0, True), (1.14, True), (0.87, True), (1.17, False), (0.84, False)])
def test_a_head_within_15_per_cent_of_its_height(factor: float, right: bool) -> None:
    for shot in (FULL, ShotType.FAR):
        read = person(ZIBO, shot)
        read = dataclasses.replace(read, head_height=read.head_height * factor)
        assert on_model([read], ZIBO, shot.value) is right
    # A close-up shows no body to hold the head against.
    close = person(ZIBO, ShotType.CLOSE_UP)
    assert reads_as(dataclasses.replace(close, head_height=close.head_height * factor), ZIBO)


def test_framing_is_that_of_the_scenario_or_of_the_prompt() -> None:
    people = [person(ZIBO, FULL)]
    assert on_model(people, ZIBO, "full_body")
    assert not on_model(people, ZIBO, "medium")
    assert on_model(people, ZIBO, "complex_background")
    assert on_model(people, ZIBO, "occlusion", ShotType.FULL_BODY)
    assert not on_model(people, ZIBO, "occlusion", ShotType.MEDIUM)
    assert not on_model([], ZIBO, "full_body")


def test_several_people_are_at_least_two_and_one_is_the_character() -> None:
    assert not on_model([person(ZIBO, FULL)], ZIBO, "multi_character")
    assert on_model([person(MIREL, FULL), person(ZIBO, FULL)], ZIBO, "multi_character")
    assert not on_model([person(MIREL, FULL), person(MIREL, FULL)], ZIBO, "multi_character")
    # The framing asked for is the character's own.
    mixed = [person(MIREL, ShotType.MEDIUM), person(ZIBO, FULL)]
    assert not on_model(mixed, ZIBO, "multi_character", ShotType.MEDIUM)


def test_what_is_not_in_view_does_not_count_and_too_little_is_nobody() -> None:
    hidden: set[Feature] = {"legwear", "leg_colour"}
    assert reads_as(person(ZIBO, FULL, unseen=hidden, reads={"legwear": "skirt", "leg_colour": "red"}), ZIBO)
    # One part of the shirt is out of view, the other is wrong.
    assert compare(person(ZIBO, FULL, unseen={"pattern"}, reads={"shirt": "red"}), ZIBO)["shirt"] is False
    few: set[Feature] = {"age", "legwear", "leg_colour", "hat"}
    assert reads_as(person(ZIBO, FULL, unseen=few), ZIBO)
    assert not reads_as(person(ZIBO, FULL, unseen=few, reads={"shirt": "red"}), ZIBO), "of four in view, all must agree"
    little: set[Feature] = {"age", "legwear", "leg_colour", "hat", "shirt", "pattern"}
    assert not reads_as(person(ZIBO, ShotType.CLOSE_UP, unseen=little), ZIBO)


def test_a_bald_head_has_another_colour_than_any_hair() -> None:
    bald = dataclasses.replace(ZIBO, hair_style="bald")
    assert compare(person(bald, FULL), bald) == dict.fromkeys(MARKS, True)
    wrong = compare(person(bald, FULL), ZIBO)
    assert not wrong["hair_style"] and not wrong["hair_colour"]
    wrong = compare(person(ZIBO, FULL), bald)
    assert not wrong["hair_style"] and not wrong["hair_colour"]


@pytest.mark.parametrize(
    ("prompt", "shot"),
    [
        ("zibo, a teenage boy, close-up, plain background", ShotType.CLOSE_UP),
        ("zibo, a teenage boy, from the waist up, waving", ShotType.MEDIUM),
        ("full body shot of a teenage boy with blue hair", FULL),
        ("zibo, a teenage boy, in the distance, standing", ShotType.FAR),
        ("zibo, a teenage boy, behind a fence", None),
    ],
)
def test_a_prompt_says_its_framing(prompt: str, shot: Any) -> None:
    assert asked_framing(prompt) is shot
