"""What to make and how often to show what: an integer programme, solved exactly by HiGHS (Huangfu and Hall 2018).

Pictures of one kind (categories, and how they came to be) form a pool. Shares hang together through the total, and
attributes overlap shot types, so filling one category after the other misses mixes that exist.
"""

import math
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any

import numpy as np
import numpy.typing as npt
from scipy.optimize import Bounds, LinearConstraint, milp
from scipy.sparse import csr_matrix

from onmodel.core.vocabulary import CATEGORIES, Attribute
from onmodel.dataset.balance import Group
from onmodel.dataset.recommended import Recommended

_ATTRIBUTES = frozenset(attribute.value for attribute in Attribute)
# Cost of a category's distance from its range, piece by piece: width of the piece and cost a point, both in points
# (per cent of all). Rising, so that one far miss is worse than several near ones; the first piece is the tolerance.
_PIECES = ((2.0, 1.0), (3.0, 3.0), (10.0, 6.0), (100.0, 12.0))
_SURPLUS_OF_ATTRIBUTE = 0.25
"""Too much of an attribute teaches less than wanted, where too little teaches nothing."""
_OFF_SIZE = ((5.0, 0.05), (95.0, 1.0))
"""Cost of a total off the wanted size, likewise; within 5 per cent it hardly counts."""
_SIZES = (1.0, 0.85, 0.7, 0.58, 0.48, 0.4, 0.3, 0.2, 1.15, 1.35)
"""Totals that are tried, in shares of the wanted size: for a fixed total the programme is linear."""
GOOD = 1.5
"""Cost below which no other total is tried: the size is right, and all ranges together are missed by a point or so."""
_NEAR = ((5.0, 0.05), (3.5, 1.0), (100.0, 40.0))
"""Cost of an answer off the tried total: up to 8.5 per cent, so that all totals between two tried ones are reached."""
_AGAIN = 0.1
"""Cost of showing a picture the k-th time, times 2k-3, for all pictures together: repeats teach pictures by heart."""
_MADE, _SYNTHETIC = 0.02, 0.25
"""Cost of making all that can be made, likewise: crops come before repeats, and what is synthetic only after a second
showing, so that it is made for what nothing else shows."""


@dataclass(frozen=True, slots=True)
class Pool:
    """Pictures of one kind."""

    group: Group
    """Their categories; empty without a shot type, so that nothing repeats them."""
    count: int
    """How many there are, or could be made."""
    given: bool = True
    """Whether all are shown at least once; else only as many as help are made."""
    synthetic: bool = False
    """Whether they count towards the cap; such a picture is shown once."""


@dataclass(frozen=True, slots=True)
class Mix:
    """The answer, a number for each pool in their order."""

    made: tuple[int, ...]
    """Pictures of it that are used."""
    shown: tuple[int, ...]
    """How often an epoch shows them, all together."""

    def repeats(self, pool: int) -> list[int]:
        """Repeats of the pool's used pictures, one each, the more repeated ones first."""
        made, shown = self.made[pool], self.shown[pool]
        if not made:
            return []
        each, more = divmod(shown, made)
        return [each + 1] * more + [each] * (made - more)


@dataclass
class _Programme:
    """Columns and rows of a mixed-integer programme, collected one by one."""

    cost: list[float] = field(default_factory=list[float])
    upper: list[float] = field(default_factory=list[float])
    lower: list[float] = field(default_factory=list[float])
    whole: list[int] = field(default_factory=list[int])
    rows: list[dict[int, float]] = field(default_factory=list[dict[int, float]])
    most: list[float] = field(default_factory=list[float])

    def column(self, lower: float, upper: float, cost: float = 0.0, *, whole: bool = False) -> int:
        self.cost.append(cost)
        self.lower.append(lower)
        self.upper.append(upper)
        self.whole.append(int(whole))
        return len(self.cost) - 1

    def at_most(self, terms: Mapping[int, float], limit: float) -> None:
        """The row: sum of coefficient times column <= limit."""
        self.rows.append(dict(terms))
        self.most.append(limit)

    def solve(self) -> npt.NDArray[np.float64]:
        index = [(r, c, v) for r, row in enumerate(self.rows) for c, v in row.items()]
        at = np.array([(r, c) for r, c, _ in index], dtype=np.int64).reshape(-1, 2).T
        shape = (len(self.rows), len(self.cost))
        matrix = csr_matrix((np.array([v for *_, v in index]), (at[0], at[1])), shape=shape)
        lower, upper, most = (np.array(values) for values in (self.lower, self.upper, self.most))
        # SciPy's own annotations allow numbers alone where its documentation takes arrays.
        bounds = Bounds(lower, upper)  # pyright: ignore[reportArgumentType]
        limits = LinearConstraint(matrix, -np.inf, most)  # pyright: ignore[reportArgumentType]
        found: Any = milp(
            np.array(self.cost),
            integrality=np.array(self.whole),
            bounds=bounds,
            constraints=limits,
            # A few hundredths of a point are nothing to wait for. Nodes and not seconds, so that a busy machine finds
            # the same answer.
            options={"node_limit": 1000, "mip_rel_gap": 0.01},
        )
        # Every row has slack columns, so an answer is found at the first node already.
        assert found.x is not None, found.message
        return np.asarray(found.x, dtype=np.float64)


