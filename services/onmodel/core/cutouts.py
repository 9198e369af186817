"""Crops of characters for image encoders, and what is greyed out of them.

Crops are squares: the box with a small margin, the rest padded with neutral grey. An image encoder cuts the middle
square out of what it is given, which would take head and feet from a standing character.
"""

from collections.abc import Sequence

import cv2
import numpy as np

from onmodel.core.images import RGB
from onmodel.core.vocabulary import Box

GREY = 127
MARGIN = 0.06
"""Share of the box's longer side that a crop shows beyond the box."""
LARGEST_CROP = 256
"""Side in pixels that larger crops are brought to: image encoders take 224, and hundreds are kept in memory."""


def square_crop(image: RGB, box: Box) -> tuple[RGB, Box]:
    """The square around `box` with a margin, grey beyond the margin and the picture; and that square in pixels."""
    side = max(box.width, box.height) * (1 + 2 * MARGIN)
    (x, y) = box.center
    square = Box(x - side / 2, y - side / 2, x + side / 2, y + side / 2)
    pad = max(box.width, box.height) * MARGIN
    height, width = image.shape[:2]
    shown = Box(box.x0 - pad, box.y0 - pad, box.x1 + pad, box.y1 + pad).clip(width, height)
    pixels = max(1, round(side))
    canvas = np.full((pixels, pixels, 3), GREY, dtype=np.uint8)
    x0, y0, x1, y1 = (round(v) for v in shown.as_tuple())
    to_x, to_y = max(0, round(x0 - square.x0)), max(0, round(y0 - square.y0))
    patch = image[y0:y1, x0:x1][: max(0, pixels - to_y), : max(0, pixels - to_x)]
    canvas[to_y : to_y + patch.shape[0], to_x : to_x + patch.shape[1]] = patch
    if pixels > LARGEST_CROP:
        canvas = cv2.resize(canvas, (LARGEST_CROP, LARGEST_CROP), interpolation=cv2.INTER_AREA).astype(np.uint8)
    return canvas, square


def grey_boxes(crop: RGB, boxes: Sequence[Box]) -> RGB:
    """A copy of a square crop with `boxes` (in shares of its side) greyed out."""
    side = crop.shape[0]
    copy = crop.copy()
    for box in boxes:
        x0, y0, x1, y1 = (round(min(max(v, 0.0), 1.0) * side) for v in box.as_tuple())
        copy[y0:y1, x0:x1] = GREY
    return copy


def grey_surroundings(crop: RGB, aspect: float) -> RGB:
    """A copy of a square crop, grey outside a rounded shape of the box's `aspect` (width over height).

    A superellipse of exponent 3 inscribed in the box: it keeps head, torso and legs and drops the corners, where
    background shows. The same shape is laid over references, so what it cuts off is missing on both sides.
    """
    side = crop.shape[0]
    along = (np.arange(side, dtype=np.float64) + 0.5) / side * 2 - 1
    reach = 1 / (1 + 2 * MARGIN)
    half_width, half_height = reach * min(1.0, aspect), reach * min(1.0, 1 / aspect)
    inside = np.abs(along[None, :] / half_width) ** 3 + np.abs(along[:, None] / half_height) ** 3 <= 1.0
    return np.where(inside[..., None], crop, np.uint8(GREY))
