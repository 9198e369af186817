"""What a character looks like, as a vector: CLIP of its crop and head, colours of its head and chest.

Close-ups and full bodies of one character share head and chest and little else, so colours are compared part by part.
They come from the cut-out character: what is behind it has no say in them.
"""

import hashlib
import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, Final, Literal

import cv2
import numpy as np
import numpy.typing as npt
import pyarrow as pa
import pyarrow.parquet as pq
from pydantic import Field

from onmodel.core.config import Config
from onmodel.core.cutouts import GREY
from onmodel.core.errors import UserError
from onmodel.core.files import write_aside
from onmodel.core.images import RGB
from onmodel.core.masks import Mask, character_mask
from onmodel.core.vocabulary import Box, Detections
from onmodel.film.groups import Vectors

Row = npt.NDArray[np.float32]
SIDE: Final[int] = 224
"""Crops are brought to this square, so that no encoder cuts head or feet off them."""
_LIGHTNESS = np.linspace(25.6, 230.4, 5)
_COLOUR = np.arange(-80.0, 81.0, 14.0)
_SPREAD = (20.0, 7.0)
BINS: Final[int] = len(_LIGHTNESS) * len(_COLOUR) ** 2
_FEWEST = 6
"""Pixels of a part below which its colours say nothing."""


class SignatureConfig(Config):
    """Weights of the four parts: of the vectors, whose squares therefore add up.

    Chosen on seven casts of eight rendered characters (adjusted Rand index 0.87 by the bundled CLIP alone, 0.98 by
    colours alone and by both) and on a film, where less weight on the bundled CLIP, which knows no film, joins more.
    CLIP is what tells apart characters of the same colours.
    """

    crop_weight: float = Field(default=0.5, ge=0)
    head_crop_weight: float = Field(default=0.3, ge=0)
    head_colour_weight: float = Field(default=1.4, ge=0)
    chest_colour_weight: float = Field(default=1.0, ge=0)
    surroundings: Literal["grey", "kept"] = "grey"
    """What CLIP sees around the character. "kept" clusters the bundled world as well, and leaves more outliers; films,
    whose scenes come back, are then clustered by scene."""

    @property
    def hash(self) -> str:
        """SHA-256 of what changes the parts; the weights only change how they add up."""
        return hashlib.sha256(f"1 {self.surroundings}".encode()).hexdigest()


@dataclass(frozen=True, slots=True)
class Cut:
    """What is looked at of one instance."""

    crop: RGB
    """uint8 (SIDE, SIDE, 3)."""
    head: RGB
    """uint8 (SIDE, SIDE, 3)."""
    head_colours: Row
    """Square roots of a colour histogram, float32 (BINS,), unit length; zeros where too little is seen."""
    chest_colours: Row


@dataclass(frozen=True, slots=True)
class Signature:
    """The parts of one instance's vector: float32, unit length each or zeros."""

    crop: Row
    head: Row
    head_colours: Row
    chest_colours: Row

    @property
    def complete(self) -> bool:
        """Whether the colours of both head and chest are seen."""
        return bool(self.head_colours.any() and self.chest_colours.any())

    def vector(self, config: SignatureConfig) -> Vectors:
        """The weighted parts together, float64; its product with a complete one is the mean cosine of the parts it has.

        Complete ones are of unit length, those that lack a part longer.
        """
        weights = (
            config.crop_weight, config.head_crop_weight, config.head_colour_weight, config.chest_colour_weight,
        )  # fmt: skip
        parts = (self.crop, self.head, self.head_colours, self.chest_colours)
        had = sum(w * w for w, part in zip(weights, parts, strict=True) if part.any())
        joined = np.concatenate([w * part.astype(np.float64) for w, part in zip(weights, parts, strict=True)])
        return joined * (math.sqrt(sum(w * w for w in weights)) / max(had, 1e-12))


