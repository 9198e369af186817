"""A character in a pose as a list of shapes, and the heights at which a camera may cut it."""

from __future__ import annotations

import itertools
import math
from collections.abc import Iterator
from dataclasses import dataclass
from typing import Final, Literal

import numpy as np
import numpy.typing as npt

from onmodel.toybox import hair
from onmodel.toybox.character import CLOTH, HAIR, HEAD_HEIGHT, HEADS, IRIS, SKIN, Character, Colour
from onmodel.toybox.shapes import IDENTITY, Ellipsoid, Paint, RoundCone, Shape, turn

Vector = npt.NDArray[np.float64]
Action = Literal["standing", "walking", "waving", "running", "cheering"]
ACTIONS: Final[tuple[Action, ...]] = ("standing", "walking", "waving", "running", "cheering")


@dataclass(frozen=True, slots=True)
class Pose:
    """Angles in radians. Arms and legs are (left, right); 0 hangs down, positive swings outwards or forwards."""

    action: Action = "standing"
    yaw: float = 0.0
    head_yaw: float = 0.0
    head_pitch: float = 0.0
    head_roll: float = 0.0
    arm_out: tuple[float, float] = (0.15, 0.15)
    arm_forward: tuple[float, float] = (0.0, 0.0)
    elbow: tuple[float, float] = (0.2, 0.2)
    leg_forward: tuple[float, float] = (0.0, 0.0)
    knee: tuple[float, float] = (0.0, 0.0)
    smile: float = 0.6
    mouth_open: float = 0.0
    gaze: tuple[float, float] = (0.0, 0.0)


def random_pose(rng: np.random.Generator, action: Action | None = None) -> Pose:
    """A pose of the given action, or of a random one; standing half of the time."""
    if action is None:
        action = "standing" if rng.random() < 0.5 else ACTIONS[int(rng.integers(len(ACTIONS)))]
    u = rng.uniform
    out = [u(0.08, 0.4), u(0.08, 0.4)]
    forward = [u(-0.2, 0.2), u(-0.2, 0.2)]
    elbow = [u(0.0, 0.5), u(0.0, 0.5)]
    leg = [0.0, 0.0]
    knee = [0.0, 0.0]
    if action in ("walking", "running"):
        swing = u(0.35, 0.55) if action == "walking" else u(0.6, 0.85)
        lead = int(rng.integers(2))
        leg = [swing, -swing] if lead == 0 else [-swing, swing]
        knee = [0.15, 0.7 * swing + 0.2] if lead == 0 else [0.7 * swing + 0.2, 0.15]
        forward = [-1.1 * leg[0], -1.1 * leg[1]]
        elbow = [u(0.4, 0.7)] * 2 if action == "walking" else [u(1.2, 1.6)] * 2
    elif action == "waving":
        side = int(rng.integers(2))
        out[side], elbow[side] = u(2.1, 2.6), u(0.3, 0.7)
    elif action == "cheering":
        out, elbow = [u(2.2, 2.7), u(2.2, 2.7)], [u(0.1, 0.5), u(0.1, 0.5)]
    moving = action in ("walking", "running")
    yaw = (
        float(u(0.35, 1.0) * (1 if rng.random() < 0.5 else -1))
        if moving
        else float(np.clip(rng.normal(0, 0.3), -0.8, 0.8))
    )
    return Pose(
        action=action, yaw=yaw, head_yaw=float(np.clip(rng.normal(0, 0.25), -0.6, 0.6)),
        head_pitch=float(u(-0.12, 0.15)), head_roll=float(rng.normal(0, 0.07)),
        arm_out=(float(out[0]), float(out[1])), arm_forward=(float(forward[0]), float(forward[1])),
        elbow=(float(elbow[0]), float(elbow[1])), leg_forward=(leg[0], leg[1]), knee=(float(knee[0]), float(knee[1])),
        smile=float(u(0.1, 1.0)), mouth_open=float(u(0, 1)) if rng.random() < 0.4 else 0.0,
        gaze=(float(u(-0.6, 0.6)), float(u(-0.4, 0.4))),
    )  # fmt: skip


@dataclass(frozen=True, slots=True)
class Proportions:
    """A body's heights (feet at 0) and half widths in world units, one unit being a teenager's skull."""

    head: float
    chin: float
    shoulder: float
    hip: float
    shoulder_half: float
    limb: float

    @property
    def crown(self) -> float:
        """Height of the skull's top, without hair."""
        return self.chin + self.head


