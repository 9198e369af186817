"""Shot type and attributes of one picture, from boxes, faces, keypoints and the picture itself. Pure functions."""

from collections.abc import Sequence

import cv2
import numpy as np
import numpy.typing as npt

from onmodel.core.images import RGB
from onmodel.core.vocabulary import Attribute, Box, Decision, Detections, Instance, ShotType
from onmodel.detection.config import ShotConfig

# Indices in COCO's order of 17 body points.
_SHOULDERS, _HIPS, _KNEES, _ANKLES = (5, 6), (11, 12), (13, 14), (15, 16)
_SIDE = 96
"""Longer side in pixels at which a background is judged, so that a picture's resolution does not count."""


def decide(image: RGB, detections: Detections, shots: ShotConfig) -> Decision:
    """Decide shot type and attributes.

    Args:
        image: uint8 RGB (height, width, 3), the picture that `detections` is about.
        detections: boxes in the picture's pixels.
        shots: thresholds.
    """
    boxes = [instance.box for instance in detections.instances]
    busy = background_score(image, boxes, shots) >= shots.complex_score
    return decide_for(detections, main_character(detections, shots), shots, complex_background=busy)


def decide_for(detections: Detections, main: int | None, shots: ShotConfig, *, complex_background: bool) -> Decision:
    """The same for the instance `main`, whoever is most prominent, of a picture whose background is judged already."""
    attributes: set[Attribute] = set()
    if complex_background:
        attributes.add(Attribute.COMPLEX_BACKGROUND)
    if main is None:
        return Decision(ShotType.UNCLASSIFIED, frozenset(attributes), None, "no character found")
    if other_characters(detections, main, shots):
        attributes.add(Attribute.MULTI_CHARACTER)
    if is_occluded(detections, main, shots):
        attributes.add(Attribute.OCCLUSION)
    shot, reason = shot_type(detections, detections.instances[main], shots)
    return Decision(shot, frozenset(attributes), main, reason)


def main_character(detections: Detections, shots: ShotConfig) -> int | None:
    """Index of the most prominent instance: large, near the middle, facing the camera, surely found."""
    width, height = detections.width, detections.height

    def prominence(instance: Instance) -> float:
        x, y = instance.box.center
        off = min(1.0, 2 * max(abs(x / width - 0.5), abs(y / height - 0.5)))
        seen = 1 + (shots.main_face_weight if instance.face is not None else 0.0)
        cut = cut_edges(instance.box, width, height, shots.edge_margin, shots.top_margin)
        if instance.face is None and "top" in cut:
            seen *= shots.main_headless_weight
        return instance.box.area * (1 - shots.main_center_weight * off) * instance.confidence**0.5 * seen

    if not detections.instances:
        return None
    values = [prominence(instance) for instance in detections.instances]
    # The first of equals, whatever the last bit says: twins beside the middle must not swap with the picture's size.
    return next(index for index, value in enumerate(values) if value >= (1 - 1e-9) * max(values))


def cut_edges(box: Box, width: float, height: float, margin: float, top_margin: float) -> frozenset[str]:
    """Which edges of a picture cut a box: any of "left", "top", "right", "bottom"."""
    near = {
        "left": box.x0 <= margin * width,
        "top": box.y0 <= top_margin * height,
        "right": box.x1 >= width - margin * width,
        "bottom": box.y1 >= height - margin * height,
    }
    return frozenset(edge for edge, cut in near.items() if cut)


def shot_type(detections: Detections, main: Instance, shots: ShotConfig) -> tuple[ShotType, str]:
    """How the main character is framed, and why in one clause."""
    width, height = detections.width, detections.height
    box = behind(main.box, detections.occluders)
    cut = cut_edges(box, width, height, shots.edge_margin, shots.top_margin)
    share = box.height / height
    from_points = _from_keypoints(main, width, height, shots)
    if from_points is not None:
        shot, reason = from_points
        if shot is ShotType.FULL_BODY and share < shots.far_height:
            return ShotType.FAR, f"{reason}, {share:.0%} of the picture's height"
        return shot, reason
    if main.face is None:
        legs = "bottom" not in cut and share < shots.headless_full_height
        if "top" in cut and (shots.faces_are_reliable or legs):
            return ShotType.UNCLASSIFIED, "cut above, no head seen"
        if "bottom" in cut:
            return _cut_below_without_face(box, width, height, shots)
    elif main.face.height / height >= shots.close_up_face:
        return ShotType.CLOSE_UP, f"the face fills {main.face.height / height:.0%} of the picture's height"
    else:
        heads = box.height / max(main.face.height * shots.face_to_head, 1e-6)
        if "bottom" in cut or heads < shots.whole_heads:
            return _by_heads(heads, shots)
    shot = ShotType.FAR if share < shots.far_height else ShotType.FULL_BODY
    return shot, f"whole, {share:.0%} of the picture's height"


def _by_heads(heads: float, shots: ShotConfig) -> tuple[ShotType, str]:
    """For a body whose lower end is not seen."""
    if heads < shots.close_up_heads:
        return ShotType.CLOSE_UP, f"{heads:.1f} head heights seen"
    if heads < shots.medium_heads:
        return ShotType.MEDIUM, f"{heads:.1f} head heights seen"
    return ShotType.FULL_BODY, f"{heads:.1f} head heights seen, only the feet cut"


