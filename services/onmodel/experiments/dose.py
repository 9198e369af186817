"""Sets of one size that differ in one category's share: what the dose-response curves are trained on."""

import dataclasses
from pathlib import Path
from typing import Final

from onmodel.core.vocabulary import ShotType
from onmodel.dataset.analysis import HasDetection, analyze
from onmodel.dataset.folder import load_dataset
from onmodel.experiments.copies import copy_small, render_once
from onmodel.experiments.plan import DOSES, Layout, Settings, Unit
from onmodel.toybox.character import HELD_OUT
from onmodel.toybox.dataset import BALANCED_SHARES, Shares, make_dataset
from onmodel.toybox.models import MODEL_SIDE

SHOTS: Final[tuple[str, ...]] = tuple(shot.value for shot in ShotType if shot is not ShotType.UNCLASSIFIED)


def dosed(category: str, per_cent: int) -> Shares:
    """The balanced mix with one category at `per_cent`; other shot types share out the rest as they did."""
    value = per_cent / 100
    if category not in SHOTS:
        return dataclasses.replace(BALANCED_SHARES, **{category: value})
    own: dict[str, float] = {name: getattr(BALANCED_SHARES, name) for name in SHOTS}
    rest = sum(share for name, share in own.items() if name != category)
    left = 1 - value - (1 - sum(own.values()))
    changed = {name: value if name == category else share * left / rest for name, share in own.items()}
    return dataclasses.replace(BALANCED_SHARES, **changed)


def make_dose_sets(settings: Settings, layout: Layout, unit: Unit, services: HasDetection) -> None:
    """A unit's sets, one for each category and share."""
    for number, category in enumerate(settings.dose):
        for share in DOSES:
            target = layout.sets(unit) / f"{category}_{share}"
            if not target.is_dir():
                seed = unit.own_seed + 1000 * (number + 1) + share
                _make(settings, unit, layout.unit(unit) / target.name, target, dosed(category, share), seed, services)


def _make(
    settings: Settings, unit: Unit, source: Path, target: Path, shares: Shares, seed: int, services: HasDetection
) -> None:
    render_once(
        source,
        lambda out: make_dataset(
            out, HELD_OUT[unit.character], settings.pictures, shares, seed, size=MODEL_SIDE, trigger=unit.character
        ),
    )
    copy_small(load_dataset(source), analyze(load_dataset(source), services), target, MODEL_SIDE)
