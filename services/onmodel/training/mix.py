"""Mixes: how often an epoch shows each picture, so that categories that overlap get the shares that are asked for.

Of all ways to reach the shares, the one nearest to the dataset's own repeats is taken: least Kullback-Leibler
divergence from them (minimum discrimination information, Kullback 1959), no picture above `MAX_REPEATS` times its
own. Pictures of the same categories are treated alike, so it is a problem of a few dozen groups: HiGHS says what can
be had, and the convex dual, with one multiplier a limit, is solved by L-BFGS-B.
"""

from collections.abc import Sequence
from dataclasses import dataclass, replace
from typing import Any

import numpy as np
import numpy.typing as npt
from scipy import optimize

from onmodel.core.errors import UserError
from onmodel.core.vocabulary import CATEGORIES, ShotType
from onmodel.dataset.balance import MAX_REPEATS
from onmodel.dataset.recommended import RECOMMENDED
from onmodel.training.config import TrainConfig
from onmodel.training.job import TrainingPicture
from onmodel.training.stages import Mix, resolve_stages

Vector = npt.NDArray[np.float64]
TOLERANCE = 5e-4
"""A share that is missed by less (0.05 points) counts as reached."""
EASE = 1e-7
"""Limits are widened by this for the solvers, whose own tolerances are of this size."""
NOTHING = 1e-5
"""A group that can have no more than this share is shown never."""
_SHOTS = tuple(shot.value for shot in ShotType if shot is not ShotType.UNCLASSIFIED)


@dataclass(frozen=True)
class Solved:
    """A mix on a dataset."""

    showings: Vector
    """float64 (pictures,): how often an epoch shows each, in fractions; sums to the sum of the repeats."""
    asked: dict[str, tuple[float, float]]
    """Category -> lowest and highest share in per cent that is asked for; nothing for the original mix."""
    shares: dict[str, float]
    """Category -> share of the showings in per cent, of all categories."""

    def describe(self) -> str:
        """One line for a person: every share, with what was asked where that is something."""
        parts: list[str] = []
        for name, share in self.shares.items():
            low, high = self.asked.get(name, (0.0, 0.0))
            wanted = f"{low:g}" if low == high else f"{low:g}–{high:g}"
            parts.append(f"{name} {share:.1f} %" + (f" ({wanted})" if name in self.asked else ""))
        return ", ".join(parts)


@dataclass(frozen=True)
class _Groups:
    """Pictures of the same categories taken together; G groups, C limited categories."""

    base: Vector
    """(G,), the groups' shares by the dataset's own repeats, all above 0."""
    member: Vector
    """(C, G), 1 where a group counts in a category."""
    low: Vector
    high: Vector
    """(C,), shares from 0 to 1."""

    def some(self, which: npt.NDArray[np.bool_]) -> "_Groups":
        return _Groups(self.base[which], self.member[:, which], self.low, self.high)


def solve_mix(mix: Mix, categories: Sequence[Sequence[str]], repeats: Sequence[int], what: str) -> Solved:
    """Showings of each picture an epoch.

    Args:
        mix: `original` keeps the repeats; `balanced` comes as near to the recommended ranges as can be; shares in per
            cent by category are met exactly.
        categories: those that each picture counts in.
        repeats: of each picture; 0 leaves it out.
        what: stands in the error ("stage `weak`").

    Raises:
        UserError: shares that cannot be had, with the reason.
    """
    own = np.asarray(repeats, dtype=np.float64)
    if mix == "original":
        return Solved(own, {}, shares_of(own, categories))
    names = [name for name in CATEGORIES if mix == "balanced" or name in mix]
    keys = [tuple(sorted(each)) for each in categories]
    index = {key: number for number, key in enumerate(sorted({k for k, n in zip(keys, repeats, strict=True) if n}))}
    group = np.array([index.get(key, -1) for key in keys])
    sizes = np.bincount(group[own > 0], weights=own[own > 0], minlength=len(index))
    member = np.array([[float(name in key) for key in index] for name in names])
    if mix == "balanced":
        limits = np.array([RECOMMENDED.range(name) for name in names]) / 100
        groups = _Groups(sizes / sizes.sum(), member, limits[:, 0], limits[:, 1])
        misses = _nearest(groups)[1]
        groups = _Groups(groups.base, member, groups.low - misses, groups.high + misses)
    else:
        wanted = np.array([mix[name] / 100 for name in names])
        groups = _Groups(sizes / sizes.sum(), member, wanted, wanted)
        _check(groups, names, what)
        limits = np.stack([wanted, wanted], axis=1)
    factors = _project(groups)
    showings = own * np.where(group >= 0, factors[group], 0.0)
    showings *= own.sum() / showings.sum()
    asked = {name: (100 * low, 100 * high) for name, (low, high) in zip(names, limits.tolist(), strict=True)}
    return Solved(showings, asked, shares_of(showings, categories))