def proportions(character: Character) -> Proportions:
    """Proportions by age: a child's body is shorter, narrower and has a relatively larger head."""
    head = HEAD_HEIGHT[character.age]
    below = HEADS[character.age] * character.height * head - head
    neck = 0.10 * head
    torso = 0.44 * (below - neck)
    width = {"child": 0.40, "teenage": 0.48, "adult": 0.62}[character.age]
    if character.gender == "female":
        width *= 0.88
    limb = {"child": 0.135, "teenage": 0.13, "adult": 0.15}[character.age]
    hip = below - neck - torso
    return Proportions(head, below, hip + torso, hip, width * character.girth, limb * character.girth)


def _v(x: float, y: float, z: float) -> Vector:
    return np.array([x, y, z], dtype=np.float64)


def _legs(c: Character, pose: Pose, p: Proportions) -> list[Shape]:
    """Legs, shoes and skirt, in the body's own frame. The lower foot stands on the ground."""
    shapes: list[Shape] = []
    cloth, skin, shoe = CLOTH[c.leg_colour], SKIN[c.skin], CLOTH[c.shoes]
    thigh, shin = 0.48 * p.hip, 0.44 * p.hip
    r = p.limb
    for side, forward, bend in zip((-1, 1), pose.leg_forward, pose.knee, strict=True):
        hip = _v(side * p.shoulder_half * 0.42, p.hip, 0)
        knee = hip + thigh * _v(0, -math.cos(forward), math.sin(forward))
        ankle = knee + shin * _v(0, -math.cos(forward - bend), math.sin(forward - bend))
        bare = c.legwear != "trousers"
        shapes.append(RoundCone(hip, knee, r * 1.3, r * 1.05, skin if c.legwear == "skirt" else cloth))
        shapes.append(
            RoundCone(knee, ankle, r * (0.85 if bare else 1.05), r * (0.75 if bare else 0.98), skin if bare else cloth)
        )
        pitch = -(forward - bend) * 0.7
        foot = ankle + _v(0, -0.02 * p.hip, 0.10 * p.head)
        shapes.append(Ellipsoid(foot, (r * 1.15, r * 0.85, r * 1.15 + 0.12 * p.head), shoe, turn(0, pitch), gloss=0.3))
    if c.legwear == "skirt":
        top, hem = _v(0, p.hip + 0.1 * p.head, 0), _v(0, p.hip * 0.60, 0)
        shapes.append(RoundCone(top, hem, p.shoulder_half * 0.62, p.shoulder_half * 0.95, cloth))
    else:
        shapes.append(
            Ellipsoid(
                _v(0, p.hip, 0), (p.shoulder_half * 0.80, 0.16 * p.head + r, p.shoulder_half * 0.66), cloth, IDENTITY
            )
        )
    return shapes


def _shirt_paint(c: Character, scale: float, offset: float, axis: int = 1) -> Paint | None:
    colour = CLOTH[c.pattern_colour]
    if c.pattern == "striped":
        return Paint("stripes", (colour,), (float(axis), scale, offset))
    if c.pattern == "spotted":
        return Paint("spots", (colour,), (2.6, scale * 0.9))
    return None


def _torso(c: Character, p: Proportions) -> list[Shape]:
    shirt = CLOTH[c.shirt]
    length = p.shoulder - p.hip
    half, band = p.shoulder_half, 0.30 * p.head
    chest, belly = p.shoulder - 0.36 * length, p.hip + 0.30 * length
    low, high = _v(0, p.shoulder - 0.1, 0), _v(0, p.chin + 0.1 * p.head, 0.02)
    shapes: list[Shape] = [
        RoundCone(low, high, 0.16 * p.head, 0.15 * p.head, _dim(SKIN[c.skin])),
    ]
    for centre, radii in (
        (chest, (half * 0.98, 0.46 * length, half * 0.66)),
        (belly, (half * 0.86, 0.46 * length, half * 0.68)),
    ):
        paint = _shirt_paint(c, radii[1] / band, centre / band)
        shapes.append(Ellipsoid(_v(0, centre, 0), radii, shirt, IDENTITY, paint))
    return shapes


def _dim(colour: Colour) -> Colour:
    """Skin under the chin, in its shade."""
    return colour[0] * 0.86, colour[1] * 0.84, colour[2] * 0.84


