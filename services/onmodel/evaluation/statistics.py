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
        share_of: the values are shares of this many pictures in all; then the interval is at least as wide as
            Wilson's, since "4 of 4" is no proof of 100 %.
    """
    sample = np.asarray([v for v in values if not math.isnan(v)], dtype=np.float64)
    if sample.size == 0:
        return None
    mean = float(sample.mean())
    if sample.size == 1:
        low, high = min(0.0, mean), max(1.0, mean)
    else:
        low, high = _stretched(sample)
    if share_of:
        wilson = stats.binomtest(round(mean * share_of), share_of).proportion_ci(0.95, "wilson")
        low, high = max(0.0, min(low, float(wilson.low))), min(1.0, max(high, float(wilson.high)))
    return Interval(mean, low, high, int(sample.size))


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
