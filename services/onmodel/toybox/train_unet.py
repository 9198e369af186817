"""Train the bundled text-to-image model: a small UNet and text encoder on the autoencoder's latents.

    torchrun --nproc-per-node 2 -m onmodel.toybox.train_unet SET_FOLDER WORK_FOLDER [MINUTES [continue]]

With "continue" it starts from the bundled pipeline's weights, whose autoencoder must be WORK_FOLDER/vae. Expects
WORK_FOLDER/vae and WORK_FOLDER/latents.npz of `train_vae`. Noise prediction, min-SNR weights (Hang et al. 2023, gamma
5), captions dropped at random for classifier-free guidance, averaged weights. Every `export_minutes` the averaged
weights are installed as the bundled pipeline, so that a shorter run leaves a usable one. One process on one core each,
averaging their gradients, is faster here than one process with several threads; plain `python -m` runs one.
"""

from __future__ import annotations

import copy
import os
import sys
import time
from dataclasses import dataclass
from datetime import timedelta
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt
import torch
from diffusers import AutoencoderKL, DDIMScheduler, StableDiffusionPipeline, UNet2DConditionModel
from torch import Tensor, distributed, nn
from transformers import CLIPTextConfig, CLIPTextModel, CLIPTokenizer

from onmodel.core.vocabulary import ShotType
from onmodel.toybox import tokens, training_set
from onmodel.toybox.models import MODELS
from onmodel.toybox.schedule import Average, write_whole


@dataclass(frozen=True, slots=True)
class UnetConfig:
    """Sizes of the UNet and the text encoder, and how long to train."""

    channels: tuple[int, int, int] = (48, 96, 128)
    layers: int = 1
    text_width: int = 128
    text_layers: int = 2
    minutes: float = 60.0
    """Training stops after this long; the learning rate falls to 0 over it."""
    export_minutes: float = 8.0
    batch: int = 16
    learning_rate: float = 1.0e-3
    warmup_steps: int = 300
    snr_gamma: float = 5.0
    caption_dropout: float = 0.1
    average: float = 0.9995
    far_weight: float = 2.0
    """How often far pictures are drawn, against others: their figures are few latents large and learned last."""
    seed: int = 17


def build_unet(config: UnetConfig) -> UNet2DConditionModel:
    """Three levels at 16, 8 and 4 latent pixels; attention to the caption on the lower two."""
    return UNet2DConditionModel(
        sample_size=16, in_channels=4, out_channels=4, layers_per_block=config.layers,
        block_out_channels=config.channels,
        down_block_types=("DownBlock2D", "CrossAttnDownBlock2D", "CrossAttnDownBlock2D"),
        up_block_types=("CrossAttnUpBlock2D", "CrossAttnUpBlock2D", "UpBlock2D"),
        cross_attention_dim=config.text_width, attention_head_dim=4, norm_num_groups=16,
    )  # fmt: skip


def build_text_encoder(config: UnetConfig, tokenizer: Any) -> CLIPTextModel:
    """A small CLIP text model over the bundled vocabulary."""
    described = CLIPTextConfig(
        vocab_size=len(tokenizer), hidden_size=config.text_width, intermediate_size=3 * config.text_width,
        num_hidden_layers=config.text_layers, num_attention_heads=4, max_position_embeddings=tokens.MAX_TOKENS,
        projection_dim=config.text_width, bos_token_id=tokenizer.bos_token_id, eos_token_id=tokenizer.eos_token_id,
        pad_token_id=tokenizer.pad_token_id,
    )  # fmt: skip
    return CLIPTextModel(described)


def build_scheduler() -> DDIMScheduler:
    """Stable Diffusion's noise schedule."""
    return DDIMScheduler(
        num_train_timesteps=1000, beta_start=0.00085, beta_end=0.012, beta_schedule="scaled_linear",
        clip_sample=False, set_alpha_to_one=False, steps_offset=1, prediction_type="epsilon",
    )  # fmt: skip


@dataclass(frozen=True, slots=True)
class Latents:
    """What the UNet is trained on: latent means and deviations (n, 4, 16, 16), scaled; token ids (n, wordings, 48)."""

    far: npt.NDArray[np.bool_]
    """(n,) pictures of that shot type."""

    mean: Tensor
    std: Tensor
    text: Tensor
    empty: Tensor


