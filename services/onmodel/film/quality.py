"""Frames that are no use to anybody: black, fading, title cards, blurred. Judged on the small copy of each frame."""

from collections.abc import Sequence
from enum import StrEnum

import cv2
import numpy as np
import numpy.typing as npt
from pydantic import Field

from onmodel.core.config import Config
from onmodel.core.images import RGB
from onmodel.core.likeness import NEAR_DUPLICATE_BITS

FADE_REACH = 4
"""Frames before and after that a fade is judged by."""
Thumb = npt.NDArray[np.float32]
"""float32 (18, 32), grey 0 to 255."""


class Fault(StrEnum):
    """Why a frame is dropped before anybody looks at what it shows."""

    BLACK = "black"
    FADE = "fade"
    TITLE_CARD = "title_card"
    BLUR = "blur"
    NEAR_DUPLICATE = "near_duplicate"


class QualityConfig(Config):
    """When a frame is dropped."""

    black_level: float = Field(default=20.0, ge=0, le=255)
    """Darker than this on average (of 0 to 255), and nowhere twice as bright, is black."""
    fade_change: float = Field(default=9.0, gt=0)
    """A fade or dissolve changes the picture by this much (mean of 0 to 255) within eight frames …"""
    fade_residual: float = Field(default=0.2, gt=0, lt=1)
    """… and steadily: the middle frame differs from the mean of the outer two by less than this share of the change.
    Things that move do not blend: there the share is 0.4 and more."""
    fade_area: float = Field(default=0.75, gt=0, le=1)
    """… nearly everywhere: in this share of the picture."""
    title_ground: float = Field(default=0.6, gt=0, le=1)
    """A title card has one even colour over this share of the picture …"""
    title_stroke: float = Field(default=0.07, gt=0, lt=1)
    """… and before it thin strokes only: nothing wider than this share of the height."""
    blur_floor: float = Field(default=6.0, ge=0)
    """Sharpness (see core.likeness) below this is blurred whatever the film."""
    blur_share: float = Field(default=0.35, ge=0, lt=1)
    """So is a frame below this share of the median sharpness of its shot."""
    near_duplicate_bits: int = Field(default=NEAR_DUPLICATE_BITS, ge=-1, le=64)
    """Frames of a shot whose fingerprints differ in no more bits are one; -1 keeps all."""


def thumb(small: RGB) -> Thumb:
    """What fades are judged on."""
    grey = cv2.cvtColor(small, cv2.COLOR_RGB2GRAY)
    return cv2.resize(grey, (32, 18), interpolation=cv2.INTER_AREA).astype(np.float32)


def is_black(here: Thumb, config: QualityConfig) -> bool:
    """Whether nothing can be seen in a frame."""
    return float(here.mean()) < config.black_level and float(here.max()) < 2 * config.black_level


def is_fade(before: Thumb, here: Thumb, after: Thumb, config: QualityConfig) -> bool:
    """Whether `here` lies midway in a fade or a dissolve from `before` to `after`, taken at equal distances.

    A blend is linear in time, pixel by pixel; a camera or a character that moves is not.
    """
    change = np.abs(after - before)
    if float(change.mean()) < config.fade_change:
        return False
    residual = np.abs(here - (before + after) / 2)
    if float(residual.mean()) > config.fade_residual * float(change.mean()):
        return False
    return float(((change > 3.0) & (residual < 0.5 * change)).mean()) >= config.fade_area


def is_title_card(small: RGB, config: QualityConfig) -> bool:
    """Whether a uint8 RGB picture is lettering on an even ground (or the even ground alone)."""
    red, green, blue = (np.ascontiguousarray(small[..., channel]) for channel in range(3))
    coarse = [(channel >> 4).astype(np.uint16) for channel in (red, green, blue)]
    bins = coarse[0] << 8 | coarse[1] << 4 | coarse[2]
    ground = bins == np.bincount(bins.ravel(), minlength=4096).argmax()
    # Channel by channel: sums and maxima along an axis of three are slow.
    off = np.zeros(ground.shape, dtype=np.float32)
    for channel in (red, green, blue):
        off = np.maximum(off, np.abs(channel.astype(np.float32) - float(channel[ground].mean())))
    other = (off > 24).astype(np.uint8)
    if 1 - float(other.mean()) < config.title_ground:
        return False
    side = max(3, round(config.title_stroke * small.shape[0]))
    return not cv2.morphologyEx(other, cv2.MORPH_OPEN, np.ones((side, side), np.uint8)).any()


def is_blurred(sharp: float, shot: Sequence[float], config: QualityConfig) -> bool:
    """Whether a frame is blurred, given its sharpness and that of its shot's frames so far."""
    if sharp < config.blur_floor:
        return True
    return len(shot) >= 5 and sharp < config.blur_share * float(np.median(shot))
