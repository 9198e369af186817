"""What the detector and the scorer see in a picture: boxes, framing and embeddings of its crops.

Crops are squares: the box with a small margin, the rest padded with neutral grey. An image encoder cuts the middle
square out of what it is given, which would take head and feet from a standing character.
"""

from collections.abc import Sequence
from dataclasses import dataclass, replace
from typing import Protocol

import cv2
import numpy as np
import numpy.typing as npt

from onmodel.core.errors import ImageError
from onmodel.core.images import RGB, decode, encode_png
from onmodel.core.vocabulary import Box, Decision, Detections

Embedding = npt.NDArray[np.float32]
"""float32 (D,), unit norm."""

GREY = 127
MARGIN = 0.06
"""Share of the box's longer side that a crop shows beyond the box."""
LARGEST_CROP = 256
"""Side in pixels that larger crops are brought to: image encoders take 224, and hundreds are kept in memory."""
AT_ONCE = 64
"""Pictures whose crops are held and sent together."""
MOST_CHARACTERS = 4
"""Characters of one picture that are embedded, the main one and then the largest."""


class Found(Protocol):
    """A detector's answer for one picture."""

    @property
    def detections(self) -> Detections: ...
    @property
    def decision(self) -> Decision: ...


class Detecting(Protocol):
    """The part of the detection client that evaluation uses."""

    def detect(self, images: Sequence[bytes]) -> Sequence[Found | ImageError]: ...


class Scoring(Protocol):
    """The part of the scoring client that evaluation uses."""

    def embed_images(self, images: Sequence[bytes]) -> Sequence[Embedding | ImageError]: ...
    def embed_texts(self, texts: Sequence[str]) -> npt.NDArray[np.float32]: ...


class Looking(Protocol):
    """Both services: `onmodel.serving.local.Services`, or a stand-in."""

    @property
    def detection(self) -> Detecting: ...
    @property
    def scoring(self) -> Scoring: ...


@dataclass(frozen=True, slots=True)
class Seen:
    """One picture as the detector and the scorer see it."""

    decision: Decision
    characters: int
    """How many characters take part: the main one and those that count beside it."""
    whole: Embedding
    crops: tuple[Embedding, ...]
    """Of each character, the main one first."""
    centre: Embedding | None
    """Of the main character's crop with its surroundings greyed out."""
    visible: Embedding | None
    """Of the main character's crop with what stands in front greyed out; equals the crop where nothing does."""
    crop: RGB | None
    """The main character's crop itself."""
    hidden: tuple[Box, ...]
    """What stands in front, in shares of the crop's side."""

    @property
    def framing(self) -> str:
        """The shot type as its word."""
        return self.decision.shot_type.value


def square_crop(image: RGB, box: Box) -> tuple[RGB, Box]:
    """The square around `box` with a margin, grey beyond the margin and the picture; and that square in pixels."""
    side = max(box.width, box.height) * (1 + 2 * MARGIN)
    (x, y) = box.center
    square = Box(x - side / 2, y - side / 2, x + side / 2, y + side / 2)
    pad = max(box.width, box.height) * MARGIN
    height, width = image.shape[:2]
    shown = Box(box.x0 - pad, box.y0 - pad, box.x1 + pad, box.y1 + pad).clip(width, height)
    pixels = max(1, round(side))
    canvas = np.full((pixels, pixels, 3), GREY, dtype=np.uint8)
    x0, y0, x1, y1 = (round(v) for v in shown.as_tuple())
    to_x, to_y = max(0, round(x0 - square.x0)), max(0, round(y0 - square.y0))
    patch = image[y0:y1, x0:x1][: max(0, pixels - to_y), : max(0, pixels - to_x)]
    canvas[to_y : to_y + patch.shape[0], to_x : to_x + patch.shape[1]] = patch
    if pixels > LARGEST_CROP:
        canvas = cv2.resize(canvas, (LARGEST_CROP, LARGEST_CROP), interpolation=cv2.INTER_AREA).astype(np.uint8)
    return canvas, square


def grey_boxes(crop: RGB, boxes: Sequence[Box]) -> RGB:
    """A copy of a square crop with `boxes` (in shares of its side) greyed out."""
    side = crop.shape[0]
    copy = crop.copy()
    for box in boxes:
        x0, y0, x1, y1 = (round(min(max(v, 0.0), 1.0) * side) for v in box.as_tuple())
        copy[y0:y1, x0:x1] = GREY
    return copy


