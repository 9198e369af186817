"""Aspect-ratio buckets and the order of an epoch: pure functions, nothing is ever dropped."""

import math
from collections.abc import Sequence
from dataclasses import dataclass

import torch
import torch.nn.functional as F
from torch import Tensor

from onmodel.core.buckets import Size
from onmodel.core.buckets import bucket_sizes as sizes_of
from onmodel.core.images import RGB
from onmodel.training.config import DataSection


def bucket_sizes(data: DataSection) -> list[Size]:
    """All bucket sizes of `data`, sorted; without buckets its one size."""
    if not data.enable_bucket:
        return [data.size]
    return sizes_of(data.size, data.bucket_reso_steps, data.min_bucket_reso, data.max_bucket_reso)


def cut_to_bucket(image: RGB, size: Size) -> Tensor:
    """Resize so that `image` covers `size`, crop the middle: float32 (3, height, width), -1 to 1, RGB."""
    width, height = size
    scale = max(width / image.shape[1], height / image.shape[0])
    covered = (max(height, round(image.shape[0] * scale)), max(width, round(image.shape[1] * scale)))
    pixels = torch.from_numpy(image.copy()).permute(2, 0, 1)[None].float()
    if covered != image.shape[:2]:
        pixels = F.interpolate(pixels, size=covered, mode="bicubic", antialias=True, align_corners=False)
    top, left = (covered[0] - height) // 2, (covered[1] - width) // 2
    pixels = pixels[0, :, top : top + height, left : left + width].clamp(0, 255)
    return pixels / 127.5 - 1


@dataclass(frozen=True)
class Batch:
    """The pictures of one forward pass over all workers."""

    pictures: tuple[int, ...]
    """Indices of pictures, all of one bucket."""


def seeded(*parts: int) -> torch.Generator:
    """A CPU generator seeded from `parts` alone, so that randomness has no history to save or lose."""
    seed = 0
    for part in parts:
        # SplitMix64's step and finaliser: near-equal parts give unrelated seeds.
        seed = (seed ^ part) + 0x9E3779B97F4A7C15 & 0xFFFFFFFFFFFFFFFF
        seed = (seed ^ seed >> 30) * 0xBF58476D1CE4E5B9 & 0xFFFFFFFFFFFFFFFF
        seed = (seed ^ seed >> 27) * 0x94D049BB133111EB & 0xFFFFFFFFFFFFFFFF
        seed ^= seed >> 31
    return torch.Generator().manual_seed(seed & 0x7FFFFFFFFFFFFFFF)


def plan_epoch(buckets: Sequence[Size], repeats: Sequence[int], batch: int, seed: int, epoch: int) -> list[Batch]:
    """The batches of one epoch: each picture as often as it repeats, batches of one bucket, the last ones short.

    Args:
        buckets: bucket of each picture.
        repeats: how often each picture is shown.
        batch: pictures a batch, over all workers.
        seed, epoch: decide the order.
    """
    generator = seeded(seed, epoch, 1)
    shown = [index for index, count in enumerate(repeats) for _ in range(count)]
    groups: dict[Size, list[int]] = {}
    for position in torch.randperm(len(shown), generator=generator).tolist():
        groups.setdefault(buckets[shown[position]], []).append(shown[position])
    batches = [
        Batch(tuple(group[start : start + batch]))
        for _, group in sorted(groups.items())
        for start in range(0, len(group), batch)
    ]
    return [batches[index] for index in torch.randperm(len(batches), generator=generator).tolist()]


def batches_per_epoch(buckets: Sequence[Size], repeats: Sequence[int], batch: int) -> int:
    """How many batches `plan_epoch` makes, whatever the seed."""
    counts: dict[Size, int] = {}
    for bucket, count in zip(buckets, repeats, strict=True):
        counts[bucket] = counts.get(bucket, 0) + count
    return sum(math.ceil(count / batch) for count in counts.values())
