"""The integer programme against brute force, and what must hold of every answer."""

from collections import Counter
from collections.abc import Sequence
from itertools import combinations
from typing import Any

import numpy as np
import pytest
from hypothesis import assume, given, settings
from hypothesis import strategies as st

from onmodel.dataset import programme
from onmodel.dataset.composition import ATTRIBUTES, NAMES, SHOTS, Composition, load_composition
from onmodel.dataset.programme import Candidate, ProgrammeConfig, Selection, select

EXACT = ProgrammeConfig(relative_gap=0.0)


def candidates(most: int, qualities: st.SearchStrategy[int]) -> st.SearchStrategy[list[Candidate]]:
    one = st.builds(
        Candidate,
        st.sampled_from(SHOTS),
        st.frozensets(st.sampled_from(ATTRIBUTES)),
        qualities.map(lambda value: value / 100),
        st.sampled_from([None, None, "river", "tree"]),
    )
    return st.lists(one, max_size=most)


@st.composite
def compositions(draw: st.DrawFn, most: int) -> Composition:
    number = st.integers(0, most)
    span = st.tuples(number, number).map(lambda two: {"min": min(two), "max": max(two)})
    asked: dict[str, Any] = {name: draw(number | span) for name in SHOTS}
    asked |= draw(st.fixed_dictionaries({}, optional=dict.fromkeys(ATTRIBUTES, number | span)))
    try:
        return Composition.model_validate(asked)
    except ValueError:
        assume(False)
        raise


def judged(chosen: Sequence[Candidate], composition: Composition) -> tuple[int, int, int, float]:
    """Shortfall, room left, excess and cost of a choice, written down independently of the programme."""
    counts = Counter(name for candidate in chosen for name in (candidate.shot, *candidate.attributes))
    limits = {name: composition.limits(name) for name in NAMES}
    short = sum(max(0, limits[name].minimum - counts[name]) for name in NAMES)
    excess = sum(max(0, counts[name] - limits[name].preferred) for name in ATTRIBUTES)
    value = sum(candidate.quality for candidate in chosen)
    for kin, count in Counter(candidate.kin for candidate in chosen).items():
        if kin is not None:
            value -= sum(EXACT.diversity * (1 - 1 / min(n, 6)) for n in range(2, count + 1))
    return short, composition.size - len(chosen), excess, -value


def allowed(chosen: Sequence[Candidate], composition: Composition) -> bool:
    counts = Counter(name for candidate in chosen for name in (candidate.shot, *candidate.attributes))
    within = all(counts[name] <= composition.limits(name).maximum for name in NAMES)
    return within and len(chosen) <= composition.size


def taken(found: Selection, given_: Sequence[Candidate]) -> list[Candidate]:
    return [given_[index] for index in found.chosen]


@settings(max_examples=60, deadline=None)
@given(candidates(9, st.integers(0, 100)), compositions(4))
def test_it_is_the_best_of_all_choices(given_: list[Candidate], composition: Composition) -> None:
    found = select(given_, composition, EXACT)
    assert found.proven
    everything = [
        judged(choice, composition)
        for size in range(len(given_) + 1)
        for choice in combinations(given_, size)
        if allowed(choice, composition)
    ]
    best = min(everything, key=lambda one: (*one[:3], round(one[3], 6)))
    got = judged(taken(found, given_), composition)
    assert got[:3] == best[:3]
    assert got[3] == pytest.approx(best[3], abs=1e-5)
    assert found.value == pytest.approx(-got[3])


