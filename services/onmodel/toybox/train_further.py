"""Train the bundled pipeline's UNet and text encoder on, with pictures that are rendered meanwhile.

    python -m onmodel.toybox.train_further WORK_FOLDER SECONDS FIRST LAST

Renders pictures FIRST..LAST (exclusive) of the training set on all cores but one, and trains on those that are there
already. The autoencoder and the vocabulary stay as they are.
"""

from __future__ import annotations

import multiprocessing
import os
import sys
import time
from pathlib import Path
from typing import Any, Final

import torch
from diffusers import AutoencoderKL
from transformers import CLIPTokenizer

from onmodel.toybox import training_set
from onmodel.toybox.models import MODEL_SIDE, MODELS
from onmodel.toybox.schedule import best_device
from onmodel.toybox.train_unet import Latents, UnetConfig, prepare, train

FURTHER: Final[UnetConfig] = UnetConfig(
    batch=1024, learning_rate=1.2e-3, warmup_steps=300, average=0.999, several_weight=1.6, hidden_weight=1.4
)
"""Larger batches than at first: what is left to learn is small against the noise of a small batch."""
SHARDS_AT_ONCE: Final[int] = 8
"""Shards to begin with, and that are encoded between two steps at most."""
ENDING_S: Final[float] = 8.0
"""Kept for writing the model."""


class Growing:
    """The latents of the shards that are rendered so far; a shard is encoded once."""

    def __init__(self, folder: Path, vae: Any, tokenizer: CLIPTokenizer, config: UnetConfig) -> None:
        self._folder, self._vae, self._tokenizer, self._config = folder, vae, tokenizer, config
        self._seen: set[Path] = set()
        self._latents: Latents | None = None

    def __call__(self) -> Latents:
        """All latents so far, of at most a few shards more than at the last call."""
        new = [path for path in training_set.shards(self._folder) if path not in self._seen][:SHARDS_AT_ONCE]
        if new:
            self._seen.update(new)
            data = training_set.read_shards(new, MODEL_SIDE)
            latents = prepare(data, self._vae, self._tokenizer, self._config)
            self._latents = latents if self._latents is None else joined(self._latents, latents)
        if self._latents is None:
            raise RuntimeError(f"{self._folder}: no shard is rendered yet")
        return self._latents


def joined(first: Latents, second: Latents) -> Latents:
    """Both, the first's pictures first."""
    parts = {
        name: torch.cat([getattr(first, name), getattr(second, name)]) for name in ("weight", "mean", "std", "text")
    }
    return Latents(**parts, empty=first.empty)


def main(work: Path, seconds: float, first: int, last: int) -> None:
    """Render and train for `seconds` in all."""
    began, folder = time.monotonic(), work / "set"
    rendering = multiprocessing.get_context("spawn").Process(
        target=training_set.write_in_parallel, args=(folder, first, last, max(1, (os.cpu_count() or 2) - 1))
    )  # fmt: skip
    rendering.start()
    vae: Any = AutoencoderKL.from_pretrained(MODELS / "diffusion" / "vae", torch_dtype=torch.float32)
    # Not made anew: ties could be broken otherwise, which would shuffle the ids that the text encoder learned.
    tokenizer = CLIPTokenizer.from_pretrained(MODELS / "diffusion" / "tokenizer")
    while len(training_set.shards(folder)) < SHARDS_AT_ONCE:
        if not rendering.is_alive():
            raise SystemExit(f"{folder}: rendering stopped early")
        time.sleep(0.2)
    print(f"{time.monotonic() - began:.0f} s: first pictures are there", flush=True)
    growing = Growing(folder, vae.to(best_device()), tokenizer, FURTHER)
    train(growing, vae, tokenizer, seconds - ENDING_S - (time.monotonic() - began), FURTHER, go_on=True)
    rendering.join()


if __name__ == "__main__":
    main(Path(sys.argv[1]), float(sys.argv[2]), int(sys.argv[3]), int(sys.argv[4]))