def head_of(box: Box, face: Box | None) -> Box:
    """Where the head is: the face's box, else the top of the character's, as high as a third of it or as it is wide."""
    if face is not None:
        return face
    return Box(box.x0, box.y0, box.x1, box.y0 + min(0.35 * box.height, 1.1 * box.width))


def chest_of(head: Box) -> Box:
    """The band below the head that close-ups show too: half a head and a little high, a head and a little wide."""
    x, _ = head.center
    half = 0.6 * head.height
    return Box(x - half, head.y1, x + half, head.y1 + half)


def cut(image: RGB, found: Detections, index: int, config: SignatureConfig, *, outlined: bool = True) -> Cut:
    """Crops and colours of one instance of a picture.

    Args:
        image: uint8 RGB (height, width, 3).
        found: all that was found in it.
        index: which of its instances.
        config: what CLIP sees around the character.
        outlined: cut the character out; else the middle of its box stands for it, at a fifth of the time (4 ms instead
            of 20 for pictures of 128 px) and hardly worse against a few references.
    """
    instance = found.instances[index]
    box = instance.box
    head = head_of(box, instance.face)
    others = [other.box for n, other in enumerate(found.instances) if n != index]
    mask = character_mask(image, instance, others=others, occluders=found.occluders) if outlined else None
    shown = image
    if config.surroundings == "grey" and mask is not None:
        shown = np.where(mask[..., None], image, np.uint8(GREY)).astype(np.uint8)
    seen = _inner(box, image) if mask is None else mask.copy()
    for thing in found.occluders:
        if thing.intersection(box) > 0.05 * box.area:
            seen[_slices(thing, image)] = False
    return Cut(
        _square(shown, box), _square(shown, head), _colours(image, seen, head), _colours(image, seen, chest_of(head))
    )


def _slices(box: Box, image: RGB) -> tuple[slice, slice]:
    inside = box.clip(image.shape[1], image.shape[0])
    x0, y0, x1, y1 = (round(v) for v in inside.as_tuple())
    return slice(y0, y1), slice(x0, x1)


def _inner(box: Box, image: RGB) -> Mask:
    """The middle of a box, for a character that could not be cut out."""
    mask = np.zeros(image.shape[:2], dtype=np.bool_)
    side = 0.15 * box.width
    mask[_slices(Box(box.x0 + side, box.y0, box.x1 - side, box.y1), image)] = True
    return mask


def _square(image: RGB, box: Box) -> RGB:
    """The box's pixels, at least 4 x 4 of them, stretched to a square."""
    height, width = image.shape[:2]
    rows, columns = _slices(box, image)
    y0, x0 = max(0, min(rows.start, height - 4)), max(0, min(columns.start, width - 4))
    piece = image[y0 : max(rows.stop, y0 + 4), x0 : max(columns.stop, x0 + 4)]
    smaller = max(piece.shape[:2]) > SIDE
    method = cv2.INTER_AREA if smaller else cv2.INTER_CUBIC
    return np.asarray(cv2.resize(piece, (SIDE, SIDE), interpolation=method), dtype=np.uint8)


def _colours(image: RGB, seen: Mask, part: Box) -> Row:
    """Square roots of the colour histogram (CIELAB, softly binned) of what is seen of a part."""
    where = _slices(part, image)
    chosen = seen[where]
    if int(chosen.sum()) < _FEWEST:
        return np.zeros(BINS, dtype=np.float32)
    patch, limit = np.ascontiguousarray(image[where]), 64
    if max(patch.shape[:2]) > limit:
        scale = limit / max(patch.shape[:2])
        size = (max(1, round(patch.shape[1] * scale)), max(1, round(patch.shape[0] * scale)))
        patch = cv2.resize(patch, size, interpolation=cv2.INTER_AREA).astype(np.uint8)
        chosen = cv2.resize(chosen.astype(np.uint8), size, interpolation=cv2.INTER_NEAREST).astype(np.bool_)
        if not chosen.any():
            return np.zeros(BINS, dtype=np.float32)
    lab = cv2.cvtColor(patch, cv2.COLOR_RGB2LAB)[chosen].astype(np.float64)
    light = _soft(lab[:, 0], _LIGHTNESS, _SPREAD[0])
    a, b = (_soft(lab[:, k] - 128, _COLOUR, _SPREAD[1]) for k in (1, 2))
    counts = ((light[:, :, None] * a[:, None, :]).reshape(len(lab), -1).T @ b).ravel()
    return np.sqrt(counts / counts.sum()).astype(np.float32)


