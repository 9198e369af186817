"""The dose-response curves: how the share of on-model pictures depends on what share of the set a category has."""

from collections.abc import Sequence
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

from onmodel.core.errors import UserError
from onmodel.dataset.recommended import LABELS, RECOMMENDED
from onmodel.experiments.figures import curves
from onmodel.experiments.judge import Figures, PictureFigure
from onmodel.experiments.plan import DOSES, Settings
from onmodel.experiments.shares import tensor
from onmodel.experiments.statistics import Estimate, bootstrap, ends, estimate, means, points

FIGURE = "dose_response.svg"
CONTRAST = 20
"""Per cent whose pictures on model are compared with those of a set without the category; fixed beforehand, since a
best dose that is chosen after the fact looks better than it is."""


@dataclass(frozen=True, slots=True)
class Curve:
    """What came of one category's doses, in its own scenario."""

    values: tuple[Estimate, ...]
    """For each of `DOSES`."""
    gain: Estimate
    """Of `CONTRAST` over none."""
    units: int
    """That have all doses."""


def dose_sections(settings: Settings, figures: Figures, folder: Path) -> tuple[list[str], dict[str, Any]]:
    """The report's sections and its figures for a machine. Raises UserError where no category has a whole unit."""
    found = {name: made for name in settings.dose if (made := curve(figures.pictures, name)) is not None}
    if not found:
        raise UserError(f"no category has all of {', '.join(map(str, DOSES))} % judged; run make and judge again")
    ranges = {category: RECOMMENDED.range(category) for category in found}
    curves(folder / FIGURE, DOSES, {category: made.values for category, made in found.items()}, ranges)
    heads = " | ".join(f"{dose} %" for dose in DOSES)
    lines = [
        f"| category | {heads} | {CONTRAST} % over none, points | least share as good as the best | received range "
        "| seeds |",
        f"|---|{'---|' * (len(DOSES) + 4)}",
    ]
    for category, made in found.items():
        cells = " | ".join(f"**{points(each.value)}** {ends(each)}" for each in made.values)
        low, high = ranges[category]
        lines.append(
            f"| {LABELS[category]} | {cells} | **{points(made.gain.value):+d}** {ends(made.gain)} "
            f"| {least_good(DOSES, made.values)} % | {low:g} to {high:g} % | {made.units} |"
        )
    facts = {
        "settings": settings.model_dump(),
        "curves": {category: asdict(made) for category, made in found.items()},
        "least": {category: least_good(DOSES, made.values) for category, made in found.items()},
        **figures.facts,
    }
    missing = [LABELS[name] for name in settings.dose if name not in found]
    sections = [
        "# Dose and response",
        f"Sets of {settings.pictures} pictures of {' and '.join(settings.characters)} that differ in one category's "
        "share, the rest in proportion as in a balanced set; on-model pictures by truth in that category's scenario, "
        f"{settings.prompts * settings.variations} a trial, in per cent with 95 % intervals. Where one seed alone is "
        "whole, intervals are of prompts and not of trainings, so they are too narrow. "
        f"{settings.steps} steps of {settings.batch_size} pictures, rank {settings.rank}, rate "
        f"{settings.learning_rate:g}; base model {figures.facts['base_hash'][:12]}.",
        "\n".join(lines),
        f"![On-model share in each category's scenario by the category's share of the set]({FIGURE})",
    ]
    if missing:
        sections.insert(3, f"Not whole in any seed, so left out: {', '.join(missing)}.")
    return sections, facts


def curve(pictures: Sequence[PictureFigure], category: str) -> Curve | None:
    """Estimates for each dose of a category, of its own scenario; None where no unit has all doses."""
    try:
        shares, units = tensor(pictures, [f"{category}_{dose}" for dose in DOSES], [category])
    except UserError:
        return None
    characters = [character for character, _ in units]
    middle, draws = means(shares, characters)[:, 0], bootstrap(shares, characters)[:, :, 0]
    some = DOSES.index(CONTRAST)
    return Curve(
        tuple(estimate(float(middle[n]), draws[:, n]) for n in range(len(DOSES))),
        estimate(float(middle[some] - middle[0]), draws[:, some] - draws[:, 0]),
        len(units),
    )


def least_good(doses: Sequence[int], values: Sequence[Estimate]) -> int:
    """The least dose whose 95 % interval holds the best value of all."""
    best = max(each.value for each in values)
    return next(dose for dose, each in zip(doses, values, strict=True) if each.intervals["95"][1] >= best)
