"""Several sets put together to a composition: each picture once, the best of them, what could not be met named."""

import math
import re
from collections import Counter
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from pydantic import Field, field_validator

from onmodel.core.config import Config
from onmodel.core.errors import ImageError, UserError
from onmodel.core.files import content_hash, folder_aside
from onmodel.core.likeness import NEAR_DUPLICATE_BITS
from onmodel.core.vocabulary import CATEGORIES, ShotType
from onmodel.dataset import dedupe, merged, sdscripts
from onmodel.dataset.analysis import Analysis
from onmodel.dataset.balance import Group, choose_repeats, effective_shares
from onmodel.dataset.composition import NAMES, Composition
from onmodel.dataset.derived import Names, check_place, class_tokens, inherited, write_lineage
from onmodel.dataset.facts import FILE, Facts
from onmodel.dataset.folder import Dataset
from onmodel.dataset.labels import Label, write_labels
from onmodel.dataset.merged import RANGES, REPORT, MergeReport
from onmodel.dataset.pool import AKIN_BITS, Entry, Left, Look, Pool, QualityConfig, families, look, qualities
from onmodel.dataset.programme import Candidate, ProgrammeConfig, Selection, select
from onmodel.dataset.recommended import LABELS, Recommended

SLACK = 2.0
"""Per cent about the composition's shares within which repeats leave a mix alone."""


class MergeConfig(Config):
    """Everything that decides which pictures are taken and how they are written."""

    max_repeats: int = Field(default=1, ge=1, le=100)
    """Most repeats of a folder, towards the composition's shares where categories are short; 1 repeats nothing."""
    near_duplicate_bits: int = Field(default=NEAR_DUPLICATE_BITS, ge=-1, le=64)
    """Fingerprints that differ in no more bits are of one picture; -1 leaves out exact copies alone."""
    akin_bits: int = Field(default=AKIN_BITS, ge=0, le=64)
    """Fingerprints that differ in no more bits are of pictures that are akin and share a discount."""
    quality: QualityConfig = QualityConfig()
    programme: ProgrammeConfig = ProgrammeConfig()
    resolution: int | None = Field(default=None, ge=64, multiple_of=64)
    """Of training, in pixels; None is the middle shorter side of the pictures, at most 512."""
    class_tokens: str | None = None
    """Words behind the number of the repeat folders; None takes those of the first set that has some."""

    @field_validator("class_tokens")
    @classmethod
    def _folder_name(cls, words: str | None) -> str | None:
        if words is not None and not re.fullmatch(r"[\w.-](?:[\w .-]*[\w.-])?", words):
            raise ValueError("become a folder's name, so they are letters, digits, spaces, dots and dashes")
        return words


@dataclass(frozen=True, slots=True)
class _Choice:
    """The pictures to take, and why the others are not."""

    taken: list[Entry]
    quality: dict[str, float]
    """By content hash."""
    selection: Selection
    available: dict[str, int]
    duplicates: list[dedupe.Duplicate]
    dropped: list[tuple[Entry, str]]
    unreadable: list[tuple[Entry, str]]


def merge(
    datasets: Sequence[Dataset],
    analyses: Sequence[Analysis],
    composition: Composition,
    output_dir: Path,
    config: MergeConfig | None = None,
    *,
    dry_run: bool = False,
    detector: Sequence[str] = (),
    advance: Callable[[int], object] = lambda count: None,
) -> MergeReport:
    """Choose pictures for a composition and write them as one set.

    Args:
        datasets: sets to take from, none twice; not touched. Of exact copies that of the first set is taken.
        analyses: of each, as `analyze` made it, corrections included.
        composition: what is wanted.
        output_dir: made whole or not at all; an earlier merged set there is replaced.
        config: how to choose and write.
        dry_run: write nothing.
        detector: options that name the detector of the analyses, for the commands that the report gives.
        advance: called with the number of pictures looked at.

    Raises:
        UserError: the same set twice, no picture that the composition could use, or `output_dir` holds something else.
        ResourceError: the disk is full.
    """
    config = config or MergeConfig()
    check_sources(datasets, output_dir)
    pool = Pool()
    for number, (dataset, analysis) in enumerate(zip(datasets, analyses, strict=True)):
        pool.add(number, dataset, analysis)
    resolution = config.resolution or sdscripts.default_resolution(
        [min(entry.row.width, entry.row.height) for entry in pool.entries]
    )
    choice = _choose(pool, composition, config, resolution, advance)
    repeats = _repeats(choice.taken, composition, config.max_repeats)
    report = _report(datasets, pool, choice, composition, repeats, config, output_dir, detector)
    if dry_run:
        return report.model_copy(update={"output_dir": None})
    _write(choice, repeats, report, output_dir, resolution, _ranges(composition, 0.0))
    return report