def _soft(values: npt.NDArray[np.float64], centres: npt.NDArray[np.float64], spread: float) -> Vectors:
    """Shares of each value (n,) in bins at `centres` (k,), so that a slight change of light moves no pixel at once."""
    weights = np.exp(-0.5 * ((values[:, None] - centres) / spread) ** 2) + 1e-12
    return weights / weights.sum(axis=1, keepdims=True)


Key = tuple[str, tuple[float, float, float, float]]
"""Content hash of the picture and the instance's box."""
_PARTS = ("crop", "head", "head_colours", "chest_colours")
_SCHEMA = pa.schema(
    [
        ("content_hash", pa.string()),
        ("box", pa.list_(pa.float64(), 4)),
        ("model", pa.string()),
        *((part, pa.binary()) for part in _PARTS),
    ],
    metadata={"onmodel.schema_version": "1"},
)
"""Parts are half-precision vectors as bytes, little-endian."""


@dataclass
class Signatures:
    """Signatures kept in a parquet file, by picture, box and model. Changes live in memory until `save`."""

    path: Path
    model: str
    """Names everything that a signature depends on but picture and box."""
    note: str | None = None
    _known: dict[tuple[str, Key], Signature] = field(default_factory=dict[tuple[str, Key], Signature])
    _changed: bool = False

    @classmethod
    def open(cls, path: Path, model: str) -> "Signatures":
        """What is kept in `path`; a file that cannot be read is made anew, with a note."""
        kept = cls(path, model)
        if path.is_file():
            try:
                kept._known = {
                    (row["model"], (row["content_hash"], _corners(row["box"]))): _from_bytes(row)
                    for row in pq.read_table(path).to_pylist()
                }
            except (OSError, pa.ArrowException, KeyError, ValueError, TypeError):
                kept.note = f"{path}: could not be read and is made anew"
        return kept

    def get(self, key: Key) -> Signature | None:
        return self._known.get((self.model, key))

    def put(self, key: Key, signature: Signature) -> None:
        # Kept in half precision; what is used now is rounded alike, so that a second run gives the same clusters.
        self._known[self.model, key] = _from_bytes(_to_bytes(signature))
        self._changed = True

    def save(self) -> None:
        """Write the file whole; where its folder cannot be written, only a note is left. Raises ResourceError."""
        if not self._changed:
            return
        rows = [
            {"content_hash": content, "box": box, "model": model, **_to_bytes(found)}
            for (model, (content, box)), found in self._known.items()
        ]
        try:
            with write_aside(self.path) as aside:
                pq.write_table(pa.Table.from_pylist(rows, _SCHEMA), aside, compression="zstd")
        except UserError as error:
            self.note = f"{error}; signatures are not kept"
            return
        self._changed = False


def _corners(box: Sequence[float]) -> tuple[float, float, float, float]:
    x0, y0, x1, y1 = box
    return (x0, y0, x1, y1)


def _to_bytes(signature: Signature) -> dict[str, bytes]:
    return {part: getattr(signature, part).astype("<f2").tobytes() for part in _PARTS}


def _from_bytes(row: Mapping[str, Any]) -> Signature:
    return Signature(*(np.frombuffer(row[part], "<f2").astype(np.float32) for part in _PARTS))
