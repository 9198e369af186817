"""Pixels and exact truth of a scene. One ray a sample, 2 x 2 samples a pixel, nothing random."""

from __future__ import annotations

import math
from dataclasses import dataclass
from typing import Final

import numpy as np
import numpy.typing as npt

from onmodel.core.images import RGB
from onmodel.core.vocabulary import Attribute, Box, ShotType
from onmodel.toybox import backdrop as backdrops
from onmodel.toybox import occluder as occluders
from onmodel.toybox.body import points
from onmodel.toybox.paint import CUTS, colours_of
from onmodel.toybox.scene import Person, Scene, extent, shapes_of
from onmodel.toybox.shapes import Array, Ellipsoid, Mask, Shape, bounds, hit

SAMPLES: Final[int] = 2
"""Samples a pixel along each axis."""
FRONT: Final[float] = 30.0
"""Depth at which occluders begin, nearer than every person."""


@dataclass(frozen=True, slots=True)
class CharacterTruth:
    """What is exactly known of one character in a picture. Boxes are in pixels, y down."""

    name: str
    noun: str
    main: bool
    box: Box
    """The whole (amodal) box, hidden parts and parts outside the frame included."""
    visible_box: Box | None
    """Around the visible pixels; None when there are none."""
    face_box: Box | None
    """Around the visible pixels of the head, hair top or hat to chin, ears included; None when hidden."""
    visible_fraction: float
    """Visible share of what the frame could show of it, 0..1: lost to things in front, not to the frame."""
    in_frame_fraction: float
    """Share of the amodal box that lies in the frame, 0..1."""
    visible_pixels: int


@dataclass(frozen=True, slots=True)
class OccluderTruth:
    """A thing in front of the main character, with the box of its visible pixels."""

    kind: str
    box: Box


@dataclass(frozen=True, slots=True)
class Truth:
    """Everything known of a picture."""

    size: int
    shot_type: ShotType
    attributes: frozenset[Attribute]
    characters: tuple[CharacterTruth, ...]
    """The main character first."""
    occluders: tuple[OccluderTruth, ...]
    place: str
    """Name of the backdrop."""

    @property
    def count(self) -> int:
        """How many characters are visible."""
        return sum(c.visible_pixels > 0 for c in self.characters)


@dataclass(frozen=True, slots=True)
class Rendered:
    """A picture: uint8 (size, size, 3) RGB, its truth, and one (size, size) bool mask of visible pixels a character."""

    image: RGB
    truth: Truth
    masks: npt.NDArray[np.bool_]
    """(characters, size, size)."""


@dataclass(frozen=True, slots=True)
class Visibility:
    """Counts of samples of one character: seen, and inside the frame at all."""

    visible: int
    in_frame: int

    @property
    def fraction(self) -> float:
        return self.visible / self.in_frame if self.in_frame else 0.0


class _Buffers:
    """Per sample: depth, owner (0 nothing, 1.. people, then occluders), whether head, and what shading needs."""

    def __init__(self, side: int, owners: int, colour: bool) -> None:
        n = side * side
        self.side = side
        self.depth: Array = np.full(n, -np.inf, dtype=np.float32)
        self.owner = np.zeros(n, dtype=np.int16)
        self.head = np.zeros(n, dtype=np.bool_)
        self.amodal = np.zeros((owners + 1, n), dtype=np.bool_)
        self.colour = colour
        if colour:
            self.albedo: Array = np.zeros((n, 3), dtype=np.float32)
            self.normal: Array = np.zeros((n, 3), dtype=np.float32)
            self.gloss: Array = np.zeros(n, dtype=np.float32)

    def draw(self, shape: Shape, owner: int) -> None:
        side = self.side
        x0, y0, x1, y1 = bounds(shape)
        c0, c1 = max(0, math.ceil(x0 * side - 0.5)), min(side, math.floor(x1 * side - 0.5) + 1)
        r0, r1 = max(0, math.ceil((1 - y1) * side - 0.5)), min(side, math.floor((1 - y0) * side - 0.5) + 1)
        if c0 >= c1 or r0 >= r1:
            return
        x = ((np.arange(c0, c1) + 0.5) / side).astype(np.float32)
        y = (1 - (np.arange(r0, r1) + 0.5) / side).astype(np.float32)
        hits = hit(shape, x, y)
        rows, cols = np.nonzero(hits.inside)
        index = (rows + r0) * side + (cols + c0)
        depth, normal, local = hits.depth, hits.normal, hits.local
        if isinstance(shape, Ellipsoid) and shape.cut is not None:
            keep = ~CUTS[shape.cut.kind](local, shape.cut)
            index, depth, normal, local = index[keep], depth[keep], normal[keep], local[keep]
        self.amodal[owner, index] = True
        near = depth > self.depth[index]
        index = index[near]
        self.depth[index] = depth[near]
        self.owner[index] = owner
        self.head[index] = shape.is_head
        if self.colour:
            self.albedo[index] = colours_of(local[near], shape.colour, shape.paint)
            self.normal[index] = normal[near]
            self.gloss[index] = shape.gloss


