"""What a picture holds: people, things in front of them, a backdrop, a light; and how to draw one at random."""

from __future__ import annotations

import dataclasses
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Final

import numpy as np

from onmodel.core.vocabulary import ShotType
from onmodel.toybox import body
from onmodel.toybox.backdrop import BUSY, PLAIN, WALLS, Backdrop
from onmodel.toybox.body import Pose, proportions, random_pose
from onmodel.toybox.character import Character, random_character
from onmodel.toybox.occluder import KINDS, UPRIGHT, Occluder
from onmodel.toybox.shapes import Shape, bounds, turn

FRAMED: Final[tuple[ShotType, ...]] = (ShotType.CLOSE_UP, ShotType.MEDIUM, ShotType.FULL_BODY, ShotType.FAR)
HIDDEN_SHARE: Final[tuple[float, float]] = (0.10, 0.55)
"""An occlusion scene hides this share of the main character; any other hides less than `CLEAR_SHARE`."""
CLEAR_SHARE: Final[float] = 0.02

ViewBox = tuple[float, float, float, float]
"""x0, y0, x1, y1 in frame units, y up."""


@dataclass(frozen=True, slots=True)
class Person:
    """A character placed in the frame. (foot_x, foot_y) is where it stands, in frame units with y up, possibly outside
    the frame; `unit` is frame heights per world unit; a greater `depth` is nearer to the viewer."""

    character: Character
    pose: Pose
    foot_x: float
    foot_y: float
    unit: float
    depth: float = 0.0


@dataclass(frozen=True, slots=True)
class Scene:
    """A picture's contents. `people[0]` is the main character. Equal scenes render alike."""

    shot_type: ShotType
    people: tuple[Person, ...]
    occluders: tuple[Occluder, ...]
    backdrop: Backdrop
    light_yaw: float = 0.5
    light_pitch: float = 0.7
    warmth: float = 0.0

    @property
    def multi_character(self) -> bool:
        return len(self.people) > 1

    @property
    def occluded(self) -> bool:
        return len(self.occluders) > 0


def shapes_of(person: Person) -> list[Shape]:
    """A person's shapes in frame units."""
    offset = np.array([person.foot_x, person.foot_y, person.depth])
    return [body.place(s, turn(), person.unit, offset) for s in body.build(person.character, person.pose)]


def extent(shapes: list[Shape], head_only: bool = False) -> ViewBox:
    """The box around shapes, or around those of the head (hair and hat included, hanging hair not)."""
    boxes = np.array([bounds(s) for s in shapes if s.is_head or not head_only])
    low, high = boxes[:, :2].min(axis=0), boxes[:, 2:].max(axis=0)
    return float(low[0]), float(low[1]), float(high[0]), float(high[1])


def _frame(rng: np.random.Generator, character: Character, pose: Pose, shot: ShotType) -> Person:
    """Place the camera for one shot type by the heights of the character's own body."""
    p = proportions(character)
    shapes = body.build(character, pose)
    whole, head = extent(shapes), extent(shapes, head_only=True)
    u = rng.uniform
    if shot in (ShotType.CLOSE_UP, ShotType.MEDIUM):
        leg = p.hip
        bottom = p.shoulder - u(0.10, 0.45) * p.head if shot is ShotType.CLOSE_UP else p.hip + u(-0.38, 0.04) * leg
        margin = float(u(0.02, 0.12))
        unit = (1 - margin) / (head[3] - bottom)
        return Person(character, pose, 0.5 + float(rng.normal(0, 0.04)), -bottom * unit, unit)
    if shot is ShotType.UNCLASSIFIED:
        return _detail(rng, character, pose)
    height = float(u(0.62, 0.93)) if shot is ShotType.FULL_BODY else float(u(0.20, 0.33))
    unit = height / whole[3]
    width = (whole[2] - whole[0]) * unit
    if width > 0.92:
        unit, height = unit * 0.92 / width, height * 0.92 / width
    low = 0.02 if shot is ShotType.FULL_BODY else 0.08
    foot_y = float(u(low, max(low + 0.01, 0.97 - height))) if shot is ShotType.FULL_BODY else float(u(low, 0.45))
    left, right = -whole[0] * unit + 0.02, 1 - whole[2] * unit - 0.02
    spread = 0.06 if shot is ShotType.FULL_BODY else 0.2
    foot_x = float(np.clip(0.5 + rng.normal(0, spread), min(left, 0.5), max(right, 0.5)))
    return Person(character, pose, foot_x, foot_y, unit)


