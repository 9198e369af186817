"""From raw boxes to characters, shared by the detectors: merging, roles, faces."""

from collections.abc import Sequence
from dataclasses import replace

import cv2
import numpy as np
import numpy.typing as npt

from onmodel.core.images import RGB
from onmodel.core.vocabulary import Box, Detections, Instance
from onmodel.detection.config import DetectorConfig
from onmodel.detection.faces import FaceFinder, body_from_face

Boxes = npt.NDArray[np.float32]
"""float32 (N, 4): x0, y0, x1, y1 in pixels."""


def assemble(
    image: RGB,
    boxes: Boxes,
    scores: npt.NDArray[np.float32],
    labels: npt.NDArray[np.int64],
    names: Sequence[str],
    config: DetectorConfig,
    finder: FaceFinder | None,
) -> Detections:
    """Raw boxes (N, 4) with scores and class indices to characters with faces, and occluders, merged."""
    height, width = image.shape[:2]
    roles = np.array([config.role(names[int(label)]) for label in labels], dtype=object)
    large = np.prod(boxes[:, 2:] - boxes[:, :2], axis=1) >= config.min_area * width * height if len(boxes) else roles
    found: dict[str, list[tuple[Box, float, str]]] = {}
    for role in ("character", "face", "occluder"):
        sure = scores >= (config.confidence if role == "character" else config.part_confidence)
        chosen = np.flatnonzero((roles == role) & large & sure) if len(boxes) else np.zeros(0, dtype=np.int64)
        part, part_scores, part_labels = boxes[chosen], scores[chosen], labels[chosen]
        if config.mean_boxes:
            part, part_scores, part_labels = average(part, part_scores, part_labels, config.iou)
        else:
            kept = suppress(part, part_scores, part_labels, iou=config.iou, class_agnostic=config.class_agnostic)
            part, part_scores, part_labels = part[kept], part_scores[kept], part_labels[kept]
        if role == "character" and len(part):
            kept, part_scores = drop_nested(part, part_scores, config.nested)
            part, part_labels = part[kept], part_labels[kept]
        found[role] = [
            (Box(*(float(v) for v in box)), float(score), names[int(label)])
            for box, score, label in zip(part, part_scores, part_labels, strict=True)
        ]
    instances = [Instance(*row) for row in found["character"]]
    faces = [(box, score) for box, score, _ in found["face"]] + (finder.find(image) if finder else [])
    instances, left = attach_faces(instances, [box for box, _ in faces])
    if config.face_makes_instance:
        confidence = {box.as_tuple(): score for box, score in faces}
        instances += [body_from_face(face, confidence[face.as_tuple()], width, height) for face in left]
    instances.sort(key=lambda i: -i.confidence)
    return Detections(width, height, tuple(instances), tuple(box for box, _, _ in found["occluder"]))


def suppress(
    boxes: Boxes, scores: npt.NDArray[np.float32], labels: npt.NDArray[np.int64], *, iou: float, class_agnostic: bool
) -> npt.NDArray[np.int64]:
    """Indices kept by non-maximum suppression, by falling score.

    Args:
        boxes: (N, 4) corners in pixels.
        scores: (N,) confidences.
        labels: (N,) class indices, looked at only where `class_agnostic` is False.
        iou: boxes of higher overlap are one.
    """
    if not len(boxes):
        return np.zeros(0, dtype=np.int64)
    sized = boxes.astype(np.float64)
    sized[:, 2:] -= sized[:, :2]
    if class_agnostic:
        kept = cv2.dnn.NMSBoxes(sized.tolist(), scores.tolist(), 0.0, iou)
    else:
        kept = cv2.dnn.NMSBoxesBatched(sized.tolist(), scores.tolist(), labels.tolist(), 0.0, iou)
    indices = np.asarray(kept, dtype=np.int64).reshape(-1)
    return indices[np.argsort(-scores[indices], kind="stable")]


