"""Figures of the report: shares as bars with intervals, curves, and a sheet of pictures. The same bytes each time."""

from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

from PIL import Image, ImageDraw, ImageFont

from onmodel.core.files import write_aside
from onmodel.core.vocabulary import CATEGORIES
from onmodel.evaluation.planned import plan
from onmodel.experiments.make import model_of, read_made
from onmodel.experiments.plan import TITLES, Layout, Settings, TrialPlan, suite_for, trials_of
from onmodel.experiments.statistics import Estimate

_STYLE: dict[Any, Any] = {
    "svg.fonttype": "none", "font.family": "sans-serif", "font.size": 9.0, "axes.linewidth": 0.6,
    "svg.hashsalt": "four strategies",
}  # fmt: skip
_COLOURS = ("#8a93a3", "#2f6db5", "#2a9d6f", "#c98a1b", "#8d5fb0", "#c8453b", "#3aa6b9")
SIDE = 128
"""Of a picture on the sheet, in pixels."""
_MARGIN, _GAP = 96, 4


def bars(path: Path, groups: Sequence[str], series: Mapping[str, Sequence[Estimate]]) -> None:
    """A bar for each of `series` in each of `groups`, in per cent, with 95 % intervals."""
    from matplotlib import rc_context
    from matplotlib.figure import Figure
    from matplotlib.ticker import PercentFormatter

    with rc_context(_STYLE):
        figure = Figure(figsize=(9.5, 3.4), layout="constrained")
        axes = figure.add_subplot()
        width = 0.84 / max(1, len(series))
        for number, (name, values) in enumerate(series.items()):
            middle = [place + (number - (len(series) - 1) / 2) * width for place in range(len(groups))]
            tops = [each.value for each in values]
            ends = [each.intervals["95"] for each in values]
            errors = [
                [max(0.0, top - low) for top, (low, _) in zip(tops, ends, strict=True)],
                [max(0.0, high - top) for top, (_, high) in zip(tops, ends, strict=True)],
            ]
            colour = _COLOURS[number % len(_COLOURS)]
            axes.bar(middle, tops, width=width * 0.92, color=colour, label=name)
            axes.errorbar(middle, tops, yerr=errors, fmt="none", ecolor="#1c2026", elinewidth=0.7, capsize=1.2)
        axes.set_xticks(range(len(groups)), [name.replace(" / ", "/").replace(" ", "\n") for name in groups])
        axes.set_ylim(0, 1)
        axes.yaxis.set_major_formatter(PercentFormatter(1.0, decimals=0, symbol=" %"))
        axes.set_ylabel("on model, by truth")
        axes.legend(frameon=False, ncols=len(series), loc="upper right")
        _plain(axes)
        _save(figure, path)


def curves(path: Path, doses: Sequence[float], found: Mapping[str, Sequence[Estimate]], ranges: Any) -> None:
    """A panel for each category: its share in the set against the pictures on model in its scenario.

    Args:
        doses: shares in per cent.
        found: by category, an estimate for each dose.
        ranges: category -> recommended lowest and highest share in per cent, shaded.
    """
    from matplotlib import rc_context
    from matplotlib.figure import Figure
    from matplotlib.ticker import PercentFormatter

    with rc_context(_STYLE):
        figure = Figure(figsize=(9.5, 4.6), layout="constrained")
        panels = figure.subplots(2, 4, sharey=True).ravel()
        for axes, (category, values) in zip(panels, found.items(), strict=False):
            axes.axvspan(*ranges[category], color="#2a9d6f", alpha=0.12, linewidth=0)
            lows, highs = zip(*(each.intervals["95"] for each in values), strict=True)
            axes.fill_between(doses, lows, highs, color="#2f6db5", alpha=0.15, linewidth=0)
            axes.plot(doses, [each.value for each in values], color="#2f6db5", marker="o", markersize=3.5)
            axes.set_title(category.replace("_", " "), fontsize=9)
            axes.set_xlabel("per cent of the set")
            axes.set_ylim(0, 1)
            axes.yaxis.set_major_formatter(PercentFormatter(1.0, decimals=0, symbol=" %"))
            _plain(axes)
        for axes in panels[len(found) :]:
            axes.set_visible(False)
        _save(figure, path)


def _plain(axes: Any) -> None:
    axes.grid(axis="y", color="#e6e3dc", linewidth=0.7)
    axes.set_axisbelow(True)
    for side in ("top", "right"):
        axes.spines[side].set_visible(False)


def _save(figure: Any, path: Path) -> None:
    with write_aside(path) as aside:
        figure.savefig(aside, format="svg", metadata={"Date": None})


def contact_sheet(
    layout: Layout, settings: Settings, unit: tuple[str, int], trials: Sequence[str], path: Path
) -> str | None:  # fmt: skip
    """Write one row a trial and one column a scenario, each its first prompt's first picture.

    Returns what is to be seen, or None where pictures are not there any more.
    """
    suite = suite_for(settings, unit[0])
    first = {prompt.scenario: prompt for prompt in reversed(suite.prompts())}
    rows: list[tuple[str, list[Image.Image]]] = []
    for trial in trials:
        (wanted,) = [t for t in trials_of(settings) if (t.unit.character, t.unit.seed, t.kind) == (*unit, trial)]
        shown = _row(layout, settings, wanted, [first[scenario].index for scenario in CATEGORIES])
        if shown is None:
            return None
        rows.append((TITLES[trial], shown))
    font = ImageFont.load_default(14)
    step = SIDE + _GAP
    sheet = Image.new("RGB", (_MARGIN + step * len(CATEGORIES), 24 + step * len(rows)), "white")
    draw = ImageDraw.Draw(sheet)
    for column, scenario in enumerate(CATEGORIES):
        label = scenario.replace("_", " ").replace("complex", "busy").replace("character", "char.")
        draw.text((_MARGIN + step * column + SIDE / 2, 12), label, "black", font, anchor="mm")
    for row, (title, images) in enumerate(rows):
        draw.text((_MARGIN - 8, 24 + step * row + SIDE / 2), title, "black", font, anchor="rm")
        for column, image in enumerate(images):
            big = image.convert("RGB").resize((SIDE, SIDE), Image.Resampling.BICUBIC)
            sheet.paste(big, (_MARGIN + step * column, 24 + step * row))
    with write_aside(path) as aside:
        sheet.save(aside, "PNG", optimize=True)
    return f"{unit[0]} with seed {unit[1]}: a row for each trial, a column for each scenario's first prompt"


def _row(layout: Layout, settings: Settings, trial: TrialPlan, prompts: Sequence[int]) -> list[Image.Image] | None:
    made = read_made(layout, trial)
    if made is None:
        return None
    suite = suite_for(settings, trial.unit.character)
    planned = plan(suite, suite.prompts(), model_of(layout, trial, made), layout.pictures(trial.unit.character))
    paths = {picture.prompt.index: picture.path for picture in reversed(planned)}
    if not all(paths[number].is_file() for number in prompts):
        return None
    return [Image.open(paths[number]) for number in prompts]