def _cast(scene: Scene, side: int, colour: bool) -> _Buffers:
    people, things = len(scene.people), len(scene.occluders)
    buffers = _Buffers(side, people + things, colour)
    for k, person in enumerate(scene.people):
        for shape in shapes_of(person):
            buffers.draw(shape, k + 1)
    for k, thing in enumerate(scene.occluders):
        for shape in occluders.build(thing, FRONT + 10 * k):
            buffers.draw(shape, people + k + 1)
    return buffers


def body_points(scene: Scene, size: int) -> npt.NDArray[np.float64]:
    """Body points of each person in a picture of `size` pixels, (people, 17, 3) in COCO's order: see `body.points`.

    The last axis is x and y in pixels, y down, and what is seen: 0 outside the picture, 1 behind something, 2 seen.
    """
    owner = _cast(scene, size, colour=False).owner.reshape(size, size)
    found = np.zeros((len(scene.people), 17, 3))
    for k, person in enumerate(scene.people):
        at = points(person.character, person.pose) * person.unit
        found[k, :, 0] = (person.foot_x + at[:, 0]) * size
        found[k, :, 1] = (1 - person.foot_y - at[:, 1]) * size
        column, row = np.floor(found[k, :, :2]).astype(np.int64).T
        inside = (column >= 0) & (column < size) & (row >= 0) & (row < size)
        found[k, inside, 2] = 1 + (owner[row[inside], column[inside]] == k + 1)
    return found


def visibility(scene: Scene, side: int) -> tuple[Visibility, ...]:
    """How much of each person is seen, from a coarse cast of side x side samples."""
    buffers = _cast(scene, side, colour=False)
    return tuple(
        Visibility(int((buffers.owner == k + 1).sum()), int(buffers.amodal[k + 1].sum()))
        for k in range(len(scene.people))
    )


def _shade(scene: Scene, buffers: _Buffers, canvas: Array) -> None:
    """Light the hit samples over the canvas (n, 3): wrapped diffuse, sky light, a highlight, a darker rim."""
    where = buffers.owner > 0
    normal, albedo = buffers.normal[where], buffers.albedo[where]
    pitch, yaw = scene.light_pitch, scene.light_yaw
    light = np.array([math.sin(yaw) * math.cos(pitch), math.sin(pitch), math.cos(yaw) * math.cos(pitch)], np.float32)
    half = light + np.array([0, 0, 1], np.float32)
    half /= np.linalg.norm(half)
    diffuse = np.maximum(normal @ light + 0.25, 0) / 1.25
    tone = 0.50 + 0.10 * normal[:, 1] + 0.52 * diffuse
    tone *= 0.72 + 0.28 * np.clip(normal[:, 2] * 2.2, 0, 1)
    highlight = buffers.gloss[where] * np.maximum(normal @ half, 0) ** 24
    warm = np.array([1 + 0.03 * scene.warmth, 1.0, 1 - 0.04 * scene.warmth], np.float32)
    canvas[where] = np.clip(albedo * tone[:, None] * warm + 0.7 * highlight[:, None], 0, 1)


def _ground_shadow(canvas: backdrops.Canvas, person: Person) -> None:
    """A soft dark ellipse under the feet."""
    rx, ry = 0.62 * person.unit, 0.14 * person.unit
    x = (canvas.at[None, :] - person.foot_x) / rx
    y = (canvas.at[:, None] - (1 - person.foot_y - 0.02 * person.unit)) / ry
    canvas.pixels *= (1 - 0.38 * np.clip(1.25 - (x * x + y * y), 0, 1))[..., None]


