"""Stand-ins for the detection service: exact answers from toybox truth, and a loop over a real detector."""

from collections.abc import Callable, Sequence

import numpy as np

from onmodel.common.convert import ModelInfo
from onmodel.core.errors import ImageError
from onmodel.core.files import content_hash
from onmodel.core.images import RGB, decode
from onmodel.core.vocabulary import Detections, Instance
from onmodel.detection.config import DetectorConfig
from onmodel.detection.convert import Detected
from onmodel.detection.rules import decide
from onmodel.toybox.render import Truth

SHOTS = DetectorConfig.preset("toybox").shots


def exact(truth: Truth) -> Detections:
    """What a perfect detector finds in a toybox picture."""
    return Detections(
        truth.size,
        truth.size,
        tuple(
            Instance(person.visible_box, 1.0, "character", person.face_box)
            for person in truth.characters
            if person.visible_box is not None
        ),
        tuple(thing.box for thing in truth.occluders),
    )


class Exact:
    """Answers for known pictures by their content; counts what it was asked."""

    def __init__(self, truths: dict[str, Truth]) -> None:
        self._truths = truths
        self.asked = 0
        self.fail_after: int | None = None

    def detect(
        self, images: Sequence[bytes], *, advance: Callable[[int], object] | None = None
    ) -> list[Detected | ImageError]:
        if self.fail_after is not None and self.asked + len(images) > self.fail_after:
            raise KeyboardInterrupt
        self.asked += len(images)
        found = [self._one(data) for data in images]
        if advance is not None:
            advance(len(images))
        return found

    def _one(self, data: bytes) -> Detected | ImageError:
        try:
            image: RGB = decode(data)
        except ImageError as error:
            return error
        truth = self._truths.get(content_hash(data))
        height, width = image.shape[:2]
        detections = Detections(width, height, ()) if truth is None else exact(truth)
        return Detected(detections, decide(image, detections, SHOTS))

    def model_info(self) -> ModelInfo:
        return ModelInfo("exact", "0" * 64, DetectorConfig.preset("toybox").hash)


class Services:
    """`.detection` as of the real services; `started` says whether it was needed."""

    def __init__(self, detection: Exact) -> None:
        self._detection = detection
        self.started = False

    @property
    def detection(self) -> Exact:
        self.started = True
        return self._detection


def noise(side: int, seed: int = 0) -> RGB:
    """A uint8 RGB picture of random pixels."""
    return np.random.default_rng(seed).integers(0, 256, (side, side, 3), dtype=np.uint8)
