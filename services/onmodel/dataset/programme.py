"""Which pictures make the composition: an integer programme, solved exactly by HiGHS (Huangfu and Hall 2018).

One binary variable a picture. Shot types exclude each other and attributes overlap them, so filling one shot type after
the other can miss an attribute that another choice meets. Wishes come in levels, each settled before the next:

1. the least sum of shortfalls, in pictures, over all categories;
2. the fullest set;
3. the least excess of attributes over what is preferred;
4. the greatest value: quality summed, less a discount for pictures that are akin (one shot of a film, one original).

The first three depend only on how many pictures of each kind (shot type with its attributes) are taken. There are at
most 40 kinds, so those levels are solved exactly however many pictures there are; only the fourth knows pictures.
"""

import heapq
import time
from collections import Counter, defaultdict
from collections.abc import Hashable, Mapping, Sequence
from dataclasses import dataclass, replace

import numpy as np
from pydantic import Field
from scipy.sparse import coo_matrix, csr_matrix, hstack, vstack

from onmodel.core.config import Config
from onmodel.core.errors import InternalError
from onmodel.dataset.composition import ATTRIBUTES, NAMES, Composition
from onmodel.dataset.solver import Problem, Vector, rows_of

Kind = frozenset[str]
"""Shot type and attributes, by name."""

_TIERS = 6
"""From here on every further picture of a kin costs the same; without an end the programme grows with the square."""
_CORE = 2000
"""Pictures that the solver is given at first; it answers within a second for as many."""
_ATTRIBUTE_ROWS = [NAMES.index(name) for name in ATTRIBUTES]
_SLACKS = len(NAMES) + len(ATTRIBUTES) + 1
"""Behind the pictures stand the shortfall of each name, the excess of each attribute, and the room left."""


class ProgrammeConfig(Config):
    """How pictures are weighed, and how long the solver may take."""

    diversity: float = Field(default=0.5, ge=0)
    """Discount on the n-th picture of a kin, times 1 - 1/n: 0, a half, two thirds, … of it; quality is 0 to 1."""
    time_limit_s: float = Field(default=60.0, gt=0)
    """Of the fourth level. What is found until then is taken, and said not to be proven best."""
    relative_gap: float = Field(default=1e-4, ge=0)
    """A value within this share of the best possible is good enough."""


@dataclass(frozen=True, slots=True)
class Candidate:
    """One picture that may be taken."""

    shot: str
    """A `ShotType` by name."""
    attributes: frozenset[str]
    quality: float
    """0 to 1."""
    kin: Hashable = None
    """Pictures with the same one look alike; None is akin to nothing."""

    @property
    def kind(self) -> Kind:
        return self.attributes | {self.shot}


@dataclass(frozen=True, slots=True)
class Selection:
    """What was chosen."""

    chosen: tuple[int, ...]
    """Positions among the candidates, ascending."""
    counts: dict[str, int]
    """Pictures of each of `NAMES`."""
    shortfalls: dict[str, int]
    """Pictures lacking, of the names where some are; the least sum possible."""
    excess: dict[str, int]
    """Pictures of an attribute beyond what was preferred, where there are some."""
    value: float
    proven: bool
    """Whether no choice with these shortfalls has a value more than the gap above this one's."""
    gap: float
    """Share by which the best possible value may lie above this one's."""


def select(
    candidates: Sequence[Candidate], composition: Composition, config: ProgrammeConfig | None = None
) -> Selection:
    """The best choice of pictures for a composition. The same candidates in the same order give the same choice.

    Raises:
        InternalError: the solver fails.
    """
    config = config or ProgrammeConfig()
    if not candidates:
        return _selection((), candidates, composition, config, 0.0, True)
    kinds, levels = _levels(candidates, composition)
    usable = _usable(candidates, composition, kinds)
    if not usable:
        return _selection((), candidates, composition, config, 0.0, True)
    chosen, gap, proven = _best(candidates, usable, composition, config, levels)
    if chosen is None:
        chosen = _greedy(candidates, kinds, config)
    return _selection(chosen, candidates, composition, config, gap, proven)


def value_of(chosen: Sequence[int], candidates: Sequence[Candidate], diversity: float) -> float:
    """Quality summed, less the discounts for kin."""
    kin: dict[Hashable, int] = defaultdict(int)
    value = 0.0
    for index in chosen:
        candidate = candidates[index]
        kin[candidate.kin] += candidate.kin is not None
        value += candidate.quality - _discount(kin[candidate.kin], diversity)
    return value


def _discount(nth: int, diversity: float) -> float:
    """What the nth picture of a kin costs; it never falls with n, so the solver takes the cheap places first."""
    return diversity * (1 - 1 / min(nth, _TIERS)) if nth > 1 else 0.0


def _membership(kinds: Sequence[Kind]) -> csr_matrix:
    """float64 (names, columns): 1 where a column counts in a name."""
    pairs = [(NAMES.index(name), column) for column, kind in enumerate(kinds) for name in kind]
    rows, columns = zip(*pairs, strict=True)
    return csr_matrix(coo_matrix((np.ones(len(pairs)), (rows, columns)), shape=(len(NAMES), len(kinds))))


