"""Captions follow the crop and keep the trigger first."""

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from onmodel.core.vocabulary import ShotType
from onmodel.dataset.captions import PHRASES, for_crop, segments, shuffled, with_context, with_shot


@pytest.mark.parametrize(
    ("caption", "shot", "expected"),
    [
        ("zibo, a boy, full body, running", ShotType.CLOSE_UP, "zibo, a boy, close-up, running"),
        ("full body of zibo, plain background", ShotType.MEDIUM, "zibo, medium shot, plain background"),
        ("zibo, a boy", ShotType.FULL_BODY, "zibo, a boy, full body"),
        ("zibo", ShotType.FAR, "zibo, wide shot"),
        ("zibo in a close up shot, smiling", ShotType.CLOSE_UP, "zibo, close-up, smiling"),
        ("zibo, Close-Up portrait, upper body", ShotType.CLOSE_UP, "zibo, close-up"),
        ("zibo, 1boy, cowboy shot", ShotType.MEDIUM, "zibo, 1boy, medium shot"),
        ("zibo, full body", ShotType.UNCLASSIFIED, "zibo, full body"),
        ("", ShotType.CLOSE_UP, "close-up"),
    ],
)
def test_shot_phrase(caption: str, shot: ShotType, expected: str) -> None:
    assert with_shot(caption, shot) == expected


@given(
    st.lists(st.sampled_from(["zibo", "a boy", "full body", "running", "red shirt", "close-up"]), min_size=1),
    st.sampled_from(list(PHRASES)),
    st.integers(0, 5),
)
def test_exactly_one_shot_phrase_and_stable(parts: list[str], shot: ShotType, variant: int) -> None:
    made = with_shot(", ".join(parts), shot, variant)
    every = {phrase for phrases in PHRASES.values() for phrase in phrases}
    assert sum(part in every for part in segments(made)) == 1
    assert with_shot(made, shot, variant) == made


def test_a_close_up_does_not_speak_of_shoes() -> None:
    caption = "zibo, a boy, red shirt, blue trousers, white shoes, running, in a park"
    assert for_crop(caption, ShotType.CLOSE_UP) == "zibo, a boy, red shirt, in a park"
    assert for_crop(caption, ShotType.MEDIUM) == "zibo, a boy, red shirt, blue trousers, running, in a park"
    assert for_crop(caption, ShotType.FULL_BODY) == caption


def test_context_is_added_once() -> None:
    made = with_context("zibo, close-up", ["multi_character", "occlusion", "complex_background"])
    assert made == "zibo, close-up, with another character, partly hidden, detailed background"
    assert with_context(made, ["multi_character", "occlusion"]) == made
    assert with_context("zibo", []) == "zibo, plain background"


def test_shuffling_keeps_the_subject_too() -> None:
    made = shuffled("zibo, a teenage boy, close-up, " + ", ".join("abcdefgh"), np.random.default_rng(0))
    assert segments(made)[:3] == ["zibo", "a teenage boy", "close-up"]


def test_shuffling_keeps_trigger_and_shot() -> None:
    caption = "zibo, close-up, " + ", ".join("abcdefgh")
    made = shuffled(caption, np.random.default_rng(0))
    assert made != caption
    assert segments(made)[:2] == ["zibo", "close-up"]
    assert sorted(segments(made)) == sorted(segments(caption))
