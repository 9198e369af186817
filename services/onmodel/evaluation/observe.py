"""What the detector and the scorer see in a picture: boxes, framing and embeddings of its crops."""

from collections.abc import Sequence
from dataclasses import dataclass, replace
from typing import Protocol

import numpy as np
import numpy.typing as npt

from onmodel.core.cutouts import grey_boxes, grey_surroundings, square_crop
from onmodel.core.errors import ImageError
from onmodel.core.images import RGB, decode, encode_png
from onmodel.core.vocabulary import Box, Decision, Detections
from onmodel.evaluation.proportions import head_to_body

Embedding = npt.NDArray[np.float32]
"""float32 (D,), unit norm."""

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
class Part:
    """What is looked at of one character beside its crop."""

    centre: Embedding | None
    """Of its crop with its surroundings greyed out."""
    visible: Embedding | None
    """Of its crop with what stands in front greyed out; equals the crop where nothing does."""
    crop: RGB | None
    """The crop itself."""
    hidden: tuple[Box, ...]
    """What stands in front, in shares of the crop's side."""


@dataclass(frozen=True, slots=True)
class Seen:
    """One picture as the detector and the scorer see it."""

    decision: Decision
    characters: int
    """How many characters take part: the main one and those that count beside it."""
    whole: Embedding
    crops: tuple[Embedding, ...]
    """Of each character, the main one first."""
    parts: tuple[Part, ...]
    """The same characters in the same order."""
    head_to_body: float | None = None
    """The main character's proportions, see `proportions.head_to_body`."""

    @property
    def framing(self) -> str:
        """The shot type as its word."""
        return self.decision.shot_type.value


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
    """What to embed: of each character its crop, centre and visible part."""
    hidden: tuple[tuple[Box, ...], ...]


def _cut(data: bytes, found: Found) -> _Cut:
    image = decode(data)
    boxes = [b for b in main_first(found) if b.area >= 1]
    pictures: list[RGB] = []
    hidden: list[tuple[Box, ...]] = []
    for box in boxes:
        crop, square = square_crop(image, box)
        origin = (square.x0, square.y0) * 2
        hidden.append(
            tuple(
                Box(*((v - start) / square.width for v, start in zip(thing.as_tuple(), origin, strict=True)))
                for thing in found.detections.occluders
                if thing.intersection(box) > 0
            )
        )
        centre = grey_surroundings(crop, box.width / max(box.height, 1e-6))
        pictures += [crop, centre, grey_boxes(crop, hidden[-1])]
    return _Cut(found, tuple(pictures), tuple(hidden))


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
    if not cut.hidden:
        return Seen(replace(decision, main=None), 0, whole, (), ())
    several = any(a.value == "multi_character" for a in decision.attributes)
    characters = max(2, len(cut.found.detections.instances)) if several else 1
    parts = [
        Part(centre, visible, crop, hidden)
        for centre, visible, crop, hidden in zip(rest[1::3], rest[2::3], cut.pictures[::3], cut.hidden, strict=True)
    ]
    return Seen(
        decision,
        characters,
        whole,
        tuple(rest[::3]),
        tuple(parts),
        head_to_body(cut.found.detections, decision),
    )