@settings(max_examples=40, deadline=None)
@given(candidates(80, st.integers(0, 100)), compositions(30), st.integers(0, 80))
def test_never_more_than_asked_and_more_to_choose_from_never_lacks_more(
    given_: list[Candidate], composition: Composition, first: int
) -> None:
    found = select(given_, composition)
    chosen = taken(found, given_)
    assert len(set(found.chosen)) == len(chosen)
    assert allowed(chosen, composition)
    short, _, excess, _ = judged(chosen, composition)
    assert sum(found.shortfalls.values()) == short
    assert sum(found.excess.values()) == excess
    assert found.counts == {name: sum(name in candidate.kind for candidate in chosen) for name in NAMES}
    fewer = select(given_[:first], composition)
    assert sum(fewer.shortfalls.values()) >= short
    assert select(given_, composition) == found


def crowd(count: int, families: int) -> list[Candidate]:
    rng = np.random.default_rng(3)
    shots = rng.choice(SHOTS, count, p=[0.4, 0.2, 0.2, 0.05, 0.15])
    return [
        Candidate(
            str(shot),
            frozenset(name for name in ATTRIBUTES if rng.random() < 0.15),
            float(rng.integers(0, 10_000)) / 10_000,
            int(rng.integers(0, families)),
        )
        for shot in shots
    ]


def test_a_core_of_the_pictures_is_as_good_as_all_of_them(monkeypatch: pytest.MonkeyPatch) -> None:
    """The relaxation leaves out nine of ten pictures; the value is that of the programme over all of them."""
    given_, composition = crowd(1500, 150), load_composition("balanced").scaled(60)
    whole = select(given_, composition, EXACT)
    monkeypatch.setattr(programme, "_CORE", 100)
    part = select(given_, composition, EXACT)
    assert part.proven
    assert part.value == pytest.approx(whole.value, abs=1e-6)
    assert part.shortfalls == whole.shortfalls == {}


def test_without_time_the_composition_is_met_all_the_same_and_it_is_said() -> None:
    given_, composition = crowd(1500, 40), load_composition("balanced").scaled(200)
    found = select(given_, composition, ProgrammeConfig(time_limit_s=1e-9, relative_gap=0.0))
    best = select(given_, composition)
    assert found.shortfalls == best.shortfalls
    assert len(found.chosen) == len(best.chosen)
    assert (best.proven, found.proven) == (True, False)
    assert 0.7 * best.value < found.value <= best.value + 1e-3


def test_shot_types_and_attributes_are_solved_together() -> None:
    """Taking the sharpest medium shots first would leave the attribute unmet."""
    plain = [Candidate("medium", frozenset(), 0.9) for _ in range(4)]
    rare = [Candidate("medium", frozenset({"multi_character"}), 0.2), Candidate("far", frozenset(), 0.5)]
    composition = Composition.model_validate({"medium": 4, "far": 1, "multi_character": 1})
    found = select([*plain, *rare], composition)
    assert found.shortfalls == {}
    assert 4 in found.chosen


def test_an_attribute_goes_beyond_its_number_only_for_the_shot_types() -> None:
    group = [Candidate("medium", frozenset({"multi_character"}), 0.9) for _ in range(3)]
    alone = [Candidate("medium", frozenset(), 0.1)]
    composition = Composition.model_validate({"medium": 3, "multi_character": 1})
    found = select([*group, *alone], composition)
    assert (found.shortfalls, found.excess) == ({}, {"multi_character": 1})
    firm = Composition.model_validate({"medium": 3, "multi_character": {"min": 1, "max": 1}})
    assert select([*group, *alone], firm).shortfalls == {"medium": 1}


def test_kin_are_spread() -> None:
    still = [Candidate("medium", frozenset(), 0.9, "one shot") for _ in range(5)]
    others = [Candidate("medium", frozenset(), 0.7, name) for name in "abc"]
    found = select([*still, *others], Composition.model_validate({"medium": 4}))
    assert sum(index < 5 for index in found.chosen) == 1


def test_nothing_to_choose_from() -> None:
    composition = load_composition("default")
    assert select([], composition).shortfalls["medium"] == 100
    unknown = select([Candidate("unclassified", frozenset(), 1.0)], composition)
    assert (unknown.chosen, unknown.proven) == ((), True)
