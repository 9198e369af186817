"""Intervals of known data, and the rules by which claims count as shown or failing."""

import math

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from onmodel.core.errors import UserError
from onmodel.core.vocabulary import CATEGORIES
from onmodel.experiments import hypotheses as claims
from onmodel.experiments.dose_report import CONTRAST, curve, least_good
from onmodel.experiments.hypotheses import Measured, Verdict, judge_all
from onmodel.experiments.judge import PictureFigure
from onmodel.experiments.plan import DOSES
from onmodel.experiments.report import by_bound
from onmodel.experiments.shares import tensor
from onmodel.experiments.statistics import LEVELS, Array, Estimate, bootstrap, estimate, means, spearman

CHARACTERS = ["a", "a", "b", "b", "c", "c"]


def shares(rng: np.random.Generator, trials: int = 2, prompts: int = 4) -> Array:
    return rng.integers(0, 3, size=(trials, len(CHARACTERS), len(CATEGORIES), prompts)) / 2.0


@given(st.floats(0, 1))
@settings(max_examples=20, deadline=None)
def test_what_does_not_vary_has_no_width(value: float) -> None:
    constant = np.full((1, 6, 7, 3), value)
    drawn = bootstrap(constant, CHARACTERS, count=50)
    assert drawn.shape == (50, 1, 7)
    np.testing.assert_allclose(drawn, value, atol=1e-12)
    np.testing.assert_allclose(means(constant, CHARACTERS), value, atol=1e-12)


@given(st.integers(0, 10_000))
@settings(max_examples=15, deadline=None)
def test_draws_stay_within_what_there_is_and_repeat(seed: int) -> None:
    data = shares(np.random.default_rng(seed))
    drawn = bootstrap(data, CHARACTERS, count=60, seed=seed)
    assert (drawn >= data.min(axis=(1, 3))[None] - 1e-12).all()
    assert (drawn <= data.max(axis=(1, 3))[None] + 1e-12).all()
    np.testing.assert_array_equal(drawn, bootstrap(data, CHARACTERS, count=60, seed=seed))


@given(st.integers(0, 10_000), st.floats(0.05, 0.5))
@settings(max_examples=15, deadline=None)
def test_differences_are_taken_within_a_unit(seed: int, more: float) -> None:
    """A trial that is better by the same in every prompt is better by that in every draw, however much units differ."""
    data = shares(np.random.default_rng(seed), trials=1)
    drawn = bootstrap(np.concatenate([data, data + more]), CHARACTERS, count=60)
    np.testing.assert_allclose(drawn[:, 1] - drawn[:, 0], more, atol=1e-12)


def test_the_spread_is_that_of_characters_not_of_pictures() -> None:
    """Three characters at 0, 0.5 and 1: the mean of three drawn ones has a variance of 1/18, whatever their prompts."""
    data = np.zeros((1, 6, 7, 5))
    data[:, 2:4] = 0.5
    data[:, 4:] = 1.0
    drawn = bootstrap(data, CHARACTERS, count=4000)[:, 0, 0]
    assert np.isclose(drawn.var(), 1 / 18, rtol=0.1)
    assert np.isclose(drawn.mean(), 0.5, atol=0.02)


def test_characters_with_fewer_seeds_count_as_much() -> None:
    data = np.zeros((1, 4, 7, 2))
    data[:, 3] = 1.0
    owners = ["a", "a", "a", "b"]
    assert np.allclose(means(data, owners), 0.5)
    assert np.isclose(bootstrap(data, owners, count=4000).mean(), 0.5, atol=0.02)


def test_intervals_nest_and_hold_the_middle() -> None:
    found = estimate(0.0, np.random.default_rng(0).normal(size=4000))
    (low, high), (lower, higher) = found.intervals["95"], found.intervals["99.3"]
    assert lower < low < 0 < high < higher
    assert np.isclose(high, 1.96, atol=0.15)
    assert list(found.intervals) == list(LEVELS)


