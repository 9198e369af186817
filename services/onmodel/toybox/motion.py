"""A scene that moves: poses between key poses, people who walk, a camera that drifts, a thing that passes in front."""

from __future__ import annotations

import dataclasses
import math
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Final

import cv2
import numpy as np

from onmodel.core.vocabulary import ShotType
from onmodel.toybox import backdrop
from onmodel.toybox.body import Pose, proportions
from onmodel.toybox.character import Character
from onmodel.toybox.dataset import Plan, scene_for
from onmodel.toybox.occluder import Occluder
from onmodel.toybox.scene import Person, Scene, extent, shapes_of
from onmodel.toybox.shapes import Array

KEY_SECONDS: Final[float] = 0.7
"""Time from one key pose to the next: half a stride."""
MOST_ZOOM: Final[float] = 1.10
CHECKED: Final[int] = 7
"""Moments at which a take is tried for keeping its framing."""
CROSSING: Final[tuple[float, float]] = (0.2, 0.8)
"""Shares of a take's time at which something that passes in front comes in and is gone."""


@dataclass(frozen=True, slots=True)
class View:
    """Where the camera looks: frame coordinates (y up) become zoom * value + shift. The scene's own frame is (1, 0, 0);
    zooms of 1 and more with small shifts stay inside it, so that there is always something painted."""

    zoom: float
    shift_x: float
    shift_y: float


@dataclass(frozen=True, slots=True)
class Camera:
    """A drift from one view to another: zooms, and pans in shares (-1..1) of the room that the zoom leaves."""

    zoom: tuple[float, float] = (1.0, 1.0)
    pan_x: tuple[float, float] = (0.0, 0.0)
    pan_y: tuple[float, float] = (0.0, 0.0)

    def at(self, t: float) -> View:
        """The view at t in 0..1."""
        s = _ease(t)
        zoom, x, y = (_mix(*pair, s) for pair in (self.zoom, self.pan_x, self.pan_y))
        room = (zoom - 1) / 2
        return View(zoom, x * room - room, y * room - room)


@dataclass(frozen=True, slots=True)
class Take:
    """One uninterrupted shot. `scene` is its contents at rest; t runs from 0 to 1."""

    scene: Scene
    keys: tuple[tuple[Pose, ...], ...]
    """Key poses of each person, evenly over the take."""
    walk: float
    """Frame widths by which everybody moves to the right during the take."""
    camera: Camera
    passes: int
    """0: what is in front stands there. 1 or -1: it crosses the frame to the right or left."""

    def at(self, t: float) -> Scene:
        """The scene at that moment."""
        view = self.camera.at(t)
        # The scene at rest is the take's middle, so that people walk through their checked place.
        step = self.walk * (t - 0.5)
        people = tuple(
            _seen_person(dataclasses.replace(p, pose=_pose_at(keys, t), foot_x=p.foot_x + step), view)
            for p, keys in zip(self.scene.people, self.keys, strict=True)
        )
        things = tuple(_seen_thing(thing, self._offset(thing, t), view) for thing in self.scene.occluders)
        return dataclasses.replace(self.scene, people=people, occluders=things)

    def _offset(self, thing: Occluder, t: float) -> float:
        """How far a passing thing is from where it hides most; at the ends it is outside the frame."""
        if self.passes == 0:
            return 0.0
        along = np.clip((t - CROSSING[0]) / (CROSSING[1] - CROSSING[0]), 0.0, 1.0)
        gone = 0.1
        left, right = -(thing.x1 + gone), 1 - thing.x0 + gone
        return _mix(left, right, float(along) if self.passes > 0 else 1 - float(along))

    def paint(self, side: int) -> Array:
        """The backdrop as float32 (side, side, 3), to be handed to `window` for every frame."""
        return backdrop.paint(self.scene.backdrop, side)

    def window(self, painted: Array, t: float) -> Array:
        """What the camera sees of the painted backdrop at that moment: float32 (side, side, 3)."""
        view, side = self.camera.at(t), painted.shape[0]
        if view.zoom == 1.0:
            return painted
        # Pixel rows run down while frame heights run up, so the shift of y is taken from the other end.
        shift_y = 1 - view.zoom - view.shift_y
        matrix = np.array([[view.zoom, 0, view.shift_x * side], [0, view.zoom, shift_y * side]])
        moved = cv2.warpAffine(painted, matrix, (side, side), flags=cv2.INTER_LINEAR, borderMode=cv2.BORDER_REPLICATE)
        return moved.astype(np.float32)

    @property
    def keeps_framing(self) -> bool:
        """Whether the main character is framed as the scene's shot type says at all times."""
        return all(_is_framed(self.at(k / (CHECKED - 1))) for k in range(CHECKED))


def make_take(
    plan: Plan,
    main: Character | None,
    others: Sequence[Character],
    rng: np.random.Generator,
    *,
    seconds: float,
    passing: bool = False,
) -> Take:
    """A take of a random scene that shows what `plan` asks for and keeps its framing throughout.

    Args:
        plan: shot type and attributes.
        main: the main character; None draws a new one.
        others: of whom companions are drawn.
        rng: decides everything else.
        seconds: its length; motion is as fast in long takes as in short ones.
        passing: what stands in front crosses the frame instead.
    """
    scene = scene_for(plan, rng, main, others)
    count = max(2, round(seconds / KEY_SECONDS) + 1)
    keys = tuple(_keys(person.pose, count, rng) for person in scene.people)
    walks = bool(scene.people) and scene.people[0].pose.action in ("walking", "running")
    whole = scene.shot_type in (ShotType.FULL_BODY, ShotType.FAR)
    speed = float(rng.uniform(0.04, 0.10)) * seconds * math.copysign(1, scene.people[0].pose.yaw) if walks else 0.0
    zooms = [float(z) for z in rng.uniform(1.0, MOST_ZOOM, 2)]
    pans = [float(p) for p in rng.uniform(-1, 1, 4)]
    passes = (1 if rng.random() < 0.5 else -1) if passing else 0
    for much in (1.0, 0.5, 0.2):
        camera = Camera((1 + much * (zooms[0] - 1), 1 + much * (zooms[1] - 1)), (pans[0], pans[1]), (pans[2], pans[3]))
        take = Take(scene, keys, much * speed if whole else 0.0, camera, passes)
        if take.keeps_framing:
            return take
    return Take(scene, tuple((p.pose, p.pose) for p in scene.people), 0.0, Camera(), passes)


