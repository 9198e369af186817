"""Pictures of noise."""

import numpy as np

from onmodel.core.images import RGB, encode_png


def noise(seed: int, height: int = 40, width: int = 56) -> RGB:
    """A picture of noise."""
    return np.random.default_rng(seed).integers(0, 256, (height, width, 3), dtype=np.uint8)


def noise_png(seed: int) -> bytes:
    """The same, encoded."""
    return encode_png(noise(seed))
