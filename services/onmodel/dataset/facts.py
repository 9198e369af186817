"""What detection found, kept in `onmodel.parquet` beside the dataset so that it is computed once.

One row an instance, and one row for a picture without any, keyed by content hash, model hash and config hash.
"""

import contextlib
import hashlib
from collections import Counter
from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import pooch
import pyarrow as pa
import pyarrow.parquet as pq

from onmodel.core.errors import ImageError, OnModelError, UserError
from onmodel.core.files import write_aside
from onmodel.core.vocabulary import Attribute, Box, Decision, Detections, Instance, Keypoint, ShotType
from onmodel.detection.convert import Detected

FILE = "onmodel.parquet"
Key = tuple[str, str, str]
"""Content hash, model hash, config hash."""
Outcome = Detected | ImageError

_BOX = pa.list_(pa.float64(), 4)
SCHEMA = pa.schema(
    [
        ("content_hash", pa.string()),
        ("model_hash", pa.string()),
        ("config_hash", pa.string()),
        ("error", pa.string()),
        ("width", pa.int32()),
        ("height", pa.int32()),
        ("shot_type", pa.string()),
        ("attributes", pa.list_(pa.string())),
        ("reason", pa.string()),
        ("occluders", pa.list_(_BOX)),
        ("instance", pa.int32()),
        ("main", pa.bool_()),
        ("box", _BOX),
        ("confidence", pa.float64()),
        ("label", pa.string()),
        ("face", _BOX),
        ("keypoints", pa.list_(pa.list_(pa.float64(), 3))),
        ("outline", pa.list_(pa.list_(pa.float64(), 2))),
    ],
    metadata={"onmodel.schema_version": "1"},
)


@dataclass
class Facts:
    """All that is known of a dataset's pictures, under any model. Changes live in memory until `save`."""

    path: Path
    note: str | None = None
    """Set where the facts do not lie beside the dataset, or old ones could not be read: a sentence for the user."""
    _known: dict[Key, Outcome] = field(default_factory=dict[Key, Outcome])
    _changed: bool = False

    @classmethod
    def open(cls, folder: Path) -> "Facts":
        """Facts beside a dataset, or in the user's cache where an earlier run could not write there."""
        beside = folder / FILE
        path = beside if beside.is_file() or not _elsewhere(folder).is_file() else _elsewhere(folder)
        facts = cls(path)
        if path.is_file():
            try:
                facts._known = _read(path)
            except (OSError, pa.ArrowException, KeyError, ValueError, TypeError):
                facts.note = f"{path}: could not be read and is made anew"
        return facts

    def get(self, key: Key) -> Outcome | None:
        return self._known.get(key)

    @property
    def models(self) -> list[tuple[str, str]]:
        """Hashes of model and config that something is known under, those of most pictures first."""
        return [pair for pair, _ in Counter(key[1:] for key in self._known).most_common()]

    def items(self) -> Iterable[tuple[Key, Outcome]]:
        """Everything known, by content, model and config."""
        return self._known.items()

    def put(self, key: Key, outcome: Outcome) -> None:
        self._known[key] = outcome
        self._changed = True

    def save(self) -> None:
        """Write the file whole. Where the dataset's folder is read-only, into the user's cache, with a note.

        Raises:
            ResourceError: the disk is full.
            UserError: neither place can be written.
        """
        if not self._changed:
            return
        table = pa.Table.from_pylist([row for key, found in self._known.items() for row in _rows(key, found)], SCHEMA)
        try:
            self._write(table)
        except UserError:
            if self.path.name != FILE:
                raise
            self.path = _elsewhere(self.path.parent)
            self._write(table)
            self.note = f"the dataset's folder cannot be written, so what was found is kept in {self.path}"
        self._changed = False

    def _write(self, table: pa.Table) -> None:
        with write_aside(self.path) as aside:
            pq.write_table(table, aside, compression="zstd")


