"""Strategy A: fill a dataset's gaps from itself, by crops, continued backgrounds, captions and repeats."""

import json
import re
from collections import Counter
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, Literal

import numpy as np

from onmodel.core.errors import ImageError, UserError
from onmodel.core.files import content_hash, folder_aside
from onmodel.core.images import decode, encode_png
from onmodel.core.vocabulary import CATEGORIES, Box, ShotType
from onmodel.dataset.analysis import Analysis, Numbers, Row
from onmodel.dataset.balance import MAX_REPEATS, Group, choose_repeats, effective_shares
from onmodel.dataset.captions import for_crop, shuffled, with_context, with_shot
from onmodel.dataset.crops import CropConfig, can_widen, crop_window, cropped_attributes, cut, has_even_edges, widen
from onmodel.dataset.folder import Dataset, Picture
from onmodel.dataset.recommended import LABELS, RECOMMENDED, Recommended

LINEAGE = "lineage.jsonl"
Operation = Literal["copy", "crop", "widen"]


@dataclass(frozen=True, slots=True)
class Planned:
    """One picture of the derived set, before any pixel is touched."""

    row: Row
    operation: Operation
    shot: ShotType
    attributes: frozenset[str]
    variant: int = 0
    window: Box | None = None

    @property
    def group(self) -> Group:
        """Its categories; empty without a shot type, so that nothing repeats it."""
        return frozenset() if self.shot is ShotType.UNCLASSIFIED else self.attributes | {self.shot.value}


@dataclass(frozen=True, slots=True)
class AugmentResult:
    """What was written."""

    output_dir: Path
    copied: int
    derived: dict[str, int]
    """Operation and shot type ("crop medium", …) -> pictures."""
    pictures: int
    shown: int
    """Pictures an epoch shows, repeats counted."""
    before: dict[str, float]
    """Effective shares in per cent of the given set."""
    after: dict[str, float]
    """Effective shares in per cent of the derived set, as planned from the boxes."""
    unreachable: tuple[str, ...]
    """A sentence for each range that was not reached."""
    skipped: tuple[str, ...] = field(default=())
    """A sentence for each picture left out."""


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
        seed: of the choice of windows and words.
        advance: called with the number of pictures written.

    Raises:
        UserError: the analysis is of other pictures, or `output_dir` holds something else.
        ResourceError: the disk is full.
    """
    _check_place(dataset, output_dir)
    sources = _match(dataset, analysis)
    rows = [row for row in analysis.rows if row.error is None]
    size = max(target_size or analysis.target_size, len(rows))
    crop = crop or default_crop(analysis)
    rng = np.random.default_rng(seed)
    plan = [Planned(row, "copy", row.shot_type, frozenset(row.attributes)) for row in rows]
    plan += _derive(rows, _widenable(rows, sources), recommended, size, crop, variants, rng)
    counts: dict[Group, int] = Counter(item.group for item in plan)
    repeats = choose_repeats(counts, recommended, size, max_repeats)
    after = effective_shares(counts, repeats)
    tokens = _class_tokens(dataset)
    skipped: list[str] = [f"{row.file}: {row.error}" for row in analysis.rows if row.error is not None]
    with folder_aside(output_dir) as aside:
        writer = _Writer(aside, sources, crop, rng)
        for item in plan:
            problem = writer.write(item, repeats[item.group], f"{repeats[item.group]}_{tokens}")
            if problem is not None:
                skipped.append(problem)
            advance(1)
        (aside / LINEAGE).write_text("".join(json.dumps(line) + "\n" for line in writer.lineage), encoding="utf-8")
    made = Counter(f"{item.operation} {item.shot.value}" for item in plan if item.operation != "copy")
    return AugmentResult(
        output_dir=output_dir,
        copied=len(rows),
        derived=dict(made),
        pictures=len(writer.lineage),
        shown=sum(counts[group] * repeats[group] for group in counts),
        before=dict(analysis.shares),
        after=after,
        unreachable=_unreachable(after, counts, recommended, max_repeats, repeats),
        skipped=tuple(skipped),
    )


def _check_place(dataset: Dataset, output_dir: Path) -> None:
    source, target = dataset.path.resolve(), output_dir.resolve()
    if target == source or target in source.parents or source in target.parents:
        raise UserError(
            f"{output_dir}: lies in or around the dataset, which stays untouched; choose a folder beside it"
        )
    if output_dir.exists() and (
        not output_dir.is_dir() or (any(output_dir.iterdir()) and not (output_dir / LINEAGE).is_file())
    ):
        raise UserError(f"{output_dir}: exists and is no derived set of ours; choose another --output-dir or remove it")


def _match(dataset: Dataset, analysis: Analysis) -> dict[str, Picture]:
    """The dataset's pictures by name, checked to be those of the analysis."""
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


def _derive(
    rows: Sequence[Row],
    widenable: frozenset[str],
    recommended: Recommended,
    size: int,
    crop: CropConfig,
    variants: int,
    rng: np.random.Generator,
) -> list[Planned]:
    """Derived pictures towards the middle of each lacking shot type's range."""
    # Rare attributes first: a crop with another character in it fills two gaps.
    ordered = sorted(rows, key=lambda row: (-len(row.attributes), row.file))
    made: list[Planned] = []
    for shot in (ShotType.MEDIUM, ShotType.CLOSE_UP, ShotType.FAR):
        low, high = recommended.range(shot.value)
        wanted = round((low + high) / 200 * size) - sum(row.shot_type is shot for row in rows)
        for variant in range(variants):
            for row in ordered:
                if wanted <= 0:
                    break
                item = _one(row, shot, variant, widenable, crop, rng)
                if item is not None:
                    made.append(item)
                    wanted -= 1
    return made


