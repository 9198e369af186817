"""Faces by YuNet (opencv_zoo, `cv2.FaceDetectorYN`), and what becomes of a face without a body."""

from pathlib import Path

import cv2

from onmodel.core.errors import UserError
from onmodel.core.images import RGB
from onmodel.core.vocabulary import Box, Instance
from onmodel.detection.weights import find_weights

# YuNet finds faces of about 10 to 300 pixels; at this longer side that is 3 to 100 % of a picture's height.
LONGER_SIDE = 416


class FaceFinder:
    """YuNet behind arrays. Not safe for several threads at once."""

    def __init__(self, weights: str, confidence: float) -> None:
        """Raises NotFoundError or UserError where `weights` cannot be had or is no such model."""
        self.path: Path = find_weights(weights)
        # OpenCV writes a warning about its own engine choice to standard error with each model.
        cv2.utils.logging.setLogLevel(cv2.utils.logging.LOG_LEVEL_ERROR)
        try:
            self._net = cv2.FaceDetectorYN.create(str(self.path), "", (320, 320), confidence, 0.3, 50)
        except cv2.error:
            raise UserError(f"{self.path}: not a YuNet face model that OpenCV can read; give another") from None

    def find(self, image: RGB) -> list[tuple[Box, float]]:
        """Faces in a uint8 RGB picture: boxes in its pixels, clipped to it, with confidence 0 to 1."""
        height, width = image.shape[:2]
        scale = LONGER_SIDE / max(height, width)
        size = (max(16, round(width * scale)), max(16, round(height * scale)))
        small = cv2.resize(image, size, interpolation=cv2.INTER_AREA if scale < 1 else cv2.INTER_LINEAR)
        self._net.setInputSize(size)
        _, rows = self._net.detect(cv2.cvtColor(small, cv2.COLOR_RGB2BGR))
        found: list[tuple[Box, float]] = []
        # OpenCV's stub says that rows is always an array; where no face is found it is None.
        for row in [] if rows is None else rows:  # pyright: ignore[reportUnnecessaryComparison]
            x, y, w, h = (float(v) for v in row[:4])
            kx, ky = width / size[0], height / size[1]
            box = Box(x * kx, y * ky, (x + w) * kx, (y + h) * ky).clip(width, height)
            if box.area > 0:
                found.append((box, float(row[14])))
        return found


def body_from_face(face: Box, confidence: float, width: int, height: int) -> Instance:
    """A character guessed from its face alone: the head, and shoulders down to three face heights below it.

    The guess is short on purpose: a face without a found body is mostly a close-up.
    """
    box = Box(
        face.x0 - face.width, face.y0 - 0.6 * face.height, face.x1 + face.width, face.y1 + 2.0 * face.height
    ).clip(width, height)
    return Instance(box, confidence, "face", face)
