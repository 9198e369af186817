"""Renders in all variants on one device, for training and for measuring."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path
from typing import Any

import torch

from onmodel.experiments import probe_pictures
from onmodel.experiments.probe_augment import VARIANTS, Batch, augment, load_autoencoder, variants
from onmodel.experiments.probe_network import to_input
from onmodel.experiments.probe_pictures import Pictures, Targets
from onmodel.toybox.models import MODEL_SIDE


class Store:
    """Pictures in all variants and their targets on one device, growing as shards are rendered."""

    def __init__(self, count: int, device: torch.device) -> None:
        shape = (len(VARIANTS), count, MODEL_SIDE, MODEL_SIDE, 3)
        self.images = torch.zeros(shape, dtype=torch.uint8, device=device)
        self.targets = {k: torch.from_numpy(v).to(device) for k, v in Targets.nobody(count).arrays().items()}
        self.filled = 0
        self._taken: set[Path] = set()
        self._autoencoder = load_autoencoder(device)

    @property
    def full(self) -> bool:
        return self.filled == self.images.shape[1]

    def take(self, folder: Path) -> None:
        """Take in the folder's shards that are new, as far as there is room."""
        for path in probe_pictures.shards(folder):
            if not self.full and path not in self._taken:
                self._taken.add(path)
                self.add(probe_pictures.read(path))

    def add(self, pictures: Pictures) -> None:
        """Take in pictures, as far as there is room."""
        device, room = self.images.device, self.images.shape[1] - self.filled
        images, jpegs = (torch.from_numpy(a[:room]).to(device) for a in (pictures.images, pictures.jpegs))
        span = slice(self.filled, self.filled + len(images))
        self.images[:, span] = variants(images, jpegs, self._autoencoder)
        for name, array in pictures.targets.arrays().items():
            self.targets[name][span] = torch.from_numpy(array[:room]).to(device)
        self.filled = span.stop

    def on_cpu(self) -> Targets:
        """Targets of all pictures that are there."""
        return Targets(**{k: v[: self.filled].cpu().numpy() for k, v in self.targets.items()})

    def draw(self, n: int, shares: Sequence[float]) -> Batch:
        """A random batch of n, augmented; `shares` says how often each of `VARIANTS` is in it."""
        device = self.images.device
        chosen = torch.randint(self.filled, (n,), device=device)
        variant = torch.multinomial(torch.tensor(shares, device=device), n, replacement=True)
        targets: Any = {name: values[chosen] for name, values in self.targets.items()}
        return augment(Batch(to_input(self.images[variant, chosen]), **targets))
