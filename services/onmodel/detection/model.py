"""What every detector does: pictures in, boxes out. No Ray, no wire format."""

from collections.abc import Sequence
from typing import Protocol

from onmodel.core.images import RGB
from onmodel.core.imports import collector_paused
from onmodel.core.vocabulary import Detections
from onmodel.detection.config import DetectorConfig


class Detector(Protocol):
    """Finds characters, their faces and what stands in front of them. Not safe for several threads at once."""

    @property
    def name(self) -> str:
        """The model for a person, e.g. "yolox_nano + yunet"."""
        ...

    @property
    def hash(self) -> str:
        """SHA-256 over all weights files."""
        ...

    def detect(self, images: Sequence[RGB]) -> list[Detections]:
        """One answer a picture, in order. Pictures: uint8 RGB (height, width, 3), any sizes mixed."""
        ...


def load_detector(config: DetectorConfig) -> Detector:
    """Load the weights that `config` names.

    Raises:
        NotFoundError: weights are missing (and cannot be fetched).
        UserError: the file is not such a model, or the `ultralytics` extra is not installed.
    """
    # Imported here: ONNX Runtime and ultralytics take seconds to import, and only one of them is needed.
    if config.kind == "yolox":
        from onmodel.detection.yolox import YoloxDetector

        return YoloxDetector(config)
    with collector_paused():
        from onmodel.detection.ultralytics import UltralyticsDetector

    return UltralyticsDetector(config)
