"""The claims of docs/experiment.md with the rules by which each counts as shown or as failing, as they were written."""

import math
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field
from enum import StrEnum

import numpy as np

from onmodel.core.vocabulary import CATEGORIES
from onmodel.experiments.statistics import LEVELS, Array, Estimate, estimate

LEAST_POINTS = 0.05
"""Verdicts on relative gains need at least so much of a gain: of nearly nothing, a gain is large in per cent."""


class Verdict(StrEnum):
    """What came of a claim."""

    SHOWN = "shown"
    FAILED = "failed"
    OPEN = "neither"
    """Between what counts as shown and what counts as failing."""
    NOT_MEASURED = "not measured"


@dataclass(frozen=True, slots=True)
class Finding:
    """A claim with its figures."""

    name: str
    claim: str
    verdicts: dict[str, Verdict]
    """By level of the interval."""
    gain: Estimate | None = None
    """In shares of pictures, or the correlation."""
    relative: Estimate | None = None
    """The gain over the first trial's share."""
    notes: tuple[str, ...] = field(default=())


@dataclass(frozen=True, slots=True)
class Measured:
    """Shares of pictures on model by truth, and their draws."""

    trials: tuple[str, ...]
    shares: Array
    """(T, K)."""
    draws: Array
    """(n, T, K)."""
    correlation: Estimate | None
    """Of CLIP consistency and truth."""

    def of(self, trial: str, scenario: str | None = None) -> tuple[float, Array]:
        """A trial's share in a scenario, or its mean over all of them, and the draws (n,)."""
        number = self.trials.index(trial)
        which = slice(None) if scenario is None else slice(k := CATEGORIES.index(scenario), k + 1)
        return float(self.shares[number, which].mean()), self.draws[:, number, which].mean(axis=1)

    def gain(self, over: str, trial: str, scenario: str | None = None) -> Estimate:
        """How much larger the share of `trial` is than that of `over`."""
        (less, less_draws), (more, more_draws) = self.of(over, scenario), self.of(trial, scenario)
        return estimate(more - less, more_draws - less_draws)

    def relative(self, over: str, trial: str, scenario: str | None = None) -> Estimate | None:
        """The same over the share of `over`; None where that is 0."""
        (less, less_draws), (more, more_draws) = self.of(over, scenario), self.of(trial, scenario)
        if less == 0:
            return None
        kept = less_draws > 0
        return estimate(more / less - 1, more_draws[kept] / less_draws[kept] - 1)


def judge_all(measured: Measured) -> list[Finding]:
    """Every claim, those whose trials there are none of as not measured."""
    found: list[Finding] = []
    for name, (claim, needs, rule) in CLAIMS.items():
        able = set(needs) <= set(measured.trials)
        found.append(
            rule(name, claim, measured) if able else Finding(name, claim, dict.fromkeys(LEVELS, Verdict.NOT_MEASURED))
        )
    return found


def two_sided(gain: Estimate, level: str) -> Verdict:
    """Shown where the interval lies above 0, else failed."""
    return Verdict.SHOWN if gain.above(level) else Verdict.FAILED


def relative_verdict(gain: Estimate, relative: float, level: str, *, shown: float, failing: float) -> Verdict:
    """Of a relative gain: failed below `failing` or where the gain's interval holds 0, shown from `shown` on.

    For "shown" the gain must have `LEAST_POINTS` too.
    """
    if relative < failing or not gain.above(level):
        return Verdict.FAILED
    return Verdict.SHOWN if relative >= shown and gain.value >= LEAST_POINTS else Verdict.OPEN


def correlation_verdict(value: float) -> Verdict:
    """Shown from 0.8 on, failed below 0.5."""
    if math.isnan(value) or value < 0.5:
        return Verdict.FAILED
    return Verdict.SHOWN if value >= 0.8 else Verdict.OPEN


def close_up_verdict(gain: Estimate, level: str) -> Verdict:
    """Shown where close-ups are better by 20 points with the interval above 0; failed where it holds 0."""
    if not gain.above(level):
        return Verdict.FAILED
    return Verdict.SHOWN if gain.value >= 0.20 else Verdict.OPEN


def _close_ups(name: str, claim: str, measured: Measured) -> Finding:
    others = [scenario for scenario in CATEGORIES if scenario != "close_up"]
    best, best_draws = measured.of("baseline", "close_up")
    rest = [measured.of("baseline", scenario) for scenario in others]
    value = best - float(np.mean([share for share, _ in rest]))
    gain = estimate(value, best_draws - np.mean([draws for _, draws in rest], axis=0))
    return Finding(name, claim, {level: close_up_verdict(gain, level) for level in LEVELS}, gain)


def _relative(
    trial: str, scenario: str | None, shown: float, failing: float
) -> Callable[[str, str, Measured], Finding]:
    def rule(name: str, claim: str, measured: Measured) -> Finding:
        gain = measured.gain("baseline", trial, scenario)
        relative = measured.relative("baseline", trial, scenario)
        # Over a share of 0 any gain is without end.
        over = math.inf if relative is None else relative.value
        verdicts = {
            level: relative_verdict(gain, over, level, shown=shown, failing=failing) for level in LEVELS
        }  # fmt: skip
        notes = ("the baseline's share is 0",) if relative is None else ()
        return Finding(name, claim, verdicts, gain, relative, notes)

    return rule


def _above(over: str, trial: str) -> Callable[[str, str, Measured], Finding]:
    def rule(name: str, claim: str, measured: Measured) -> Finding:
        gain = measured.gain(over, trial)
        return Finding(name, claim, {level: two_sided(gain, level) for level in LEVELS}, gain)

    return rule


def _correlation(name: str, claim: str, measured: Measured) -> Finding:
    found = measured.correlation
    if found is None:
        return Finding(name, claim, dict.fromkeys(LEVELS, Verdict.NOT_MEASURED))
    return Finding(name, claim, dict.fromkeys(LEVELS, correlation_verdict(found.value)), found)


Rule = Callable[[str, str, Measured], Finding]
CLAIMS: Mapping[str, tuple[str, Sequence[str], Rule]] = {
    "H1": ("The trial's own mix fails outside close-ups", ("baseline",), _close_ups),
    "H2": ("A makes full bodies better by 30 to 40 %", ("baseline", "a"), _relative("a", "full_body", 0.30, 0.10)),
    "H3": ("B beats A", ("a", "b"), _above("a", "b")),
    # The baseline's share is in both gains, so their difference is that of B and C.
    "H4": ("C cannot mend what the set lacks: B gains more", ("baseline", "b", "c"), _above("c", "b")),
    "H5": ("D gains over the baseline", ("baseline", "d"), _above("baseline", "d")),
    "H6": ("B + D makes all scenarios better by 70 to 80 %", ("baseline", "b_d"), _relative("b_d", None, 0.70, 0.35)),
    "H7": ("CLIP consistency ranks trials as the truth does", (), _correlation),
}
