"""An analysis for a person: a table for the terminal, and one self-contained page."""

import base64
import sys
from collections.abc import Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass

from jinja2 import Environment, PackageLoader
from rich.console import Console
from rich.table import Table

from onmodel.core.errors import ImageError
from onmodel.core.images import decode, thumbnail_jpeg
from onmodel.core.vocabulary import CATEGORIES, ShotType
from onmodel.dataset.analysis import Analysis, CategoryResult, Row
from onmodel.dataset.augment import AugmentResult
from onmodel.dataset.folder import Dataset
from onmodel.dataset.recommended import LABELS, Recommended

THUMBNAIL_SIDE = 192
PER_CATEGORY = 24
"""Thumbnails a category: enough to see what it is, and the page stays a few megabytes."""
_COLOURS = {"within": "green", "above": "yellow", "below": "red", "missing": "bold red"}


def table(analysis: Analysis) -> Table:
    """The table of shares as a rich renderable."""
    shown = Table(title=f"{analysis.pictures} pictures of {analysis.dataset}", title_justify="left")
    weighted = any(abs(r.share - r.picture_share) > 0.05 for r in analysis.categories.values())
    shown.add_column("category")
    shown.add_column("pictures", justify="right")
    shown.add_column("share" + (" (with repeats)" if weighted else ""), justify="right")
    shown.add_column("recommended", justify="right")
    shown.add_column("to add", justify="right")
    shown.add_column(f"of {analysis.target_size}", justify="right")
    shown.add_column("impact")
    for name, result in analysis.categories.items():
        shown.add_row(*_cells(name, result))
    shown.add_row(
        LABELS["unclassified"], str(analysis.unclassified), f"{analysis.unclassified_share:.1f} %", "", "", "",
        "not learned as any shot" if analysis.unclassified else "", style="dim",
    )  # fmt: skip
    return shown


def _cells(name: str, result: CategoryResult) -> tuple[str, ...]:
    colour = _COLOURS[result.status]
    return (
        LABELS[name],
        str(result.count),
        f"[{colour}]{result.share:.1f} %[/]",
        f"{result.low:g}–{result.high:g} %",
        str(result.deficit or ""),
        str(result.deficit_at_target or ""),
        result.impact,
    )


def terminal() -> Console:
    """Standard output; where that is a file there is no width to fit, so tables are not squeezed into 80 columns."""
    return Console() if sys.stdout.isatty() else Console(width=120)


def print_augmented(result: AugmentResult, recommended: Recommended) -> None:
    """Print what `augment` made: shares before and after, and what it could not reach."""
    out = terminal()
    shown = Table(
        title=f"{result.pictures} pictures, {result.shown} an epoch: {result.output_dir}", title_justify="left"
    )
    for heading in ("category", "before", "after", "recommended"):
        shown.add_column(heading, justify="left" if heading == "category" else "right")
    for name in CATEGORIES:
        low, high = recommended.range(name)
        within = low - 0.05 <= result.after[name] <= high + 0.05
        after = f"[{'green' if within else 'red'}]{result.after[name]:.1f} %[/]"
        shown.add_row(LABELS[name], f"{result.before[name]:.1f} %", after, f"{low:g}–{high:g} %")
    out.print(shown)
    made = ", ".join(f"{count} {what.replace('_', ' ')}" for what, count in sorted(result.derived.items()))
    lines = [f"{result.copied} originals copied; derived: {made or 'none'}."]
    if result.synthetic:
        lines.append(f"{result.synthetic:.1f} % of an epoch is synthetic.")
    if result.checked:
        lines.append(f"The detector looked at {result.checked} made pictures.")
    lines += [f"not made {count} times: {why}" for why, count in list(result.refused.items())[:8]]
    lines += [f"not reached: {sentence}" for sentence in result.unreachable]
    lines += [f"To find what is lacking: {command}" for command in result.commands]
    lines += [f"left out: {sentence}" for sentence in result.skipped]
    for line in lines:
        out.print(line, markup=False, highlight=False, soft_wrap=True)


@dataclass(frozen=True, slots=True)
class _Thumbnail:
    file: str
    caption: str
    reason: str
    jpeg: str


@dataclass(frozen=True, slots=True)
class _Group:
    total: int
    shown: list[_Thumbnail]


def page(analysis: Analysis, dataset: Dataset) -> str:
    """One HTML page that needs no other file: table, conclusion, thumbnails per category."""
    environment = Environment(loader=PackageLoader("onmodel.dataset"), autoescape=True, trim_blocks=True)
    good = [row for row in analysis.rows if row.error is None]
    members = {name: [row for row in good if name in row.categories] for name in CATEGORIES}
    members["unclassified"] = [row for row in good if row.shot_type is ShotType.UNCLASSIFIED]
    chosen = {name: _spread(rows) for name, rows in members.items() if rows}
    thumbnails = _thumbnails(dataset, {row.file: row for rows in chosen.values() for row in rows})
    groups = [
        (name, _Group(len(members[name]), [thumbnails[row.file] for row in rows if row.file in thumbnails]))
        for name, rows in chosen.items()
    ]
    return environment.get_template("analysis.html").render(
        name=dataset.path.resolve().name,
        analysis=analysis,
        labels=LABELS,
        groups=groups,
        lacking=any(r.status in ("missing", "below") for r in analysis.categories.values()),
        unreadable=[row for row in analysis.rows if row.error is not None],
    )


def _spread(rows: Sequence[Row]) -> list[Row]:
    """At most `PER_CATEGORY` rows, evenly over the list: neighbours in a folder look alike."""
    if len(rows) <= PER_CATEGORY:
        return list(rows)
    return [rows[i * len(rows) // PER_CATEGORY] for i in range(PER_CATEGORY)]


def _thumbnails(dataset: Dataset, rows: dict[str, Row]) -> dict[str, _Thumbnail]:
    pictures = {dataset.relative(picture): picture for picture in dataset.pictures}

    def make(row: Row) -> _Thumbnail | None:
        try:
            image = decode(pictures[row.file].bytes(), row.file)
        except ImageError:
            return None
        jpeg = base64.b64encode(thumbnail_jpeg(image, THUMBNAIL_SIDE)).decode()
        return _Thumbnail(row.file, row.caption, row.reason, jpeg)

    with ThreadPoolExecutor(4) as pool:
        return {made.file: made for made in pool.map(make, rows.values()) if made is not None}