def check_sources(datasets: Sequence[Dataset], output_dir: Path) -> None:
    """Refuse one set given twice, and an output folder in or around a set or with something else in it.

    Raises:
        UserError: says which.
    """
    seen: dict[tuple[Path, ...], Path] = {}
    for dataset in datasets:
        files = tuple(picture.path.resolve() for picture in dataset.pictures)
        if files in seen:
            raise UserError(f"{dataset.path}: is given twice; name each set once")
        seen[files] = dataset.path
    if output_dir.is_dir() and any(output_dir.iterdir()) and not (output_dir / REPORT).is_file():
        raise UserError(f"{output_dir}: exists and is no merged set; choose another --output-dir or remove it")
    check_place([dataset.path for dataset in datasets], output_dir)


def _choose(
    pool: Pool, composition: Composition, config: MergeConfig, resolution: int, advance: Callable[[int], object]
) -> _Choice:
    different, duplicates = dedupe.exact(pool.entries)
    dropped: list[tuple[Entry, str]] = []
    wanted: list[Entry] = []
    for entry in different:
        refused = _refused(entry, composition)
        if refused is None:
            wanted.append(entry)
        else:
            dropped.append((entry, refused))
    # Not to choose from, but there: a set with medium shots is not said to have none because nobody asked for them.
    shots = Counter(entry.row.shot_type.value for entry, _ in dropped)
    unasked = {name: count for name, count in shots.items() if not composition.limits(name).maximum}
    advance(len(pool.entries) + len(pool.unreadable) - len(wanted))
    looks: dict[str, Look] = {}
    unreadable: list[tuple[Entry, str]] = []
    readable: list[Entry] = []
    for entry, found in look(wanted, advance=advance):
        if isinstance(found, Look):
            looks[entry.hash] = found
            readable.append(entry)
        else:
            unreadable.append((entry, found))
    if not readable:
        raise UserError(_nothing(pool, dropped, unreadable))
    quality = qualities(readable, looks, resolution, config.quality)
    kept, near = dedupe.near(readable, looks, quality, config.near_duplicate_bits)
    entries, values = [readable[index] for index in kept], [quality[index] for index in kept]
    kin = families(entries, looks, config.akin_bits)
    candidates = [
        Candidate(entry.row.shot_type.value, frozenset(entry.row.attributes), value, family)
        for entry, value, family in zip(entries, values, kin, strict=True)
    ]
    selection = select(candidates, composition, config.programme)
    chosen = set(selection.chosen)
    dropped += [
        (entry, _not_taken(candidate, selection, composition))
        for index, (entry, candidate) in enumerate(zip(entries, candidates, strict=True))
        if index not in chosen
    ]
    available = {name: sum(name in candidate.kind for candidate in candidates) + unasked.get(name, 0) for name in NAMES}
    return _Choice(
        taken=[entries[index] for index in selection.chosen],
        quality={entry.hash: value for entry, value in zip(entries, values, strict=True)},
        selection=selection,
        available=available,
        duplicates=[*duplicates, *near],
        dropped=dropped,
        unreadable=unreadable,
    )


def _refused(entry: Entry, composition: Composition) -> str | None:
    """Why no composition of this kind could take the picture; None where it may be taken."""
    for name in (entry.row.shot_type.value, *entry.row.attributes):
        if not composition.limits(name).maximum:
            return f"no {LABELS[name]} pictures are asked for"
    return None


