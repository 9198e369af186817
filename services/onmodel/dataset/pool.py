"""All pictures of several datasets as one pool: what is known of each, how good it is, and which are akin."""

import os
from collections import Counter, defaultdict
from collections.abc import Callable, Hashable, Iterator, Mapping, Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
from pydantic import Field

from onmodel.core.config import Config
from onmodel.core.errors import ImageError
from onmodel.core.images import RGB, decode
from onmodel.core.likeness import fingerprint, sharpness
from onmodel.core.vocabulary import Box, ShotType
from onmodel.dataset.analysis import Analysis, Row
from onmodel.dataset.derived import read_lineage
from onmodel.dataset.folder import Dataset, Picture
from onmodel.dataset.labels import Label, read_labels

CLUSTERS = "clusters.parquet"
AKIN_BITS = 14
"""Pictures whose fingerprints differ in no more bits are akin, where nothing better is known: the same framing of the
same pose. Unrelated pictures differ in 32 on average, hardly ever in fewer than 18."""


class Left(Config):
    """One picture that was not taken."""

    dataset: str
    file: str
    why: str


class QualityConfig(Config):
    """Weights of what makes a picture good: the first three are divided by their sum."""

    sharpness: float = Field(default=0.4, ge=0)
    """Of the main character, up to the middle one of its shot type; sharper than that is no better."""
    size: float = Field(default=0.2, ge=0)
    """Shorter side in pixels over the training resolution, 1 at most."""
    identity: float = Field(default=0.4, ge=0)
    """Likeness to the character as its rank within its set, since scales differ between sets; unknown counts a half."""
    synthetic: float = Field(default=0.2, ge=0, le=1)
    """Share of its quality that a composite loses: of two as good the one that is no composite is taken."""


@dataclass(frozen=True, slots=True)
class Entry:
    """One picture of the pool."""

    dataset: Dataset
    picture: Picture
    row: Row
    """What the analysis says, a person's corrections included."""
    label: Label | None
    """What a person said."""
    before: Mapping[str, Any]
    """Its line in its dataset's `lineage.jsonl`; empty where there is none."""
    identity: float | None
    """Likeness to the character."""
    scale: int
    """Number of the dataset whose scale `identity` is on."""

    @property
    def hash(self) -> str:
        assert self.row.hash is not None
        return self.row.hash

    @property
    def name(self) -> str:
        """Dataset and file, for a person."""
        return f"{self.dataset.path}: {self.row.file}"

    @property
    def synthetic(self) -> bool:
        """Whether it was put together from parts of several pictures, as its lineage says."""
        return bool(self.before.get("synthetic"))

    @property
    def root(self) -> str:
        """Content hash of the original that the picture was made from; its own where it is one."""
        made = self.before.get("made", self.before)
        return str(made.get("source_hash") or self.hash)

    @property
    def shot(self) -> tuple[str, str] | None:
        """Film and number of the shot it was taken from, where that is known."""
        film, shot = self.before.get("film_hash") or self.before.get("film"), self.before.get("shot")
        return None if film is None or shot is None else (str(film), str(shot))


@dataclass(frozen=True, slots=True)
class Look:
    """What the pixels of a picture say."""

    fingerprint: int
    sharpness: float
    """Of the main character's box, or of the whole picture where no character is known."""


@dataclass
class Pool:
    """The readable pictures, and those that are not."""

    entries: list[Entry] = field(default_factory=list[Entry])
    unreadable: list[Left] = field(default_factory=list[Left])

    def add(self, number: int, dataset: Dataset, analysis: Analysis) -> None:
        """Take in one dataset with its analysis. Raises UserError where its labels are damaged."""
        labels, lineage, likeness = read_labels(dataset.path), read_lineage(dataset.path), _likeness(dataset.path)
        pictures = {dataset.relative(picture): picture for picture in dataset.pictures}
        for row in analysis.rows:
            if row.error is not None or row.hash is None:
                why = row.error or "cannot be read"
                self.unreadable.append(Left(dataset=str(dataset.path), file=row.file, why=why))
                continue
            before = lineage.get(row.file, {})
            known = before.get("identity", likeness.get(row.file))
            identity = float(known) if isinstance(known, int | float) else None
            label = labels.get(row.hash)
            self.entries.append(Entry(dataset, pictures[row.file], row, label, before, identity, number))


def _likeness(folder: Path) -> dict[str, float]:
    """File -> similarity of its main character to its cluster, from the `clusters.parquet` of or above the folder."""
    for home in (folder, folder.parent):
        try:
            table = pq.read_table(home / CLUSTERS, columns=["target", "main", "similarity"])
        except (OSError, pa.ArrowException, KeyError, ValueError):
            continue
        prefix = "" if home == folder else f"{folder.name}/"
        return {
            row["target"].removeprefix(prefix): row["similarity"]
            for row in table.to_pylist()
            if row["main"] and row["target"] and row["similarity"] is not None and row["target"].startswith(prefix)
        }
    return {}