def _arms(c: Character, pose: Pose, p: Proportions) -> list[Shape]:
    shapes: list[Shape] = []
    shirt, skin = CLOTH[c.shirt], SKIN[c.skin]
    length = (p.shoulder - p.hip) * 1.02 + 0.12 * p.head
    r = p.limb
    for side, out, forward, bend in zip((-1, 1), pose.arm_out, pose.arm_forward, pose.elbow, strict=True):
        joint = _v(side * (p.shoulder_half * 0.88), p.shoulder - 0.12 * p.head, 0)
        swing = turn(0, -forward) @ _v(side * math.sin(out), -math.cos(out), 0)
        elbow = joint + 0.48 * length * swing
        raised = out > 1.2
        # A raised forearm bends towards the head, a hanging one forwards.
        bent = out + bend * (0.9 if raised else 0.15)
        lower = turn(0, -forward - (0 if raised else bend)) @ _v(side * math.sin(bent), -math.cos(bent), 0)
        hand = elbow + 0.46 * length * lower
        sleeve = _shirt_paint(c, 1 / (0.30 * p.head), 0.2) if c.pattern == "striped" else None
        shapes.append(RoundCone(joint, elbow, r * 1.2, r * 0.98, shirt, sleeve))
        sleeved = c.long_sleeves
        shapes.append(
            RoundCone(
                elbow,
                hand,
                r * (1.0 if sleeved else 0.82),
                r * (0.95 if sleeved else 0.7),
                shirt if sleeved else skin,
                sleeve if sleeved else None,
            )
        )
        shapes.append(Ellipsoid(hand + 0.05 * p.head * lower, (r * 1.12, r * 1.12, r * 1.12), skin, IDENTITY))
    return shapes


def _face(c: Character, pose: Pose, centre: Vector, radii: tuple[float, float, float], frame: Vector) -> list[Shape]:
    """Head, ears, nose, eyes, brows and glasses; `frame` is the head's rotation."""
    skin = SKIN[c.skin]
    size = radii[1]
    cheek = (min(1.0, skin[0] * 1.05 + 0.05), skin[1] * 0.72, skin[2] * 0.72)
    looks = Paint("face", (cheek, (0.55, 0.13, 0.15)), (pose.smile, pose.mouth_open))

    def at(x: float, y: float, z: float) -> Vector:
        return centre + frame @ (_v(x, y, z) * np.asarray(radii))

    shapes: list[Shape] = [Ellipsoid(centre, radii, skin, frame, looks, is_head=True)]
    for side in (-1, 1):
        ear = 0.24 * c.ear_size * size
        shapes.append(Ellipsoid(at(side * 1.0, -0.08, -0.05), (ear * 0.55, ear, ear * 0.5), skin, frame, is_head=True))
        eye = c.eye_size * size
        lids = Paint("eye", (IRIS[c.iris],), pose.gaze)
        shapes.append(
            Ellipsoid(
                at(side * 0.37, 0.02, 0.84),
                (0.21 * eye, 0.26 * eye, 0.13 * eye),
                (0.97, 0.97, 0.98),
                frame,
                lids,
                is_head=True,
                gloss=0.5,
            )
        )
        brow = HAIR[c.hair_colour]
        shapes.append(
            RoundCone(
                at(side * 0.20, 0.47, 0.92),
                at(side * 0.56, 0.40, 0.83),
                0.045 * size,
                0.03 * size,
                (brow[0] * 0.75, brow[1] * 0.75, brow[2] * 0.75),
                is_head=True,
            )
        )
        if c.glasses:
            shapes.extend(_rim(at, side, size))
    if c.glasses:
        shapes.append(
            RoundCone(
                at(-0.1, 0.02, 1.06), at(0.1, 0.02, 1.06), 0.03 * size, 0.03 * size, (0.08, 0.08, 0.1), is_head=True
            )
        )
    nose = 0.15 * c.nose_size * size
    shapes.append(
        Ellipsoid(
            at(0, -0.22, 0.98),
            (nose, nose * 0.85, nose),
            (skin[0] * 0.96, skin[1] * 0.88, skin[2] * 0.86),
            frame,
            is_head=True,
        )
    )
    return shapes


def _rim(at: hair.Place, side: int, size: float) -> list[Shape]:
    """One lens rim of a pair of glasses as a polygon of thin capsules."""
    points = [
        at(
            side * 0.38 + 0.29 * math.cos(k * math.pi / 4),
            0.02 + 0.33 * math.sin(k * math.pi / 4),
            1.04 - 0.10 * abs(math.cos(k * math.pi / 4)),
        )
        for k in range(9)
    ]
    dark = (0.08, 0.08, 0.1)
    return [RoundCone(a, b, 0.035 * size, 0.035 * size, dark, is_head=True) for a, b in itertools.pairwise(points)]


