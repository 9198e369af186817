"""Plain backgrounds guessed behind a character from what is seen around it, and what differs from the guess.

Two guesses: row by row a straight line through what is left and right of the character, which fits walls, floors and
horizons; and one smooth surface over the whole picture, which fits glows and skies. The one that fits better is taken.
"""

from dataclasses import dataclass

import cv2
import numpy as np
import numpy.typing as npt

from onmodel.core.images import RGB
from onmodel.core.masks import Mask
from onmodel.core.vocabulary import Box

Pixels = npt.NDArray[np.float64]
"""float64 (height, width, 3), 0 to 255."""

RESIDUAL = 4.0
"""A row's background is known where it differs from its guess by no more (95th percentile, of 255)."""
LEAST_ROWS = 0.6
"""Share of the rows whose background must be known."""
DEGREE = 4
"""Of the surface: a lamp's glow needs the fourth."""
LEAST_STEP = 8.0
"""Least difference from the guess, of 255, that is no background."""


@dataclass(frozen=True, slots=True)
class _Guess:
    pixels: Pixels
    residual: npt.NDArray[np.float64]
    """Of each row; infinite where nothing is known."""

    @property
    def known(self) -> float:
        """Share of rows that are known."""
        return float((self.residual <= RESIDUAL).mean())


def difference(image: RGB, box: Box, cut: Mask, *, standing: bool) -> Mask | None:
    """Pixels in and near a box that differ from a plain background; None where that is not known well enough.

    Args:
        image: uint8 RGB (height, width, 3).
        box: around the character, pixels.
        cut: another cut of it, whose pixels stand in rows whose background is not known.
        standing: whether its feet are in the picture, with a shadow at them.

    Returns:
        bool (height, width).
    """
    height, width = image.shape[:2]
    pad = 0.06 * max(box.width, box.height)
    x0, x1 = int(max(0, box.x0 - pad)), int(min(width, box.x1 + pad + 1))
    y0, y1 = int(max(0, box.y0 - pad)), int(min(height, box.y1 + pad + 1))
    guess = max((_by_rows(image, x0, x1, y0, y1), _surface(image, x0, x1, y0, y1)), key=lambda each: each.known)
    if guess.known < LEAST_ROWS:
        return None
    here = image[y0:y1, x0:x1].astype(np.float64)
    known = guess.residual <= RESIDUAL
    step = np.maximum(LEAST_STEP, 2.5 * np.where(known, guess.residual, 0.0))
    differs: Mask = np.abs(here - guess.pixels).max(axis=2) > step[:, None]
    if standing:
        differs &= ~_shadow(here, guess.pixels, from_row=int(0.8 * (y1 - y0)))
    differs[~known] = cut[y0:y1, x0:x1][~known]
    full = np.zeros((height, width), dtype=np.bool_)
    full[y0:y1, x0:x1] = differs
    return full


def _by_rows(image: RGB, x0: int, x1: int, y0: int, y1: int) -> _Guess:
    """A straight line a row through both sides; where one side is missing, the mean of the other."""
    width = image.shape[1]
    reach, least = max(4, int(0.3 * (x1 - x0))), max(3, width // 64)
    sides = [np.arange(max(0, x0 - reach), x0), np.arange(x1, min(width, x1 + reach))]
    sides = [side for side in sides if len(side) >= least]
    shape = (y1 - y0, x1 - x0, 3)
    if not sides:
        return _Guess(np.zeros(shape), np.full(y1 - y0, np.inf))
    around = np.concatenate(sides)
    powers = np.arange(len(sides))
    seen = image[y0:y1, around].astype(np.float64)
    at = (around / width)[:, None] ** powers
    solved = np.linalg.lstsq(at, seen.transpose(1, 0, 2).reshape(len(around), -1), rcond=None)[0]
    fitted = (at @ solved).reshape(len(around), y1 - y0, 3).transpose(1, 0, 2)
    across = (np.arange(x0, x1) / width)[:, None] ** powers
    pixels = (across @ solved).reshape(x1 - x0, y1 - y0, 3).transpose(1, 0, 2)
    return _Guess(pixels, np.quantile(np.abs(fitted - seen).max(axis=2), 0.95, axis=1))


def _surface(image: RGB, x0: int, x1: int, y0: int, y1: int) -> _Guess:
    """One polynomial in x and y through everything outside the window."""
    height, width = image.shape[:2]
    # 64 pixels say as much of a smooth surface as all.
    scale = min(1.0, 64 / max(height, width))
    size = (max(8, round(width * scale)), max(8, round(height * scale)))
    small = cv2.resize(image, size, interpolation=cv2.INTER_AREA).astype(np.float64)
    x = (np.arange(size[0]) + 0.5) / size[0]
    y = (np.arange(size[1]) + 0.5) / size[1]
    outside = ~(
        ((x >= x0 / width - 0.02) & (x <= x1 / width + 0.02))[None, :]
        & ((y >= y0 / height - 0.02) & (y <= y1 / height + 0.02))[:, None]
    )
    if outside.mean() < 0.15:
        return _Guess(np.zeros((y1 - y0, x1 - x0, 3)), np.full(y1 - y0, np.inf))
    at = _terms(x[None, :], y[:, None])
    solved = np.linalg.lstsq(at[outside], small[outside], rcond=None)[0]
    residual = float(np.quantile(np.abs(at[outside] @ solved - small[outside]).max(axis=1), 0.95))
    columns, rows = (np.arange(x0, x1) + 0.5) / width, (np.arange(y0, y1) + 0.5) / height
    return _Guess(_terms(columns[None, :], rows[:, None]) @ solved, np.full(y1 - y0, residual))


def _terms(x: npt.NDArray[np.float64], y: npt.NDArray[np.float64]) -> npt.NDArray[np.float64]:
    """All products of powers of x (1, width) and y (height, 1) up to `DEGREE`: (height, width, terms)."""
    powers = [(i, j) for i in range(DEGREE + 1) for j in range(DEGREE + 1 - i)]
    return np.stack([(2 * x - 1) ** i * (2 * y - 1) ** j for i, j in powers], axis=-1)


def _shadow(here: Pixels, guess: Pixels, from_row: int) -> Mask:
    """Pixels near the feet that are the background, only darker."""
    ratio = (here + 4) / np.maximum(guess + 4, 1.0)
    mean = ratio.mean(axis=2)
    found = (mean < 1) & (mean > 0.4) & (np.ptp(ratio, axis=2) < 0.08)
    found[:from_row] = False
    return found
