"""Train the bundled pipeline's autoencoder (AutoencoderKL, 4 x smaller, 4 channels).

    python -m onmodel.toybox.train_vae SET_FOLDER WORK_FOLDER [SECONDS]

Writes WORK_FOLDER/vae, a diffusers folder.
"""

from __future__ import annotations

import sys
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
from onmodel.toybox.models import MODEL_SIDE
from onmodel.toybox.schedule import Average, Clock, best_device, write_whole
from onmodel.toybox.vae_start import initialise


@dataclass(frozen=True, slots=True)
class VaeConfig:
    """Width of each level and how to train. Narrow at full size: there a convolution costs the most."""

    channels: tuple[int, int, int] = (32, 64, 96)
    groups: int = 1
    """Groups of every group norm. A group of one channel would take away its mean, and with it all colour."""
    batch: int = 64
    learning_rate: float = 1.0e-3
    edge_weight: float = 0.3
    latent_noise: float = 0.06
    """Deviation of noise added to latents of about unit variance before decoding, so that what a UNet draws, which is
    never exact, decodes well too."""
    average: float = 0.999
    seed: int = 11


KEPT_BACK = 300
"""Pictures at the end of a set that the autoencoder never sees."""


def build(config: VaeConfig) -> Any:
    """A small AutoencoderKL for pictures of `MODEL_SIDE`."""
    kind: Any = AutoencoderKL
    model = kind(
        in_channels=3, out_channels=3, down_block_types=("DownEncoderBlock2D",) * 3,
        up_block_types=("UpDecoderBlock2D",) * 3, block_out_channels=config.channels, layers_per_block=1,
        latent_channels=4, norm_num_groups=config.groups, sample_size=MODEL_SIDE, mid_block_add_attention=False,
    )  # fmt: skip
    initialise(model)
    return model


def to_tensor(images: Tensor) -> Tensor:
    """uint8 (n, h, w, 3) to float (n, 3, h, w) in -1..1, on the same device."""
    return images.permute(0, 3, 1, 2).float().div_(127.5).sub_(1.0).contiguous()


def reconstruction_loss(shown: Tensor, target: Tensor, edge_weight: float) -> Tensor:
    """Mean absolute error of pixels, of 4 x 4 means (colour comes first) and of differences to neighbours (edges)."""
    loss = (shown - target).abs().mean()
    loss = loss + (functional.avg_pool2d(shown, 4) - functional.avg_pool2d(target, 4)).abs().mean()
    for axis in (2, 3):
        loss = loss + edge_weight * (shown.diff(dim=axis) - target.diff(dim=axis)).abs().mean()
    return loss


def train(images: npt.NDArray[np.uint8], work: Path, seconds: float, config: VaeConfig) -> Any:
    """Train on pictures uint8 (n, side, side, 3), keep a running average, write it to work/vae and return it."""
    device = best_device()
    torch.manual_seed(config.seed)
    model = build(config).to(device)
    data = torch.from_numpy(images).to(device)
    optimizer = torch.optim.AdamW(
        model.parameters(), config.learning_rate, betas=(0.9, 0.98), weight_decay=1e-4, fused=True
    )  # fmt: skip
    average = Average(model, config.average)
    total, clock = torch.zeros((), device=device), Clock(optimizer, seconds, warmup=300, floor=0.02)
    for step in clock:
        target = to_tensor(data[torch.randint(len(data), (config.batch,), device=device)])
        latent = model.encode(target).latent_dist.sample()
        latent = latent + config.latent_noise * torch.randn_like(latent)
        loss = reconstruction_loss(model.decode(latent).sample, target, config.edge_weight)
        optimizer.zero_grad(set_to_none=True)
        loss.backward()
        torch.nn.utils.clip_grad_norm_(model.parameters(), 1.0)
        optimizer.step()
        average.update(model)
        total += loss.detach()
        if step % 200 == 199:
            print(f"autoencoder: step {step + 1}, loss {float(total) / 200:.4f}", flush=True)
            total.zero_()
    print(f"autoencoder: {clock.step} steps of {config.batch}", flush=True)
    average.copy_to(model)
    model.eval()
    means, _ = encode(model, images[:512])
    # The scale that gives latents unit variance.
    model.register_to_config(scaling_factor=float(1 / means.std()))
    write_whole(work / "vae", model.save_pretrained)
    return model


@torch.no_grad()
def encode(model: Any, images: npt.NDArray[np.uint8], batch: int = 64) -> tuple[Tensor, Tensor]:
    """Means and standard deviations (n, 4, h/4, w/4) of the latents of pictures, unscaled, on the model's device."""
    means: list[Tensor] = []
    deviations: list[Tensor] = []
    for k in range(0, len(images), batch):
        posterior = model.encode(to_tensor(torch.from_numpy(images[k : k + batch]).to(model.device))).latent_dist
        means.append(posterior.mean)
        deviations.append(posterior.std)
    return torch.cat(means), torch.cat(deviations)


@torch.no_grad()
def psnr(model: Any, images: npt.NDArray[np.uint8]) -> float:
    """Peak signal-to-noise ratio in dB of reconstructions, from the mean squared error over all pictures."""
    errors: list[float] = []
    for k in range(0, len(images), 32):
        target = to_tensor(torch.from_numpy(images[k : k + 32]).to(model.device))
        posterior = model.encode(target).latent_dist
        shown = model.decode(posterior.mean).sample.clamp(-1, 1)
        errors.append(float(functional.mse_loss(shown, target)))
    return float(10 * np.log10(4 / np.mean(errors)))


def main(set_folder: Path, work: Path, seconds: float) -> None:
    """Train and report the reconstruction of pictures kept back."""
    images = training_set.read(set_folder, MODEL_SIDE).images
    model = train(images[:-KEPT_BACK], work, seconds, VaeConfig())
    print(f"PSNR on held-back pictures: {psnr(model, images[-KEPT_BACK:]):.2f} dB", flush=True)


if __name__ == "__main__":
    main(Path(sys.argv[1]), Path(sys.argv[2]), float(sys.argv[3]) if len(sys.argv) > 3 else 600.0)