def behind(box: Box, occluders: Sequence[Box]) -> Box:
    """A box continued down behind the things that hide its lower end: the body goes on until they end."""
    bottom = box.y1
    for thing in occluders:
        over = min(box.x1, thing.x1) - max(box.x0, thing.x0)
        starts = box.y0 < thing.y0 <= box.y1 + 0.03 * box.height
        # More hidden than seen is no longer a guess about this body: the thing is something else, or far in front.
        if over >= 0.4 * box.width and starts and thing.y1 - box.y1 <= box.height:
            bottom = max(bottom, thing.y1)
    return Box(box.x0, box.y0, box.x1, bottom)


def _cut_below_without_face(box: Box, width: float, height: float, shots: ShotConfig) -> tuple[ShotType, str]:
    area = box.area / (width * height)
    aspect = box.width / max(box.height, 1e-6)
    if area >= shots.cut_close_up_area:
        return ShotType.CLOSE_UP, f"cut below and {area:.0%} of the picture"
    if aspect >= shots.cut_close_up_aspect:
        return ShotType.CLOSE_UP, "cut below and wider than high"
    return ShotType.MEDIUM, "cut below and higher than wide"


def _from_keypoints(main: Instance, width: float, height: float, shots: ShotConfig) -> tuple[ShotType, str] | None:
    """By the lowest body points inside the picture; None without a pose."""
    if len(main.keypoints) != 17:
        return None

    def seen(indices: tuple[int, ...]) -> bool:
        points = [main.keypoints[i] for i in indices]
        return any(p.confidence >= shots.keypoint_confidence and 0 <= p.x < width and 0 <= p.y < height for p in points)

    if seen(_ANKLES):
        return ShotType.FULL_BODY, "ankles seen"
    if seen(_KNEES) or seen(_HIPS):
        return ShotType.MEDIUM, "hips or knees seen, no ankles"
    return (ShotType.CLOSE_UP, "shoulders seen, no hips") if seen(_SHOULDERS) else None


def other_characters(detections: Detections, main: int, shots: ShotConfig) -> tuple[int, ...]:
    """Indices of the other characters that take part beside the main one."""
    box = detections.instances[main].box
    return tuple(
        index
        for index, other in enumerate(detections.instances)
        if index != main
        and other.confidence >= shots.other_confidence
        and other.box.height >= shots.other_height * box.height
        and 1 - other.box.intersection(box) / max(other.box.area, 1e-6) >= shots.other_outside
    )


def is_occluded(detections: Detections, main: int, shots: ShotConfig) -> bool:
    """Whether something in front hides part of the main character; the picture's edge is not something."""
    box = behind(detections.instances[main].box, detections.occluders)
    area = max(box.area, 1e-6)
    if any(box.intersection(occluder) / area >= shots.occluder_share for occluder in detections.occluders):
        return True
    # Of two that overlap, the one whose feet are lower in the picture stands nearer.
    return any(
        detections.instances[index].box.y1 > box.y1
        and box.intersection(detections.instances[index].box) / area >= shots.occluding_character_share
        for index in other_characters(detections, main, shots)
    )


def background_score(image: RGB, boxes: Sequence[Box], shots: ShotConfig) -> float:
    """How busy a picture is outside `boxes`; 1 and above means complex with the default `complex_score`."""
    edges, entropy, area = background_facts(image, boxes, shots)
    if area < shots.background_min_area:
        return 0.0
    return 0.5 * (edges / shots.complex_edges + entropy / shots.complex_entropy)


def background_facts(image: RGB, boxes: Sequence[Box], shots: ShotConfig) -> tuple[float, float, float]:
    """Share of edge pixels, evenness of colours (entropy over its maximum) and area outside `boxes`, each 0 to 1."""
    height, width = image.shape[:2]
    scale = _SIDE / max(height, width)
    size = (max(1, round(width * scale)), max(1, round(height * scale)))
    small = cv2.resize(image, size, interpolation=cv2.INTER_AREA)
    outside = _outside(boxes, size, (size[0] / width, size[1] / height))
    area = float(outside.mean())
    if not outside.any():
        return 0.0, 0.0, 0.0
    wide = small.astype(np.int16)
    step_x = np.abs(np.diff(wide, axis=1)).max(axis=2)
    step_y = np.abs(np.diff(wide, axis=0)).max(axis=2)
    # A step counts only where both its pixels are background: a character's outline is not the background's.
    hit_x = (step_x >= shots.edge_strength) & outside[:, 1:] & outside[:, :-1]
    hit_y = (step_y >= shots.edge_strength) & outside[1:] & outside[:-1]
    edge = np.zeros_like(outside)
    edge[:, 1:] |= hit_x
    edge[:, :-1] |= hit_x
    edge[1:] |= hit_y
    edge[:-1] |= hit_y
    bins = (wide[outside] // 32).astype(np.int64) @ np.array([64, 8, 1])
    counts = np.bincount(bins, minlength=512)
    shares = counts[counts > 0] / counts.sum()
    entropy = float(-(shares * np.log2(shares)).sum()) / 9.0
    return float(edge[outside].mean()), entropy, area


def _outside(boxes: Sequence[Box], size: tuple[int, int], factor: tuple[float, float]) -> npt.NDArray[np.bool_]:
    """True where no box is, at `size` (width, height); boxes grow by a pixel for the resampling's blur."""
    mask = np.ones((size[1], size[0]), dtype=np.bool_)
    for box in boxes:
        x0, x1 = int(np.floor(box.x0 * factor[0])) - 1, int(np.ceil(box.x1 * factor[0])) + 1
        y0, y1 = int(np.floor(box.y0 * factor[1])) - 1, int(np.ceil(box.y1 * factor[1])) + 1
        mask[max(0, y0) : max(0, y1), max(0, x0) : max(0, x1)] = False
    return mask
