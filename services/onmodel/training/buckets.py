"""Aspect-ratio buckets and the order of an epoch: pure functions, nothing is ever dropped."""

import math
from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
import numpy.typing as npt
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


Plan = list[Batch]
Counts = npt.NDArray[np.int64]


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


GOLDEN = (math.sqrt(5) - 1) / 2
"""Steps of this size around a circle leave the most even gaps, whatever their number."""


def count_showings(showings: npt.NDArray[np.float64], order: npt.NDArray[np.int64], seed: int, epoch: int) -> Counts:
    """How often one epoch shows each picture: whole numbers, int64 (pictures,), whose sum is that of `showings`.

    Systematic sampling (Madow & Madow 1944): the pictures lie in a row, each as long as its showings, and marks at
    distance 1 count what they hit. So each picture is shown its fraction rounded down or up, and a run of neighbours
    in `order` is off by less than one showing. The marks move by the golden ratio from epoch to epoch, so that over
    some epochs each picture comes as near to its fraction.

    Args:
        showings: float64 (pictures,), see `mix`.
        order: int64 (pictures,), a permutation that puts pictures of one kind side by side.
        seed, epoch: decide where the marks lie.
    """
    first = float(torch.rand((), generator=seeded(seed, 5), dtype=torch.float64))
    ends = np.cumsum(showings[order])
    ends[-1] = round(ends[-1])
    marks = np.floor(ends + (first + epoch * GOLDEN) % 1.0).astype(np.int64)
    counts = np.empty(len(showings), dtype=np.int64)
    counts[order] = np.diff(marks, prepend=0)
    return counts


def order_by_kind(kinds: Sequence[object], buckets: Sequence[Size], seed: int) -> npt.NDArray[np.int64]:
    """A permutation for `count_showings`: kind by kind, in it bucket by bucket, in it drawn from `seed`."""
    drawn = torch.randperm(len(kinds), generator=seeded(seed, 6)).tolist()
    return np.array(sorted(range(len(kinds)), key=lambda i: (str(kinds[i]), buckets[i], drawn[i])), dtype=np.int64)


def plan_epoch(buckets: Sequence[Size], counts: Sequence[int] | Counts, batch: int, seed: int, epoch: int) -> Plan:
    """The batches of one epoch: each picture as often as counted, batches of one bucket, the last ones short.

    Args:
        buckets: bucket of each picture.
        counts: how often each picture is shown.
        batch: pictures a batch, over all workers.
        seed, epoch: decide the order.
    """
    generator = seeded(seed, epoch, 1)
    shown = np.repeat(np.arange(len(buckets)), counts).tolist()
    groups: dict[Size, list[int]] = {}
    for position in torch.randperm(len(shown), generator=generator).tolist():
        groups.setdefault(buckets[shown[position]], []).append(shown[position])
    batches = [
        Batch(tuple(group[start : start + batch]))
        for _, group in sorted(groups.items())
        for start in range(0, len(group), batch)
    ]
    return [batches[index] for index in torch.randperm(len(batches), generator=generator).tolist()]


def batches_per_epoch(buckets: Sequence[Size], counts: Sequence[int] | Counts, batch: int) -> int:
    """How many batches `plan_epoch` makes, whatever the seed."""
    sizes = {size: number for number, size in enumerate(sorted(set(buckets)))}
    inside = np.bincount([sizes[bucket] for bucket in buckets], weights=np.asarray(counts, dtype=np.float64))
    return int(np.ceil(inside / batch).sum())
