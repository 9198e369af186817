"""What must hold of the scores, whatever the embeddings."""

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from hypothesis.extra.numpy import arrays

from onmodel.scoring import metrics
from onmodel.scoring.metrics import Interval


def unit(rows: np.ndarray) -> np.ndarray:
    return (rows / np.linalg.norm(rows, axis=1, keepdims=True)).astype(np.float32)


embeddings = st.builds(
    lambda seed, count, width: unit(np.random.default_rng(seed).normal(size=(count, width))),
    st.integers(0, 2**31),
    st.integers(2, 12),
    st.integers(2, 16),
)
values = arrays(np.float64, st.integers(1, 30), elements=st.floats(-10, 10, width=32))


@given(embeddings)
def test_pairwise_mean_lies_between_least_and_one(rows: np.ndarray) -> None:
    mean, least = metrics.pairwise_cosine_mean(rows), metrics.pairwise_cosine_min(rows)
    assert -1.0 <= least <= mean + 1e-9 <= 1.0 + 1e-6


@given(embeddings, st.integers(0, 1000))
def test_order_does_not_matter(rows: np.ndarray, seed: int) -> None:
    shuffled = np.random.default_rng(seed).permutation(rows)
    assert metrics.pairwise_cosine_mean(shuffled) == pytest.approx(metrics.pairwise_cosine_mean(rows), abs=1e-6)


@given(embeddings)
def test_pairwise_mean_against_a_plain_loop(rows: np.ndarray) -> None:
    pairs = [float(rows[i] @ rows[j]) for i in range(len(rows)) for j in range(i)]
    assert metrics.pairwise_cosine_mean(rows) == pytest.approx(np.mean(pairs), abs=1e-5)
    assert metrics.pairwise_cosine_min(rows) == pytest.approx(np.min(pairs), abs=1e-5)


def test_copies_of_one_picture_are_wholly_consistent() -> None:
    rows = np.repeat(unit(np.ones((1, 8))), 5, axis=0)
    interval = metrics.consistency_interval(rows)
    assert (interval.mean, interval.low, interval.high) == pytest.approx((1.0, 1.0, 1.0))


@settings(max_examples=25)
@given(embeddings)
def test_consistency_interval_holds_its_mean(rows: np.ndarray) -> None:
    interval = metrics.consistency_interval(rows, resamples=200)
    assert interval.low <= interval.mean <= interval.high
    assert interval.count == len(rows)
    assert interval.mean == pytest.approx(metrics.pairwise_cosine_mean(rows))


def test_one_outlier_widens_the_interval_of_consistency() -> None:
    alike = unit(np.random.default_rng(0).normal(size=(8, 16)) * 0.01 + 1.0)
    stranger = alike.copy()
    stranger[0] = -stranger[0]
    width = [i.high - i.low for i in map(metrics.consistency_interval, (alike, stranger))]
    assert width[1] > 10 * width[0]


@pytest.mark.parametrize("function", [metrics.pairwise_cosine_mean, metrics.pairwise_cosine_min])
def test_one_picture_has_no_consistency(function: object) -> None:
    with pytest.raises(ValueError, match="at least two"):
        function(np.ones((1, 4)))  # type: ignore[operator]


@settings(max_examples=25)
@given(values)
def test_bootstrap_holds_its_mean_and_repeats(data: np.ndarray) -> None:
    interval = metrics.bootstrap_interval(data, resamples=300)
    assert data.min() - 1e-9 <= interval.low <= interval.mean <= interval.high <= data.max() + 1e-9
    assert interval == metrics.bootstrap_interval(data, resamples=300)


def test_bootstrap_covers_the_truth_about_as_often_as_it_says() -> None:
    draws = np.random.default_rng(1).normal(size=(200, 40))
    hits = [i.low <= 0.0 <= i.high for i in (metrics.bootstrap_interval(row, resamples=500) for row in draws)]
    assert 0.87 <= np.mean(hits) <= 0.99


@given(values)
def test_a_thing_is_no_better_than_itself(data: np.ndarray) -> None:
    difference = metrics.paired_difference(data, data)
    assert (difference.low, difference.mean, difference.high) == (0.0, 0.0, 0.0)
    assert metrics.verdict(difference) == "not decided"


def test_verdicts() -> None:
    before = np.linspace(0, 1, 20)
    assert metrics.verdict(metrics.paired_difference(before, before + 0.1)) == "better"
    assert metrics.verdict(metrics.paired_difference(before, before - 0.1)) == "worse"
    noise = np.random.default_rng(2).normal(size=20)
    assert metrics.verdict(metrics.paired_difference(before, before + noise - noise.mean())) == "not decided"
    assert metrics.verdict(Interval(0.5, 0.5, 0.5, 1)) == "not decided"
    with pytest.raises(ValueError, match="same prompts"):
        metrics.paired_difference([1.0], [1.0, 2.0])


@given(st.floats(-1, 0.5), st.floats(0.01, 0.5))
def test_calibration_puts_strangers_at_0_and_the_character_at_1(impostor: float, gap: float) -> None:
    ends = metrics.calibrate(np.array([impostor, impostor + gap]), impostor=impostor, genuine=impostor + gap)
    np.testing.assert_allclose(ends, [0.0, 1.0], atol=1e-6)


def test_calibration_needs_a_scale() -> None:
    with pytest.raises(ValueError, match="cannot tell them apart"):
        metrics.calibrate(np.array([0.5]), impostor=0.9, genuine=0.8)


def test_identity_and_prompt_against_plain_loops() -> None:
    generator = np.random.default_rng(3)
    images, references = unit(generator.normal(size=(4, 6))), unit(generator.normal(size=(3, 6)))
    np.testing.assert_allclose(
        metrics.identity(images, references), [np.mean([i @ r for r in references]) for i in images], atol=1e-6
    )
    texts = unit(generator.normal(size=(4, 6)))
    expected = [i @ t for i, t in zip(images, texts, strict=True)]
    np.testing.assert_allclose(metrics.prompt_similarity(images, texts), expected, atol=1e-6)