def _is_framed(scene: Scene) -> bool:
    if not scene.people or scene.shot_type is ShotType.UNCLASSIFIED:
        return True
    shapes = shapes_of(scene.people[0])
    _, low, _, high = extent(shapes)
    left, _, right, crown = extent(shapes, head_only=True)
    if scene.shot_type in (ShotType.FULL_BODY, ShotType.FAR):
        return left >= 0 and right <= 1 and low >= 0 and high <= 1
    # Where the lower edge cuts the body, within a little of what `scene` allows a shot type: a close-up stays at the
    # shoulders and a medium shot reaches the hips. In company, a close-up's head may be cut by a side even at rest.
    person = scene.people[0]
    body, edge = proportions(person.character), -person.foot_y / person.unit
    if scene.shot_type is ShotType.CLOSE_UP:
        return crown <= 1 and edge >= body.shoulder - 0.5 * body.head
    return low < 0 and crown <= 1 and edge <= 1.06 * body.hip


def _seen_person(person: Person, view: View) -> Person:
    return dataclasses.replace(
        person,
        foot_x=view.zoom * person.foot_x + view.shift_x,
        foot_y=view.zoom * person.foot_y + view.shift_y,
        unit=view.zoom * person.unit,
    )


def _seen_thing(thing: Occluder, offset: float, view: View) -> Occluder:
    def x(value: float) -> float:
        return view.zoom * (value + offset) + view.shift_x

    def y(value: float) -> float:
        return view.zoom * value + view.shift_y

    return dataclasses.replace(thing, x0=x(thing.x0), x1=x(thing.x1), y0=y(thing.y0), y1=y(thing.y1))


def _keys(pose: Pose, count: int, rng: np.random.Generator) -> tuple[Pose, ...]:
    """Key poses of one action: steps left and right in turn for those who walk, a little sway for all."""
    strides = pose.action in ("walking", "running")
    poses = [_mirrored(pose) if strides and k % 2 else pose for k in range(count)]
    return tuple(_swayed(p, rng) if k else p for k, p in enumerate(poses))


def _mirrored(pose: Pose) -> Pose:
    """The pose with the other leg in front."""
    pairs = {name: getattr(pose, name)[::-1] for name in ("arm_out", "arm_forward", "elbow", "leg_forward", "knee")}
    return dataclasses.replace(pose, **pairs)


def _swayed(pose: Pose, rng: np.random.Generator) -> Pose:
    def near(value: float, spread: float, low: float, high: float) -> float:
        return float(np.clip(value + rng.normal(0, spread), low, high))

    out, elbow = pose.arm_out, pose.elbow
    return dataclasses.replace(
        pose,
        head_yaw=near(pose.head_yaw, 0.15, -0.6, 0.6),
        head_pitch=near(pose.head_pitch, 0.05, -0.12, 0.15),
        head_roll=near(pose.head_roll, 0.04, -0.15, 0.15),
        arm_out=(near(out[0], 0.08, 0.05, 2.7), near(out[1], 0.08, 0.05, 2.7)),
        elbow=(near(elbow[0], 0.12, 0.0, 1.6), near(elbow[1], 0.12, 0.0, 1.6)),
        smile=near(pose.smile, 0.2, 0.1, 1.0),
        mouth_open=near(pose.mouth_open, 0.3, 0.0, 1.0),
        gaze=(near(pose.gaze[0], 0.3, -0.6, 0.6), near(pose.gaze[1], 0.2, -0.4, 0.4)),
    )


def _pose_at(keys: Sequence[Pose], t: float) -> Pose:
    along = min(max(t, 0.0), 1.0) * (len(keys) - 1)
    first = min(int(along), len(keys) - 2)
    return between(keys[first], keys[first + 1], _ease(along - first))


def between(a: Pose, b: Pose, s: float) -> Pose:
    """The pose at share s (0..1) of the way from a to b; the action is a's."""

    def mixed(x: tuple[float, float], y: tuple[float, float]) -> tuple[float, float]:
        return _mix(x[0], y[0], s), _mix(x[1], y[1], s)

    return Pose(
        action=a.action,
        yaw=_mix(a.yaw, b.yaw, s),
        head_yaw=_mix(a.head_yaw, b.head_yaw, s),
        head_pitch=_mix(a.head_pitch, b.head_pitch, s),
        head_roll=_mix(a.head_roll, b.head_roll, s),
        arm_out=mixed(a.arm_out, b.arm_out),
        arm_forward=mixed(a.arm_forward, b.arm_forward),
        elbow=mixed(a.elbow, b.elbow),
        leg_forward=mixed(a.leg_forward, b.leg_forward),
        knee=mixed(a.knee, b.knee),
        smile=_mix(a.smile, b.smile, s),
        mouth_open=_mix(a.mouth_open, b.mouth_open, s),
        gaze=mixed(a.gaze, b.gaze),
    )


def _mix(a: float, b: float, s: float) -> float:
    return a + (b - a) * s


def _ease(t: float) -> float:
    """Slow at both ends."""
    return t * t * (3 - 2 * t)
