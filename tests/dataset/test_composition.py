"""Compositions: what a file may say, what is refused and how, and the same mix at another size."""

from pathlib import Path
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from onmodel.core.config import validate
from onmodel.core.errors import NotFoundError, UserError
from onmodel.dataset.composition import ATTRIBUTES, NAMES, PACKAGED, SHOTS, Composition, Limits, load_composition
from onmodel.dataset.recommended import RECOMMENDED

ROOT = Path(__file__).parents[2]


@pytest.mark.parametrize("name", ["default", "balanced"])
def test_packaged_ones_are_the_ones_to_start_from(name: str) -> None:
    assert (PACKAGED / f"{name}.json").read_text() == (ROOT / f"configs/compositions/{name}.json").read_text()
    composition = load_composition(name)
    for category in NAMES[:7]:
        low, high = RECOMMENDED.range(category)
        limits = composition.limits(category)
        if limits.minimum:
            assert low <= 100 * limits.minimum / composition.size <= high


def test_the_default_is_that_of_strategy_b() -> None:
    composition = load_composition("default")
    asked = {name: composition.span(name).min for name in ("close_up", "medium", "full_body", "far", "multi_character")}
    assert asked == {"close_up": 140, "medium": 100, "full_body": 100, "far": 30, "multi_character": 60}
    assert composition.size == 370
    assert composition.limits("unclassified").maximum == 0


def test_numbers_and_ranges() -> None:
    composition = validate(
        Composition,
        {"total": 100, "medium": 60, "far": {"min": 10}, "multi_character": 20, "occlusion": {"min": 5, "max": 9}},
        "c.json",
    )
    assert composition.limits("medium") == Limits(60, 60, 60)
    assert composition.limits("far") == Limits(10, 100, 100)
    assert composition.limits("close_up") == Limits(0, 0, 0)
    # More of an attribute than its number is avoided, more than the end of its range is never taken.
    assert composition.limits("multi_character") == Limits(20, 100, 20)
    assert composition.limits("occlusion") == Limits(5, 9, 9)
    assert composition.limits("complex_background") == Limits(0, 100, 100)


@pytest.mark.parametrize(
    ("given_", "said"),
    [
        ({"medium_shot": 3}, "unknown key `medium_shot`; did you mean `medium`"),
        ({"medium": -3}, "`medium`: is negative"),
        ({"medium": {"min": -3}}, "`medium.min`: input should be greater"),
        ({"medium": 2.5}, "`medium`: must be a whole number"),
        ({"medium": True}, "`medium`: must be a whole number"),
        ({"medium": {"mn": 3}}, r"unknown key `medium\.mn`; did you mean `min`"),
        ({"medium": {"min": 5, "max": 2}}, "min 5 is more than max 2"),
        ({"medium": 5, "occlusion": 9}, "9 pictures of a total of 5 cannot have it"),
        ({"total": 9, "medium": 5}, 'allow at most 5 .* `unclassified` fill up: {"max": 4}'),
        ({"total": 3, "medium": 5}, "ask for at least 5 pictures, but `total` is 3"),
        ({"medium": {"min": 3}}, "`medium` has no `max`, so `total` must"),
        ({"occlusion": 3}, "asks for no pictures of any shot type"),
        ({}, "asks for no pictures"),
    ],
)
def test_what_cannot_be_is_refused(given_: dict[str, Any], said: str) -> None:
    with pytest.raises(UserError, match=rf"^c\.json: .*{said}"):
        validate(Composition, given_, "c.json")


def test_names_and_files_that_are_not_there() -> None:
    with pytest.raises(NotFoundError, match="one of balanced, default"):
        load_composition("defualt")
    with pytest.raises(NotFoundError, match=r"nowhere\.json"):
        load_composition("nowhere.json")


def test_about_400() -> None:
    scaled = load_composition("default").scaled(400)
    assert [scaled.span(name).max for name in SHOTS] == [151, 108, 108, 33, 0]
    assert scaled.span("multi_character").min == 65


numbers = st.integers(0, 300)
spans = st.tuples(numbers, numbers).map(lambda two: {"min": min(two), "max": max(two)})


@given(
    st.fixed_dictionaries({name: st.one_of(numbers, spans) for name in SHOTS}),
    st.fixed_dictionaries({}, optional={name: st.integers(0, 40) for name in ATTRIBUTES}),
    st.integers(1, 3000),
)
def test_scaling_keeps_the_sum_and_the_mix(shots: dict[str, Any], attributes: dict[str, Any], total: int) -> None:
    try:
        composition = Composition.model_validate({**shots, **attributes})
    except ValueError:
        return
    scaled = composition.scaled(total)
    assert scaled.size == total == sum(scaled.limits(name).maximum for name in SHOTS)
    for name in NAMES:
        before, after = composition.span(name), scaled.span(name)
        assert after.max is None or before.max is None or abs(after.max - before.max * total / composition.size) <= 1
    assert Composition.model_validate(scaled.written()) == scaled
