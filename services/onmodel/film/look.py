"""How extraction looks at pictures: boxes, framing and embeddings, by models of this process or by running services."""

import hashlib
import os
import queue
from collections.abc import Callable, Generator, Sequence
from concurrent.futures import ThreadPoolExecutor
from contextlib import contextmanager
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Protocol, TypeVar

import numpy as np
import numpy.typing as npt

from onmodel.common.convert import ModelInfo
from onmodel.core.errors import ImageError
from onmodel.core.images import RGB, encode_png
from onmodel.detection.client import DetectionClient
from onmodel.detection.config import DetectorConfig
from onmodel.detection.config import ShotConfig as Thresholds
from onmodel.detection.convert import Detected
from onmodel.detection.model import Detector, load_detector
from onmodel.detection.service import detect_and_decide
from onmodel.scoring.client import ScoringClient
from onmodel.scoring.config import ScorerConfig

if TYPE_CHECKING:
    from onmodel.scoring.model import Scorer

Embeddings = npt.NDArray[np.float32]
"""float32 (count, width); rows have unit length."""
Item = TypeVar("Item")
Answer = TypeVar("Answer")


class Look(Protocol):
    """Looks at pictures. Safe from several threads."""

    @property
    def detector(self) -> ModelInfo:
        """Which detector answers, under which settings: facts are kept under it."""
        ...

    @property
    def models(self) -> str:
        """SHA-256 over everything that can change an answer."""
        ...

    @property
    def thresholds(self) -> Thresholds:
        """By which shot types and attributes are decided."""
        ...

    def detect(self, images: Sequence[RGB]) -> list[Detected]:
        """What is in each picture, in order: uint8 RGB of any sizes."""
        ...

    def embed(self, images: Sequence[RGB]) -> Embeddings:
        """float32 (len(images), width), unit rows."""
        ...

    def embed_texts(self, texts: Sequence[str]) -> Embeddings:
        """float32 (len(texts), width), unit rows."""
        ...


@dataclass(frozen=True, slots=True)
class LookConfig:
    """Which models look, so that another process can load the same. Picklable."""

    detector: DetectorConfig = field(default_factory=DetectorConfig)
    scorer: ScorerConfig = field(default_factory=ScorerConfig)
    address: str | None = None
    """HOST:PORT of running services, whose own models then count."""

    def open(self, *, workers: int = 0) -> "LocalLook | RemoteLook":
        """Load the models, or connect. `workers`: pictures detected at once; 0 = one a core."""
        if self.address is not None:
            return RemoteLook(self.address, self.detector.shots)
        return LocalLook(self.detector, self.scorer, workers=workers)


def _together(*parts: str) -> str:
    return hashlib.sha256(" ".join(parts).encode()).hexdigest()


class LocalLook:
    """Models in this process: several detectors side by side, each on one core, and one scorer."""

    def __init__(self, detector: DetectorConfig, scorer: ScorerConfig | None = None, *, workers: int = 0) -> None:
        """Raises NotFoundError or UserError where weights cannot be had."""
        # Imported here: torch takes seconds, and services elsewhere or a stand-in need none of it.
        from onmodel.scoring.model import load_scorer

        self._config = detector
        self._workers = workers or max(1, len(os.sched_getaffinity(0)))
        one_core = detector.model_copy(update={"threads": 1}) if detector.device in ("auto", "cpu") else detector
        self._idle: queue.SimpleQueue[Detector] = queue.SimpleQueue()
        first = load_detector(one_core)
        self._idle.put(first)
        for _ in range(self._workers - 1):
            self._idle.put(load_detector(one_core))
        self._scorer: Scorer = load_scorer(scorer or ScorerConfig())
        self._pool = ThreadPoolExecutor(self._workers, thread_name_prefix="look")
        self.detector = ModelInfo(first.name, first.hash, detector.hash)
        self.models = _together(first.hash, detector.hash, self._scorer.hash, self._scorer.config_hash)
        self.thresholds = detector.shots

    def detect(self, images: Sequence[RGB]) -> list[Detected]:
        """See `Look.detect`."""
        batch = min(self._config.batch_size, max(1, -(-len(images) // self._workers)))
        return self._spread(images, batch, self._detect)

    def _detect(self, images: Sequence[RGB]) -> list[Detected]:
        with self._borrowed() as detector:
            return detect_and_decide(detector, self._config, images)

    @contextmanager
    def _borrowed(self) -> Generator[Detector]:
        detector = self._idle.get()
        try:
            yield detector
        finally:
            self._idle.put(detector)

    def embed(self, images: Sequence[RGB]) -> Embeddings:
        """See `Look.embed`."""
        if not len(images):
            return np.zeros((0, 0), np.float32)
        pixels = self._spread(images, 8, lambda part: [self._scorer.prepare(image) for image in part])
        return np.concatenate([self._scorer.embed_pixels(pixels[at : at + 32]) for at in range(0, len(pixels), 32)])

    def embed_texts(self, texts: Sequence[str]) -> Embeddings:
        """See `Look.embed_texts`."""
        return self._scorer.embed_texts(texts)

    def close(self) -> None:
        """End the threads."""
        self._pool.shutdown()

    def _spread(
        self, items: Sequence[Item], batch: int, work: Callable[[Sequence[Item]], list[Answer]]
    ) -> list[Answer]:
        parts = [items[at : at + batch] for at in range(0, len(items), batch)]
        return [answer for part in self._pool.map(work, parts) for answer in part]


class RemoteLook:
    """Services at an address. Pictures travel as PNG, so that they are the very pixels."""

    def __init__(self, address: str, thresholds: Thresholds) -> None:
        """Raises UserError for a malformed address, ServiceError where the services do not answer.

        `thresholds` decide about other instances than the main one that the service chose.
        """
        self._detection = DetectionClient(address)
        self._scoring = ScoringClient(address)
        self.detector = self._detection.model_info()
        scorer = self._scoring.model_info()
        self.models = _together(self.detector.hash, self.detector.config_hash, scorer.hash, scorer.config_hash)
        self.thresholds = thresholds

    def detect(self, images: Sequence[RGB]) -> list[Detected]:
        """See `Look.detect`. Raises ServiceError, or ImageError should a service refuse a picture."""
        return [_good(item) for item in self._detection.detect([encode_png(image) for image in images])]

    def embed(self, images: Sequence[RGB]) -> Embeddings:
        """See `Look.embed`. Raises as `detect`."""
        if not len(images):
            return np.zeros((0, 0), np.float32)
        return np.stack([_good(v) for v in self._scoring.embed_images([encode_png(image) for image in images])])

    def embed_texts(self, texts: Sequence[str]) -> Embeddings:
        """See `Look.embed_texts`."""
        return np.asarray(self._scoring.embed_texts(texts), dtype=np.float32)

    def close(self) -> None:
        """End the connections."""
        self._detection.close()
        self._scoring.close()


def _good(item: Answer | ImageError) -> Answer:
    if isinstance(item, ImageError):
        raise item
    return item
