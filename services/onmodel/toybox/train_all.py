"""Train the bundled pipeline and scorer from nothing, by the clock: made for a machine with a GPU and many cores.

    python -m onmodel.toybox.train_all WORK_FOLDER [SECONDS [PICTURES]]

Renders the training set on all cores but one; meanwhile the autoencoder trains on what is there. Then the UNet trains
on the latents of all, and beside it, for a part of the time, the scorer. All are installed as the bundled models.
"""

from __future__ import annotations

import multiprocessing
import os
import subprocess
import sys
import time
from dataclasses import dataclass
from pathlib import Path

from onmodel.toybox import training_set
from onmodel.toybox.models import MODEL_SIDE
from onmodel.toybox.train_unet import UnetConfig, load_tokenizer, prepare
from onmodel.toybox.train_unet import train as train_unet
from onmodel.toybox.train_vae import KEPT_BACK, VaeConfig, psnr
from onmodel.toybox.train_vae import train as train_vae


@dataclass(frozen=True, slots=True)
class Plan:
    """How the time is shared."""

    first_pictures: int = 5_000
    """The autoencoder starts when so many are rendered."""
    autoencoder: float = 0.17
    """Share of the whole time that the autoencoder trains."""
    scorer: float = 0.27
    """Share of the whole time that the scorer trains, beside the UNet."""
    ending: float = 12.0
    """Seconds kept for writing the models."""


def main(work: Path, seconds: float, pictures: int) -> None:
    """Render and train for `seconds` in all."""
    began, plan, folder = time.monotonic(), Plan(), work / "set"
    last = f"shard_{(pictures - 1) // training_set.SHARD * training_set.SHARD:06d}.npz"

    def left() -> float:
        return seconds - (time.monotonic() - began)

    rendering = multiprocessing.get_context("spawn").Process(
        target=training_set.write_in_parallel, args=(folder, 0, pictures, max(1, (os.cpu_count() or 2) - 1))
    )  # fmt: skip
    rendering.start()
    # While the first pictures are drawn: the vocabulary takes some seconds.
    tokenizer = load_tokenizer(work)
    while len(training_set.shards(folder)) * training_set.SHARD < min(plan.first_pictures, pictures):
        if not rendering.is_alive() and not (folder / last).exists():
            raise SystemExit(f"{folder}: rendering stopped early")
        time.sleep(0.2)
    print(f"{seconds - left():.0f} s: first pictures are there", flush=True)
    images = training_set.read(folder, MODEL_SIDE).images
    vae = train_vae(images[:-KEPT_BACK], work, plan.autoencoder * seconds, VaeConfig())
    print(f"{seconds - left():.0f} s: autoencoder {psnr(vae, images[-KEPT_BACK:]):.2f} dB PSNR", flush=True)
    rendering.join()
    scorer = subprocess.Popen(
        [sys.executable, "-m", "onmodel.toybox.train_clip", str(folder), str(plan.scorer * seconds)]
    )
    config = UnetConfig()
    data = prepare(training_set.read(folder, MODEL_SIDE), vae, tokenizer, config)
    print(f"{seconds - left():.0f} s: {len(data.mean)} pictures encoded", flush=True)
    train_unet(lambda: data, vae, tokenizer, left() - plan.ending, config)
    if scorer.wait() != 0:
        raise SystemExit("the scorer's training failed")


if __name__ == "__main__":
    main(
        Path(sys.argv[1]),
        float(sys.argv[2]) if len(sys.argv) > 2 else 3600.0,
        int(sys.argv[3]) if len(sys.argv) > 3 else 40_000,
    )
