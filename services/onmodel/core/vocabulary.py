"""The words of the product: shot types, attributes, scenarios, boxes and instances.

Coordinates are pixels of the picture as a person sees it (after EXIF rotation): x to the right, y down,
boxes as (x0, y0, x1, y1) with x1, y1 exclusive.
"""

from collections.abc import Iterable
from dataclasses import dataclass
from enum import StrEnum


class ShotType(StrEnum):
    """How the main character is framed. Exclusive."""

    CLOSE_UP = "close_up"
    """Head and shoulders."""
    MEDIUM = "medium"
    """To the waist or thighs."""
    FULL_BODY = "full_body"
    """Head to feet."""
    FAR = "far"
    """The whole character, small in the frame."""
    UNCLASSIFIED = "unclassified"
    """No character found, or not decidable."""


class Attribute(StrEnum):
    """What else is true of a picture. Independent of the shot type and of each other."""

    MULTI_CHARACTER = "multi_character"
    """Another character takes part."""
    OCCLUSION = "occlusion"
    """Something in front hides part of the main character; being cut by the frame is not occlusion."""
    COMPLEX_BACKGROUND = "complex_background"
    """Busy outside the character boxes."""


CATEGORIES: tuple[str, ...] = (
    *(s.value for s in ShotType if s is not ShotType.UNCLASSIFIED),
    *(a.value for a in Attribute),
)
"""The seven categories of the analysis table; also the seven evaluation scenarios."""


@dataclass(frozen=True, slots=True)
class Box:
    """An axis-parallel box in pixels; x1 and y1 are exclusive."""

    x0: float
    y0: float
    x1: float
    y1: float

    @property
    def width(self) -> float:
        return max(0.0, self.x1 - self.x0)

    @property
    def height(self) -> float:
        return max(0.0, self.y1 - self.y0)

    @property
    def area(self) -> float:
        return self.width * self.height

    @property
    def center(self) -> tuple[float, float]:
        return ((self.x0 + self.x1) / 2, (self.y0 + self.y1) / 2)

    def intersection(self, other: "Box") -> float:
        """Area shared with `other`, in square pixels."""
        width = min(self.x1, other.x1) - max(self.x0, other.x0)
        height = min(self.y1, other.y1) - max(self.y0, other.y0)
        return max(0.0, width) * max(0.0, height)

    def iou(self, other: "Box") -> float:
        """Intersection over union, 0 to 1."""
        shared = self.intersection(other)
        union = self.area + other.area - shared
        return shared / union if union > 0 else 0.0

    def clip(self, width: float, height: float) -> "Box":
        """The part inside a picture of that size."""
        return Box(
            min(max(self.x0, 0.0), width),
            min(max(self.y0, 0.0), height),
            min(max(self.x1, 0.0), width),
            min(max(self.y1, 0.0), height),
        )

    def as_tuple(self) -> tuple[float, float, float, float]:
        return (self.x0, self.y0, self.x1, self.y1)


@dataclass(frozen=True, slots=True)
class Keypoint:
    """One body point in pixels with its confidence 0 to 1; lists of them are in COCO's order of 17."""

    x: float
    y: float
    confidence: float


@dataclass(frozen=True, slots=True)
class Instance:
    """One character in one picture."""

    box: Box
    confidence: float
    label: str
    """The detector's own class name ("person", "bird", "character", …)."""
    face: Box | None = None
    keypoints: tuple[Keypoint, ...] = ()
    outline: tuple[tuple[float, float], ...] = ()
    """Polygon (x, y) in pixels around the visible part, from a segmentation model; empty without one."""


@dataclass(frozen=True, slots=True)
class Detections:
    """What a detector found in one picture, instances by falling confidence."""

    width: int
    height: int
    instances: tuple[Instance, ...]
    occluders: tuple[Box, ...] = ()
    """Things the detector says stand in front, where it knows such a class."""


@dataclass(frozen=True, slots=True)
class Decision:
    """Shot type and attributes of one picture, with the index of the main character among its instances."""

    shot_type: ShotType
    attributes: frozenset[Attribute]
    main: int | None
    reason: str
    """One clause for a person: why this shot type."""

    @property
    def categories(self) -> frozenset[str]:
        """The categories of the analysis table that this picture counts in."""
        shot = () if self.shot_type is ShotType.UNCLASSIFIED else (self.shot_type.value,)
        return frozenset(shot) | frozenset(a.value for a in self.attributes)


def share(count: int, total: int) -> float:
    """`count` of `total` in per cent, 0 for an empty total."""
    return 100.0 * count / total if total else 0.0


def count_categories(pictures: Iterable[frozenset[str]]) -> dict[str, int]:
    """How many of the pictures count in each category, in the table's order."""
    counts = dict.fromkeys(CATEGORIES, 0)
    for categories in pictures:
        for category in categories:
            counts[category] += 1
    return counts
