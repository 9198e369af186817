"""Intervals over prompts that hold for few of them, and paired verdicts."""

import math
from collections.abc import Sequence
from dataclasses import dataclass
from enum import StrEnum

import numpy as np
import numpy.typing as npt
from scipy import stats

DRAWS = 2000
_NORMAL = 1.959964
"""Two-sided 95 % point of the normal distribution."""


class Verdict(StrEnum):
    """What a paired comparison says of the second model against the first."""

    BETTER = "better"
    WORSE = "worse"
    NOT_DECIDED = "not decided"


@dataclass(frozen=True, slots=True)
class Interval:
    """A mean with its 95 % interval; `count` is the number of independent values (prompts)."""

    mean: float
    low: float
    high: float
    count: int


def interval(values: Sequence[float], *, share_of: int | None = None) -> Interval | None:
    """Mean and 95 % interval of per-prompt values; None without a value.

    The percentile bootstrap over n prompts is stretched about the mean by t(n-1) / 1.96 * sqrt(n / (n-1)): as it is,
    it is too narrow for few prompts (Hesterberg, "What teachers should know about the bootstrap", 2015). One value
    alone has no spread, so its interval is open as far as the values can reach (0 to 1).

    Args:
        share_of: the values are shares of this many pictures in all; then the interval is `share_interval`'s, since
            "4 of 4" is no proof of 100 % and a bootstrap of equal values has no width.
    """
    sample = np.asarray([v for v in values if not math.isnan(v)], dtype=np.float64)
    if sample.size == 0:
        return None
    mean = float(sample.mean())
    if share_of:
        low, high = share_interval(sample, share_of)
    elif sample.size == 1:
        low, high = min(0.0, mean), max(1.0, mean)
    else:
        low, high = _stretched(sample)
    return Interval(mean, low, high, int(sample.size))


def share_interval(sample: npt.NDArray[np.float64], pictures: int) -> tuple[float, float]:
    """Wilson's 95 % interval of a share that varies from prompt to prompt, for as many pictures as it is worth.

    Pictures of one prompt resemble each other, so `pictures` of them say less than as many independent ones would. How
    many they are worth is p (1 - p) over the variance of the mean that the prompts show (Kish's effective sample size),
    never more than there are (Franco, Little, Louis and Slud, "Comparative Study of Confidence Intervals for
    Proportions in Complex Sample Surveys", 2019). For one prompt there is no variance to go by, and it counts as one
    picture.

    Args:
        sample: shares 0 to 1 by prompt, float64 (n,), n at least 1.
        pictures: how many they are shares of, all together.
    """
    share = float(sample.mean())
    worth = float(pictures) if sample.size > 1 else 1.0
    variance = float(sample.var(ddof=1)) / sample.size if sample.size > 1 else 0.0
    if variance > 0:
        worth = max(1.0, min(worth, share * (1 - share) / variance))
    square = _NORMAL**2 / worth
    middle = (share + square / 2) / (1 + square)
    half = math.sqrt(share * (1 - share) * square + square**2 / 4) / (1 + square)
    # Rounding must not put the share itself outside: at 0 and 1 a bound is the share.
    return max(0.0, min(share, middle - half)), min(1.0, max(share, middle + half))


def _stretched(sample: npt.NDArray[np.float64]) -> tuple[float, float]:
    size = sample.size
    draws = np.random.default_rng(0).integers(size, size=(DRAWS, size))
    means = sample[draws].mean(axis=1)
    mean = float(sample.mean())
    factor = float(stats.t.ppf(0.975, size - 1)) / _NORMAL * math.sqrt(size / (size - 1))
    low, high = np.quantile(means, (0.025, 0.975))
    return mean - (mean - float(low)) * factor, mean + (float(high) - mean) * factor


@dataclass(frozen=True, slots=True)
class Paired:
    """How much the second model differs from the first on the same prompts."""

    difference: Interval | None
    verdict: Verdict


def paired(first: Sequence[float], second: Sequence[float], *, higher_is_better: bool = True) -> Paired:
    """Compare per-prompt values of two models, in the same order of prompts; NaN where a prompt has none.

    "better" and "worse" only where the interval of the differences leaves zero out, over three prompts or more.
    """
    both = [b - a for a, b in zip(first, second, strict=True) if not (math.isnan(a) or math.isnan(b))]
    difference = interval(both) if len(both) >= 3 else None
    if difference is None or difference.low <= 0.0 <= difference.high:
        return Paired(difference, Verdict.NOT_DECIDED)
    return Paired(difference, Verdict.BETTER if (difference.low > 0) == higher_is_better else Verdict.WORSE)
