"""How often to show what: whole repeats per group of pictures that bring the mix nearest to the ranges."""

import itertools
from collections.abc import Mapping, Sequence

from onmodel.core.vocabulary import CATEGORIES, Attribute, share
from onmodel.dataset.recommended import Recommended

Group = frozenset[str]
"""The categories that all pictures of a group count in; empty for unclassified ones."""
_ATTRIBUTES = frozenset(attribute.value for attribute in Attribute)
MAX_REPEATS = 10
"""More copies of a picture an epoch teach the picture rather than the character."""


def effective_shares(counts: Mapping[Group, int], repeats: Mapping[Group, int]) -> dict[str, float]:
    """Per cent of an epoch that each category has."""
    total = sum(count * repeats[group] for group, count in counts.items())
    return {
        name: share(sum(count * repeats[group] for group, count in counts.items() if name in group), total)
        for name in CATEGORIES
    }


def distance(shares: Mapping[str, float], recommended: Recommended) -> float:
    """How far shares are from their ranges: squares of the missing or surplus per cent, summed; 0 is within all.

    Too much of an attribute weighs a quarter: it teaches less than wanted, where too little teaches nothing.
    """
    total = 0.0
    for name in CATEGORIES:
        low, high = recommended.range(name)
        surplus = 0.25 if name in _ATTRIBUTES else 1.0
        total += max(low - shares[name], 0.0) ** 2 + surplus * max(shares[name] - high, 0.0) ** 2
    return total


def choose_repeats(
    counts: Mapping[Group, int], recommended: Recommended, size: int, max_repeats: int = MAX_REPEATS
) -> dict[Group, int]:
    """Repeats, 1 to `max_repeats` each, whose epoch is nearest to the ranges and then to `size` pictures.

    Coordinate descent over whole numbers from several starts; groups without a shot type stay at one, since
    repeating them helps no category.
    """
    free = [group for group in counts if group]
    best: tuple[float, dict[Group, int]] | None = None
    for start in (1, 2, 4, max_repeats):
        repeats = {group: (min(start, max_repeats) if group in free else 1) for group in counts}
        cost = _cost(counts, repeats, recommended, size)
        while True:
            found = _best_step(counts, repeats, free, recommended, size, max_repeats)
            if found is None or found[0] >= cost - 1e-9:
                break
            cost, repeats = found
        if best is None or cost < best[0]:
            best = (cost, repeats)
    assert best is not None
    return best[1]


def _best_step(
    counts: Mapping[Group, int],
    repeats: Mapping[Group, int],
    free: Sequence[Group],
    recommended: Recommended,
    size: int,
    max_repeats: int,
) -> tuple[float, dict[Group, int]] | None:
    """The best change of one group to any value, or of two groups by one or two each, with its cost."""
    tried: list[dict[Group, int]] = [
        {**repeats, group: value} for group in free for value in range(1, max_repeats + 1) if value != repeats[group]
    ]
    # Shares hang together through the total, so a better mix often needs two groups changed at once.
    for one, other in itertools.combinations(free, 2):
        for a, b in itertools.product((-2, -1, 1, 2), repeat=2):
            changed = {one: repeats[one] + a, other: repeats[other] + b}
            if all(1 <= value <= max_repeats for value in changed.values()):
                tried.append({**repeats, **changed})
    steps = [(_cost(counts, each, recommended, size), each) for each in tried]
    return min(steps, key=lambda step: step[0]) if steps else None


def _cost(counts: Mapping[Group, int], repeats: Mapping[Group, int], recommended: Recommended, size: int) -> float:
    total = sum(count * repeats[group] for group, count in counts.items())
    # The mix comes first; the size and equal treatment of pictures decide between mixes that are about as good.
    off_size = abs(total - size) / max(size, 1)
    uneven = sum(count * (repeats[group] - 1) ** 2 for group, count in counts.items()) / max(sum(counts.values()), 1)
    return distance(effective_shares(counts, repeats), recommended) + 40.0 * off_size**2 + 0.1 * uneven
