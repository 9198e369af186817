"""Strategy A: fill a dataset's gaps from itself, by crops, composites, captions and repeats, and check the result."""

import shutil
from collections import Counter
from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path

import numpy as np

from onmodel.core.errors import ImageError, UserError
from onmodel.core.files import folder_aside
from onmodel.core.vocabulary import CATEGORIES, Attribute
from onmodel.dataset.analysis import Analysis
from onmodel.dataset.audit import expect
from onmodel.dataset.balance import MAX_REPEATS
from onmodel.dataset.candidates import Planned, composites, crops, originals, widened
from onmodel.dataset.crops import CropConfig
from onmodel.dataset.derived import LINEAGE, carry_facts, check_place, class_tokens, write_lineage
from onmodel.dataset.facts import Facts
from onmodel.dataset.folder import Dataset, Picture
from onmodel.dataset.labels import Label, read_labels, write_labels
from onmodel.dataset.making import Maker, Writer
from onmodel.dataset.mend import Expected
from onmodel.dataset.recommended import LABELS, RECOMMENDED, Recommended
from onmodel.dataset.scenery import Scenery
from onmodel.dataset.settle import Sure, Verify, Wanted, settle
from onmodel.detection.convert import Detected

__all__ = ["LINEAGE", "AugmentResult", "augment", "default_crop"]

MAX_SYNTHETIC = 0.2
"""Share of an epoch that may be synthetic: a fifth lends context without becoming what the character looks like."""


@dataclass(frozen=True, slots=True)
class AugmentResult:
    """What was written."""

    output_dir: Path
    copied: int
    derived: dict[str, int]
    """Operation and shot type ("crop medium", "composite background far", …) -> pictures."""
    pictures: int
    shown: int
    """Pictures an epoch shows, repeats counted."""
    before: dict[str, float]
    """Effective shares in per cent of the given set."""
    after: dict[str, float]
    """Effective shares in per cent of the derived set: as the detector sees what was made, or else as planned."""
    unreachable: tuple[str, ...]
    """A sentence for each range that was not reached."""
    skipped: tuple[str, ...] = ()
    """A sentence for each picture left out."""
    synthetic: float = 0.0
    """Share of what an epoch shows, in per cent, that is synthetic."""
    checked: int = 0
    """Made pictures that a detector looked at."""
    refused: dict[str, int] = field(default_factory=dict[str, int])
    """Why something was not made, or made and left out -> how often; the most frequent first."""
    commands: tuple[str, ...] = ()
    """What would find the pictures that cannot be made."""


