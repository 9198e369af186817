"""What a merge did: `merge.json`, the table for a person, and the commands that would fill what is short."""

import shlex
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any, Literal

from rich.markup import escape
from rich.table import Table

from onmodel.core.config import Config
from onmodel.core.vocabulary import CATEGORIES, ShotType
from onmodel.dataset.analysis import CROPPABLE
from onmodel.dataset.composition import ATTRIBUTES, NAMES, Composition
from onmodel.dataset.dedupe import SAME
from onmodel.dataset.pool import Left
from onmodel.dataset.recommended import LABELS
from onmodel.dataset.report import terminal

REPORT = "merge.json"
RANGES = "recommended.json"
"""The composition as shares for a set of its size: analysed against it, the set lacks what the composition lacks."""
_LINES = 5
"""Sentences of a kind that are printed; `merge.json` has all."""


class Source(Config):
    """One of the sets put together."""

    path: str
    pictures: int
    """Readable ones."""
    taken: int


class Category(Config):
    """One line of the table, in pictures."""

    minimum: int
    maximum: int | None
    """None: any number."""
    available: int
    """Different pictures that the sets hold of it."""
    got: int
    shortfall: int
    excess: int
    """Of an attribute, beyond the number asked for; the shot types needed them."""
    shown: float
    """Per cent of an epoch, repeats counted."""


class Duplicate(Left):
    """One picture that another stands for."""

    kept_dataset: str
    kept_file: str


class MergeReport(Config):
    """`merge.json`."""

    schema_version: Literal[1] = 1
    output_dir: str | None
    """None where nothing was written."""
    composition: dict[str, Any]
    sources: tuple[Source, ...]
    pictures: int
    shown: int
    """Pictures an epoch shows, repeats counted."""
    categories: dict[str, Category]
    repeats: dict[str, int]
    """Repeat folder -> its pictures."""
    value: float
    proven: bool
    """Whether no choice that lacks as little is better by more than the gap."""
    gap: float
    without_caption: int
    synthetic: int
    """Pictures put together from parts of several."""
    duplicates: tuple[Duplicate, ...]
    dropped: tuple[Left, ...]
    unreadable: tuple[Left, ...]
    shortfalls: tuple[str, ...]
    """A sentence for each category that is short."""
    commands: tuple[str, ...]
    """What would fill them, in order."""


def categories(
    composition: Composition,
    available: Mapping[str, int],
    counts: Mapping[str, int],
    shares: Mapping[str, float],
) -> dict[str, Category]:
    """The table's lines, in its order.

    Args:
        composition: what was asked.
        available: name -> different pictures to choose from.
        counts: name -> pictures taken.
        shares: name -> per cent of an epoch.
    """
    lines: dict[str, Category] = {}
    for name in NAMES:
        limits = composition.limits(name)
        lines[name] = Category(
            minimum=limits.minimum,
            maximum=None if limits.preferred >= composition.size and name in ATTRIBUTES else limits.preferred,
            available=available.get(name, 0),
            got=counts.get(name, 0),
            shortfall=max(0, limits.minimum - counts.get(name, 0)),
            excess=max(0, counts.get(name, 0) - limits.preferred),
            shown=round(shares.get(name, 0.0), 2),
        )
    return lines


def shortfalls(lines: Mapping[str, Category]) -> tuple[str, ...]:
    """A sentence for each category that is short."""
    sentences: list[str] = []
    for name, line in lines.items():
        if not line.shortfall:
            continue
        if line.available > line.got:
            why = f"more of the {line.available} there are would go beyond what is asked of other categories"
        else:
            why = "the sets hold no more" if line.available else "the sets hold none"
        sentences.append(f"{LABELS[name]}: {line.got} of {line.minimum}, {line.shortfall} missing; {why}")
    return tuple(sentences)


