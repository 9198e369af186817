"""Wire ↔ domain for detection."""

from dataclasses import dataclass

from onmodel.common.convert import error_from_wire, error_to_wire
from onmodel.core.errors import ImageError, OnModelError
from onmodel.core.vocabulary import Attribute, Box, Decision, Detections, Instance, Keypoint, ShotType
from onmodel.detection.v1 import detection_pb2 as pb


@dataclass(frozen=True)
class Detected:
    """What was found in one picture and what that makes it."""

    detections: Detections
    decision: Decision


SHOT_TYPES: dict[ShotType, pb.ShotType] = {
    ShotType.CLOSE_UP: pb.SHOT_TYPE_CLOSE_UP,
    ShotType.MEDIUM: pb.SHOT_TYPE_MEDIUM,
    ShotType.FULL_BODY: pb.SHOT_TYPE_FULL_BODY,
    ShotType.FAR: pb.SHOT_TYPE_FAR,
    ShotType.UNCLASSIFIED: pb.SHOT_TYPE_UNCLASSIFIED,
}
ATTRIBUTES: dict[Attribute, pb.Attribute] = {
    Attribute.MULTI_CHARACTER: pb.ATTRIBUTE_MULTI_CHARACTER,
    Attribute.OCCLUSION: pb.ATTRIBUTE_OCCLUSION,
    Attribute.COMPLEX_BACKGROUND: pb.ATTRIBUTE_COMPLEX_BACKGROUND,
}
_SHOT_TYPE_OF = {value: key for key, value in SHOT_TYPES.items()}
_ATTRIBUTE_OF = {value: key for key, value in ATTRIBUTES.items()}


def result_to_wire(outcome: Detected | OnModelError) -> pb.DetectResult:
    """One picture's finding or error."""
    if isinstance(outcome, OnModelError):
        return pb.DetectResult(error=error_to_wire(outcome))
    found, decision = outcome.detections, outcome.decision
    message = pb.ImageDetections(
        width_px=found.width,
        height_px=found.height,
        instances=map(_instance_to_wire, found.instances),
        occluders=map(_box_to_wire, found.occluders),
        shot_type=SHOT_TYPES[decision.shot_type],
        attributes=sorted(ATTRIBUTES[attribute] for attribute in decision.attributes),
        reason=decision.reason,
    )
    if decision.main is not None:
        message.main_index = decision.main
    return pb.DetectResult(detections=message)


def result_from_wire(result: pb.DetectResult) -> Detected | ImageError:
    """One picture's finding or error. A category newer than this code is left out."""
    if result.WhichOneof("outcome") == "error":
        return error_from_wire(result.error)
    message = result.detections
    detections = Detections(
        message.width_px,
        message.height_px,
        tuple(map(_instance_from_wire, message.instances)),
        tuple(map(_box_from_wire, message.occluders)),
    )
    decision = Decision(
        _SHOT_TYPE_OF.get(message.shot_type, ShotType.UNCLASSIFIED),
        frozenset(_ATTRIBUTE_OF[value] for value in message.attributes if value in _ATTRIBUTE_OF),
        message.main_index if message.HasField("main_index") else None,
        message.reason,
    )
    return Detected(detections, decision)


def _box_to_wire(box: Box) -> pb.Box:
    return pb.Box(x0=box.x0, y0=box.y0, x1=box.x1, y1=box.y1)


def _box_from_wire(box: pb.Box) -> Box:
    return Box(box.x0, box.y0, box.x1, box.y1)


def _instance_to_wire(instance: Instance) -> pb.Instance:
    return pb.Instance(
        box=_box_to_wire(instance.box),
        confidence=instance.confidence,
        label=instance.label,
        face=None if instance.face is None else _box_to_wire(instance.face),
        keypoints=[pb.Keypoint(x=k.x, y=k.y, confidence=k.confidence) for k in instance.keypoints],
        outline=[pb.Point(x=x, y=y) for x, y in instance.outline],
    )


def _instance_from_wire(message: pb.Instance) -> Instance:
    return Instance(
        _box_from_wire(message.box),
        message.confidence,
        message.label,
        _box_from_wire(message.face) if message.HasField("face") else None,
        tuple(Keypoint(k.x, k.y, k.confidence) for k in message.keypoints),
        tuple((p.x, p.y) for p in message.outline),
    )