def augment(
    dataset: Dataset,
    analysis: Analysis,
    output_dir: Path,
    *,
    target_size: int | None = None,
    recommended: Recommended = RECOMMENDED,
    crop: CropConfig | None = None,
    variants: int = 2,
    max_repeats: int = MAX_REPEATS,
    scenery: Scenery | None = None,
    max_synthetic: float = MAX_SYNTHETIC,
    caption_lines: int = 1,
    verify: Verify | None = None,
    sees_things_in_front: bool | None = None,
    seed: int = 0,
    advance: Callable[[int], object] = lambda count: None,
) -> AugmentResult:
    """Write a balanced set: all originals, derived pictures, captions, repeat folders and `lineage.jsonl`.

    Args:
        dataset: the originals; not touched.
        analysis: of this dataset, as `analyze` made it.
        output_dir: made whole or not at all; an earlier derived set there is replaced.
        target_size: pictures an epoch should show; None takes the analysis's.
        recommended: ranges to reach.
        crop: least sizes; None fits `resolution` to the dataset.
        variants: most derived pictures of one kind from one original.
        max_repeats: most repeats of a folder.
        scenery: what to put behind, beside and in front of the characters; None makes no composites.
        max_synthetic: most share, 0 to 1, of an epoch that is synthetic: composites and continued backgrounds.
        caption_lines: captions a picture, each on a line of its own.
        verify: looks at what was made. Pictures that it takes for another shot type, or in which it misses company or
            a thing in front that was put there, are left out and others made instead. None trusts the plan.
        sees_things_in_front: whether the detector has a class for them, and so can confirm one; None = where the
            analysis has any. Where it cannot, composites' occlusion is kept as a label.
        seed: of the choice of windows, places and words.
        advance: called with the number of pictures written.

    Raises:
        UserError: the analysis is of other pictures, or `output_dir` holds something else.
        ResourceError: the disk is full.
        ServiceError: from `verify`.
    """
    check_place([dataset.path, *{picture.path.parent for picture in dataset.pictures}], output_dir)
    sources = match(dataset, analysis)
    rows = [row for row in analysis.rows if row.error is None]
    size = max(target_size or analysis.target_size, len(rows))
    crop = crop or default_crop(analysis)
    refused = Counter(scenery.refused) if scenery is not None else Counter[str]()
    items = originals(rows)
    items += crops(rows, crop, variants, seed)
    items += widened(rows, sources, variants, refused)
    if scenery is not None:
        items += composites(rows, sources, scenery, crop, variants, seed, refused)
    problems = [f"{row.file}: {row.error}" for row in analysis.rows if row.error is not None]
    with folder_aside(output_dir) as aside:
        made = aside / ".made"
        made.mkdir()
        maker = Maker(sources, crop, seed, made)
        knows = any(row.occluders for row in rows) if sees_things_in_front is None else sees_things_in_front
        sure = Sure(items, maker, verify, knows, refused)
        wanted = Wanted(recommended, size, max_repeats, max_synthetic)
        chosen = settle(sure, wanted)
        trigger = expect([picture.caption for picture in dataset.pictures], Expected()).trigger
        writer = Writer(aside, maker, caption_lines, seed, dataset.path.resolve(), trigger)
        tokens = class_tokens(dataset)
        files: dict[int, tuple[str, str]] = {}
        for number, repeats in chosen.items():
            try:
                files[number] = writer.write(number, sure.items[number], repeats, f"{repeats}_{tokens}")
            except ImageError as error:
                problems.append(str(error))
            advance(1)
        shutil.rmtree(made)
        write_lineage(aside, writer.lineage)
        _remember(dataset, analysis, aside, sure, files)
    used = {number: repeats for number, repeats in chosen.items() if number in files}
    after = shares(sure.items, used)
    shown = sum(used.values())
    unreachable, commands = _unreachable(after, sure.items, used, wanted, dataset)
    return AugmentResult(
        output_dir=output_dir,
        copied=sum(sure.items[n].operation == "copy" for n in used),
        derived=_derived(sure.items[n] for n in used),
        pictures=len(writer.lineage),
        shown=shown,
        before=dict(analysis.shares),
        after=after,
        unreachable=unreachable,
        skipped=tuple(problems),
        synthetic=100.0 * sum(r for n, r in used.items() if sure.items[n].synthetic) / max(1, shown),
        checked=len(sure.outcomes),
        refused=dict(refused.most_common()),
        commands=commands,
    )


def match(dataset: Dataset, analysis: Analysis) -> dict[str, Picture]:
    """The dataset's pictures by name, checked to be those of the analysis. Raises UserError where one is not."""
    pictures = {dataset.relative(picture): picture for picture in dataset.pictures}
    for row in analysis.rows:
        picture = pictures.get(row.file)
        if picture is None or (row.hash is not None and _hash(picture) != row.hash):
            what = "is gone" if picture is None else "has changed"
            raise UserError(f"{row.file}: {what} since the analysis; run `onmodel analyze {dataset.path}` again")
    return pictures


def _hash(picture: Picture) -> str | None:
    try:
        return picture.hash
    except ImageError:
        return None