def _detail(rng: np.random.Generator, character: Character, pose: Pose) -> Person:
    """A picture of shoes or of clothes, without a face: of no shot type."""
    p = proportions(character)
    if rng.random() < 0.5:
        unit = 1.05 / (p.hip * float(rng.uniform(0.7, 0.95)))
        return Person(character, pose, 0.5, 0.06, unit)
    top = p.shoulder - 0.05 * p.head
    unit = 1 / ((top - p.hip) * float(rng.uniform(0.85, 1.1)))
    return Person(character, pose, 0.5, 1 - top * unit, unit)


def _companions(
    rng: np.random.Generator, main: Person, shot: ShotType, count: int, others: Sequence[Character] | None
) -> tuple[Person, ...]:
    """The main person moved aside, and others (of `others`, else random ones) beside it, behind it in depth."""
    shapes = shapes_of(main)
    head, whole = extent(shapes, head_only=True), extent(shapes)
    head_width = head[2] - head[0]
    close = shot in (ShotType.CLOSE_UP, ShotType.MEDIUM)
    first = 1 if rng.random() < 0.5 else -1
    shift = {ShotType.CLOSE_UP: 0.19, ShotType.MEDIUM: 0.16, ShotType.FULL_BODY: 0.14}.get(shot, 0.04)
    moved = dataclasses.replace(main, foot_x=main.foot_x - first * shift * (0.3 if count > 1 else 1.0))
    people = [moved]
    chosen = None if others is None else [others[int(i)] for i in rng.permutation(len(others))[:count]]
    step = (0.95 * head_width if close else max(1.2 * head_width, 0.62 * (whole[2] - whole[0]))) * float(
        rng.uniform(1.0, 1.25)
    )
    for k in range(count if chosen is None else len(chosen)):
        side = first if k == 0 else -first
        other = random_character(rng) if chosen is None else chosen[k]
        foot_y, unit = moved.foot_y, moved.unit * float(rng.uniform(0.92, 1.02))
        if close:
            crown = proportions(other).crown * unit
            eye_level = proportions(moved.character).crown * moved.unit + moved.foot_y
            foot_y = eye_level + float(rng.uniform(-0.10, 0.04)) - crown
        people.append(
            Person(
                other,
                random_pose(rng, "standing" if close else None),
                moved.foot_x + side * step,
                foot_y,
                unit,
                -20.0 - 10 * k,
            )
        )
    return tuple(people)


def _in_front(rng: np.random.Generator, person: Person, shot: ShotType) -> Occluder:
    """Something in front of a person, sized to hide a part of what the frame shows of it."""
    kind = KINDS[int(rng.integers(len(KINDS)))]
    x0, y0, x1, y1 = extent(shapes_of(person))
    hx0, hy0, hx1, _ = extent(shapes_of(person), head_only=True)
    # Arms stretched out would make the width meaningless; the body is about 1.3 heads wide.
    middle, width = (hx0 + hx1) / 2, min(x1 - x0, 1.5 * (hx1 - hx0))
    y0, y1 = max(y0, 0.0), min(y1, 1.0)
    whole_body = shot in (ShotType.FULL_BODY, ShotType.FAR)
    seed = int(rng.integers(1 << 30))
    if kind in UPRIGHT:
        half = 0.5 * width * float(rng.uniform(0.16, 0.30) if kind == "pole" else rng.uniform(0.25, 0.42))
        x = middle + width * float(rng.uniform(0.12, 0.38)) * (1 if rng.random() < 0.5 else -1)
        low = y0 - 0.03 if whole_body else -0.2
        return Occluder(
            kind,
            x - half,
            low,
            x + half,
            max(1.2, y1 + 0.1) if rng.random() < 0.6 or not whole_body else y1 + 0.05,
            seed,
        )
    share = float(rng.uniform(0.25, 0.55) if whole_body else rng.uniform(0.18, 0.45))
    top = min(y0 + share * (y1 - y0), hy0 + 0.25 * (y1 - hy0))
    low = y0 - 0.02 if whole_body else -0.15
    wide = float(rng.uniform(1.3, 2.2) if kind in ("fence", "table") else rng.uniform(0.7, 1.25))
    half = 0.5 * width * wide
    if kind == "vase":
        half = min(half, 0.42 * (top - low))
    x = middle + width * float(rng.uniform(-0.3, 0.3))
    return Occluder(kind, x - half, low, x + half, top, seed)