def load(set_folder: Path, work: Path, tokenizer: CLIPTokenizer, scaling: float) -> Latents:
    """Read cached latents and tokenise every wording of every picture."""
    captions, shots = training_set.read_captions(set_folder)
    flat: Any = tokenizer(
        [c for wordings in captions for c in wordings], padding="max_length", truncation=True, return_tensors="pt"
    )  # fmt: skip
    empty: Any = tokenizer([""], padding="max_length", return_tensors="pt")
    with np.load(work / "latents.npz") as file:
        mean, std = (torch.from_numpy(file[k]).float() * scaling for k in ("mean", "std"))
    text = flat.input_ids.view(len(captions), -1, tokens.MAX_TOKENS)
    far = np.array([shot is ShotType.FAR for shot in shots[: len(mean)]])
    return Latents(far, mean, std, text[: len(mean)], empty.input_ids[0])


class _Both(nn.Module):
    """UNet and text encoder as one module, to average and save them together."""

    def __init__(self, unet: UNet2DConditionModel, text_encoder: CLIPTextModel) -> None:
        super().__init__()
        self.unet = unet
        self.text_encoder = text_encoder


def step_loss(both: _Both, data: Latents, config: UnetConfig, alphas: Tensor, rng: np.random.Generator) -> Tensor:
    """Weighted noise-prediction error of one random batch."""
    reach = np.cumsum(np.where(data.far, config.far_weight, 1.0))
    chosen = torch.from_numpy(np.searchsorted(reach, rng.random(config.batch) * reach[-1], side="right"))
    latents = data.mean[chosen] + data.std[chosen] * torch.randn(config.batch, *data.mean.shape[1:])
    wording = torch.from_numpy(rng.integers(data.text.shape[1], size=config.batch))
    ids = data.text[chosen, wording].clone()
    ids[torch.from_numpy(rng.random(config.batch) < config.caption_dropout)] = data.empty
    # One time step from each of `batch` equal spans: less variance between batches than independent draws.
    spans = (np.arange(config.batch) + rng.random(config.batch)) / config.batch
    times = torch.from_numpy((spans * len(alphas)).astype(np.int64).clip(0, len(alphas) - 1))
    alpha = alphas[times].view(-1, 1, 1, 1)
    noise = torch.randn_like(latents)
    noisy = alpha.sqrt() * latents + (1 - alpha).sqrt() * noise
    hidden = both.text_encoder(ids)[0]
    predicted = both.unet(noisy, times, hidden).sample
    snr = alpha / (1 - alpha)
    weight = torch.minimum(snr, torch.full_like(snr, config.snr_gamma)) / snr
    return (weight * (predicted - noise) ** 2).mean()


def install(both: _Both, vae: Any, tokenizer: CLIPTokenizer, target: Path) -> None:
    """Write the pipeline; autoencoder and UNet in half precision, which diffusers loads as float32.

    The text encoder stays in single precision: transformers loads weights in the precision they were saved in.
    """
    kind: Any = StableDiffusionPipeline
    pipeline = kind(
        vae=copy.deepcopy(vae).half(), text_encoder=both.text_encoder, tokenizer=tokenizer,
        unet=copy.deepcopy(both.unet).half(), scheduler=build_scheduler(), safety_checker=None,
        feature_extractor=None, requires_safety_checker=False,
    )  # fmt: skip
    write_whole(target, lambda folder: pipeline.save_pretrained(folder, safe_serialization=True))


def latest_vae(work: Path) -> Any:
    """The autoencoder as it is now: `train_vae.refine_decoder` may train its decoder on beside the UNet."""
    vae: Any = AutoencoderKL.from_pretrained(work / "vae")
    # Saved with the model: a folder of the training machine.
    vae.register_to_config(_name_or_path="")
    return vae


def shared(parameters: list[nn.Parameter], elapsed: float) -> float:
    """Average gradients over all processes, in place; returns the mean of `elapsed`, so that all stop at once."""
    if not distributed.is_initialized():
        return elapsed
    gradients = [p.grad for p in parameters if p.grad is not None]
    flat = torch.cat([torch.tensor([elapsed]), *(g.flatten() for g in gradients)])
    distributed.all_reduce(flat)
    flat /= distributed.get_world_size()
    start = 1
    for gradient in gradients:
        gradient.copy_(flat[start : start + gradient.numel()].view_as(gradient))
        start += gradient.numel()
    return float(flat[0])