def _composed(kinds: Sequence[Kind], upper: Sequence[int], composition: Composition) -> Problem:
    """The composition over columns of the given kinds, at most `upper` of each, followed by the slacks; no cost yet."""
    member = _membership(kinds)
    limits = [composition.limits(name) for name in NAMES]
    names, attributes, columns = len(NAMES), len(ATTRIBUTES), len(kinds)
    one = csr_matrix(np.ones((1, columns)))

    def slack(count: int, first: int, sign: float) -> csr_matrix:
        block = np.zeros((count, _SLACKS))
        block[np.arange(count), first + np.arange(count)] = sign
        return csr_matrix(block)

    blocks = [
        (member, slack(names, 0, 1.0), [limit.minimum for limit in limits], np.inf),
        (member, slack(names, 0, 0.0), -np.inf, [limit.maximum for limit in limits]),
        (
            member[_ATTRIBUTE_ROWS],
            slack(attributes, names, -1.0),
            -np.inf,
            [limits[n].preferred for n in _ATTRIBUTE_ROWS],
        ),
        (one, slack(1, names + attributes, 0.0), -np.inf, composition.size),
        (one, slack(1, names + attributes, 1.0), composition.size, np.inf),
    ]
    matrix = vstack([hstack([left, right]) for left, right, _, _ in blocks])
    low = [np.broadcast_to(low, rows_of(left)) for left, _, low, _ in blocks]
    high = [np.broadcast_to(high, rows_of(left)) for left, _, _, high in blocks]
    return Problem(
        cost=np.zeros(columns + _SLACKS),
        upper=np.concatenate([np.asarray(upper, dtype=np.float64), np.full(_SLACKS, np.inf)]),
        whole=columns,
        matrix=csr_matrix(matrix),
        low=np.concatenate(low).astype(np.float64),
        high=np.concatenate(high).astype(np.float64),
    )


def _level_rows(columns: int) -> list[Vector]:
    """For each of the first three levels, the slacks whose sum it makes small."""
    names, attributes = len(NAMES), len(ATTRIBUTES)
    rows = [np.zeros(columns + _SLACKS) for _ in range(3)]
    rows[0][columns : columns + names] = 1
    rows[1][columns + names + attributes] = 1
    rows[2][columns + names : columns + names + attributes] = 1
    return rows


def _levels(candidates: Sequence[Candidate], composition: Composition) -> tuple[dict[Kind, int], list[int]]:
    """How many of each kind to take, and what the first three levels come to."""
    have = Counter(candidate.kind for candidate in candidates)
    kinds = sorted(have, key=sorted)
    problem = _composed(kinds, [have[kind] for kind in kinds], composition)
    levels: list[int] = []
    taken = np.zeros(len(kinds))
    for row in _level_rows(len(kinds)):
        found = replace(problem, cost=row).solve(gap=0.0)
        if found.x is None:
            raise InternalError("the solver found no choice of pictures where leaving all out is one; report this")
        levels.append(round(float(row @ found.x)))
        taken = found.x[: len(kinds)]
        # Sums of whole numbers: half a picture of slack keeps rounding from shutting the answer out.
        problem = problem.at_most(row, levels[-1] + 0.5)
    return {kind: round(float(count)) for kind, count in zip(kinds, taken, strict=True)}, levels


def _valued(picked: Sequence[Candidate], composition: Composition, diversity: float, levels: Sequence[int]) -> Problem:
    """The fourth level over some pictures: columns are pictures, slacks, and the places of kin."""
    problem = _composed([candidate.kind for candidate in picked], [1] * len(picked), composition)
    for row, level in zip(_level_rows(len(picked)), levels, strict=True):
        problem = problem.at_most(row, level + 0.5)
    kin, upper, cost = _kin_rows(picked, diversity)
    padding = csr_matrix((rows_of(problem.matrix), len(cost)))
    return Problem(
        cost=np.concatenate([[-candidate.quality for candidate in picked], np.zeros(_SLACKS), cost]),
        upper=np.concatenate([problem.upper, upper]),
        whole=len(picked),
        matrix=csr_matrix(vstack([hstack([problem.matrix, padding]), kin])),
        low=np.append(problem.low, np.zeros(rows_of(kin))),
        high=np.append(problem.high, np.zeros(rows_of(kin))),
    )


