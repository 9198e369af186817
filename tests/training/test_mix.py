"""Mixes of categories that overlap: met where they can be, refused with the reason where they cannot."""

from collections import Counter
from typing import Any

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from onmodel.core.errors import UserError
from onmodel.core.vocabulary import Attribute, ShotType
from onmodel.dataset.balance import MAX_REPEATS
from onmodel.training.buckets import count_showings, order_by_kind, plan_epoch
from onmodel.training.mix import shares_of, solve_mix

WEAK = {"full_body": 35.0, "multi_character": 25.0, "complex_background": 20.0, "close_up": 15.0, "far": 5.0}


def overlapping(count: int, seed: int = 0) -> list[tuple[str, ...]]:
    """Close-up heavy pictures whose attributes overlap their shot types and each other."""
    numbers = np.random.default_rng(seed)
    shots = numbers.choice([*(shot.value for shot in ShotType)], size=count, p=[0.45, 0.15, 0.15, 0.08, 0.17])
    chances = {Attribute.MULTI_CHARACTER: 0.12, Attribute.OCCLUSION: 0.1, Attribute.COMPLEX_BACKGROUND: 0.3}
    found: list[tuple[str, ...]] = []
    for shot in shots.tolist():
        names = [attribute.value for attribute, chance in chances.items() if numbers.random() < chance]
        found.append(tuple(sorted([shot] * (shot != "unclassified") + names)))
    return found


def test_ten_thousand_draws_have_the_shares_that_were_asked_for() -> None:
    categories = overlapping(400)
    repeats = [1 + index % 3 for index in range(400)]
    solved = solve_mix(WEAK, categories, repeats, "stage")
    buckets = [(64, 64) if index % 2 else (96, 48) for index in range(400)]
    order = order_by_kind(categories, buckets, 3)
    drawn: Counter[int] = Counter()
    epoch = 0
    while drawn.total() < 10_000:
        counts = count_showings(solved.showings, order, 3, epoch)
        for batch in plan_epoch(buckets, counts, 4, 3, epoch):
            drawn.update(batch.pictures)
        epoch += 1
    for name, share in WEAK.items():
        got = sum(count for index, count in drawn.items() if name in categories[index]) / drawn.total()
        # Two standard errors of independent draws; systematic ones lie well within.
        assert abs(got - share / 100) < 2 * (share / 100 * (1 - share / 100) / drawn.total()) ** 0.5
    expected = solved.showings * epoch
    assert all(abs(drawn[index] - expected[index]) < 4 for index in range(400)), "each picture gets its fraction"


@settings(max_examples=25, deadline=None)
@given(st.integers(40, 200), st.integers(0, 100), st.sampled_from(["balanced", "weak", "original"]))
def test_a_solved_mix_sums_up_and_shows_nothing_absurdly_often(count: int, seed: int, kind: str) -> None:
    categories = overlapping(count, seed)
    repeats = [1 + index % 4 for index in range(count)]
    mix: Any = {"full_body": 20.0, "complex_background": 25.0} if kind == "weak" else kind
    solved = solve_mix(mix, categories, repeats, "stage")
    assert solved.showings.sum() == pytest.approx(sum(repeats))
    assert (solved.showings >= 0).all()
    assert (solved.showings <= (MAX_REPEATS + 0.01) * np.array(repeats)).all()
    assert solved.shares == pytest.approx(shares_of(solved.showings, categories))
    same: dict[tuple[str, ...], set[float]] = {}
    for names, shown, own in zip(categories, solved.showings.tolist(), repeats, strict=True):
        same.setdefault(names, set()).add(round(shown / own, 6))
    assert all(len(factors) == 1 for factors in same.values()), "pictures of one kind are treated alike"
    for name, (low, high) in solved.asked.items() if kind == "weak" else ():
        assert low - 0.06 <= solved.shares[name] <= high + 0.06


def test_balanced_reaches_every_range_that_can_be_reached() -> None:
    solved = solve_mix("balanced", overlapping(400), [1] * 400, "stage")
    assert all(low - 0.01 <= solved.shares[name] <= high + 0.01 for name, (low, high) in solved.asked.items())
    without = [tuple(name for name in names if name != "far") for names in overlapping(400)]
    assert solve_mix("balanced", without, [1] * 400, "stage").shares["far"] == 0


def test_a_mix_that_the_set_has_already_changes_nothing() -> None:
    categories = [("close_up",), ("full_body",), ("close_up", "occlusion"), ("far",)] * 5
    solved = solve_mix({"close_up": 50.0, "occlusion": 25.0}, categories, [2] * 20, "stage")
    assert solved.showings == pytest.approx(np.full(20, 2.0), abs=1e-4)


PAIRED = [("close_up", "multi_character")] * 10 + [("full_body",)] * 10


@pytest.mark.parametrize(
    ("mix", "categories", "said"),
    [
        ({"far": 5.0}, PAIRED, r"5 % far, and no training picture is of that category"),
        ({"full_body": 60.0, "close_up": 50.0}, PAIRED, r"exclude each other, and close_up 50 \+ full_body 60"),
        ({"multi_character": 30.0, "close_up": 40.0}, PAIRED, r"cannot be had together.*close_up stands against"),
        ({"far": 30.0}, [("close_up",)] * 99 + [("far",)], r"30 % far, and its pictures give at most 10\.0 %"),
        ({"close_up": 50.0}, [("close_up",)] * 99 + [("far",)], r"only 50 % close_up.*leave it 90\.0 %"),
    ],
)
def test_impossible_mixes_are_refused_with_the_reason(
    mix: dict[str, float], categories: list[tuple[str, ...]], said: str
) -> None:
    with pytest.raises(UserError, match=f"stage `weak`: .*{said}"):
        solve_mix(mix, categories, [1] * len(categories), "stage `weak`")


@given(
    st.lists(st.tuples(st.floats(0, 9), st.sampled_from(["a", "b"])), min_size=1, max_size=40),
    st.integers(0, 1000),
)
def test_an_epoch_rounds_each_fraction_down_or_up_and_keeps_the_sum(rows: list[tuple[float, str]], seed: int) -> None:
    showings = np.array([row[0] for row in rows])
    total = max(1, round(showings.sum()))
    showings = showings * total / showings.sum() if showings.sum() > 0 else np.full(len(rows), total / len(rows))
    kinds = [row[1] for row in rows]
    order = order_by_kind(kinds, [(8, 8)] * len(rows), seed)
    seen = np.zeros(len(rows))
    for epoch in range(8):
        counts = count_showings(showings, order, seed, epoch)
        assert counts.sum() == total
        assert (np.abs(counts - showings) < 1 + 1e-6).all()
        for kind in ("a", "b"):
            inside = np.array([each == kind for each in kinds])
            assert abs(counts[inside].sum() - showings[inside].sum()) < 1 + 1e-6
        seen += counts
    assert (np.abs(seen - 8 * showings) < 3).all()


def test_whole_showings_are_shown_exactly() -> None:
    showings = np.array([1.0, 0.0, 3.0, 2.0])
    order = order_by_kind([(), (), (), ()], [(8, 8)] * 4, 0)
    assert all(count_showings(showings, order, 0, epoch).tolist() == [1, 0, 3, 2] for epoch in range(20))