def _widenable(rows: Sequence[Row], sources: Mapping[str, Picture]) -> frozenset[str]:
    """Names of the pictures whose background can be continued; their edges are looked at."""
    found: set[str] = set()
    for row in filter(can_widen, rows):
        try:
            if has_even_edges(decode(sources[row.file].bytes(), row.file)):
                found.add(row.file)
        except ImageError:
            continue
    return frozenset(found)


def _one(
    row: Row, shot: ShotType, variant: int, widenable: frozenset[str], crop: CropConfig, rng: np.random.Generator
) -> Planned | None:
    if shot is ShotType.FAR:
        return Planned(row, "widen", shot, frozenset(row.attributes), variant) if row.file in widenable else None
    window = crop_window(row, shot, crop, rng)
    if window is None:
        return None
    return Planned(row, "crop", shot, cropped_attributes(row, window), variant, window)


def _class_tokens(dataset: Dataset) -> str:
    """The words behind the number in the folders' names: the dataset's own, or its folder's name."""
    given = Counter(picture.class_tokens for picture in dataset.pictures if picture.class_tokens)
    words = given.most_common(1)[0][0] if given else dataset.path.resolve().name
    return re.sub(r"[^\w .-]+", " ", str(words)).strip() or "character"


class _Writer:
    """Writes planned pictures below one folder and keeps their lineage."""

    def __init__(
        self, folder: Path, sources: Mapping[str, Picture], crop: CropConfig, rng: np.random.Generator
    ) -> None:
        self._folder = folder
        self._sources = sources
        self._crop = crop
        self._rng = rng
        self._used: set[str] = set()
        self.lineage: list[dict[str, Any]] = []

    def write(self, item: Planned, repeats: int, folder: str) -> str | None:
        """Write one picture and its caption. Returns a sentence when the original cannot be read."""
        source = self._sources[item.row.file]
        try:
            data, suffix, box = self._pixels(item, source)
        except ImageError as error:
            return str(error)
        caption = self._caption(item)
        stem = (
            source.path.stem if item.operation == "copy" else f"{source.path.stem}_{item.shot.value}{item.variant + 1}"
        )
        name = self._free(stem)
        target = self._folder / folder / f"{name}{suffix}"
        target.parent.mkdir(exist_ok=True)
        target.write_bytes(data)
        target.with_suffix(".txt").write_text(caption + "\n", encoding="utf-8")
        self.lineage.append(
            {
                "file": target.relative_to(self._folder).as_posix(),
                "hash": content_hash(data),
                "source": item.row.file,
                "source_hash": item.row.hash,
                "operation": item.operation,
                "box": box,
                "shot_type": item.shot.value,
                "attributes": sorted(item.attributes),
                "repeats": repeats,
                "caption_before": item.row.caption,
                "caption": caption,
            }
        )
        return None

    def _pixels(self, item: Planned, source: Picture) -> tuple[bytes, str, Numbers | None]:
        """Encoded bytes, file suffix, and the window (crop) or where the original lies (widen)."""
        data = source.bytes()
        if item.operation == "copy":
            return data, source.path.suffix, None
        image = decode(data, item.row.file)
        if item.window is not None:
            return encode_png(cut(image, item.window, self._crop)), ".png", item.window.as_tuple()
        made, where = widen(image, item.row, self._crop, self._rng)
        return (
            encode_png(made),
            ".png",
            (round(where[0], 2), round(where[1], 2), round(where[2], 2), round(where[3], 2)),
        )

    def _caption(self, item: Planned) -> str:
        if item.shot is ShotType.UNCLASSIFIED:
            return item.row.caption
        caption = item.row.caption
        if item.operation == "crop":
            caption = for_crop(caption, item.shot)
        caption = with_context(with_shot(caption, item.shot, item.variant), item.attributes)
        return shuffled(caption, self._rng) if item.variant else caption

    def _free(self, stem: str) -> str:
        """A stem no other picture of the set has, over all folders: files may be put together later."""
        name, count = stem, 1
        while name in self._used:
            count += 1
            name = f"{stem}_{count}"
        self._used.add(name)
        return name


def _unreachable(
    after: Mapping[str, float],
    counts: Mapping[Group, int],
    recommended: Recommended,
    max_repeats: int,
    repeats: Mapping[Group, int],
) -> tuple[str, ...]:
    sentences: list[str] = []
    for name in CATEGORIES:
        low, high = recommended.range(name)
        have = sum(count for group, count in counts.items() if name in group)
        got = f"{LABELS[name]}: {after[name]:.1f} % of {low:g}–{high:g} %"
        if after[name] < low - 0.05:
            if not have:
                sentences.append(f"{got}; nothing shows it and crops cannot make it: add new pictures")
            elif all(repeats[group] >= max_repeats for group in counts if name in group):
                sentences.append(f"{got}; its {have} pictures are at the limit of {max_repeats} repeats: add new ones")
            else:
                sentences.append(
                    f"{got}; more repeats of its {have} pictures would push other categories out of theirs"
                )
        elif after[name] > high + 0.05:
            sentences.append(f"{got}; more than recommended, since its pictures fill other gaps")
    return tuple(sentences)
