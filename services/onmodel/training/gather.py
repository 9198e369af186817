"""The tensors of one batch: latents, mirrored or not, masks and weights, from what `prepare` has encoded."""

from collections.abc import Sequence
from dataclasses import dataclass

import torch
from torch import Tensor

from onmodel.training.data import TrainingData
from onmodel.training.devices import moved


@dataclass(frozen=True)
class Gathered:
    """B pictures of one bucket."""

    latents: Tensor
    """float32 (B, C, h, w)."""
    masks: Tensor | None
    """float32 (B, h, w), 0 to 1; None where no picture has one."""
    weights: Tensor | None
    """float32 (B,): how much each picture's loss counts; None where all count 1."""

    def part(self, mine: slice, device: torch.device) -> "Gathered":
        """Some of the pictures, on `device`."""

        def of(tensor: Tensor | None) -> Tensor | None:
            return None if tensor is None else moved(tensor[mine], device)

        return Gathered(moved(self.latents[mine], device), of(self.masks), of(self.weights))


def gather(data: TrainingData, indices: Sequence[int], generator: torch.Generator) -> Gathered:
    """The pictures at `indices`; those with `flip_aug` are mirrored in half of the draws from `generator`."""
    sources = [data] * len(indices)
    if data.mirrored is not None:
        drawn = (torch.rand(len(indices), generator=generator) < 0.5).tolist()
        sources = [
            data.mirrored if mirror and data.pictures[index].flip_aug else data
            for index, mirror in zip(indices, drawn, strict=True)
        ]
    pairs = list(zip(sources, indices, strict=True))
    latents = torch.stack([source.latents[index] for source, index in pairs])
    weights = [data.pictures[index].weight for index in indices]
    masks = [source.masks[index] if source.masks is not None else None for source, index in pairs]
    whole = torch.ones(latents.shape[2:])
    return Gathered(
        latents,
        torch.stack([whole if mask is None else mask for mask in masks]) if any(m is not None for m in masks) else None,
        torch.tensor(weights) if any(weight != 1 for weight in weights) else None,
    )