def solve_mixes(config: TrainConfig, pictures: Sequence[TrainingPicture]) -> list[Solved]:
    """The mix of each stage on `pictures`. Raises as `solve_mix`.

    Regularisation pictures keep their own repeats, and no share counts them.
    """
    trained = np.array([not picture.is_reg for picture in pictures])
    own = np.array([picture.repeats for picture in pictures], dtype=np.float64)
    categories = [picture.categories for picture in pictures if not picture.is_reg]
    repeats = [picture.repeats for picture in pictures if not picture.is_reg]
    found: list[Solved] = []
    for stage in resolve_stages(config):
        solved = solve_mix(stage.mix, categories, repeats, f"stage `{stage.name}`")
        showings = own.copy()
        showings[trained] = solved.showings
        found.append(replace(solved, showings=showings))
    return found


def shares_of(showings: Vector, categories: Sequence[Sequence[str]]) -> dict[str, float]:
    """Share of the showings in per cent that each category has."""
    total = max(float(showings.sum()), 1e-12)
    sums = dict.fromkeys(CATEGORIES, 0.0)
    for shown, names in zip(showings.tolist(), categories, strict=True):
        for name in names:
            sums[name] += shown
    return {name: 100 * value / total for name, value in sums.items()}


def _check(groups: _Groups, names: Sequence[str], what: str) -> None:
    """Refuse shares that cannot be had, naming the limit that stands against them."""
    wanted = dict(zip(names, (100 * groups.low).tolist(), strict=True))
    shots = {name: value for name, value in wanted.items() if name in _SHOTS}
    if sum(shots.values()) > 100 + 100 * TOLERANCE:
        listed = " + ".join(f"{name} {value:g}" for name, value in shots.items())
        raise UserError(f"{what}: shot types exclude each other, and {listed} is more than 100 %; lower one of them")
    for number, name in enumerate(names):
        if wanted[name] > 0 and not groups.member[number].any():
            raise UserError(
                f"{what}: the mix asks for {wanted[name]:g} % {name}, and no training picture is of that category; "
                "add such pictures, or leave it out of the mix"
            )
        least, most = (100 * _extreme(groups, number, sign) for sign in (1.0, -1.0))
        if wanted[name] > most + 100 * TOLERANCE:
            raise UserError(
                f"{what}: the mix asks for {wanted[name]:g} % {name}, and its pictures give at most {most:.1f} % with "
                f"each shown at most {MAX_REPEATS} times as often as its folder says; ask for less or add such pictures"
            )
        if wanted[name] < least - 100 * TOLERANCE:
            raise UserError(
                f"{what}: the mix asks for only {wanted[name]:g} % {name}, and the other pictures, shown at most "
                f"{MAX_REPEATS} times as often as their folders say, leave it {least:.1f} %; ask for more of it"
            )
    share, misses = _nearest(groups)
    if misses.max(initial=0.0) > TOLERANCE:
        got = 100 * groups.member @ share
        nearest = ", ".join(f"{name} {value:.1f} %" for name, value in zip(names, got.tolist(), strict=True))
        against = [name for name, miss in zip(names, misses.tolist(), strict=True) if miss > TOLERANCE]
        listed = ", ".join(f"{name} {value:g} %" for name, value in wanted.items())
        raise UserError(
            f"{what}: {listed} cannot be had together on these pictures, whose categories overlap: "
            f"{' and '.join(against)} stands against the others; the nearest is {nearest}"
        )