def average(
    boxes: Boxes, scores: npt.NDArray[np.float32], labels: npt.NDArray[np.int64], iou: float
) -> tuple[Boxes, npt.NDArray[np.float32], npt.NDArray[np.int64]]:
    """Boxes that overlap the surest left by `iou` or more become one: their mean weighted by score, with its label.

    Weighted boxes fusion (Solovyev et al. 2021) without its discount for boxes that few views saw.
    """
    left = np.argsort(-scores, kind="stable")
    made: list[npt.NDArray[np.float32]] = []
    chosen: list[int] = []
    while len(left):
        best = boxes[left[0]]
        shared = _shared(best, boxes[left])
        union = _areas(boxes[left]) + _areas(best[None])[0] - shared
        same = shared >= iou * np.maximum(union, 1e-6)
        same[0] = True
        group = left[same]
        made.append(np.average(boxes[group], axis=0, weights=np.maximum(scores[group], 1e-6)))
        chosen.append(int(left[0]))
        left = left[~same]
    merged = np.asarray(made, dtype=np.float32).reshape(-1, 4)
    return merged, scores[chosen], labels[chosen]


def drop_nested(
    boxes: Boxes, scores: npt.NDArray[np.float32], nested: float, doubt: float = 0.5
) -> tuple[npt.NDArray[np.int64], npt.NDArray[np.float32]]:
    """Indices of the boxes left when boxes mostly inside a bigger one are merged, and the scores these keep.

    A detector often finds a head or belly beside the whole body: the bigger box stays, with the best score of
    what was inside it. But a big box far less sure than the one inside it took scenery for a body: it goes.

    Args:
        boxes: (N, 4) corners in pixels.
        scores: (N,) confidences.
        nested: the inside share from which two boxes are one body; 1 keeps all.
        doubt: a bigger box below this share of the inner one's score goes.
    """
    areas = _areas(boxes)
    alive = np.ones(len(boxes), dtype=np.bool_)
    best = scores.copy()
    if nested < 1:
        for inner in np.argsort(areas, kind="stable"):
            shared = _shared(boxes[inner], boxes) / max(float(areas[inner]), 1e-6)
            outer = np.flatnonzero((shared >= nested) & alive & (areas > areas[inner]))
            doubtful = outer[best[outer] < doubt * best[inner]]
            alive[doubtful] = False
            sure = outer[best[outer] >= doubt * best[inner]]
            if len(sure):
                alive[inner] = False
                parent = sure[best[sure].argmax()]
                best[parent] = max(best[parent], best[inner])
    chosen = np.flatnonzero(alive)
    chosen = chosen[np.argsort(-best[chosen], kind="stable")]
    return chosen, best[chosen]


def _areas(boxes: Boxes) -> npt.NDArray[np.float32]:
    return np.prod(np.maximum(boxes[:, 2:] - boxes[:, :2], 0), axis=1)


def _shared(box: npt.NDArray[np.float32], others: Boxes) -> npt.NDArray[np.float32]:
    low = np.maximum(box[:2], others[:, :2])
    high = np.minimum(box[2:], others[:, 2:])
    return np.prod(np.maximum(high - low, 0), axis=1)


def attach_faces(instances: Sequence[Instance], faces: Sequence[Box]) -> tuple[list[Instance], list[Box]]:
    """Give each face to the instance whose box contains it best, and return the faces that no box contains.

    A face goes to the box that holds most of it; among boxes that hold it equally, to the one whose top middle,
    where heads are, is nearest. An instance keeps its largest face.
    """
    given = list(instances)
    left: list[Box] = []
    for face in sorted(faces, key=lambda f: -f.area):
        held = [(min(1.0, i.box.intersection(face) / max(face.area, 1e-6)), n) for n, i in enumerate(given)]
        # A "face" in the lower part of a body is a false one: a belly, a knee, something held.
        held = [(round(share, 1), n) for share, n in held if share >= 0.5 and _depth(given[n].box, face) <= 0.65]
        if not held:
            left.append(face)
            continue
        _, index = max(
            held, key=lambda pair: (pair[0], given[pair[1]].face is None, -_from_head(given[pair[1]].box, face))
        )
        if given[index].face is None:
            given[index] = replace(given[index], face=face)
    return given, left


def _from_head(box: Box, face: Box) -> float:
    """Distance of a face from a box's top middle, in units of the box's size."""
    x = (face.center[0] - box.center[0]) / max(box.width, 1e-6)
    y = (face.center[1] - box.y0) / max(box.height, 1e-6)
    return abs(x) + abs(y)


def _depth(box: Box, face: Box) -> float:
    """How far down a box the middle of a face is, 0 (its top) to 1."""
    return (face.center[1] - box.y0) / max(box.height, 1e-6)
