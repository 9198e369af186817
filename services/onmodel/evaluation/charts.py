"""Small charts as inline SVG for the report: one panel a scenario, one line a model, drawn by matplotlib."""

import io
import re
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

_STYLE: dict[Any, Any] = {"svg.fonttype": "none", "font.family": "sans-serif", "font.size": 9.0, "axes.linewidth": 0.6}
_INK, _GRID = "#667080", "#e6e3dc"
_SIZE = (3.1, 1.75)
"""Inches; the page scales a panel to its column."""


@dataclass(frozen=True, slots=True)
class Line:
    """One model's figure along the axis."""

    name: str
    colour: str
    xs: tuple[float, ...]
    means: tuple[float, ...]
    lows: tuple[float, ...]
    highs: tuple[float, ...]


def panel(key: str, lines: Sequence[Line], *, axis: str, percent: bool = True, target: float | None = None) -> str:
    """One chart as SVG markup for an HTML page: no address in it, ids of its own, no fixed size.

    Args:
        key: names the panel; ids follow from it, so that panels of one page do not share them.
        lines: what is drawn, with 95 % intervals as bands.
        axis: name of the horizontal axis.
        percent: values are shares from 0 to 1, shown in per cent over the whole range; else as they are.
        target: drawn as a dashed line.
    """
    # Imported here: a report without curves, and its Markdown, have no need of it.
    from matplotlib import rc_context
    from matplotlib.figure import Figure as Canvas
    from matplotlib.ticker import MaxNLocator, PercentFormatter

    with rc_context({**_STYLE, "svg.hashsalt": key}):
        canvas = Canvas(figsize=_SIZE, layout="constrained")
        axes = canvas.add_subplot()
        for line in lines:
            axes.fill_between(line.xs, line.lows, line.highs, color=line.colour, alpha=0.14, linewidth=0, clip_on=False)
            axes.plot(line.xs, line.means, color=line.colour, marker="o", markersize=3.5, linewidth=1.6, clip_on=False)
        if target is not None:
            axes.axhline(target, color="#1c2026", linewidth=0.9, linestyle=(0, (4, 3)), clip_on=False)
        whole = axis == "epoch"
        xs = sorted({x for line in lines for x in line.xs})
        axes.xaxis.set_major_locator(MaxNLocator(5, integer=whole)) if len(xs) > 6 else axes.set_xticks(xs)
        axes.yaxis.set_major_locator(MaxNLocator(4))
        if percent:
            axes.set_ylim(0, 1)
            axes.yaxis.set_major_formatter(PercentFormatter(1.0, decimals=0, symbol=" %"))
        axes.set_xlabel(axis, color=_INK, labelpad=1)
        axes.tick_params(colors=_INK, length=2.5, width=0.6)
        axes.grid(axis="y", color=_GRID, linewidth=0.7, clip_on=False)
        axes.set_axisbelow(True)
        axes.patch.set_visible(False)
        for side in ("top", "right"):
            axes.spines[side].set_visible(False)
        for side in ("left", "bottom"):
            axes.spines[side].set_color("#bdb9ae")
        written = io.StringIO()
        canvas.savefig(written, format="svg", transparent=True, metadata={"Date": None})
    return _bare(written.getvalue())


def _bare(text: str) -> str:
    """The svg element alone, which HTML needs no namespaces or metadata for, as wide as its place."""
    text = text[text.index("<svg") :]
    text = re.sub(r"<metadata>.*?</metadata>", "", text, flags=re.DOTALL)
    text = re.sub(r'\s+xmlns(:\w+)?="[^"]*"', "", text)
    text = re.sub(r"<style\b.*?</style>", "", text, flags=re.DOTALL)
    # Only what is referred to needs an id; groups are called alike in every panel.
    text = re.sub(r'<g id="[^"]*"', "<g", text).replace("xlink:href", "href")
    text = re.sub(r'(<svg\b[^>]*?)\s+width="[^"]*"', r"\1", text)
    text = re.sub(r'(<svg\b[^>]*?)\s+height="[^"]*"', r"\1", text)
    return text.strip()