def _linprog(cost: Vector, groups: _Groups, slack: int, limited: bool) -> Any:
    """Least cost over the groups' shares (and `slack` columns more: misses below, misses above, in turn)."""
    count, rows = len(groups.base), len(groups.low)
    untyped: Any = optimize
    below = np.hstack([-groups.member, -np.eye(rows), np.zeros((rows, rows))])[:, : count + slack]
    above = np.hstack([groups.member, np.zeros((rows, rows)), -np.eye(rows)])[:, : count + slack]
    bounds = [(0.0, float(MAX_REPEATS * base)) for base in groups.base] + [(0.0, 1.0)] * slack
    return untyped.linprog(
        cost,
        A_ub=np.vstack([below, above]) if limited else None,
        b_ub=np.concatenate([-groups.low, groups.high]) if limited else None,
        A_eq=np.concatenate([np.ones(count), np.zeros(slack)])[None],
        b_eq=[1.0],
        bounds=bounds,
        method="highs",
    )


def _extreme(groups: _Groups, number: int, sign: float) -> float:
    """The least (sign 1) or greatest (sign -1) share that one category can have, whatever the others get."""
    found = _linprog(sign * groups.member[number], groups, 0, limited=False)
    return sign * float(found.fun)


def _nearest(groups: _Groups) -> tuple[Vector, Vector]:
    """Shares (G,) that miss the limits by the least sum, and by how much each category (C,) is missed."""
    count, rows = len(groups.base), len(groups.low)
    found = _linprog(np.concatenate([np.zeros(count), np.ones(2 * rows)]), groups, 2 * rows, limited=True)
    assert found.x is not None, found.message
    misses = np.asarray(found.x[count:]).reshape(2, rows).sum(axis=0)
    return np.asarray(found.x[:count]), misses


def _project(groups: _Groups) -> Vector:
    """Factors (G,) on the groups' own shares within the limits, nearest to 1 by Kullback-Leibler divergence."""
    eased = _Groups(groups.base, groups.member, groups.low - EASE, groups.high + EASE)
    # Groups that the limits force to 0 have no finite multiplier; the programme finds them first.
    identity = np.eye(len(eased.base))
    most = np.array([-float(_linprog(-row, eased, 0, limited=True).fun) for row in identity])
    shown = most > NOTHING
    inner = eased.some(shown)
    rows = len(inner.low)
    # Multipliers: one for the sum, one for each lower and each upper limit.
    columns = np.vstack([np.ones(len(inner.base)), inner.member, -inner.member])
    right = np.concatenate([[1.0], inner.low, -inner.high])
    cap = float(MAX_REPEATS)

    def dual(multipliers: Vector) -> tuple[float, Vector]:
        exponent = multipliers @ columns
        factor = np.exp(np.minimum(exponent, np.log(cap)))
        # Conjugate of x·ln x - x on 0..cap: e^y, and a straight line where the cap holds.
        value = np.where(exponent < np.log(cap), factor, cap * (1 + exponent - np.log(cap)))
        return float(inner.base @ value - multipliers @ right), columns @ (inner.base * factor) - right

    untyped: Any = optimize
    found = untyped.minimize(
        dual,
        np.zeros(1 + 2 * rows),
        jac=True,
        method="L-BFGS-B",
        bounds=[(None, None)] + [(0.0, None)] * (2 * rows),
        options={"maxiter": 20_000, "maxfun": 40_000, "ftol": 1e-15, "gtol": 1e-9, "maxcor": 30},
    )
    factors = np.zeros(len(groups.base))
    factors[shown] = np.exp(np.minimum(found.x @ columns, np.log(cap)))
    return factors
