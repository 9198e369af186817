"""The dose-response curves: how the share of on-model pictures depends on what share of the set a category has."""

from collections.abc import Sequence
from dataclasses import asdict
from pathlib import Path
from typing import Any

from onmodel.dataset.recommended import LABELS, RECOMMENDED
from onmodel.experiments.figures import curves
from onmodel.experiments.judge import Figures, PictureFigure
from onmodel.experiments.plan import DOSES, Settings
from onmodel.experiments.shares import tensor
from onmodel.experiments.statistics import Estimate, bootstrap, estimate, means

FIGURE = "dose_response.svg"


def dose_sections(settings: Settings, figures: Figures, folder: Path) -> tuple[list[str], dict[str, Any]]:
    """The report's sections and its figures for a machine. Raises UserError where a category has no whole unit."""
    found = {category: curve(figures.pictures, category) for category in settings.dose}
    ranges = {category: RECOMMENDED.range(category) for category in settings.dose}
    curves(folder / FIGURE, DOSES, found, ranges)
    heads = " | ".join(f"{dose} %" for dose in DOSES)
    lines = [
        f"| category | {heads} | received range | least share that is as good as the best |",
        f"|---|{'---|' * (len(DOSES) + 2)}",
    ]
    for category, values in found.items():
        cells = " | ".join(
            f"**{100 * each.value:.0f}** {100 * each.intervals['95'][0]:.0f} to {100 * each.intervals['95'][1]:.0f}"
            for each in values
        )
        low, high = ranges[category]
        lines.append(f"| {LABELS[category]} | {cells} | {low:g} to {high:g} % | {least_good(DOSES, values)} % |")
    facts = {
        "settings": settings.model_dump(),
        "curves": {category: [asdict(each) for each in values] for category, values in found.items()},
        "least": {category: least_good(DOSES, values) for category, values in found.items()},
        **figures.facts,
    }
    sections = [
        "# Dose and response",
        f"Sets of {settings.pictures} pictures of one character that differ in one category's share, "
        f"{len(settings.seeds)} seeds; on-model pictures by truth in that category's scenario, in per cent with 95 % "
        "intervals.",
        "\n".join(lines),
        f"![On-model share in each category's scenario by the category's share of the set]({FIGURE})",
    ]
    return sections, facts


def curve(pictures: Sequence[PictureFigure], category: str) -> list[Estimate]:
    """An estimate for each dose of a category, of its own scenario. Raises UserError where no unit has all doses."""
    shares, units = tensor(pictures, [f"{category}_{dose}" for dose in DOSES], [category])
    characters = [character for character, _ in units]
    middle, draws = means(shares, characters), bootstrap(shares, characters)
    return [estimate(float(middle[n, 0]), draws[:, n, 0]) for n in range(len(DOSES))]


def least_good(doses: Sequence[int], values: Sequence[Estimate]) -> int:
    """The least dose whose 95 % interval holds the best value of all."""
    best = max(each.value for each in values)
    return next(dose for dose, each in zip(doses, values, strict=True) if each.intervals["95"][1] >= best)