def test_intervals_of_normal_units_hold_the_truth_as_often_as_they_say() -> None:
    """Of one unit a character, the draws are those of a plain bootstrap over nine units: a little too narrow."""
    rng = np.random.default_rng(3)
    owners = [f"c{n}" for n in range(9)]
    held = 0
    for number in range(120):
        data = 0.5 + 0.1 * rng.normal(size=(1, 9, 1, 1)) * np.ones((1, 9, 1, 4))
        low, high = estimate(0.0, bootstrap(data, owners, count=400, seed=number)[:, 0, 0]).intervals["95"]
        held += low <= 0.5 <= high
    assert 0.80 <= held / 120 <= 0.99


def test_rank_correlation() -> None:
    assert spearman([1, 2, 3, 4], [10, 20, 25, 90]) == pytest.approx(1)
    assert spearman([1, 2, 3, 4], [4, 3, 2, 1]) == pytest.approx(-1)
    assert math.isnan(spearman([1, 1, 1], [1, 2, 3]))


def figure(value: float, low: float, high: float) -> Estimate:
    return Estimate(value, dict.fromkeys(LEVELS, (low, high)))


@pytest.mark.parametrize(
    ("gain", "relative", "wanted"),
    [
        (figure(0.20, 0.10, 0.30), 0.80, Verdict.SHOWN),
        (figure(0.20, 0.10, 0.30), 0.50, Verdict.OPEN),
        (figure(0.20, 0.10, 0.30), 0.34, Verdict.FAILED),
        (figure(0.20, -0.01, 0.40), 0.80, Verdict.FAILED),
        # Much of nearly nothing.
        (figure(0.02, 0.01, 0.03), 4.00, Verdict.OPEN),
        (figure(-0.2, -0.3, -0.1), -0.2, Verdict.FAILED),
    ],
)
def test_relative_gains(gain: Estimate, relative: float, wanted: Verdict) -> None:
    assert claims.relative_verdict(gain, relative, "95", shown=0.70, failing=0.35) is wanted


@pytest.mark.parametrize(
    ("gain", "wanted"),
    [
        (figure(0.25, 0.05, 0.40), Verdict.SHOWN),
        (figure(0.15, 0.05, 0.40), Verdict.OPEN),
        (figure(0.25, -0.05, 0.40), Verdict.FAILED),
    ],
)
def test_close_ups_against_the_rest(gain: Estimate, wanted: Verdict) -> None:
    assert claims.close_up_verdict(gain, "95") is wanted


def test_other_rules() -> None:
    assert claims.two_sided(figure(0.1, 0.01, 0.2), "95") is Verdict.SHOWN
    assert claims.two_sided(figure(0.1, 0.00, 0.2), "95") is Verdict.FAILED
    assert [claims.correlation_verdict(value) for value in (0.8, 0.79, 0.5, 0.49, math.nan)] == [
        Verdict.SHOWN, Verdict.OPEN, Verdict.OPEN, Verdict.FAILED, Verdict.FAILED,
    ]  # fmt: skip


def measured(of: dict[str, float]) -> Measured:
    """Trials that have the same share in every prompt, in every scenario but close-ups, where it is 0.9."""
    values = np.array([[[[0.9 if name == "close_up" else share] * 2 for name in CATEGORIES]] * 6
                       for share in of.values()])  # fmt: skip
    return Measured(
        tuple(of), means(values, CHARACTERS), bootstrap(values, CHARACTERS, count=100), figure(0.6, 0.5, 0.7)
    )


def test_every_claim_of_the_plan_is_judged() -> None:
    found = {f.name: f for f in judge_all(measured({"baseline": 0.3, "a": 0.42, "b": 0.6, "c": 0.3, "d": 0.3,
                                                    "b_d": 0.9}))}  # fmt: skip
    verdicts = {name: each.verdicts["95"] for name, each in found.items()}
    assert verdicts == {
        "H1": Verdict.SHOWN, "H2": Verdict.SHOWN, "H3": Verdict.SHOWN, "H4": Verdict.SHOWN, "H5": Verdict.FAILED,
        "H6": Verdict.SHOWN, "H7": Verdict.OPEN,
    }  # fmt: skip
    assert found["H2"].relative is not None
    assert found["H2"].relative.value == pytest.approx(0.4)
    assert found["H1"].gain is not None
    assert found["H1"].gain.value == pytest.approx(0.6)


