"""The loss on held-back pictures, at noise and timesteps that are always the same: figures that can be compared.

A training loss goes up and down with the timesteps that were drawn. Here each picture is noised by the same noise at
the same timesteps every time, so a difference between two epochs is one of the weights. The loss is the plain mean
squared error, whatever the training weighs, so that trials with other settings compare too.
"""

from collections.abc import Callable, Sequence

import torch
from torch import Tensor

from onmodel.core.vocabulary import CATEGORIES
from onmodel.training.buckets import seeded
from onmodel.training.data import TrainingData
from onmodel.training.job import EVERY_PICTURE

LEVELS = 4
"""Timesteps that each picture is looked at: the middles of so many equal parts of the schedule."""
PictureLosses = Callable[[Sequence[int], Tensor, Tensor], Tensor]
"""Indices of pictures of one bucket, their noise (B, C, h, w) and timesteps (B,) to plain losses float32 (B,)."""


def held_back(data: TrainingData) -> list[int]:
    """The pictures that are kept from training."""
    return [index for index, picture in enumerate(data.pictures) if picture.held_back]


def fixed_noise(data: TrainingData, index: int, level: int, seed: int) -> Tensor:
    """The noise of one picture at one of the `LEVELS`: by its content, so that no other picture has a say in it."""
    content = int(data.pictures[index].hash[:15] or "0", 16)
    return torch.randn(data.latents[index].shape, generator=seeded(seed, content, level, 7))


def fixed_timestep(level: int, timesteps: int) -> int:
    """The timestep of one of the `LEVELS`, of so many training timesteps."""
    return (2 * level + 1) * timesteps // (2 * LEVELS)


def batches_of(data: TrainingData, size: int, most: int | None) -> list[list[int]]:
    """Held-back pictures in batches of one bucket, at most `most` batches."""
    by_bucket: dict[tuple[int, int], list[int]] = {}
    for index in held_back(data):
        by_bucket.setdefault(data.buckets[index], []).append(index)
    batches = [
        group[start : start + size] for _, group in sorted(by_bucket.items()) for start in range(0, len(group), size)
    ]
    return batches[:most]


def validate(
    data: TrainingData,
    losses: PictureLosses,
    add_up: Callable[[Tensor], Tensor],
    *,
    batch: int,
    most: int | None,
    seed: int,
    timesteps: int,
    rank: int = 0,
    world_size: int = 1,
) -> dict[str, float]:
    """Mean loss of the held-back pictures: `all`, and each category that some of them count in. Empty without any.

    Args:
        losses: the model, without gradients.
        add_up: the sum of a float64 tensor over all workers.
        batch: pictures at a time, over all workers.
        most: batches that are looked at; None is all.
        seed: decides the noise.
        timesteps: of the noise schedule.
    """
    sums = torch.zeros(2, 1 + len(CATEGORIES), dtype=torch.float64)
    for whole in batches_of(data, batch, most):
        mine = whole[rank::world_size]
        if not mine:
            continue
        for level in range(LEVELS):
            noise = torch.stack([fixed_noise(data, index, level, seed) for index in mine])
            at = torch.full((len(mine),), fixed_timestep(level, timesteps))
            for index, value in zip(mine, losses(mine, noise, at).tolist(), strict=True):
                names = data.pictures[index].categories
                counted = torch.tensor([True, *(name in names for name in CATEGORIES)])
                sums[0, counted] += value
                sums[1, counted] += 1
    sums = add_up(sums)
    names = (EVERY_PICTURE, *CATEGORIES)
    return {name: float(total / n) for name, total, n in zip(names, sums[0], sums[1], strict=True) if n > 0}
