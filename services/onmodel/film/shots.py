"""Where one shot ends and the next begins: PySceneDetect's adaptive detector, fed with frames decoded already."""

import collections
from collections.abc import Iterable, Iterator

import cv2
import numpy as np
from pydantic import Field
from scenedetect import FrameTimecode
from scenedetect.detectors import AdaptiveDetector

from onmodel.core.config import Config
from onmodel.core.images import RGB
from onmodel.film.decode import Frame

_WINDOW = 2
"""Frames before and after a cut that the detector compares it with, so it answers this many frames late."""


class ShotConfig(Config):
    """When a change between two frames is a cut."""

    adaptive_threshold: float = Field(default=3.0, gt=0)
    """A cut changes the picture this many times as much as the frames around it do (PySceneDetect's default)."""
    min_content: float = Field(default=15.0, ge=0)
    """And at least this much: mean change of hue, saturation and brightness, 0 to 255 (its default)."""
    min_frames: int = Field(default=6, ge=1)
    """A shot has at least this many frames."""


class Cuts:
    """Tells the first frame of each shot, a few frames late."""

    def __init__(self, config: ShotConfig) -> None:
        self._detector = AdaptiveDetector(
            adaptive_threshold=config.adaptive_threshold,
            min_scene_len=config.min_frames,
            window_width=_WINDOW,
            min_content_val=config.min_content,
        )
        self._count = 0

    def push(self, frame: Frame) -> int | None:
        """Number of the frame (counted from the first one pushed) that a cut is now known to stand before."""
        # The frame rate is nominal: the detector counts frames, and a variable rate has no other unit.
        timecode = FrameTimecode(self._count, 25.0)
        self._count += 1
        found = self._detector.process_frame(timecode, cv2.cvtColor(_half(frame.small), cv2.COLOR_RGB2BGR))
        return found[0].frame_num if found else None


def _half(small: RGB) -> RGB:
    """Cuts are as plain at half the size, for a quarter of the work."""
    size = (max(1, small.shape[1] // 2), max(1, small.shape[0] // 2))
    return cv2.resize(small, size, interpolation=cv2.INTER_AREA).astype(np.uint8)


def with_cuts(frames: Iterable[tuple[Frame, bool]], config: ShotConfig) -> Iterator[tuple[Frame, bool, bool]]:
    """Add to each (frame, beyond) whether a new shot begins with it."""
    cuts = Cuts(config)
    waiting: collections.deque[tuple[int, Frame, bool]] = collections.deque()
    known: set[int] = set()
    for number, (frame, beyond) in enumerate(frames):
        waiting.append((number, frame, beyond))
        cut = cuts.push(frame)
        if cut is not None:
            known.add(cut)
        if len(waiting) > _WINDOW:
            index, ready, outside = waiting.popleft()
            yield ready, outside, index in known
    for index, ready, outside in waiting:
        yield ready, outside, index in known
