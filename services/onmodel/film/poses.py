"""Named poses from body points, by plain geometry; the points come from an ultralytics pose model given by its path."""

import math
from collections.abc import Sequence
from typing import Final

import numpy as np

from onmodel.core.errors import UserError
from onmodel.core.images import RGB
from onmodel.core.vocabulary import Instance, Keypoint
from onmodel.detection.config import DetectorConfig
from onmodel.detection.ultralytics import UltralyticsDetector

SEEN: Final[float] = 0.4
"""A point below this confidence is not seen."""
_POINTS: Final[int] = 17
# Indices in COCO's order, (left, right).
_SHOULDERS, _ELBOWS, _WRISTS = (5, 6), (7, 8), (9, 10)
_HIPS, _KNEES, _ANKLES = (11, 12), (13, 14), (15, 16)
_LYING_LEAN = math.radians(55)
"""A torso leaning more than this from upright lies."""
_BENDING_LEAN = math.radians(30)
_BENT_KNEE = math.radians(125)
"""A knee angle below this is bent; a straight leg has 180 degrees."""
_THIGH_DROP = 0.55
"""Sitting seen from the front: the knee is less than this share of the torso's length below the hip."""
_STRIDE = 0.55
"""Ankles farther apart than this share of the torso's length are a stride."""


def name_pose(points: Sequence[Keypoint]) -> str | None:
    """The pose that 17 body points in COCO's order show, y down.

    Returns:
        "lying", "sitting", "crouching", "bending", "arms raised", "arm raised", "walking" or "standing", the first that
        fits; "upper body" where shoulders but no legs are seen; None where too little is.
    """
    if len(points) != _POINTS:
        return None
    shoulder = _middle(points, _SHOULDERS)
    if shoulder is None:
        return None
    hip = _middle(points, _HIPS)
    raised = _raised_arms(points)
    if hip is None:
        return _ARMS.get(raised, "upper body")
    torso = float(np.hypot(*(shoulder - hip)))
    if torso < 1e-6:
        return None
    lean = math.acos(float(np.clip((hip[1] - shoulder[1]) / torso, -1, 1)))
    if lean > _LYING_LEAN:
        return "lying"
    legs = _by_legs(points, torso)
    if legs in ("sitting", "crouching"):
        return legs
    if lean > _BENDING_LEAN:
        return "bending"
    return _ARMS.get(raised) or legs or "upper body"


_ARMS: Final[dict[int, str]] = {2: "arms raised", 1: "arm raised"}


def _by_legs(points: Sequence[Keypoint], torso: float) -> str | None:
    """What the legs do; None where no knee is seen."""
    ankles = [points[i] for i in _ANKLES if points[i].confidence >= SEEN]
    bent = low = seen = 0
    for hip, knee, ankle in zip(_HIPS, _KNEES, _ANKLES, strict=True):
        if min(points[hip].confidence, points[knee].confidence) < SEEN:
            continue
        seen += 1
        drop = (points[knee].y - points[hip].y) / torso
        low += drop < _THIGH_DROP
        if points[ankle].confidence >= SEEN:
            bent += _angle(points[hip], points[knee], points[ankle]) < _BENT_KNEE
    if not seen:
        return None
    if low == seen:
        # With hips near the heels it is a crouch, with the feet before or below the seat a seat.
        hips = [points[i].y for i in _HIPS if points[i].confidence >= SEEN]
        heel = max((p.y for p in ankles), default=math.inf)
        return "crouching" if ankles and heel - max(hips) < 0.5 * torso else "sitting"
    if len(ankles) == 2 and abs(ankles[0].x - ankles[1].x) > _STRIDE * torso:
        return "walking"
    return "walking" if bent == 1 and seen == 2 else "standing"


def _raised_arms(points: Sequence[Keypoint]) -> int:
    """How many arms have the wrist (else the elbow) above their shoulder."""
    count = 0
    for shoulder, elbow, wrist in zip(_SHOULDERS, _ELBOWS, _WRISTS, strict=True):
        hand = points[wrist] if points[wrist].confidence >= SEEN else points[elbow]
        if min(hand.confidence, points[shoulder].confidence) >= SEEN:
            count += hand.y < points[shoulder].y
    return count


def _middle(points: Sequence[Keypoint], indices: tuple[int, int]) -> np.ndarray | None:
    found = [(points[i].x, points[i].y) for i in indices if points[i].confidence >= SEEN]
    return np.mean(found, axis=0) if found else None


def _angle(a: Keypoint, b: Keypoint, c: Keypoint) -> float:
    """The angle at b, 0..pi."""
    first, second = np.array([a.x - b.x, a.y - b.y]), np.array([c.x - b.x, c.y - b.y])
    size = float(np.linalg.norm(first) * np.linalg.norm(second))
    return math.acos(float(np.clip(first @ second / size, -1, 1))) if size > 1e-9 else math.pi


_INPUT_SIZES: Final[dict[str, int]] = {"toybox-pose": 128}
"""What weights were trained at, where that is not ultralytics' 640."""


class PoseModel:
    """Body points for instances that another detector found. Not safe for several threads at once."""

    def __init__(self, weights: str) -> None:
        """Load ultralytics pose weights. Raises NotFoundError or UserError where they cannot be had or are others."""
        # Boxes are only matched with those already found, so nothing is sifted but noise.
        config = DetectorConfig(
            kind="ultralytics", weights=weights, input_size=_INPUT_SIZES.get(weights, 640), confidence=0.1, min_area=0.0
        )
        self._model = UltralyticsDetector(config)
        if self._model.task != "pose":
            raise UserError(
                f"{weights}: weights for the task {self._model.task!r}, not for poses; give --pose-estimation"
                " pose weights such as yolo11n-pose.pt, or toybox-pose for the toybox"
            )

    def points(self, image: RGB, instances: Sequence[Instance]) -> list[tuple[Keypoint, ...]]:
        """Body points of each instance, in order: of the pose model's box that overlaps it most, () where none does."""
        (found,) = self._model.detect([image])
        left = list(found.instances)
        answers: list[tuple[Keypoint, ...]] = []
        for instance in instances:
            best = max(left, key=lambda other: other.box.iou(instance.box), default=None)
            if best is None or best.box.iou(instance.box) < 0.5:
                answers.append(())
                continue
            left.remove(best)
            answers.append(best.keypoints)
        return answers
