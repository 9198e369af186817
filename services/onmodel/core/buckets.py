"""Aspect-ratio buckets as trainers have them: which sizes pictures are brought to, and the nearest to a picture."""

import math
from collections.abc import Sequence

Size = tuple[int, int]
"""Width and height in pixels."""


def bucket_sizes(size: Size, step: int, smallest: int, largest: int) -> list[Size]:
    """All bucket sizes, sorted; sd-scripts' rule.

    The square ⌊√area/step⌋·step; then widths in steps with height min(largest, ⌊area/width/step⌋·step); and transposes.

    Args:
        size: width and height whose area pictures are brought to.
        step: sides are multiples of it.
        smallest, largest: limits of a side.
    """
    area = size[0] * size[1]
    side = int(math.sqrt(area)) // step * step
    sizes = {(side, side)} if side else set[Size]()
    for width in range(max(step, smallest // step * step), largest + 1, step):
        height = min(largest, area // width // step * step)
        if height >= smallest:
            sizes |= {(width, height), (height, width)}
    return sorted(sizes) or [size]


def nearest_bucket(width: float, height: float, sizes: Sequence[Size]) -> Size:
    """The bucket with the nearest aspect ratio (in log space, so that 2:1 and 1:2 are as far from 1:1)."""
    ratio = math.log(width / height)
    return min(sizes, key=lambda size: (abs(math.log(size[0] / size[1]) - ratio), size))