def grey_surroundings(crop: RGB, aspect: float) -> RGB:
    """A copy of a square crop, grey outside a rounded shape of the box's `aspect` (width over height).

    A superellipse of exponent 3 inscribed in the box: it keeps head, torso and legs and drops the corners, where
    background shows. The same shape is laid over references, so what it cuts off is missing on both sides.
    """
    side = crop.shape[0]
    along = (np.arange(side, dtype=np.float64) + 0.5) / side * 2 - 1
    reach = 1 / (1 + 2 * MARGIN)
    half_width, half_height = reach * min(1.0, aspect), reach * min(1.0, 1 / aspect)
    inside = np.abs(along[None, :] / half_width) ** 3 + np.abs(along[:, None] / half_height) ** 3 <= 1.0
    return np.where(inside[..., None], crop, np.uint8(GREY))


def main_first(found: Found) -> list[Box]:
    """Boxes of the characters that are embedded: the main one, then the others by falling area."""
    instances = found.detections.instances
    if found.decision.main is None:
        return []
    others = [i.box for n, i in enumerate(instances) if n != found.decision.main]
    return [instances[found.decision.main].box, *sorted(others, key=lambda b: -b.area)][:MOST_CHARACTERS]


@dataclass(frozen=True, slots=True)
class _Cut:
    found: Found
    pictures: tuple[RGB, ...]
    """The crops to embed: of each character, then centre and visible."""
    boxes: tuple[Box, ...]
    hidden: tuple[Box, ...]


def _cut(data: bytes, found: Found) -> _Cut:
    image = decode(data)
    boxes = [b for b in main_first(found) if b.area >= 1]
    if not boxes:
        return _Cut(found, (), (), ())
    crops = [square_crop(image, box) for box in boxes]
    main, square = crops[0]
    hidden = tuple(
        Box(*((v - origin) / square.width for v, origin in zip(o.as_tuple(), (square.x0, square.y0) * 2, strict=True)))
        for o in found.detections.occluders
        if o.intersection(boxes[0]) > 0
    )
    centre = grey_surroundings(main, boxes[0].width / max(boxes[0].height, 1e-6))
    return _Cut(found, (*(c for c, _ in crops), centre, grey_boxes(main, hidden)), tuple(boxes), hidden)


def observe(images: Sequence[bytes], services: Looking) -> list[Seen | ImageError]:
    """Detect and embed pictures, given as encoded bytes; an unreadable one is answered with its error."""
    seen: list[Seen | ImageError] = []
    for start in range(0, len(images), AT_ONCE):
        seen += _observe(images[start : start + AT_ONCE], services)
    return seen


def _observe(images: Sequence[bytes], services: Looking) -> list[Seen | ImageError]:
    cuts: list[_Cut | ImageError] = []
    for data, found in zip(images, services.detection.detect(images), strict=True):
        try:
            cuts.append(found if isinstance(found, ImageError) else _cut(data, found))
        except ImageError as error:
            cuts.append(error)
    batch: list[bytes] = []
    for data, cut in zip(images, cuts, strict=True):
        if isinstance(cut, _Cut):
            batch += [data, *(encode_png(p) for p in cut.pictures)]
    embedded = iter(services.scoring.embed_images(batch) if batch else ())
    return [
        cut if isinstance(cut, ImageError) else _assemble(cut, [next(embedded) for _ in range(len(cut.pictures) + 1)])
        for cut in cuts
    ]


def _assemble(cut: _Cut, embedded: Sequence[Embedding | ImageError]) -> Seen | ImageError:
    good: list[Embedding] = []
    for item in embedded:
        if isinstance(item, ImageError):
            return item
        good.append(item)
    whole, rest = good[0], good[1:]
    decision = cut.found.decision
    if not cut.boxes:
        return Seen(replace(decision, main=None), 0, whole, (), None, None, None, ())
    several = any(a.value == "multi_character" for a in decision.attributes)
    characters = max(2, len(cut.found.detections.instances)) if several else 1
    return Seen(decision, characters, whole, tuple(rest[:-2]), rest[-2], rest[-1], cut.pictures[0], cut.hidden)