def commands(lines: Mapping[str, Category], place: Path, size: int, detector: Sequence[str] = ()) -> tuple[str, ...]:
    """The commands that would fill what is short: crops for what crops can make, a film for the rest.

    FILM and REFERENCES stand for what only the user knows; `detector` are the options that name the detector.
    """
    short = [name for name, line in lines.items() if line.shortfall and name != ShotType.UNCLASSIFIED]
    if not short:
        return ()
    analysis, ranges = str(place.with_name(f"{place.name}_analysis.json")), str(place / RANGES)
    found = [["onmodel", "analyze", str(place), "--recommended", ranges, "--output-json", analysis, *detector]]
    if any(name in CROPPABLE for name in short):
        filled = str(place.with_name(f"{place.name}_balanced"))
        options = ["--output-dir", filled, "--strategy", "balanced", "--target-size", str(size)]
        found.append(["onmodel", "augment", str(place), analysis, *options, "--recommended", ranges])
    if any(name not in CROPPABLE for name in short):
        profile, frames = (str(place.with_name(f"{place.name}_missing{end}")) for end in (".json", ""))
        options = ["--reference", "REFERENCES", "--output-dir", frames, *detector]
        found.append(["onmodel", "extract", "FILM", "--plan", analysis, "--profile", profile, *options])
    return tuple(shlex.join(words) for words in found)


def print_report(report: MergeReport) -> None:
    """Print the table, what is short, what was left out, and what to do next."""
    out = terminal()
    where = "would be taken; nothing was written" if report.output_dir is None else escape(report.output_dir)
    shown = Table(title=f"{report.pictures} of {report.composition['total']} pictures: {where}", title_justify="left")
    repeated = report.shown != report.pictures
    for heading in ("category", "asked", "available", "got", "missing", *(("of an epoch",) if repeated else ())):
        shown.add_column(heading, justify="left" if heading == "category" else "right")
    for name, line in report.categories.items():
        if name not in CATEGORIES and not (line.minimum or line.got or line.maximum):
            continue
        colour = "red" if line.shortfall else "yellow" if line.excess else "green"
        cells = [LABELS[name], _asked(line), str(line.available), f"[{colour}]{line.got}[/]", str(line.shortfall or "")]
        shown.add_row(*cells, *([f"{line.shown:.1f} %"] if repeated else []))
    out.print(shown)
    for line in _sentences(report):
        out.print(line, markup=False, highlight=False, soft_wrap=True)


def _asked(line: Category) -> str:
    if line.maximum is None:
        return f"at least {line.minimum}" if line.minimum else "any"
    return str(line.minimum) if line.minimum == line.maximum else f"{line.minimum}–{line.maximum}"


def _sentences(report: MergeReport) -> list[str]:
    lines = [f"missing: {sentence}" for sentence in report.shortfalls]
    for name, line in report.categories.items():
        if line.excess:
            lines.append(f"{LABELS[name]}: {line.excess} more than asked for; the shot types have no others to take")
    lines += [f"{source.path}: {source.taken} of {source.pictures} pictures" for source in report.sources]
    exact = sum(each.why == SAME for each in report.duplicates)
    if report.duplicates:
        lines.append(
            f"{len(report.duplicates)} duplicates left out: {exact} exact, {len(report.duplicates) - exact} near"
        )
    if report.dropped:
        lines.append(f"{len(report.dropped)} pictures not needed")
    lines += _some("unreadable", report.unreadable)
    if report.without_caption:
        lines.append(f"{report.without_caption} pictures have no caption; `onmodel caption` writes them")
    if report.synthetic:
        lines.append(f"{report.synthetic} pictures are synthetic (composites of `onmodel augment`)")
    if not report.proven:
        lines.append(
            "Time ran out before the choice was proven best. What is short is certain, which pictures are best is not."
        )
    if report.shown != report.pictures:
        folders = ", ".join(f"{count} in {name}" for name, count in report.repeats.items())
        lines.append(f"An epoch shows {report.shown} pictures: {folders}.")
    if report.commands:
        lines += ["To fill what is missing, and merge again with what they make:"]
        lines += [f"  {command}" for command in report.commands]
    return lines


def _some(what: str, left: Sequence[Left]) -> list[str]:
    lines = [f"{what}: {each.dataset}/{each.file}: {each.why}" for each in left[:_LINES]]
    return [*lines, f"{what}: {len(left) - _LINES} more in {REPORT}"] if len(left) > _LINES else lines
