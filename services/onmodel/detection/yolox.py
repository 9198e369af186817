"""YOLOX (Ge et al. 2021, Apache-2.0) through ONNX Runtime, with YuNet faces where configured."""

import os
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
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
Labels = npt.NDArray[np.int64]
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
        roles = [config.role(name) for name in self._names]
        self._character = np.array([role == "character" for role in roles])
        self._excluded = np.array([role == "none" for role in roles])
        self._part = np.array([role in ("face", "occluder") for role in roles])
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
        seen = [views(image) if self._config.thorough else [View(image)] for image in images]
        flat = [view for part in seen for view in part]
        outputs = iter(self._outputs([view.image for view in flat]))
        return [
            self._merge([self._read(view, *next(outputs)) for view in part], image)
            for part, image in zip(seen, images, strict=True)
        ]

    def _outputs(self, images: Sequence[RGB]) -> Iterator[tuple[Floats, float]]:
        """Raw output (cells, 5 + classes) and letterbox scale of each picture, run in the export's batches."""
        for start in range(0, len(images), self._batch):
            boxed = [letterbox(image, self._side) for image in images[start : start + self._batch]]
            batch = np.zeros((self._batch, 3, self._side, self._side), dtype=np.float32)
            batch[: len(boxed)] = [square for square, _ in boxed]
            yield from zip(self._run(batch), [scale for _, scale in boxed], strict=False)

    def _read(self, view: "View", output: Floats, scale: float) -> tuple[Floats, Floats, Labels]:
        """Boxes in the whole picture's pixels, scores and labels of one view, before merging."""
        height, width = view.image.shape[:2]
        scores, labels = self._score(output)
        hit = scores >= min(self._config.confidence, self._config.part_confidence)
        center = (output[hit, :2] + self._corners[hit]) * self._strides[hit]
        half = np.exp(output[hit, 2:4]) * self._strides[hit] / 2
        boxes = np.concatenate([center - half, center + half], axis=1) / scale
        boxes = np.clip(boxes, 0, [width, height, width, height]).astype(np.float32)
        whole = ~view.cuts(boxes)
        return view.to_picture(boxes[whole]), scores[hit][whole], labels[hit][whole]

    def _score(self, output: Floats) -> tuple[Floats, Labels]:
        """Confidence and label of each cell; 0 where an excluded class is likelier than all characters together.

        An animated animal is a bit of cow, dog and sheep: what counts is the chance of any of them.
        """
        objectness, chances = output[:, 4], output[:, 5:]
        if not self._config.class_agnostic:
            labels = chances.argmax(axis=1)
            return objectness * chances[np.arange(len(chances)), labels], labels
        any_character = 1 - np.prod(1 - chances[:, self._character], axis=1)
        any_excluded = 1 - np.prod(1 - chances[:, self._excluded], axis=1)
        parts = np.where(self._part, chances, 0)
        is_part = parts.max(axis=1) > any_character
        labels = np.where(is_part, parts.argmax(axis=1), np.where(self._character, chances, 0).argmax(axis=1))
        best = np.where(is_part, parts.max(axis=1), any_character)
        return np.where(best >= any_excluded, objectness * best, 0).astype(np.float32), labels

    def _merge(self, found: list[tuple[Floats, Floats, Labels]], image: RGB) -> Detections:
        boxes, scores, labels = (np.concatenate(part) for part in zip(*found, strict=True))
        return assemble(image, boxes, scores, labels, self._names, self._config, self._faces)


@dataclass(frozen=True, slots=True)
class View:
    """A part of a picture, or its mirror image."""

    image: RGB
    """uint8 RGB (height, width, 3)."""
    offset: tuple[int, int] = (0, 0)
    """Where the view's left upper corner is in the picture: x, y."""
    inner: tuple[bool, bool, bool, bool] = (False, False, False, False)
    """Which of left, top, right, bottom is an edge of the view but not of the picture."""
    mirrored: bool = False

    def cuts(self, boxes: Floats) -> npt.NDArray[np.bool_]:
        """Which boxes (N, 4) an inner edge may cut: other views show those whole."""
        height, width = self.image.shape[:2]
        margin = 0.011 * max(width, height)
        near = [
            boxes[:, 0] <= margin,
            boxes[:, 1] <= margin,
            boxes[:, 2] >= width - margin,
            boxes[:, 3] >= height - margin,
        ]
        return np.any([hit & inner for hit, inner in zip(near, self.inner, strict=True)], axis=0)

    def to_picture(self, boxes: Floats) -> Floats:
        """Boxes (N, 4) of the view in the picture's pixels."""
        if self.mirrored:
            width = self.image.shape[1]
            boxes = np.stack([width - boxes[:, 2], boxes[:, 1], width - boxes[:, 0], boxes[:, 3]], axis=1)
        x, y = self.offset
        return (boxes + np.array([x, y, x, y])).astype(np.float32)


def views(image: RGB) -> list[View]:
    """The picture, its mirror image, and three squares along the longer side of one much longer than wide or high."""
    height, width = image.shape[:2]
    made = [View(image), View(np.ascontiguousarray(image[:, ::-1]), mirrored=True)]
    side, longer = min(height, width), max(height, width)
    if longer < 1.25 * side:
        return made
    for start in (0, (longer - side) // 2, longer - side):
        before, after = start > 0, start + side < longer
        if width > height:
            part, offset, inner = image[:, start : start + side], (start, 0), (before, False, after, False)
        else:
            part, offset, inner = image[start : start + side], (0, start), (False, before, False, after)
        made.append(View(np.ascontiguousarray(part), offset, inner))
    return made


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