def default_crop(analysis: Analysis) -> CropConfig:
    """Least sizes that fit a dataset: `resolution` is its median shorter side, at most 512."""
    sides = [min(row.width, row.height) for row in analysis.rows if row.error is None]
    return CropConfig(resolution=min(512, int(np.median(sides))) if sides else 512, face_to_head=analysis.face_to_head)


def shares(items: Sequence[Planned], repeats: Mapping[int, int]) -> dict[str, float]:
    """Per cent of an epoch that each category has."""
    total = max(1, sum(repeats.values()))
    return {
        name: 100.0 * sum(count for n, count in repeats.items() if name in items[n].group) / total
        for name in CATEGORIES
    }


def _derived(items: Iterable[Planned]) -> dict[str, int]:
    return dict(Counter(f"{item.kind} {item.shot.value}" for item in items if item.operation != "copy"))


def _remember(
    dataset: Dataset, analysis: Analysis, folder: Path, sure: Sure, files: Mapping[int, tuple[str, str]]
) -> None:
    """What is known of the set's pictures, so that analysing it looks at none again; and what no detector can see.

    `files` has each written item's content hash and path below the folder.
    """
    by_hash = dict(files.values())
    carry_facts(dataset.path, folder, by_hash)
    facts = Facts.open(folder)
    labels = read_labels(folder)
    for number, (content, _) in files.items():
        outcome = sure.outcomes.get(number)
        if outcome is None:
            continue
        facts.put((content, analysis.model.hash, analysis.model.config_hash), outcome)
        seen = {a.value for a in outcome.decision.attributes} if isinstance(outcome, Detected) else set[str]()
        true = set(sure.items[number].attributes)
        if true != seen:
            named = tuple(Attribute(name) for name in sorted(true))
            labels[content] = Label(file=by_hash[content], hash=content, attributes=named)
    facts.save()
    if labels:
        write_labels(folder, labels.values())


def _unreachable(
    after: Mapping[str, float], items: Sequence[Planned], used: Mapping[int, int], wanted: Wanted, dataset: Dataset
) -> tuple[tuple[str, ...], tuple[str, ...]]:
    """A sentence for each range that was missed, and the commands that would find what cannot be made."""
    sentences: list[str] = []
    lacking = False
    total = sum(used.values())
    for name in CATEGORIES:
        low, high = wanted.recommended.range(name)
        members = {n: repeats for n, repeats in used.items() if name in items[n].group}
        got = f"{LABELS[name]}: {after[name]:.1f} % of {low:g}–{high:g} %"
        if after[name] < low - 0.05:
            lacking = True
            more = int(np.ceil((low - after[name]) / 100 * wanted.size))
            few = f"the {len(members)} pictures that show it" if len(members) > 1 else "the one picture that shows it"
            limits = [1 if items[n].synthetic else wanted.max_repeats for n in members]
            if not members:
                sentences.append(f"{got}; nothing shows it and crops cannot make it: add about {more} new pictures")
            elif all(members[n] >= limit for n, limit in zip(members, limits, strict=True)):
                most = "once each, being synthetic" if max(limits) == 1 else f"at most {wanted.max_repeats} times"
                sentences.append(f"{got}; {few} may be shown {most}: add about {more} new ones")
            else:
                sentences.append(f"{got}; more of {few} would push other categories out of theirs")
        elif after[name] > high + 0.05:
            sentences.append(f"{got}; more than recommended, since its pictures fill other gaps")
    synthetic = sum(repeats for n, repeats in used.items() if items[n].synthetic)
    if lacking and 0 < wanted.max_synthetic < 1 and synthetic >= 0.98 * wanted.max_synthetic * total:
        sentences.append(
            f"synthetic pictures are at their cap of {wanted.max_synthetic:.0%}; --max-synthetic raises it"
        )
    command = (
        f"onmodel extract FILM --plan analysis.json --profile missing.json "
        f"--reference REFERENCES --output-dir {dataset.path.resolve().name}_frames"
    )
    return tuple(sentences), (command,) if lacking else ()
