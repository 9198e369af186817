"""The pictures' sizes as SDXL is told them."""

from collections.abc import Sequence
from functools import cache
from pathlib import Path

import torch
from torch import Tensor

from onmodel.core import images
from onmodel.core.buckets import Size


@cache
def picture_size(path: Path) -> Size:
    """Width and height of a picture file, upright. Reads its header alone. Raises ImageError."""
    return images.size(path)


def size_conditioning(pictures: Sequence[tuple[Path, Size]]) -> Tensor:
    """What SDXL's UNet is told of each picture and its bucket (width, height): int64 (B, 6).

    Height and width as they were, top and left of the crop, height and width trained at. The crop is sd-scripts'
    (`BucketManager.get_crop_ltrb`): how far a picture of this shape, fitted inside the bucket, lies from its edges.
    """
    rows: list[list[int]] = []
    for path, (width, height) in pictures:
        original_width, original_height = picture_size(path)
        shape = original_width / original_height
        wider = width / height > shape
        fitted = (height * shape, height) if wider else (width, width / shape)
        left, top = int((width - fitted[0]) // 2), int((height - fitted[1]) // 2)
        rows.append([original_height, original_width, top, left, height, width])
    return torch.tensor(rows)