def _elsewhere(folder: Path) -> Path:
    name = hashlib.sha256(str(folder.resolve()).encode()).hexdigest()[:24]
    return Path(pooch.os_cache("onmodel")) / "facts" / f"{name}.parquet"


def complete(
    facts: Facts,
    pictures: Mapping[str, Callable[[], bytes]],
    model: tuple[str, str],
    detect: Callable[[Sequence[bytes]], Sequence[Outcome]],
    *,
    chunk: int = 64,
    advance: Callable[[int], object] = lambda count: None,
) -> None:
    """Detect what is not known yet and keep it, chunk by chunk, also when interrupted.

    Args:
        facts: what is known; gains the rest.
        pictures: content hash to the reader of a picture's bytes.
        model: hashes of model and config.
        detect: encoded pictures to outcomes, in order; called with at most `chunk` pictures at once.
        advance: called with the number of pictures done.
    """
    missing = [content for content in pictures if facts.get((content, *model)) is None]
    advance(len(pictures) - len(missing))
    try:
        for start in range(0, len(missing), chunk):
            part = missing[start : start + chunk]
            for content, outcome in zip(part, detect([pictures[content]() for content in part]), strict=True):
                facts.put((content, *model), outcome)
    except BaseException:
        # What was paid for is kept: the next run goes on from here. Its own failure must not hide the first.
        with contextlib.suppress(OnModelError):
            facts.save()
        raise
    facts.save()


def _rows(key: Key, found: Outcome) -> Iterable[dict[str, Any]]:
    head: dict[str, Any] = dict(zip(("content_hash", "model_hash", "config_hash"), key, strict=True))
    if isinstance(found, ImageError):
        return [{**head, "error": str(found)}]
    decision, detections = found.decision, found.detections
    head |= {
        "width": detections.width,
        "height": detections.height,
        "shot_type": decision.shot_type.value,
        "attributes": sorted(a.value for a in decision.attributes),
        "reason": decision.reason,
        "occluders": [box.as_tuple() for box in detections.occluders],
    }
    return [
        {
            **head,
            "instance": index,
            "main": index == decision.main,
            "box": instance.box.as_tuple(),
            "confidence": instance.confidence,
            "label": instance.label,
            "face": instance.face.as_tuple() if instance.face else None,
            "keypoints": [(p.x, p.y, p.confidence) for p in instance.keypoints],
            "outline": instance.outline,
        }
        for index, instance in enumerate(detections.instances)
    ] or [head]


def _read(path: Path) -> dict[Key, Outcome]:
    grouped: dict[Key, list[dict[str, Any]]] = {}
    for row in pq.read_table(path).to_pylist():
        grouped.setdefault((row["content_hash"], row["model_hash"], row["config_hash"]), []).append(row)
    return {key: _outcome(rows) for key, rows in grouped.items()}


def _outcome(rows: list[dict[str, Any]]) -> Outcome:
    first = rows[0]
    if first["error"] is not None:
        return ImageError(first["error"])
    found = sorted((row for row in rows if row["instance"] is not None), key=lambda row: row["instance"])
    instances = tuple(
        Instance(
            Box(*row["box"]),
            row["confidence"],
            row["label"],
            Box(*row["face"]) if row["face"] else None,
            tuple(Keypoint(*point) for point in row["keypoints"] or ()),
            tuple((x, y) for x, y in row.get("outline") or ()),
        )
        for row in found
    )
    occluders = tuple(Box(*box) for box in first["occluders"] or ())
    decision = Decision(
        ShotType(first["shot_type"]),
        frozenset(Attribute(name) for name in first["attributes"] or ()),
        next((row["instance"] for row in found if row["main"]), None),
        first["reason"],
    )
    return Detected(Detections(first["width"], first["height"], instances, occluders), decision)


def to_json(box: Box | None) -> list[float] | None:
    """A box as four numbers rounded to a hundredth of a pixel, or None."""
    return None if box is None else [round(v, 2) for v in box.as_tuple()]