def test_a_gain_over_nothing_has_no_percentage_and_needs_its_points() -> None:
    found = {f.name: f for f in judge_all(measured({"baseline": 0.0, "a": 0.5}))}
    assert found["H2"].relative is None
    assert found["H2"].verdicts["95"] is Verdict.SHOWN
    assert found["H3"].verdicts["95"] is Verdict.NOT_MEASURED


def row(trial: str, seed: int, scenario: str, prompt: int, variation: int, on_model: bool) -> PictureFigure:
    return PictureFigure(character="zibo", seed=seed, trial=trial, scenario=scenario, prompt=prompt,
                         variation=variation, on_model=on_model, people=1)  # fmt: skip


def test_shares_are_of_whole_units_by_prompt() -> None:
    rows = [
        row(trial, seed, scenario, prompt, variation, trial == "b" and variation < prompt % 3)
        for trial in ("a", "b")
        for seed in (1, 2)
        for scenario, first in (("close_up", 0), ("far", 30))
        for prompt in range(first, first + 3)
        for variation in (0, 1)
        if (trial, seed) != ("b", 2)
    ]
    found, units = tensor(rows, ["a", "b"], ["close_up", "far"])
    assert units == [("zibo", 1)]
    np.testing.assert_array_equal(found, [[[[0, 0, 0], [0, 0, 0]]], [[[0, 0.5, 1], [0, 0.5, 1]]]])
    with pytest.raises(UserError, match="no unit has all of a, c"):
        tensor(rows, ["a", "c"], ["far"])


def test_the_least_share_that_is_as_good_as_the_best() -> None:
    rising = [figure(value, value - 0.1, value + 0.1) for value in (0.1, 0.3, 0.55, 0.60, 0.62, 0.5)]
    assert least_good((0, 5, 10, 20, 30, 45), rising) == 10
    assert least_good((0, 5), [figure(0.5, 0.4, 0.6), figure(0.2, 0.1, 0.3)]) == 0


def test_a_curve_is_of_units_that_have_all_its_doses() -> None:
    """On model where the dose is as large as the prompt's number says; the second seed lacks a dose."""
    rows = [
        row(f"medium_{dose}", seed, "medium", prompt, 0, dose >= 10 * prompt)
        for seed in (1, 2)
        for dose in DOSES
        for prompt in range(4)
        if (seed, dose) != (2, 45)
    ]
    found = curve(rows, "medium")
    assert found is not None and found.units == 1
    assert [each.value for each in found.values] == [sum(dose >= 10 * n for n in range(4)) / 4 for dose in DOSES]
    assert found.gain.value == found.values[DOSES.index(CONTRAST)].value - found.values[0].value == 0.5
    assert curve(rows, "far") is None


def told(trial: str, scenario: str, on_model: bool, product: str, identity: float | None) -> PictureFigure:
    return PictureFigure(character="zibo", seed=1, trial=trial, scenario=scenario, prompt=0, variation=0,
                         on_model=on_model, people=1, product=product, identity=identity)  # fmt: skip


def test_a_bound_that_the_truth_has_agrees_with_it_wholly() -> None:
    """Pictures are on model from 0.82 on: 0.8 takes one of each group too many, 0.85 none."""
    values = [0.4, 0.55, 0.65, 0.81, 0.87, 0.97]
    pictures = [
        told(trial, scenario, value >= 0.82, "right" if value >= 0.5 else "not recognised", value)
        for trial, values in (("a", values[1:]), ("b", values[:4]))
        for scenario in ("far", "full_body")
        for value in values
    ]
    pictures.append(told("a", "far", False, "another framing", 0.99))
    pictures.append(told("a", "far", False, "no character", None))
    pictures.append(told("a", "multi_character", True, "not recognised", 0.1))
    found = {each.identity: each for each in by_bound(pictures)}
    assert found[0.85].agreement == 1 and found[0.85].correlation == pytest.approx(1)
    assert found[0.85].share == found[0.85].true_share == pytest.approx(4 / 20)
    assert found[0.5].share == pytest.approx(16 / 20)
    assert found[0.8].agreement == pytest.approx(16 / 20)
    assert by_bound([told("a", "far", True, "right", 1.0).model_copy(update={"product": None})]) == []
