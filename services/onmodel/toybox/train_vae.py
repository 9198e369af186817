"""Train the bundled pipeline's autoencoder (AutoencoderKL, 8 x smaller, 4 channels).

    python -m onmodel.toybox.train_vae SET_FOLDER WORK_FOLDER

Writes WORK_FOLDER/vae (a diffusers folder) and, once done, WORK_FOLDER/latents.npz for `train_unet`.
"""

from __future__ import annotations

import sys
import time
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt
import torch
from diffusers import AutoencoderKL
from torch import Tensor
from torch.nn import functional

from onmodel.toybox import training_set
from onmodel.toybox.schedule import Average, write_whole


@dataclass(frozen=True, slots=True)
class VaeConfig:
    """Width of each level and how long to train. Narrow at full size: there a convolution costs the most."""

    channels: tuple[int, int, int, int] = (8, 32, 64, 96)
    minutes: float = 22.0
    """Training stops after this long; the learning rate falls to 0 over it."""
    batch: int = 8
    learning_rate: float = 2e-3
    edge_weight: float = 0.5
    kl_weight: float = 2e-6
    average: float = 0.995
    seed: int = 11


def build(config: VaeConfig) -> AutoencoderKL:
    """A small AutoencoderKL for 96 px pictures."""
    return AutoencoderKL(
        in_channels=3, out_channels=3, down_block_types=("DownEncoderBlock2D",) * 4,
        up_block_types=("UpDecoderBlock2D",) * 4, block_out_channels=config.channels, layers_per_block=1,
        latent_channels=4, norm_num_groups=8, sample_size=96, mid_block_add_attention=False,
    )  # fmt: skip


def to_tensor(images: npt.NDArray[np.uint8]) -> Tensor:
    """uint8 (n, h, w, 3) to float (n, 3, h, w) in -1..1."""
    return torch.from_numpy(images).permute(0, 3, 1, 2).float().div_(127.5).sub_(1.0).contiguous()


def reconstruction_loss(shown: Tensor, target: Tensor, edge_weight: float) -> Tensor:
    """Mean absolute error of pixels and of their differences to the right and below; the latter keeps edges sharp."""
    loss = (shown - target).abs().mean()
    for axis in (2, 3):
        loss = loss + edge_weight * (shown.diff(dim=axis) - target.diff(dim=axis)).abs().mean()
    return loss


def train(
    images: npt.NDArray[np.uint8], work: Path, config: VaeConfig, start: AutoencoderKL | None = None
) -> AutoencoderKL:
    """Train for `config.minutes`, keep a running average, write it to work/vae and return it."""
    torch.manual_seed(config.seed)
    rng = np.random.default_rng(config.seed)
    model = build(config) if start is None else start
    optimizer = torch.optim.AdamW(model.parameters(), config.learning_rate, betas=(0.9, 0.98), weight_decay=1e-4)
    average = Average(model, config.average)
    began, seen, losses = time.monotonic(), 0, []
    while (done := (time.monotonic() - began) / (60 * config.minutes)) < 1:
        rate = config.learning_rate * min(1.0, (seen + 1) / 400) * (0.02 + 0.98 * 0.5 * (1 + np.cos(np.pi * done)))
        for group in optimizer.param_groups:
            group["lr"] = float(rate)
        target = to_tensor(images[rng.integers(len(images), size=config.batch)])
        posterior: Any = model.encode(target).latent_dist
        shown = model.decode(posterior.sample()).sample
        loss = reconstruction_loss(shown, target, config.edge_weight)
        total = loss + config.kl_weight * posterior.kl().mean()
        optimizer.zero_grad(set_to_none=True)
        total.backward()
        torch.nn.utils.clip_grad_norm_(model.parameters(), 1.0)
        optimizer.step()
        average.update(model)
        seen += config.batch
        losses.append(float(loss.detach()))
        if (seen // config.batch) % 100 == 0:
            minutes = (time.monotonic() - began) / 60
            print(f"{minutes:.1f} min, {seen} pictures, loss {np.mean(losses[-100:]):.4f}", flush=True)
    average.copy_to(model)
    return finish(model, images[:512], work)


@torch.no_grad()
def encode(model: AutoencoderKL, images: npt.NDArray[np.uint8]) -> tuple[Tensor, Tensor]:
    """Means and standard deviations (n, 4, h/8, w/8) of the latents of pictures, unscaled."""
    means: list[Tensor] = []
    deviations: list[Tensor] = []
    for k in range(0, len(images), 32):
        posterior: Any = model.encode(to_tensor(images[k : k + 32])).latent_dist
        means.append(posterior.mean)
        deviations.append(posterior.std)
    return torch.cat(means), torch.cat(deviations)


@torch.no_grad()
def psnr(model: AutoencoderKL, images: npt.NDArray[np.uint8]) -> float:
    """Peak signal-to-noise ratio in dB of reconstructions, from the mean squared error over all pictures."""
    errors: list[float] = []
    for k in range(0, len(images), 32):
        target = to_tensor(images[k : k + 32])
        posterior: Any = model.encode(target).latent_dist
        shown = model.decode(posterior.mean).sample.clamp(-1, 1)
        errors.append(float(functional.mse_loss(shown, target)))
    return float(10 * np.log10(4 / np.mean(errors)))


def finish(model: AutoencoderKL, sample: npt.NDArray[np.uint8], work: Path) -> AutoencoderKL:
    """Set the scaling factor that gives latents unit variance, and write the model."""
    model.eval()
    means, _ = encode(model, sample)
    model.register_to_config(scaling_factor=float(1 / means.std()))
    write_whole(work / "vae", model.save_pretrained)
    return model


def write_latents(model: AutoencoderKL, images: npt.NDArray[np.uint8], work: Path) -> None:
    """Encode every picture once: float16 means and deviations, unscaled, in work/latents.npz."""
    means, deviations = encode(model, images)
    np.savez(work / "latents.npz", mean=means.half().numpy(), std=deviations.half().numpy())


def main(set_folder: Path, work: Path) -> None:
    """Train, report the reconstruction on pictures kept back, and encode the set."""
    images = training_set.read(set_folder).images
    model = train(images[:-300], work, VaeConfig())
    print(f"PSNR on held-back pictures: {psnr(model, images[-300:]):.2f} dB", flush=True)
    write_latents(model, images, work)


if __name__ == "__main__":
    main(Path(sys.argv[1]), Path(sys.argv[2]))
