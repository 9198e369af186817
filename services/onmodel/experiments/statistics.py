"""The statistics of docs/experiment.md: a hierarchical bootstrap over characters, seeds and prompts.

Pictures of one training are not independent, and trainings of one character are not either: intervals that draw
pictures alone would be far too narrow. So characters are drawn, seeds within them, prompts within these, each with
replacement (Davison and Hinkley, "Bootstrap Methods and their Application", 1997, section 3.8), and all trials of a
unit are drawn together, so that differences between trials are of the same units and prompts.
"""

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
import numpy.typing as npt

Array = npt.NDArray[np.float64]
DRAWS = 10_000
_AT_ONCE = 500
LEVELS = {"95": 0.95, "99.3": 1 - 0.05 / 7}
"""Of intervals: the usual one, and the one that holds for seven claims together (Bonferroni)."""


@dataclass(frozen=True, slots=True)
class Estimate:
    """A figure with its percentile intervals."""

    value: float
    intervals: dict[str, tuple[float, float]]
    """Level in per cent -> lower and upper end; of every level in `LEVELS`."""

    def above(self, level: str, limit: float = 0.0) -> bool:
        """Whether the whole interval lies above `limit`."""
        return self.intervals[level][0] > limit


def points(value: float) -> int:
    """A share as whole per cent, or a difference of shares as whole points; an int has no -0."""
    return round(100 * value)


def ends(found: Estimate, level: str = "95") -> str:
    """An interval in words, in points."""
    low, high = found.intervals[level]
    return f"{points(low)} to {points(high)}"


def estimate(value: float, draws: Array) -> Estimate:
    """A figure and the intervals that its draws (n,) span."""
    spans = {name: np.quantile(draws, ((1 - level) / 2, (1 + level) / 2)) for name, level in LEVELS.items()}
    return Estimate(value, {name: (float(low), float(high)) for name, (low, high) in spans.items()})


def means(shares: Array, characters: Sequence[str]) -> Array:
    """Mean share (T, K) of each trial in each scenario: over prompts, then seeds, then characters.

    Args:
        shares: float64 (T trials, U units, K scenarios, P prompts), each the share of a prompt's pictures, 0 to 1.
        characters: of each unit, (U,).
    """
    names = list(dict.fromkeys(characters))
    own = [np.array([character == name for character in characters]) for name in names]
    return np.mean([shares[:, mine].mean(axis=(1, 3)) for mine in own], axis=0)


def bootstrap(shares: Array, characters: Sequence[str], *, count: int = DRAWS, seed: int = 0) -> Array:
    """Draws (count, T, K) of `means`, from the generator of `seed`. Arguments as there."""
    _, units, scenarios, prompts = shares.shape
    names = list(dict.fromkeys(characters))
    members = [[n for n, character in enumerate(characters) if character == name] for name in names]
    sizes = np.array([len(each) for each in members])
    most = int(sizes.max())
    # Characters with fewer seeds have empty places, which are given no weight.
    table = np.array([each + [each[0]] * (most - len(each)) for each in members])
    rng = np.random.default_rng(seed)
    found: list[Array] = []
    assert sizes.sum() == units
    for start in range(0, count, _AT_ONCE):
        n = min(_AT_ONCE, count - start)
        who = rng.integers(len(names), size=(n, len(names)))
        size = sizes[who]
        place = np.floor(rng.random((n, len(names), most)) * size[..., None]).astype(np.int64)
        unit = table[who[..., None], place].reshape(n, -1)
        used = (np.arange(most) < size[..., None]) / (size[..., None] * len(names))
        prompt = rng.integers(prompts, size=(n, unit.shape[1], scenarios, prompts))
        drawn = shares[:, unit[:, :, None, None], np.arange(scenarios)[:, None], prompt].mean(axis=-1)
        found.append(np.einsum("tnuk,nu->ntk", drawn, used.reshape(n, -1)))
    return np.concatenate(found)


def spearman(first: Sequence[float], second: Sequence[float]) -> float:
    """Spearman's rank correlation, -1 to 1; NaN where one side does not vary."""
    from scipy import stats

    if len(set(first)) < 2 or len(set(second)) < 2:
        return float("nan")
    found: Any = stats.spearmanr(first, second)
    return float(found.statistic)