def _not_taken(candidate: Candidate, selection: Selection, composition: Composition) -> str:
    for name in (candidate.shot, *sorted(candidate.attributes)):
        limits = composition.limits(name)
        if selection.counts[name] >= limits.maximum:
            return f"the set has its {limits.maximum} {LABELS[name]} pictures; this one scored {candidate.quality:.2f}"
    if len(selection.chosen) >= composition.size:
        return f"the set has its {composition.size} pictures; this one scored {candidate.quality:.2f}"
    return "with it the set would lack more of something else"


def _nothing(pool: Pool, dropped: Sequence[tuple[Entry, str]], unreadable: Sequence[tuple[Entry, str]]) -> str:
    """Why there is nothing to choose from."""
    bad = len(pool.unreadable) + len(unreadable)
    reasons = Counter(why for _, why in dropped)
    parts = [f"{count} since {why}" for why, count in reasons.most_common()]
    if bad:
        parts.append(f"{bad} unreadable")
    return f"none of the pictures can be taken: {', '.join(parts)}; give other sets or another composition"


def _repeats(taken: Sequence[Entry], composition: Composition, most: int) -> dict[Group, int]:
    """Repeats of each group of pictures, towards the composition's shares."""
    counts = Counter(_group(entry) for entry in taken)
    if most == 1:
        return dict.fromkeys(counts, 1)
    return choose_repeats(counts, _ranges(composition, SLACK), composition.size, most)


def _group(entry: Entry) -> Group:
    shot = entry.row.shot_type
    return frozenset() if shot is ShotType.UNCLASSIFIED else frozenset({shot.value, *entry.row.attributes})


def _ranges(composition: Composition, slack: float) -> Recommended:
    """The composition's shares in per cent, with `slack` about them, for a set of its size."""
    ranges: dict[str, Any] = {"target_size": composition.size}
    for name in CATEGORIES:
        limits = composition.limits(name)
        low = 100 * limits.minimum / composition.size - slack
        high = 100 * limits.preferred / composition.size + slack
        # Rounded outwards: shares of exclusive shot types must not sum to more than a hundred by a rounding error.
        ranges[name] = (max(0.0, math.floor(low * 1e6) / 1e6), min(100.0, math.ceil(high * 1e6) / 1e6))
    return Recommended.model_validate(ranges)


def _report(
    datasets: Sequence[Dataset],
    pool: Pool,
    choice: _Choice,
    composition: Composition,
    repeats: Mapping[Group, int],
    config: MergeConfig,
    output_dir: Path,
    detector: Sequence[str],
) -> MergeReport:
    counts = Counter(_group(entry) for entry in choice.taken)
    shares = effective_shares(counts, repeats)
    lines = merged.categories(composition, choice.available, choice.selection.counts, shares)
    tokens = _tokens(datasets, config)
    # Two dataset TOMLs may lie in one folder, so sets are told apart by what they are, not by where.
    of_set = Counter(id(entry.dataset) for entry in choice.taken)
    held = Counter(id(entry.dataset) for entry in pool.entries)
    names = Counter(sdscripts.Subset(repeats[_group(entry)], tokens) for entry in choice.taken)
    unreadable = [
        *pool.unreadable,
        *(Left(dataset=str(e.dataset.path), file=e.row.file, why=why) for e, why in choice.unreadable),
    ]
    return MergeReport(
        output_dir=str(output_dir),
        composition=composition.written(),
        sources=tuple(merged.Source(path=str(d.path), pictures=held[id(d)], taken=of_set[id(d)]) for d in datasets),
        pictures=len(choice.taken),
        shown=sum(count * repeats[group] for group, count in counts.items()),
        categories=lines,
        repeats={subset.folder: names[subset] for subset in sorted(names, key=lambda subset: subset.repeats)},
        value=round(choice.selection.value, 4),
        proven=choice.selection.proven,
        gap=round(choice.selection.gap, 6),
        without_caption=sum(not entry.picture.caption for entry in choice.taken),
        synthetic=sum(entry.synthetic for entry in choice.taken),
        duplicates=tuple(_duplicate(each) for each in choice.duplicates),
        dropped=tuple(Left(dataset=str(e.dataset.path), file=e.row.file, why=why) for e, why in choice.dropped),
        unreadable=tuple(unreadable),
        shortfalls=merged.shortfalls(lines),
        commands=merged.commands(lines, output_dir, composition.size, detector),
    )


