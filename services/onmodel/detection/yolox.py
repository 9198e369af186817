"""YOLOX (Ge et al. 2021, Apache-2.0) through ONNX Runtime, with YuNet faces where configured."""

import os
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import cv2
import numpy as np
import numpy.typing as npt
import onnxruntime

from onmodel.core.errors import UserError
from onmodel.core.images import RGB
from onmodel.core.vocabulary import Detections
from onmodel.detection.boxes import assemble
from onmodel.detection.config import DetectorConfig
from onmodel.detection.faces import FaceFinder
from onmodel.detection.weights import find_weights, weights_hash

Floats = npt.NDArray[np.float32]
STRIDES = (8, 16, 32)
PAD = 114.0
"""The grey that YOLOX was trained to see around a letterboxed picture."""

COCO = (
    "person", "bicycle", "car", "motorcycle", "airplane", "bus", "train", "truck", "boat", "traffic light",
    "fire hydrant", "stop sign", "parking meter", "bench", "bird", "cat", "dog", "horse", "sheep", "cow", "elephant",
    "bear", "zebra", "giraffe", "backpack", "umbrella", "handbag", "tie", "suitcase", "frisbee", "skis", "snowboard",
    "sports ball", "kite", "baseball bat", "baseball glove", "skateboard", "surfboard", "tennis racket", "bottle",
    "wine glass", "cup", "fork", "knife", "spoon", "bowl", "banana", "apple", "sandwich", "orange", "broccoli",
    "carrot", "hot dog", "pizza", "donut", "cake", "chair", "couch", "potted plant", "bed", "dining table", "toilet",
    "tv", "laptop", "mouse", "remote", "keyboard", "cell phone", "microwave", "oven", "toaster", "sink",
    "refrigerator", "book", "clock", "vase", "scissors", "teddy bear", "hair drier", "toothbrush",
)  # fmt: skip


def letterbox(image: RGB, side: int) -> tuple[Floats, float]:
    """Scale a picture into the top left of a grey square.

    Args:
        image: uint8 RGB (height, width, 3).
        side: of the square, in pixels.

    Returns:
        float32 (3, side, side), BGR, 0 to 255; and the factor from the picture's pixels to the square's.
    """
    height, width = image.shape[:2]
    scale = min(side / height, side / width)
    size = (max(1, round(width * scale)), max(1, round(height * scale)))
    small = cv2.resize(image, size, interpolation=cv2.INTER_LINEAR)
    square = np.full((side, side, 3), PAD, dtype=np.float32)
    square[: size[1], : size[0]] = small[..., ::-1]
    return np.ascontiguousarray(square.transpose(2, 0, 1)), scale


def grid(side: int) -> tuple[Floats, Floats]:
    """Cell corners (N, 2) and strides (N, 1) of all predictions, in the model's order."""
    corners: list[Floats] = []
    strides: list[Floats] = []
    for stride in STRIDES:
        cells = side // stride
        y, x = np.mgrid[:cells, :cells]
        corners.append(np.stack([x, y], axis=-1).reshape(-1, 2).astype(np.float32))
        strides.append(np.full((cells * cells, 1), stride, dtype=np.float32))
    return np.concatenate(corners), np.concatenate(strides)


class YoloxDetector:
    """A YOLOX export (outputs not decoded: (N, cells, 5 + classes)). Not safe for several threads at once."""

    def __init__(self, config: DetectorConfig) -> None:
        """Raises NotFoundError or UserError where the weights cannot be had or are no such model."""
        self._config = config
        path = find_weights(config.weights)
        self._session = _session(path, config)
        entry = self._session.get_inputs()[0]
        shape = list(entry.shape)
        self._input: str = entry.name
        self._side = int(shape[2]) if isinstance(shape[2], int) else config.input_size // 32 * 32
        # The published nano export takes exactly one picture; an export with a free first axis takes a batch.
        self._batch = int(shape[0]) if isinstance(shape[0], int) else config.batch_size
        self._corners, self._strides = grid(self._side)
        self._names = config.classes or COCO
        self._faces = FaceFinder(config.face_weights, config.face_confidence) if config.face_weights else None
        self.name: str = path.stem + (f" + {self._faces.path.stem}" if self._faces else "")
        self.hash: str = weights_hash(config.weights, config.face_weights)
        self._check_output(path)

    def _check_output(self, path: Path) -> None:
        blank = np.zeros((self._batch, 3, self._side, self._side), dtype=np.float32)
        shape = self._run(blank).shape
        if len(shape) != 3 or shape[1] != len(self._corners) or shape[2] != 5 + len(self._names):
            raise UserError(
                f"{path}: not an undecoded YOLOX export of {len(self._names)} classes at {self._side} px (its output"
                f" is {shape}); give its class names as `classes` and its size as `input_size`"
            )

    def _run(self, batch: Floats) -> Floats:
        outputs: Any = self._session.run(None, {self._input: batch})
        return np.asarray(outputs[0], dtype=np.float32)

    def detect(self, images: Sequence[RGB]) -> list[Detections]:
        """See `Detector.detect`."""
        answers: list[Detections] = []
        for start in range(0, len(images), self._batch):
            part = images[start : start + self._batch]
            boxed = [letterbox(image, self._side) for image in part]
            batch = np.stack([square for square, _ in boxed])
            if len(part) < self._batch:
                batch = np.concatenate([batch, np.zeros((self._batch - len(part), *batch.shape[1:]), np.float32)])
            outputs = self._run(batch)
            answers += [self._read(o, scale, i) for o, (_, scale), i in zip(outputs, boxed, part, strict=False)]
        return answers

    def _read(self, output: Floats, scale: float, image: RGB) -> Detections:
        """One picture's raw output, (cells, 5 + classes), to detections."""
        config = self._config
        height, width = image.shape[:2]
        scores = output[:, 4:5] * output[:, 5:]
        labels = scores.argmax(axis=1)
        best = scores[np.arange(len(scores)), labels]
        hit = best >= min(config.confidence, config.part_confidence)
        center = (output[hit, :2] + self._corners[hit]) * self._strides[hit]
        half = np.exp(output[hit, 2:4]) * self._strides[hit] / 2
        boxes = np.concatenate([center - half, center + half], axis=1) / scale
        boxes = np.clip(boxes, 0, [width, height, width, height]).astype(np.float32)
        return assemble(image, boxes, best[hit], labels[hit].astype(np.int64), self._names, config, self._faces)


def _session(path: Path, config: DetectorConfig) -> onnxruntime.InferenceSession:
    options = onnxruntime.SessionOptions()
    options.intra_op_num_threads = config.threads or len(os.sched_getaffinity(0))
    # Waiting threads that spin take the cores away from decoding and from other replicas.
    options.add_session_config_entry("session.intra_op.allow_spinning", "0")
    available = onnxruntime.get_available_providers()
    wanted = ["CPUExecutionProvider"]
    if config.device != "cpu" and "CUDAExecutionProvider" in available:
        wanted.insert(0, "CUDAExecutionProvider")
    try:
        return onnxruntime.InferenceSession(str(path), options, providers=wanted)
    except Exception as error:
        # ONNX Runtime raises a dozen unrelated types for a file it cannot use.
        raise UserError(
            f"{path}: not a model that ONNX Runtime can load ({type(error).__name__}); give another"
        ) from None