def look(
    entries: Sequence[Entry], *, advance: Callable[[int], object] = lambda count: None
) -> Iterator[tuple[Entry, Look | str]]:
    """Decode every picture once, on all cores, and measure it; memory holds a few pictures at a time.

    Yields:
        Each entry, in order, with its look, or with a sentence why it cannot be decoded.
    """

    def one(entry: Entry) -> Look | str:
        try:
            image = decode(entry.picture.bytes(), entry.row.file)
        except ImageError as error:
            return str(error)
        return Look(fingerprint(image), sharpness(_character(image, entry.row)))

    workers = min(8, os.cpu_count() or 1)
    with ThreadPoolExecutor(workers) as threads:
        for start in range(0, len(entries), 64):
            part = entries[start : start + 64]
            yield from zip(part, threads.map(one, part), strict=True)
            advance(len(part))


def _character(image: RGB, row: Row) -> RGB:
    """The main character's part of a picture: a busy background must not pass for a sharp picture."""
    main = row.main_instance
    height, width = image.shape[:2]
    if main is None:
        return image
    box = Box(*main.box).clip(width, height)
    x0, y0, x1, y1 = (round(value) for value in box.as_tuple())
    part = image[y0:y1, x0:x1]
    return part if min(part.shape[:2]) >= 8 else image


def qualities(
    entries: Sequence[Entry], looks: Mapping[str, Look], resolution: int, config: QualityConfig | None = None
) -> list[float]:
    """How good each picture is, 0 to 1, in steps of a ten-thousandth.

    Args:
        entries: the pictures.
        looks: by content hash.
        resolution: of training, in pixels.
        config: weights.
    """
    config = config or QualityConfig()
    of_shot: dict[ShotType, list[float]] = defaultdict(list)
    of_set: dict[int, list[float]] = defaultdict(list)
    for entry in entries:
        of_shot[entry.row.shot_type].append(looks[entry.hash].sharpness)
        if entry.identity is not None:
            of_set[entry.scale].append(entry.identity)
    middle = {shot: max(float(np.median(values)), 1e-9) for shot, values in of_shot.items()}
    ranks = {number: np.sort(values) for number, values in of_set.items()}
    weights = np.array([config.sharpness, config.size, config.identity])
    weights = weights / max(float(weights.sum()), 1e-9)
    found: list[float] = []
    for entry in entries:
        sharp = min(1.0, looks[entry.hash].sharpness / middle[entry.row.shot_type])
        size = min(1.0, min(entry.row.width, entry.row.height) / resolution)
        identity = 0.5 if entry.identity is None else _rank(ranks[entry.scale], entry.identity)
        left = 1.0 - config.synthetic if entry.synthetic else 1.0
        found.append(round(left * float(weights @ np.array([sharp, size, identity])), 4))
    return found


def _rank(values: Any, value: float) -> float:
    """Where a value stands among sorted ones: 0 for the least, 1 for the greatest, a half where all are equal."""
    below, upto = int(np.searchsorted(values, value, "left")), int(np.searchsorted(values, value, "right"))
    return 0.5 if len(values) == upto - below else (below + upto - 1) / 2 / (len(values) - 1)


def families(entries: Sequence[Entry], looks: Mapping[str, Look], bits: int = AKIN_BITS) -> list[Hashable]:
    """What each picture is akin by: its shot of a film, else its original, else its look; None where nothing is.

    A picture that was made from another (a crop, say) belongs where that one does. Looks are compared with the first
    picture of each family, not along chains, so a family stays as wide as `bits`.
    """
    shots = {entry.hash: entry.shot for entry in entries if entry.shot is not None}
    roots = Counter(entry.root for entry in entries)
    leaders = 0
    heads = np.zeros(len(entries), dtype=np.uint64)
    found: list[Hashable] = []
    for entry in entries:
        shot = entry.shot or shots.get(entry.root)
        if shot is not None or roots[entry.root] > 1:
            found.append(("shot", *shot) if shot is not None else ("original", entry.root))
            continue
        own = np.uint64(looks[entry.hash].fingerprint)
        apart = np.bitwise_count(heads[:leaders] ^ own)
        near = int(np.argmin(apart)) if leaders else -1
        if near >= 0 and int(apart[near]) <= bits:
            found.append(("look", near))
            continue
        heads[leaders] = own
        found.append(("look", leaders))
        leaders += 1
    size = Counter(found)
    return [kin if size[kin] > 1 else None for kin in found]