def _backdrop(rng: np.random.Generator, person: Person | None, shot: ShotType, busy: bool) -> Backdrop:
    seed = int(rng.integers(1 << 30))
    walls = tuple(WALLS)
    wall = walls[int(rng.integers(len(walls)))]
    place = BUSY[int(rng.integers(len(BUSY)))] if busy else PLAIN[int(rng.integers(len(PLAIN)))]
    if person is None:
        return Backdrop(place, seed, float(rng.uniform(0.6, 0.85)), float(rng.uniform(0.8, 1.2)), wall)
    if shot in (ShotType.FULL_BODY, ShotType.FAR):
        feet = 1 - person.foot_y
        horizon = float(np.clip(feet - rng.uniform(0.03, 0.15), 0.35, 0.95))
        return Backdrop(
            place,
            seed,
            horizon,
            float(rng.uniform(0.9, 1.1) if shot is ShotType.FULL_BODY else rng.uniform(0.65, 0.85)),
            wall,
        )
    zoom = float(rng.uniform(1.15, 1.5))
    return Backdrop(place, seed, float(rng.uniform(0.72, 0.95)), zoom, wall)


def random_scene(
    rng: np.random.Generator,
    *,
    character: Character | None = None,
    shot_type: ShotType | None = None,
    multi_character: bool | None = None,
    occlusion: bool | None = None,
    complex_background: bool | None = None,
    others: Sequence[Character] | None = None,
) -> Scene:
    """A scene with the asked-for properties; what is None is drawn. Deterministic in the generator's state.

    `others` are those of whom companions are drawn (a film's cast); None draws new random characters.

    The result is checked by casting it coarsely: an occlusion scene hides `HIDDEN_SHARE` of the main character in
    frame, any other less than `CLEAR_SHARE`, and every companion is well visible. `ShotType.UNCLASSIFIED` gives a place
    without anyone or a faceless detail; the other properties then apply to the backdrop alone.
    """
    from onmodel.toybox.render import visibility

    shot = FRAMED[int(rng.integers(len(FRAMED)))] if shot_type is None else ShotType(shot_type)
    many = bool(rng.random() < 0.25) if multi_character is None else multi_character
    hidden = bool(rng.random() < 0.25) if occlusion is None else occlusion
    busy = bool(rng.random() < 0.5) if complex_background is None else complex_background
    light = _light(rng)
    if shot is ShotType.UNCLASSIFIED:
        return _unclassified(rng, character, busy, light)
    while True:
        who = random_character(rng) if character is None else character
        pose = random_pose(rng, _calm(rng) if shot is ShotType.CLOSE_UP else None)
        people: tuple[Person, ...] = (_frame(rng, who, pose, shot),)
        if many:
            people = _companions(rng, people[0], shot, 1 if rng.random() < 0.65 else 2, others)
        front = (_in_front(rng, people[0], shot),) if hidden else ()
        backdrop = _backdrop(rng, people[0], shot, busy)
        scene = Scene(shot, people, front, backdrop, *light)
        seen = visibility(scene, 40)
        lost = 1 - seen[0].fraction
        fits = HIDDEN_SHARE[0] <= lost <= HIDDEN_SHARE[1] if hidden else lost < CLEAR_SHARE
        clear = all(s.fraction > 0.35 and s.visible > 0.15 * seen[0].visible and s.visible > 12 for s in seen[1:])
        if fits and clear:
            return scene


def random_place(rng: np.random.Generator, *, busy: bool) -> Scene:
    """A place without anyone, busy or plain. Deterministic in the generator's state."""
    light = _light(rng)
    return Scene(ShotType.UNCLASSIFIED, (), (), _backdrop(rng, None, ShotType.UNCLASSIFIED, busy), *light)


def _light(rng: np.random.Generator) -> tuple[float, float, float]:
    return float(rng.uniform(-0.9, 0.9)), float(rng.uniform(0.4, 1.0)), float(rng.uniform(-1, 1))


def _calm(rng: np.random.Generator) -> body.Action:
    """Actions that read in a close-up: the legs are not in it."""
    return "standing" if rng.random() < 0.85 else "waving"


def _unclassified(
    rng: np.random.Generator, character: Character | None, busy: bool, light: tuple[float, float, float]
) -> Scene:
    shot = ShotType.UNCLASSIFIED
    if rng.random() < 0.5:
        return Scene(shot, (), (), _backdrop(rng, None, shot, busy), *light)
    who = random_character(rng) if character is None else character
    person = _detail(rng, who, random_pose(rng, "standing"))
    return Scene(shot, (person,), (), _backdrop(rng, person, shot, busy), *light)
