"""Any detection, pose or segmentation weights of ultralytics. The package is AGPL-3.0 and an extra of ours."""

import os
from collections.abc import Sequence
from dataclasses import replace
from typing import Any

import numpy as np
import torch

from onmodel.core.errors import UserError
from onmodel.core.images import RGB
from onmodel.core.vocabulary import Detections, Instance, Keypoint
from onmodel.detection.boxes import assemble
from onmodel.detection.config import DetectorConfig
from onmodel.detection.faces import FaceFinder
from onmodel.detection.weights import find_weights, weights_hash


class UltralyticsDetector:
    """An ultralytics model behind arrays. Not safe for several threads at once."""

    def __init__(self, config: DetectorConfig) -> None:
        """Raises NotFoundError or UserError where weights or package cannot be had or are no such model."""
        self._config = config
        path = find_weights(config.weights)
        # Its own update checks and reports would leave the machine.
        os.environ.setdefault("YOLO_OFFLINE", "true")
        os.environ.setdefault("YOLO_VERBOSE", "false")
        try:
            from ultralytics import YOLO
        except ImportError:
            raise UserError(
                "the detector needs the `ultralytics` package, which is not installed; run"
                " `pip install 'onmodel[ultralytics]'` (AGPL-3.0) or choose `kind = \"yolox\"`"
            ) from None
        try:
            self._model: Any = YOLO(str(path), verbose=False)
            names: dict[int, str] = dict(self._model.names)
        except Exception as error:
            # Unpickling foreign files raises anything.
            raise UserError(
                f"{path}: not weights that ultralytics can load ({type(error).__name__}); give another"
            ) from None
        self._names: Sequence[str] = config.classes or [names[i] for i in sorted(names)]
        self._device = ("cuda" if torch.cuda.is_available() else "cpu") if config.device == "auto" else config.device
        self._faces = FaceFinder(config.face_weights, config.face_confidence) if config.face_weights else None
        self.name: str = path.stem + (f" + {self._faces.path.stem}" if self._faces else "")
        self.hash: str = weights_hash(config.weights, config.face_weights)
        self.task: str = str(self._model.task)
        """What the weights were made for: "detect", "segment", "pose", …"""
        if config.threads:
            torch.set_num_threads(config.threads)

    def detect(self, images: Sequence[RGB]) -> list[Detections]:
        """See `Detector.detect`."""
        answers: list[Detections] = []
        for start in range(0, len(images), self._config.batch_size):
            part = images[start : start + self._config.batch_size]
            # ultralytics takes BGR; its own merge is left loose, since ours knows roles.
            results: Any = self._model.predict(
                [np.ascontiguousarray(image[..., ::-1]) for image in part],
                imgsz=self._config.input_size,
                conf=min(self._config.confidence, self._config.part_confidence),
                iou=0.7,
                device=self._device,
                verbose=False,
            )
            answers += [self._read(result, image) for result, image in zip(results, part, strict=True)]
        return answers

    def _read(self, result: Any, image: RGB) -> Detections:
        boxes = np.asarray(result.boxes.xyxy.cpu(), dtype=np.float32).reshape(-1, 4)
        scores = np.asarray(result.boxes.conf.cpu(), dtype=np.float32)
        labels = np.asarray(result.boxes.cls.cpu()).astype(np.int64)
        found = assemble(image, boxes, scores, labels, self._names, self._config, self._faces)
        index = {tuple(box.tolist()): n for n, box in enumerate(boxes)}
        points, masks = getattr(result, "keypoints", None), getattr(result, "masks", None)
        rows = None if points is None or points.data is None else np.asarray(points.data.cpu(), dtype=np.float32)

        def enriched(instance: Instance) -> Instance:
            n = index.get(instance.box.as_tuple())
            if n is None:
                return instance
            return replace(
                instance,
                keypoints=() if rows is None else _keypoints(rows[n]),
                outline=() if masks is None else tuple((float(x), float(y)) for x, y in masks.xy[n]),
            )

        return replace(found, instances=tuple(map(enriched, found.instances)))


def _keypoints(rows: Any) -> tuple[Keypoint, ...]:
    return tuple(Keypoint(float(x), float(y), float(c[0]) if len(c) else 1.0) for x, y, *c in rows)