def _kin_rows(picked: Sequence[Candidate], diversity: float) -> tuple[csr_matrix, Vector, Vector]:
    """Rows that tie the pictures of each kin to its places, with the places' sizes and costs.

    Row: pictures taken - places used = 0. Costs rise from place to place, so an optimum uses the first places first.
    """
    kin: dict[Hashable, list[int]] = defaultdict(list)
    for column, candidate in enumerate(picked):
        if candidate.kin is not None:
            kin[candidate.kin].append(column)
    families = [members for members in kin.values() if len(members) > 1] if diversity else []
    pictures: list[tuple[int, int]] = []
    places: list[int] = []
    upper: list[float] = []
    cost: list[float] = []
    for row, members in enumerate(families):
        pictures += [(row, column) for column in members]
        for nth in range(1, min(len(members), _TIERS) + 1):
            places.append(row)
            upper.append(1.0 if nth < _TIERS else len(members) - _TIERS + 1.0)
            cost.append(_discount(nth, diversity))
    shape = (len(families), len(picked) + _SLACKS + len(places))
    row_of = [row for row, _ in pictures] + places
    column_of = [column for _, column in pictures] + [len(picked) + _SLACKS + n for n in range(len(places))]
    entries = np.concatenate([np.ones(len(pictures)), -np.ones(len(places))])
    return csr_matrix(coo_matrix((entries, (row_of, column_of)), shape=shape)), np.array(upper), np.array(cost)


def _usable(candidates: Sequence[Candidate], composition: Composition, kinds: Mapping[Kind, int]) -> list[int]:
    """Candidates worth a variable: of pictures that are alike to the programme, no more than could be taken."""
    cells: dict[tuple[Kind, Hashable], list[int]] = defaultdict(list)
    for index, candidate in enumerate(candidates):
        cells[candidate.kind, candidate.kin].append(index)
    usable: list[int] = []
    for (kind, _), members in cells.items():
        most = max(min(composition.limits(name).maximum for name in kind), kinds[kind])
        usable += sorted(members, key=lambda index: (-candidates[index].quality, index))[:most]
    return sorted(usable)


def _best(
    candidates: Sequence[Candidate],
    usable: Sequence[int],
    composition: Composition,
    config: ProgrammeConfig,
    levels: Sequence[int],
) -> tuple[tuple[int, ...] | None, float, bool]:
    """The fourth level: positions taken (None where time ran out before any was found), the gap, whether proven.

    Tens of thousands of binary variables take the solver minutes, and almost none of them matter. So a relaxation to
    fractions comes first: no choice costs less than its bound, and one with a picture of reduced cost r costs at least
    the bound and r. The programme is solved over the pictures of least reduced cost, and once more over all that the
    answer has not ruled out.
    """
    everyone = [candidates[index] for index in usable]
    ends = time.monotonic() + config.time_limit_s
    core, relaxed = list(range(len(usable))), None
    first = max(_CORE, 3 * composition.size)
    if len(usable) > first:
        relaxed = _valued(everyone, composition, config.diversity, levels).relaxed()
    if relaxed is not None:
        core = sorted(np.argsort(relaxed[1], kind="stable")[:first].tolist())
    bound, reduced = relaxed or (-np.inf, np.zeros(len(usable)))
    while True:
        problem = _valued([everyone[n] for n in core], composition, config.diversity, levels)
        found = problem.solve(config.relative_gap, max(ends - time.monotonic(), 0.0))
        distance = found.cost - bound
        gap = distance / max(abs(found.cost), 1e-9)
        ruled_in = set(core) if gap <= config.relative_gap else {*core, *np.flatnonzero(reduced <= distance).tolist()}
        if len(ruled_in) == len(core) or not found.in_time:
            break
        core = sorted(ruled_in)
    if found.x is None:
        return None, 1.0, False
    taken = tuple(usable[n] for n, share in zip(core, found.x, strict=False) if share > 0.5)
    return taken, max(0.0, min(gap, found.gap)), found.in_time


def _greedy(candidates: Sequence[Candidate], kinds: Mapping[Kind, int], config: ProgrammeConfig) -> tuple[int, ...]:
    """As many of each kind as the first levels say, one by one the picture that adds most."""
    left = dict(kinds)
    kin: dict[Hashable, int] = defaultdict(int)

    def loss(index: int) -> float:
        one = candidates[index]
        return (_discount(kin[one.kin] + 1, config.diversity) if one.kin is not None else 0.0) - one.quality

    waiting = [(loss(index), index) for index in range(len(candidates))]
    heapq.heapify(waiting)
    taken: list[int] = []
    while waiting:
        expected, index = heapq.heappop(waiting)
        one = candidates[index]
        if not left[one.kind]:
            continue
        # A picture's worth only falls, as its kin are taken; one that still is what it was is the best of all.
        if (now := loss(index)) > expected:
            heapq.heappush(waiting, (now, index))
            continue
        taken.append(index)
        left[one.kind] -= 1
        kin[one.kin] += 1
    return tuple(sorted(taken))


def _selection(
    chosen: tuple[int, ...],
    candidates: Sequence[Candidate],
    composition: Composition,
    config: ProgrammeConfig,
    gap: float,
    proven: bool,
) -> Selection:
    counts = {name: sum(name in candidates[index].kind for index in chosen) for name in NAMES}
    limits = {name: composition.limits(name) for name in NAMES}
    return Selection(
        chosen=chosen,
        counts=counts,
        shortfalls={n: limits[n].minimum - counts[n] for n in NAMES if counts[n] < limits[n].minimum},
        excess={n: counts[n] - limits[n].preferred for n in ATTRIBUTES if counts[n] > limits[n].preferred},
        value=value_of(chosen, candidates, config.diversity),
        proven=proven,
        gap=gap,
    )
