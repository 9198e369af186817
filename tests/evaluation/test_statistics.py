"""Intervals cover the truth as often as they say, and two runs of one model are seldom told apart.

The draws follow what evaluations look like: prompts that differ in how hard they are, a few variations of each, and
identities of 0 where the character vanished. Seeds are fixed; what a test allows beyond 93 to 97 in 100
is the 99 % range that its own number of draws leaves open.
"""

import math
from collections.abc import Callable

import numpy as np
import numpy.typing as npt
import pytest
from hypothesis import given
from hypothesis import strategies as st

from onmodel.evaluation.statistics import Interval, Verdict, interval, paired, share_interval

Values = npt.NDArray[np.float64]
SIZES = [(5, 3), (5, 4), (10, 3), (10, 4)]
SHARES = (0.1, 0.3, 0.5, 0.8, 0.93)
LIKENESS = (0.0, 0.2, 0.5)
"""Correlation of two pictures of one prompt."""
DRAWS = 200


def shares(rng: np.random.Generator, prompts: int, variations: int, truth: float, likeness: float) -> Values:
    """Shares of pictures that came out right, by prompt."""
    chance = np.full(prompts, truth)
    if likeness:
        spread = 1 / likeness - 1
        chance = rng.beta(truth * spread, (1 - truth) * spread, size=prompts)
    return rng.binomial(variations, chance) / variations


def identities(rng: np.random.Generator, prompts: int, variations: int, gone: float, spread: float) -> Values:
    """Mean identity by prompt: about 0.6 where the character is there, 0 where it vanished."""
    middle = rng.normal(0.6, spread, size=(prompts, 1))
    drawn = np.clip(rng.normal(middle, 0.25, size=(prompts, variations)), -1, 2)
    return np.where(rng.random((prompts, variations)) < gone, 0.0, drawn).mean(axis=1)


def covered(found: Interval | None, truth: float) -> bool:
    assert found is not None
    return found.low <= truth <= found.high


def slack(draws: int) -> float:
    """Half the 99 % range of a rate near 0.95 over that many draws."""
    return 2.576 * math.sqrt(0.95 * 0.05 / draws)


@pytest.mark.parametrize(("prompts", "variations"), SIZES)
def test_intervals_of_shares_cover_the_truth(prompts: int, variations: int) -> None:
    rng = np.random.default_rng(prompts * 10 + variations)
    hits = [
        covered(interval(list(shares(rng, prompts, variations, p, r)), share_of=prompts * variations), p)
        for p in SHARES
        for r in LIKENESS
        for _ in range(DRAWS)
    ]
    # A count of fifteen pictures takes few values, so that one share's own rate swings about; all together hold.
    assert 0.93 - slack(len(hits)) <= np.mean(hits) <= 0.97 + slack(len(hits))


@pytest.mark.parametrize(("prompts", "variations"), SIZES)
def test_intervals_of_means_cover_the_truth(prompts: int, variations: int) -> None:
    rng = np.random.default_rng(prompts * 10 + variations)
    hits = [
        covered(interval(list(identities(rng, prompts, variations, gone, spread))), 0.6 * (1 - gone))
        for gone in (0.0, 0.1, 0.3)
        for spread in (0.1, 0.3)
        for _ in range(DRAWS)
    ]
    assert 0.93 - slack(len(hits)) <= np.mean(hits) <= 0.97 + slack(len(hits))


Two = Callable[[np.random.Generator, int, int], tuple[Values, Values]]


def two_shares(rng: np.random.Generator, prompts: int, variations: int) -> tuple[Values, Values]:
    chance = rng.beta(2.0, 2.0, size=prompts)
    return rng.binomial(variations, chance) / variations, rng.binomial(variations, chance) / variations


def two_identities(rng: np.random.Generator, prompts: int, variations: int) -> tuple[Values, Values]:
    middle = rng.normal(0.6, 0.2, size=(prompts, 1))
    first, second = rng.normal(middle, 0.25, size=(2, prompts, variations))
    return first.mean(axis=1), second.mean(axis=1)


@pytest.mark.parametrize("two", [two_shares, two_identities])
@pytest.mark.parametrize(("prompts", "variations"), SIZES)
def test_two_runs_of_one_model_are_seldom_told_apart(two: Two, prompts: int, variations: int) -> None:
    rng = np.random.default_rng(prompts * 10 + variations)
    draws = 600
    verdicts = [paired(*map(list, two(rng, prompts, variations))).verdict for _ in range(draws)]
    for verdict in (Verdict.BETTER, Verdict.WORSE):
        assert verdicts.count(verdict) / draws <= 0.05


def test_a_real_difference_is_decided() -> None:
    rng = np.random.default_rng(5)
    first = rng.normal(0.4, 0.1, size=10)
    assert paired(list(first), list(first + rng.normal(0.2, 0.05, size=10))).verdict is Verdict.BETTER
    assert paired(list(first), list(first + 0.2), higher_is_better=False).verdict is Verdict.WORSE


@given(st.lists(st.integers(0, 4), min_size=1, max_size=12))
def test_a_share_lies_in_its_interval(rights: list[int]) -> None:
    sample = np.array(rights) / 4
    low, high = share_interval(sample, 4 * len(rights))
    share = float(sample.mean())
    assert 0.0 <= low <= share <= high <= 1.0
    assert high - low > 0.01, "no number of pictures in use proves anything to a hundredth"
    mirrored = share_interval(1 - sample, 4 * len(rights))
    assert mirrored == pytest.approx((1 - high, 1 - low))
    assert share_interval(sample, 8 * len(rights))[0] >= low - 1e-12, "more pictures say more"


def test_one_prompt_and_none() -> None:
    assert interval([]) is None
    assert interval([math.nan]) is None
    alone = interval([0.4])
    assert alone is not None
    assert (alone.low, alone.high) == (0.0, 1.0)
    right = interval([1.0], share_of=4)
    assert right is not None
    assert right.low < 0.3, "four pictures of one prompt are little"