def bundled_weights(both: _Both) -> None:
    """Take over the weights of the bundled pipeline."""
    folder = MODELS / "diffusion"
    unet: Any = UNet2DConditionModel.from_pretrained(folder / "unet", torch_dtype=torch.float32)
    text_encoder: Any = CLIPTextModel.from_pretrained(folder / "text_encoder", torch_dtype=torch.float32)
    both.unet.load_state_dict(unet.state_dict())
    both.text_encoder.load_state_dict(text_encoder.state_dict())


def train(data: Latents, tokenizer: CLIPTokenizer, work: Path, config: UnetConfig, *, go_on: bool = False) -> None:
    """Train for `config.minutes`, install the averaged weights now and then and at the end."""
    rank = distributed.get_rank() if distributed.is_initialized() else 0
    torch.manual_seed(config.seed)
    both = _Both(build_unet(config), build_text_encoder(config, tokenizer))
    if go_on:
        bundled_weights(both)
    print(f"{sum(p.numel() for p in both.parameters()) / 1e6:.2f} M parameters, {len(data.mean)} pictures", flush=True)
    torch.manual_seed(config.seed + 1000 * rank)
    rng = np.random.default_rng([config.seed, rank])
    optimizer = torch.optim.AdamW(both.parameters(), config.learning_rate, betas=(0.9, 0.99), weight_decay=0.01)
    average = Average(both, config.average)
    shadow = _Both(build_unet(config), build_text_encoder(config, tokenizer)).eval()
    alphas = build_scheduler().alphas_cumprod
    began, step, losses, exported, minutes = time.monotonic(), 0, [], 0.0, 0.0
    while (done := minutes / config.minutes) < 1:
        rate = config.learning_rate * min(1.0, (step + 1) / config.warmup_steps) * 0.5 * (1 + np.cos(np.pi * done))
        for group in optimizer.param_groups:
            group["lr"] = float(max(rate, 1e-5))
        loss = step_loss(both, data, config, alphas, rng)
        optimizer.zero_grad(set_to_none=True)
        loss.backward()
        minutes = shared(list(both.parameters()), (time.monotonic() - began) / 60)
        torch.nn.utils.clip_grad_norm_(both.parameters(), 1.0)
        optimizer.step()
        if rank == 0:
            average.update(both)
        step += 1
        losses.append(float(loss.detach()))
        if rank == 0 and step % 100 == 0:
            print(f"{minutes:.1f} min, step {step}, loss {np.mean(losses[-100:]):.4f}", flush=True)
        if rank == 0 and minutes - exported > config.export_minutes:
            exported = minutes
            average.copy_to(shadow)
            install(shadow, latest_vae(work), tokenizer, MODELS / "diffusion")
    if rank > 0:
        return
    average.copy_to(shadow)
    torch.save({"model": shadow.state_dict(), "step": step}, work / "unet.pt")
    install(shadow, latest_vae(work), tokenizer, MODELS / "diffusion")
    print(f"{step} steps of {config.batch}", flush=True)


def main(set_folder: Path, work: Path, minutes: float, go_on: bool) -> None:
    """Train on cached latents and install the pipeline."""
    if "WORLD_SIZE" in os.environ:
        distributed.init_process_group("gloo", timeout=timedelta(minutes=20))
    if os.environ.get("RANK", "0") == "0":
        tokens.save(work / "tokenizer")
    if distributed.is_initialized():
        distributed.barrier()
    tokenizer: CLIPTokenizer = CLIPTokenizer.from_pretrained(work / "tokenizer")
    scaling = float(latest_vae(work).config["scaling_factor"])
    train(load(set_folder, work, tokenizer, scaling), tokenizer, work, UnetConfig(minutes=minutes), go_on=go_on)


if __name__ == "__main__":
    main(
        Path(sys.argv[1]),
        Path(sys.argv[2]),
        float(sys.argv[3]) if len(sys.argv) > 3 else 60.0,
        "continue" in sys.argv[4:],
    )