def _box(mask: Mask) -> Box | None:
    rows, cols = np.flatnonzero(mask.any(axis=1)), np.flatnonzero(mask.any(axis=0))
    if rows.size == 0:
        return None
    return Box(float(cols[0]), float(rows[0]), float(cols[-1] + 1), float(rows[-1] + 1))


def _pixels(samples: npt.NDArray[np.bool_], size: int) -> Mask:
    """(size * SAMPLES)^2 flat samples to (size, size): most of a pixel's samples. The first one breaks ties, so that
    no pixel belongs to two owners."""
    blocks = samples.reshape(size, SAMPLES, size, SAMPLES)
    votes = 2 * blocks.sum(axis=(1, 3)) + blocks[:, 0, :, 0]
    return votes > SAMPLES * SAMPLES


def _within(box: Box | None, outer: Box) -> Box | None:
    """A pixel box trimmed to an exact one: pixels stick out by less than one."""
    if box is None:
        return None
    return Box(max(box.x0, outer.x0), max(box.y0, outer.y0), min(box.x1, outer.x1), min(box.y1, outer.y1))


def _character(person: Person, index: int, buffers: _Buffers, size: int) -> tuple[CharacterTruth, Mask]:
    x0, y0, x1, y1 = extent(shapes_of(person))
    box = Box(x0 * size, (1 - y1) * size, x1 * size, (1 - y0) * size)
    mine = buffers.owner == index + 1
    mask, head = _pixels(mine, size), _pixels(mine & buffers.head, size)
    in_frame = int(buffers.amodal[index + 1].sum())
    truth = CharacterTruth(
        name=person.character.name,
        noun=person.character.noun,
        main=index == 0,
        box=box,
        visible_box=_within(_box(mask), box),
        face_box=_within(_box(head), box),
        visible_fraction=float(mine.sum()) / in_frame if in_frame else 0.0,
        in_frame_fraction=box.clip(size, size).area / max(box.area, 1e-9),
        visible_pixels=int(mask.sum()),
    )
    return truth, mask


def render(scene: Scene, size: int = 96, behind: Array | None = None) -> Rendered:
    """Draw a scene as a square picture of `size` pixels. Deterministic: the same scene gives the same bytes.

    `behind` is a painted backdrop to use in place of the scene's own: float32 (side, side, 3) in 0..1 with
    side = size * SAMPLES. Films paint one a shot and move a window over it.
    """
    side = size * SAMPLES
    buffers = _cast(scene, side, colour=True)
    canvas = backdrops.Canvas(side)
    canvas.pixels = (backdrops.paint(scene.backdrop, side) if behind is None else behind).copy()
    if scene.shot_type in (ShotType.FULL_BODY, ShotType.FAR):
        for person in scene.people:
            _ground_shadow(canvas, person)
    flat = canvas.pixels.reshape(-1, 3)
    _shade(scene, buffers, flat)
    small = flat.reshape(size, SAMPLES, size, SAMPLES, 3).mean(axis=(1, 3))
    image = (small * 255 + 0.5).clip(0, 255).astype(np.uint8)
    found = [_character(p, k, buffers, size) for k, p in enumerate(scene.people)]
    things: list[OccluderTruth] = []
    for k, thing in enumerate(scene.occluders):
        box = _box(_pixels(buffers.owner == len(scene.people) + k + 1, size))
        if box is not None:
            things.append(OccluderTruth(thing.kind, box))
    attributes = {
        Attribute.MULTI_CHARACTER: scene.multi_character,
        Attribute.OCCLUSION: scene.occluded,
        Attribute.COMPLEX_BACKGROUND: scene.backdrop.busy,
    }
    truth = Truth(
        size, scene.shot_type, frozenset(a for a, on in attributes.items() if on),
        tuple(t for t, _ in found), tuple(things), scene.backdrop.place,
    )  # fmt: skip
    masks = np.stack([m for _, m in found]) if found else np.zeros((0, size, size), dtype=np.bool_)
    return Rendered(image, truth, masks)