@dataclass(frozen=True, slots=True)
class _Parts:
    """A character's shapes in world units around x = 0, `lift` below where they stand on the ground."""

    legs: list[Shape]
    torso: list[Shape]
    arms: list[Shape]
    face: list[Shape]
    hair: list[Shape]

    @property
    def lift(self) -> Vector:
        return _v(0, -min(_lowest(s) for s in self), 0)

    def __iter__(self) -> Iterator[Shape]:
        return itertools.chain(self.legs, self.torso, self.arms, self.face, self.hair)


def _parts(character: Character, pose: Pose) -> _Parts:
    p = proportions(character)
    whole = turn(pose.yaw)
    legs, torso, arms = (
        [place(s, whole, 1.0, np.zeros(3)) for s in shapes]
        for shapes in (_legs(character, pose, p), _torso(character, p), _arms(character, pose, p))
    )
    half = 0.5 * p.head
    radii = (half * 0.88 * character.head_width, half, half * 0.90)
    # The face stays readable: the head makes up for part of the body's turn.
    frame = turn(pose.yaw * 0.6 + pose.head_yaw, pose.head_pitch, pose.head_roll)
    centre = _v(0, p.chin + half, 0.03)
    face = _face(character, pose, centre, radii, frame)
    return _Parts(legs, torso, arms, face, hair.build(character, centre, radii, frame))


def build(character: Character, pose: Pose) -> list[Shape]:
    """All shapes of a character in world units: feet at y = 0 around x = 0, facing +z turned by the pose's yaw."""
    parts = _parts(character, pose)
    lift = parts.lift
    return [place(s, IDENTITY, 1.0, lift) for s in parts]


def points(character: Character, pose: Pose) -> Vector:
    """The body's points, (17, 3) in the world units of `build`, in COCO's order.

    These are nose, eyes, ears, shoulders, elbows, wrists, hips, knees and ankles, the character's own left (at greater
    x where it faces the viewer) before its right.
    """
    parts = _parts(character, pose)
    round_ones = [s for s in parts.face if isinstance(s, Ellipsoid)]
    *ears, nose = (s.centre for s in round_ones if s.paint is None)
    eyes = [s.centre for s in round_ones if s.paint is not None and s.paint.kind == "eye"]
    # Parts are built the right side first.
    found = [nose, *reversed(eyes), *reversed(ears), *_joints(parts.arms), *_joints(parts.legs)]
    return np.stack(found) + parts.lift


def _joints(limbs: list[Shape]) -> list[Vector]:
    """Where a pair of limbs begins, bends and ends, the left one's before the right one's."""
    upper_right, lower_right, upper_left, lower_left = [s for s in limbs if isinstance(s, RoundCone)][:4]
    pairs = (upper_left.a, upper_right.a), (lower_left.a, lower_right.a), (lower_left.b, lower_right.b)
    return [point for pair in pairs for point in pair]


def _lowest(shape: Shape) -> float:
    if isinstance(shape, Ellipsoid):
        half = math.sqrt(float(((shape.rotation[1] * np.asarray(shape.radii)) ** 2).sum()))
        return float(shape.centre[1]) - half
    if isinstance(shape, RoundCone):
        return min(float(shape.a[1]) - shape.radius_a, float(shape.b[1]) - shape.radius_b)
    return shape.y0


def place(shape: Shape, rotation: Vector, scale: float, offset: Vector) -> Shape:
    """A shape rotated about the origin, scaled, then moved."""
    if isinstance(shape, Ellipsoid):
        rx, ry, rz = shape.radii
        return Ellipsoid(
            rotation @ shape.centre * scale + offset, (rx * scale, ry * scale, rz * scale), shape.colour,
            rotation @ shape.rotation, shape.paint, shape.cut, shape.is_head, shape.gloss,
        )  # fmt: skip
    if isinstance(shape, RoundCone):
        paint = shape.paint
        if paint is not None and paint.kind == "stripes":
            axis, per_unit, start = paint.values
            paint = Paint(paint.kind, paint.colours, (axis, per_unit / scale, start))
        return RoundCone(
            rotation @ shape.a * scale + offset, rotation @ shape.b * scale + offset, shape.radius_a * scale,
            shape.radius_b * scale, shape.colour, paint, shape.is_head, shape.gloss,
        )  # fmt: skip
    raise TypeError("cards face the viewer and cannot be placed; make them in frame units")
