"""Perceptual fingerprints and sharpness: which pictures show nearly the same, and which of them is best."""

import cv2
import imagehash
import numpy as np
from PIL import Image

from onmodel.core.images import RGB

NEAR_DUPLICATE_BITS = 6
"""Pictures whose fingerprints differ in no more bits are near-duplicates: neighbouring frames of a still shot differ in
0 to 4, different pictures of one scene mostly in 10 and more."""
_SIDE = 256
"""Longer side in pixels at which sharpness is measured, so that pictures of different sizes compare."""


def fingerprint(image: RGB) -> int:
    """64-bit perceptual hash (pHash: signs of the lowest 8 x 8 DCT coefficients about their median) of uint8 RGB."""
    return int(str(imagehash.phash(Image.fromarray(image))), 16)


def distance(first: int, second: int) -> int:
    """Bits in which two fingerprints differ, 0 to 64."""
    return (first ^ second).bit_count()


def sharpness(image: RGB) -> float:
    """Variance of the Laplacian of the grey picture (Pech-Pacheco et al. 2000), the longer side at 256 px at most.

    0 for an even surface; motion blur and lack of focus lower it. Comparable between pictures of one film.
    """
    height, width = image.shape[:2]
    scale = min(1.0, _SIDE / max(height, width))
    grey = cv2.cvtColor(image, cv2.COLOR_RGB2GRAY)
    if scale < 1:
        size = (max(1, round(width * scale)), max(1, round(height * scale)))
        grey = cv2.resize(grey, size, interpolation=cv2.INTER_AREA)
    return float(np.var(cv2.Laplacian(grey, cv2.CV_64F)))
