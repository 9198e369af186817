"""Train the bundled pipeline's autoencoder (AutoencoderKL, 4 x smaller, 4 channels).

    python -m onmodel.toybox.train_vae SET_FOLDER WORK_FOLDER [encode | decoder MINUTES]

Writes WORK_FOLDER/vae (a diffusers folder) and, once done, WORK_FOLDER/latents.npz for `train_unet`. With "decoder",
trains the decoder alone on from there: latents, and so a UNet trained on them, stay valid.
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
from onmodel.toybox.models import MODEL_SIDE
from onmodel.toybox.schedule import Average, write_whole
from onmodel.toybox.vae_start import initialise


@dataclass(frozen=True, slots=True)
class VaeConfig:
    """Width of each level and how long to train. Narrow at full size: there a convolution costs the most."""

    channels: tuple[int, int, int] = (16, 32, 64)
    groups: int = 1
    """Groups of every group norm. A group of one channel would take away its mean, and with it all colour."""
    minutes: float = 7.0
    """Training stops after this long; the learning rate falls to 0 over it."""
    batch: int = 4
    learning_rate: float = 1.2e-3
    edge_weight: float = 0.3
    average: float = 0.995
    seed: int = 11


KEPT_BACK = 300
"""Pictures at the end of the set that the autoencoder never sees."""


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


def to_tensor(images: npt.NDArray[np.uint8]) -> Tensor:
    """uint8 (n, h, w, 3) to float (n, 3, h, w) in -1..1."""
    return torch.from_numpy(images).permute(0, 3, 1, 2).float().div_(127.5).sub_(1.0).contiguous()


def reconstruction_loss(shown: Tensor, target: Tensor, edge_weight: float) -> Tensor:
    """Mean absolute error of pixels, of 4 x 4 means (colour comes first) and of differences to neighbours (edges)."""
    loss = (shown - target).abs().mean()
    loss = loss + (functional.avg_pool2d(shown, 4) - functional.avg_pool2d(target, 4)).abs().mean()
    for axis in (2, 3):
        loss = loss + edge_weight * (shown.diff(dim=axis) - target.diff(dim=axis)).abs().mean()
    return loss


def train(images: npt.NDArray[np.uint8], work: Path, config: VaeConfig, start: Any = None) -> Any:
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
        posterior = model.encode(target).latent_dist
        shown = model.decode(posterior.sample()).sample
        loss = reconstruction_loss(shown, target, config.edge_weight)
        optimizer.zero_grad(set_to_none=True)
        loss.backward()
        torch.nn.utils.clip_grad_norm_(model.parameters(), 1.0)
        optimizer.step()
        average.update(model)
        seen += config.batch
        losses.append(float(loss.detach()))
        if (seen // config.batch) % 100 == 0:
            minutes = (time.monotonic() - began) / 60
            print(f"{minutes:.1f} min, {seen} pictures, loss {np.mean(losses[-100:]):.4f}", flush=True)
        if (seen // config.batch) % 300 == 0:
            write_whole(work / "vae_now", model.save_pretrained)
    average.copy_to(model)
    return finish(model, images[:512], work)


def refine_decoder(images: npt.NDArray[np.uint8], work: Path, config: VaeConfig) -> Any:
    """Train the decoder alone on cached latents for `config.minutes`; rewrites work/vae with the same encoder."""
    torch.manual_seed(config.seed + 1)
    rng = np.random.default_rng(config.seed + 1)
    model: Any = AutoencoderKL.from_pretrained(work / "vae")
    with np.load(work / "latents.npz") as file:
        mean, std = (torch.from_numpy(file[k]).float() for k in ("mean", "std"))
    parts = torch.nn.ModuleList([model.post_quant_conv, model.decoder])
    optimizer = torch.optim.AdamW(parts.parameters(), config.learning_rate, betas=(0.9, 0.98), weight_decay=1e-4)
    average = Average(parts, config.average)
    began, seen, losses = time.monotonic(), 0, []
    while (done := (time.monotonic() - began) / (60 * config.minutes)) < 1:
        rate = config.learning_rate * min(1.0, (seen + 1) / 800) * (0.02 + 0.98 * 0.5 * (1 + np.cos(np.pi * done)))
        for group in optimizer.param_groups:
            group["lr"] = float(rate)
        chosen = rng.integers(len(images), size=config.batch)
        latent = mean[chosen] + std[chosen] * torch.randn(config.batch, *mean.shape[1:])
        shown = model.decode(latent).sample
        loss = reconstruction_loss(shown, to_tensor(images[chosen]), config.edge_weight)
        optimizer.zero_grad(set_to_none=True)
        loss.backward()
        torch.nn.utils.clip_grad_norm_(parts.parameters(), 1.0)
        optimizer.step()
        average.update(parts)
        seen += config.batch
        losses.append(float(loss.detach()))
        if (seen // config.batch) % 100 == 0:
            minutes = (time.monotonic() - began) / 60
            print(f"{minutes:.1f} min, {seen} pictures, loss {np.mean(losses[-100:]):.4f}", flush=True)
    average.copy_to(parts)
    write_whole(work / "vae", model.eval().save_pretrained)
    return model


@torch.no_grad()
def encode(model: Any, images: npt.NDArray[np.uint8]) -> tuple[Tensor, Tensor]:
    """Means and standard deviations (n, 4, h/4, w/4) of the latents of pictures, unscaled."""
    means: list[Tensor] = []
    deviations: list[Tensor] = []
    for k in range(0, len(images), 32):
        posterior = model.encode(to_tensor(images[k : k + 32])).latent_dist
        means.append(posterior.mean)
        deviations.append(posterior.std)
    return torch.cat(means), torch.cat(deviations)


@torch.no_grad()
def psnr(model: Any, images: npt.NDArray[np.uint8]) -> float:
    """Peak signal-to-noise ratio in dB of reconstructions, from the mean squared error over all pictures."""
    errors: list[float] = []
    for k in range(0, len(images), 32):
        target = to_tensor(images[k : k + 32])
        posterior = model.encode(target).latent_dist
        shown = model.decode(posterior.mean).sample.clamp(-1, 1)
        errors.append(float(functional.mse_loss(shown, target)))
    return float(10 * np.log10(4 / np.mean(errors)))


def finish(model: Any, sample: npt.NDArray[np.uint8], work: Path) -> Any:
    """Set the scaling factor that gives latents unit variance, and write the model."""
    model.eval()
    means, _ = encode(model, sample)
    model.register_to_config(scaling_factor=float(1 / means.std()))
    write_whole(work / "vae", model.save_pretrained)
    return model


def write_latents(model: Any, images: npt.NDArray[np.uint8], work: Path) -> None:
    """Encode every picture once: float16 means and deviations, unscaled, in work/latents.npz."""
    means, deviations = encode(model, images)
    np.savez(work / "latents.npz", mean=means.half().numpy(), std=deviations.half().numpy())


def main(set_folder: Path, work: Path) -> None:
    """Train, report the reconstruction on pictures kept back, and encode the set."""
    images = training_set.read(set_folder, MODEL_SIDE).images
    model = train(images[:-KEPT_BACK], work, VaeConfig())
    print(f"PSNR on held-back pictures: {psnr(model, images[-KEPT_BACK:]):.2f} dB", flush=True)
    write_latents(model, images, work)


def main_encode(set_folder: Path, work: Path) -> None:
    """Take the weights last saved in work/vae_now as final (after a run cut short) and encode the set with them."""
    images = training_set.read(set_folder, MODEL_SIDE).images
    model = finish(AutoencoderKL.from_pretrained(work / "vae_now"), images[:256], work)
    write_latents(model, images, work)
    print(f"PSNR on held-back pictures: {psnr(model, images[-KEPT_BACK:]):.2f} dB", flush=True)


def main_decoder(set_folder: Path, work: Path, minutes: float) -> None:
    """Train the decoder on and report the reconstruction before and after."""
    images = training_set.read(set_folder, MODEL_SIDE).images
    before = psnr(AutoencoderKL.from_pretrained(work / "vae"), images[-KEPT_BACK:])
    model = refine_decoder(images[:-KEPT_BACK], work, VaeConfig(minutes=minutes, learning_rate=1e-3))
    print(f"PSNR on held-back pictures: {before:.2f} -> {psnr(model, images[-KEPT_BACK:]):.2f} dB", flush=True)


if __name__ == "__main__":
    if len(sys.argv) > 3 and sys.argv[3] == "encode":
        main_encode(Path(sys.argv[1]), Path(sys.argv[2]))
    elif len(sys.argv) > 3 and sys.argv[3] == "decoder":
        main_decoder(Path(sys.argv[1]), Path(sys.argv[2]), float(sys.argv[4]))
    else:
        main(Path(sys.argv[1]), Path(sys.argv[2]))