def choose_mix(
    pools: Sequence[Pool],
    recommended: Recommended,
    size: int,
    *,
    max_repeats: int,
    max_synthetic: float = 1.0,
) -> Mix:
    """Which pools to draw from and how often to show them, nearest to the ranges and then to `size` pictures.

    Args:
        pools: what there is and what could be made.
        recommended: ranges in per cent of what an epoch shows.
        size: pictures an epoch should show.
        max_repeats: most times an epoch shows one picture.
        max_synthetic: most share, 0 to 1, of an epoch that is synthetic.
    """
    given = sum(pool.count for pool in pools if pool.given)
    most = sum(pool.count * _repeats(pool, max_repeats) for pool in pools)
    totals = dict.fromkeys(min(max(share * size, given), most) for share in _SIZES)
    best: tuple[float, Mix] | None = None
    for total in totals:
        mix = _for_total(pools, recommended, total, max_repeats, max_synthetic)
        price = cost(pools, mix, recommended, size)
        if best is None or price < best[0] - 1e-9:
            best = (price, mix)
        if best[0] < GOOD:
            break
    assert best is not None
    return best[1]


def cost(pools: Sequence[Pool], mix: Mix, recommended: Recommended, size: int) -> float:
    """How far a mix is from what is wanted; less is better, 0 is every picture once, all in range, at the size."""
    total = max(1, sum(mix.shown))
    found = _priced(100.0 * abs(total - size) / size, _OFF_SIZE)
    for name in CATEGORIES:
        low, high = recommended.range(name)
        share = 100.0 * sum(n for n, pool in zip(mix.shown, pools, strict=True) if name in pool.group) / total
        found += _priced(low - share, _PIECES) + _surplus(name) * _priced(share - high, _PIECES)
    for number, pool in enumerate(pools):
        again = sum((repeats - 1) ** 2 for repeats in mix.repeats(number))
        new = 0.0 if pool.given else (_SYNTHETIC if pool.synthetic else _MADE)
        found += (_AGAIN * again + new * mix.made[number]) / max(1, sum(mix.made))
    return found


def _priced(distance: float, pieces: Sequence[tuple[float, float]]) -> float:
    """The cost of a distance in points, piece by piece."""
    found = 0.0
    for width, price in pieces:
        found += price * min(max(distance, 0.0), width)
        distance -= width
    return found


def _surplus(name: str) -> float:
    return _SURPLUS_OF_ATTRIBUTE if name in _ATTRIBUTES else 1.0


def _repeats(pool: Pool, max_repeats: int) -> int:
    return 1 if pool.synthetic or not pool.group else max_repeats


def _for_total(
    pools: Sequence[Pool], recommended: Recommended, total: float, max_repeats: int, max_synthetic: float
) -> Mix:
    """The best mix of about `total` pictures."""
    programme = _Programme()
    columns = [_pool_columns(programme, pool, _repeats(pool, max_repeats), total) for pool in pools]
    shown = [column for _, column in columns]
    point = total / 100.0
    for name in CATEGORIES:
        members = frozenset(shown[n] for n, pool in enumerate(pools) if name in pool.group)
        low, high = recommended.range(name)
        # low · total - members <= missing, and members - high · total <= too many.
        _near(programme, {c: low / 100 - (c in members) for c in shown}, 0.0, _PIECES, point, 1.0)
        _near(programme, {c: (c in members) - high / 100 for c in shown}, 0.0, _PIECES, point, _surplus(name))
    _near(programme, dict.fromkeys(shown, 1.0), total, _NEAR, point, 1.0)
    _near(programme, dict.fromkeys(shown, -1.0), -total, _NEAR, point, 1.0)
    synthetic = frozenset(shown[n] for n, pool in enumerate(pools) if pool.synthetic)
    programme.at_most({c: (c in synthetic) - max_synthetic for c in shown}, 0.0)
    answer = programme.solve()
    used = tuple(round(answer[c]) for c, _ in columns)
    return Mix(used, tuple(max(m, round(answer[c])) for m, c in zip(used, shown, strict=True)))


def _pool_columns(programme: _Programme, pool: Pool, repeats: int, total: float) -> tuple[int, int]:
    """Columns of the pictures used and of how often they are shown."""
    price = 0.0 if pool.given else (_SYNTHETIC if pool.synthetic else _MADE) / total
    used = programme.column(pool.count if pool.given else 0, pool.count, price, whole=True)
    shown = programme.column(0, pool.count * repeats, whole=True)
    again = [programme.column(0, pool.count, _AGAIN * (2 * k - 3) / total) for k in range(2, repeats + 1)]
    programme.at_most({shown: 1.0, used: -1.0, **dict.fromkeys(again, -1.0)}, 0.0)
    programme.at_most({used: 1.0, shown: -1.0, **dict.fromkeys(again, 1.0)}, 0.0)
    for column in again:
        programme.at_most({column: 1.0, used: -1.0}, 0.0)
    return used, shown


def _near(
    programme: _Programme,
    terms: Mapping[int, float],
    limit: float,
    pieces: Sequence[tuple[float, float]],
    point: float,
    weight: float,
) -> None:
    """Ask that a sum be at most `limit`, for a price a piece where it isn't."""
    slack = {
        programme.column(0, width * point if width < 90 else np.inf, weight * price / point): -1.0
        for width, price in pieces
    }
    programme.at_most({**terms, **slack}, limit)


def spread(total: int, size: int) -> Iterator[int]:
    """`total` places of `size`, evenly apart: neighbours look alike. Fewer than `total` where there are fewer."""
    for number in range(min(total, size)):
        yield math.floor(number * size / min(total, size))
