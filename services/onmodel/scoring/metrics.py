"""Scores made of embeddings. Pure functions; every embedding is a row of unit length, float32 (count, width)."""

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Literal

import numpy as np
import numpy.typing as npt

Array = npt.NDArray[np.floating]
Verdict = Literal["better", "worse", "not decided"]

RESAMPLES = 2000
"""Enough that the ends of a 95 % interval move by about a hundredth of its width between seeds."""


@dataclass(frozen=True, slots=True)
class Interval:
    """A mean with its bootstrap interval; low <= mean <= high."""

    mean: float
    low: float
    high: float
    count: int
    """How many values it is made of."""


def cosines(left: Array, right: Array) -> npt.NDArray[np.float64]:
    """Cosine of each row of `left` with each of `right`: float64 (len(left), len(right)), -1 to 1."""
    return np.clip(np.asarray(left, np.float64) @ np.asarray(right, np.float64).T, -1.0, 1.0)


def pairwise_cosines(embeddings: Array) -> npt.NDArray[np.float64]:
    """The cosines of all pairs of different rows, each once: float64 (n (n - 1) / 2,)."""
    rows, columns = np.triu_indices(len(embeddings), k=1)
    return cosines(embeddings, embeddings)[rows, columns]


def pairwise_cosine_mean(embeddings: Array) -> float:
    """Mean cosine over all pairs of different rows. Raises ValueError for fewer than two rows."""
    if len(embeddings) < 2:
        raise ValueError("consistency needs at least two pictures")
    return float(pairwise_cosines(embeddings).mean())


def pairwise_cosine_min(embeddings: Array) -> float:
    """The least alike pair's cosine. Raises ValueError for fewer than two rows."""
    if len(embeddings) < 2:
        raise ValueError("consistency needs at least two pictures")
    return float(pairwise_cosines(embeddings).min())


def identity(embeddings: Array, references: Array) -> npt.NDArray[np.float64]:
    """Mean cosine of each row to all references: float64 (n,)."""
    return cosines(embeddings, references).mean(axis=1)


def calibrate(values: Array, *, impostor: float, genuine: float) -> npt.NDArray[np.float64]:
    """Put `values` on the scale where `impostor` is 0 and `genuine` is 1, not cut off at either end.

    Raw CLIP cosines of any two pictures of a kind are high; only their place between strangers and the
    character's own pictures says something. Raises ValueError unless genuine > impostor.
    """
    if genuine <= impostor:
        raise ValueError("impostors are as alike as the character's own pictures; the model cannot tell them apart")
    return (np.asarray(values, np.float64) - impostor) / (genuine - impostor)


def identity_scale(references: Array, impostors: Array) -> tuple[float, float]:
    """(impostor, genuine): mean cosine of impostors to the references, and of references to each other.

    Raises ValueError for fewer than two references or no impostor.
    """
    if not len(impostors):
        raise ValueError("calibration needs at least one impostor")
    return float(cosines(impostors, references).mean()), pairwise_cosine_mean(references)


def prompt_similarity(images: Array, texts: Array) -> npt.NDArray[np.float64]:
    """Cosine of each image with the text of the same row: float64 (n,)."""
    products = np.asarray(images, np.float64) * np.asarray(texts, np.float64)
    return np.clip(products.sum(axis=1), -1.0, 1.0)


def bootstrap_interval(
    values: Sequence[float] | Array, *, level: float = 0.95, resamples: int = RESAMPLES, seed: int = 0
) -> Interval:
    """Mean of `values` with its percentile bootstrap interval (Efron 1979), the same for the same seed.

    Fewer than two values give an interval of no width: nothing is known about their spread.
    Raises ValueError for none.
    """
    data = np.asarray(values, np.float64)
    if data.size == 0:
        raise ValueError("an interval needs at least one value")
    mean = float(data.mean())
    if data.size == 1:
        return Interval(mean, mean, mean, 1)
    means = data[_resample(data.size, resamples, seed)].mean(axis=1)
    return _interval(mean, means, level, data.size)


def consistency_interval(
    embeddings: Array, *, level: float = 0.95, resamples: int = RESAMPLES, seed: int = 0
) -> Interval:
    """Mean pairwise cosine with the interval from resampling pictures, not pairs: pairs that share a picture
    are not independent. A picture drawn twice is not paired with itself. `count` is the number of pictures.

    Raises ValueError for fewer than two rows.
    """
    mean = pairwise_cosine_mean(embeddings)
    size = len(embeddings)
    drawn = _resample(size, resamples, seed)
    weights = np.zeros((resamples, size))
    np.add.at(weights, (np.arange(resamples)[:, None], drawn), 1.0)
    matrix = cosines(embeddings, embeddings)
    np.fill_diagonal(matrix, 0.0)
    sums = np.einsum("ri,ij,rj->r", weights, matrix, weights, optimize=True)
    pairs = weights.sum(axis=1) ** 2 - (weights**2).sum(axis=1)
    # A resample of one picture alone has no pair.
    return _interval(mean, sums[pairs > 0] / pairs[pairs > 0], level, size)


def paired_difference(
    before: Sequence[float] | Array, after: Sequence[float] | Array, *, level: float = 0.95, seed: int = 0
) -> Interval:
    """Mean of `after - before` over the same prompts with its interval.

    Raises ValueError for different lengths or none.
    """
    first, second = np.asarray(before, np.float64), np.asarray(after, np.float64)
    if first.shape != second.shape:
        raise ValueError("a paired comparison needs the same prompts on both sides")
    return bootstrap_interval(second - first, level=level, seed=seed)


def verdict(difference: Interval) -> Verdict:
    """What a paired difference says, higher being better; one pair decides nothing."""
    if difference.count < 2 or difference.low <= 0.0 <= difference.high:
        return "not decided"
    return "better" if difference.low > 0.0 else "worse"


def _resample(size: int, resamples: int, seed: int) -> npt.NDArray[np.int64]:
    return np.random.default_rng(seed).integers(0, size, (resamples, size))


def _interval(mean: float, means: npt.NDArray[np.float64], level: float, count: int) -> Interval:
    tail = (1.0 - level) / 2.0
    low, high = np.quantile(means, (tail, 1.0 - tail))
    # Rounding can put the mean of equal values a hair outside their own range.
    return Interval(mean, min(float(low), mean), max(float(high), mean), count)