def _duplicate(each: dedupe.Duplicate) -> merged.Duplicate:
    return merged.Duplicate(
        dataset=str(each.entry.dataset.path),
        file=each.entry.row.file,
        why=each.why,
        kept_dataset=str(each.kept.dataset.path),
        kept_file=each.kept.row.file,
    )


def _tokens(datasets: Sequence[Dataset], config: MergeConfig) -> str:
    """The words behind the number of the repeat folders."""
    if config.class_tokens is not None:
        return config.class_tokens
    named = (dataset for dataset in datasets if any(picture.class_tokens for picture in dataset.pictures))
    return class_tokens(next(named, datasets[0]))


def _write(
    choice: _Choice,
    repeats: Mapping[Group, int],
    report: MergeReport,
    output_dir: Path,
    resolution: int,
    ranges: Recommended,
) -> None:
    """Write the set: pictures, captions, and everything that is known of them."""
    tokens = next(iter(report.repeats)).partition("_")[2]
    names = Names()
    written: list[sdscripts.Written] = []
    lineage: list[dict[str, Any]] = []
    labels: list[Label] = []
    with folder_aside(output_dir) as aside:
        for entry in choice.taken:
            subset = sdscripts.Subset(repeats[_group(entry)], tokens)
            target = aside / subset.folder / f"{names.free(entry.picture.path.stem)}{entry.picture.path.suffix}"
            target.parent.mkdir(exist_ok=True)
            target.write_bytes(_unchanged(entry))
            lines = sdscripts.lines_of(entry.picture)
            sdscripts.write_caption(target, lines)
            file = target.relative_to(aside).as_posix()
            written.append(sdscripts.Written(file, subset, lines))
            lineage.append(_lineage(entry, file, subset.repeats, choice.quality[entry.hash]))
            if entry.label is not None:
                labels.append(entry.label.model_copy(update={"file": file}))
        sdscripts.write_config(aside, output_dir, written, resolution)
        more = [{"shot_type": line["shot_type"], "attributes": line["attributes"]} for line in lineage]
        sdscripts.write_metadata(aside, written, more)
        write_lineage(aside, lineage)
        if labels:
            write_labels(aside, labels)
        _carry_facts(choice.taken, aside)
        (aside / RANGES).write_text(ranges.model_dump_json(indent=1) + "\n", encoding="utf-8")
        (aside / REPORT).write_text(report.model_dump_json(indent=1) + "\n", encoding="utf-8")


def _unchanged(entry: Entry) -> bytes:
    """A picture's bytes, which must be those that were judged."""
    try:
        data = entry.picture.bytes()
    except ImageError as error:
        raise UserError(f"{error}; the set was not written") from None
    if content_hash(data) != entry.hash:
        raise UserError(f"{entry.picture.path}: changed while it was merged; run the command again")
    return data


def _lineage(entry: Entry, file: str, repeats: int, quality: float) -> dict[str, Any]:
    """Where a picture came from: what its own set knew (film, time, shot), and how it was made if it is no original."""
    return {
        **inherited(entry.before),
        "file": file,
        "hash": entry.hash,
        "dataset": str(entry.dataset.path.resolve()),
        "source": entry.row.file,
        "source_hash": entry.hash,
        "operation": "copy",
        "shot_type": entry.row.shot_type.value,
        "attributes": list(entry.row.attributes),
        "repeats": repeats,
        "caption": entry.picture.caption,
        "quality": quality,
        **({} if entry.identity is None else {"identity": entry.identity}),
    }


def _carry_facts(taken: Sequence[Entry], folder: Path) -> None:
    """What is known of the pictures, under every model, so that analysing the set computes nothing."""
    wanted = {entry.hash for entry in taken}
    kept = Facts(folder / FILE)
    for path in dict.fromkeys(entry.dataset.path for entry in taken):
        for key, outcome in Facts.open(path).items():
            if key[0] in wanted:
                kept.put(key, outcome)
    kept.save()
