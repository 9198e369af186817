"""What the kept pictures are held against while a person works: a composition, or the recommended shares."""

from typing import Literal

from onmodel.core.config import Config
from onmodel.core.vocabulary import CATEGORIES, ShotType
from onmodel.dataset.analysis import TARGET_SIZE
from onmodel.dataset.composition import Composition
from onmodel.dataset.recommended import LABELS, Recommended


class Goal(Config):
    """One category's aim."""

    category: str
    label: str
    low: float
    """Less than this is a shortfall; in the target's unit."""
    high: float | None
    """More than this is too much; None = any number will do."""


class Target(Config):
    """All that is aimed at."""

    name: str
    """For a person: where the numbers come from."""
    unit: Literal["pictures", "percent"]
    """"percent" of the kept pictures."""
    total: int
    """Pictures of the whole set; per cents are of this many, or of what is kept where that is more."""
    goals: tuple[Goal, ...]


def from_composition(composition: Composition, name: str) -> Target:
    """Numbers of pictures, as `merge` will ask for them. Categories that nothing is asked of are left out."""
    goals: list[Goal] = []
    for category in (*CATEGORIES, ShotType.UNCLASSIFIED.value):
        limits = composition.limits(category)
        open_ended = limits.preferred >= composition.size
        if limits.minimum == 0 and (open_ended or category == ShotType.UNCLASSIFIED):
            continue
        high = None if open_ended else float(limits.preferred)
        goals.append(Goal(category=category, label=LABELS[category], low=limits.minimum, high=high))
    return Target(name=f"composition {name}", unit="pictures", total=composition.size, goals=tuple(goals))


def from_recommended(recommended: Recommended, available: int) -> Target:
    """Recommended shares of a set of the recommended size, or of `available` pictures where there are no more."""
    goals = tuple(
        Goal(category=name, label=LABELS[name], low=recommended.range(name)[0], high=recommended.range(name)[1])
        for name in CATEGORIES
    )
    total = recommended.target_size or max(1, min(TARGET_SIZE, available))
    return Target(name="recommended shares", unit="percent", total=total, goals=goals)
