"""Train the bundled text-to-image model: a small UNet and text encoder on the autoencoder's latents.

    python -m onmodel.toybox.train_unet SET_FOLDER WORK_FOLDER [SECONDS]

Expects WORK_FOLDER/vae of `train_vae` and installs the whole as the bundled pipeline; `train_further` goes on from
there. Noise prediction, min-SNR weights (Hang et al. 2023, gamma 5), captions dropped at random for classifier-free
guidance, averaged weights.
"""

from __future__ import annotations

import copy
import sys
import time
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import torch
from diffusers import AutoencoderKL, DDIMScheduler, StableDiffusionPipeline, UNet2DConditionModel
from torch import Tensor, nn
from transformers import CLIPTextConfig, CLIPTextModel, CLIPTokenizer

from onmodel.core.vocabulary import ShotType
from onmodel.toybox import tokens, training_set
from onmodel.toybox.models import MODEL_SIDE, MODELS
from onmodel.toybox.render import Truth
from onmodel.toybox.schedule import Average, Clock, Gradients, best_device, write_whole
from onmodel.toybox.train_vae import encode


@dataclass(frozen=True, slots=True)
class UnetConfig:
    """Sizes of the UNet and the text encoder, and how to train."""

    channels: tuple[int, int, int] = (48, 96, 160)
    layers: int = 1
    text_width: int = 192
    text_layers: int = 3
    batch: int = 256
    learning_rate: float = 1.0e-3
    warmup_steps: int = 500
    snr_gamma: float = 5.0
    caption_dropout: float = 0.1
    average: float = 0.9996
    far_weight: float = 2.0
    """How often far pictures are drawn, against others: their figures are few latents large and learned last."""
    several_weight: float = 1.0
    """The same for pictures of several characters."""
    hidden_weight: float = 1.0
    """The same for pictures with something in front of the character."""
    compiled: bool = False
    """Fuse the UNet's kernels (torch.compile, CUDA only): a minute at first, then faster steps."""
    seed: int = 17

    def weight(self, truth: Truth) -> float:
        """How often a picture is drawn, against one of a single, unhidden character that is not far."""
        return (
            (self.far_weight if truth.shot_type is ShotType.FAR else 1.0)
            * (self.several_weight if truth.count > 1 else 1.0)
            * (self.hidden_weight if truth.occluders else 1.0)
        )


def build_unet(config: UnetConfig) -> UNet2DConditionModel:
    """Three levels at 16, 8 and 4 latent pixels, attention to the caption on each: a far figure is 4 latents high, and
    what its parts look like must be told apart at the finest level."""
    return UNet2DConditionModel(
        sample_size=MODEL_SIDE // 4, in_channels=4, out_channels=4, layers_per_block=config.layers,
        block_out_channels=config.channels, down_block_types=("CrossAttnDownBlock2D",) * 3,
        up_block_types=("CrossAttnUpBlock2D",) * 3, cross_attention_dim=config.text_width, attention_head_dim=4,
        norm_num_groups=16,
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
    """What the UNet is trained on, on its device."""

    weight: Tensor
    """float (n,): how often each is drawn."""
    mean: Tensor
    """float (n, 4, h, w) latent means, scaled."""
    std: Tensor
    """float (n, 4, h, w) latent deviations, scaled."""
    text: Tensor
    """(n, wordings, tokens) token ids."""
    empty: Tensor
    """(tokens,) ids of the empty caption."""


def load_tokenizer(work: Path) -> CLIPTokenizer:
    """The toybox's tokenizer, written to work/tokenizer."""
    tokens.save(work / "tokenizer")
    return CLIPTokenizer.from_pretrained(work / "tokenizer")


def prepare(data: training_set.TrainingSet, vae: Any, tokenizer: CLIPTokenizer, config: UnetConfig) -> Latents:
    """Encode every picture, and tokenise every wording of it."""
    flat: Any = tokenizer(
        [caption for wordings in data.captions for caption in wordings],
        padding="max_length", truncation=True, return_tensors="pt",
    )  # fmt: skip
    empty: Any = tokenizer([""], padding="max_length", return_tensors="pt")
    mean, std = (part * float(vae.config.scaling_factor) for part in encode(vae, data.images))
    return Latents(
        torch.tensor([config.weight(truth) for truth in data.truths], device=mean.device),
        mean,
        std,
        flat.input_ids.view(len(data.captions), -1, tokens.MAX_TOKENS).to(mean.device),
        empty.input_ids[0].to(mean.device),
    )


class _Both(nn.Module):
    """UNet and text encoder as one module, to average and save them together."""

    def __init__(self, unet: UNet2DConditionModel, text_encoder: CLIPTextModel) -> None:
        super().__init__()
        self.unet = unet
        self.text_encoder = text_encoder


@dataclass(frozen=True, slots=True)
class _Batch:
    noisy: Tensor
    times: Tensor
    ids: Tensor
    noise: Tensor
    weight: Tensor
    """(n, 1, 1, 1)."""

    def copy_(self, other: _Batch) -> None:
        """Take over the values of another batch, in place."""
        for name in ("noisy", "times", "ids", "noise", "weight"):
            getattr(self, name).copy_(getattr(other, name))


def draw(data: Latents, config: UnetConfig, alphas: Tensor) -> _Batch:
    """A random batch, noised."""
    n, device = config.batch, data.mean.device
    chosen = torch.multinomial(data.weight, n, replacement=True)
    latents = data.mean[chosen] + data.std[chosen] * torch.randn_like(data.std[chosen])
    ids = data.text[chosen, torch.randint(data.text.shape[1], (n,), device=device)]
    dropped = torch.rand(n, device=device) < config.caption_dropout
    ids = torch.where(dropped[:, None], data.empty, ids)
    # One time step from each of n equal spans: less variance between batches than independent draws.
    spans = (torch.arange(n, device=device) + torch.rand(n, device=device)) / n
    times = (spans * len(alphas)).long().clamp(0, len(alphas) - 1)
    alpha = alphas[times].view(-1, 1, 1, 1)
    noise = torch.randn_like(latents)
    noisy = alpha.sqrt() * latents + (1 - alpha).sqrt() * noise
    snr = alpha / (1 - alpha)
    return _Batch(noisy, times, ids, noise, snr.clamp(max=config.snr_gamma) / snr)


def batch_loss(both: _Both, unet: Callable[..., Any], batch: _Batch) -> Tensor:
    """Weighted noise-prediction error, in the precision that `both` is in."""
    kind = next(both.parameters()).dtype
    predicted = unet(batch.noisy.to(kind), batch.times, both.text_encoder(batch.ids)[0]).sample
    return (batch.weight * (predicted.float() - batch.noise) ** 2).mean()


class _Steps:
    """Gradients of one batch after the other.

    On CUDA a copy of the modules in bfloat16 computes them, which takes over the weights at each step.
    """

    def __init__(self, both: _Both, example: _Batch, *, compiled: bool) -> None:
        self._both, self._static = both, example
        cuda = example.noisy.is_cuda
        self._worker = copy.deepcopy(both).bfloat16() if cuda else both
        self._unet: Callable[..., Any] = torch.compile(self._worker.unet) if compiled else self._worker.unet
        if cuda:
            for parameter in both.parameters():
                parameter.grad = torch.zeros_like(parameter)
        self._gradients = Gradients(self._worker, self._half_backward if cuda else self._backward, cuda=cuda)

    def _half_backward(self) -> Tensor:
        masters: list[Tensor] = list(self._both.parameters())
        halves: list[Tensor] = list(self._worker.parameters())
        with torch.no_grad():
            torch._foreach_copy_(halves, masters)  # pyright: ignore[reportPrivateUsage]
        self._worker.zero_grad(set_to_none=True)
        loss = self._backward()
        with torch.no_grad():
            into = [_gradient(p) for p in masters]
            torch._foreach_copy_(into, [_gradient(p) for p in halves])  # pyright: ignore[reportPrivateUsage]
        return loss

    def _backward(self) -> Tensor:
        loss = batch_loss(self._worker, self._unet, self._static)
        loss.backward()
        return loss.detach()

    def __call__(self, batch: _Batch) -> Tensor:
        """The batch's loss."""
        self._static.copy_(batch)
        return self._gradients()


def _gradient(parameter: Tensor) -> Tensor:
    if parameter.grad is None:
        raise RuntimeError(f"a parameter of shape {tuple(parameter.shape)} takes no part in the loss")
    return parameter.grad


def install(both: _Both, vae: Any, tokenizer: CLIPTokenizer, target: Path) -> None:
    """Write the pipeline; autoencoder and UNet in half precision, which diffusers loads as float32.

    The text encoder stays in single precision: transformers loads weights in the precision they were saved in.
    """
    kind: Any = StableDiffusionPipeline
    # Saved with the model otherwise: a folder of the training machine.
    vae.register_to_config(_name_or_path="")
    pipeline = kind(
        vae=copy.deepcopy(vae).cpu().half(), text_encoder=copy.deepcopy(both.text_encoder).cpu(), tokenizer=tokenizer,
        unet=copy.deepcopy(both.unet).cpu().half(), scheduler=build_scheduler(), safety_checker=None,
        feature_extractor=None, requires_safety_checker=False,
    )  # fmt: skip
    write_whole(target, lambda folder: pipeline.save_pretrained(folder, safe_serialization=True))


def bundled_weights(both: _Both) -> None:
    """Take over the weights of the bundled pipeline."""
    folder = MODELS / "diffusion"
    unet: Any = UNet2DConditionModel.from_pretrained(folder / "unet", torch_dtype=torch.float32)
    text_encoder: Any = CLIPTextModel.from_pretrained(folder / "text_encoder", torch_dtype=torch.float32)
    both.unet.load_state_dict(unet.state_dict())
    both.text_encoder.load_state_dict(text_encoder.state_dict())


def train(
    supply: Callable[[], Latents],
    vae: Any,
    tokenizer: CLIPTokenizer,
    seconds: float,
    config: UnetConfig,
    *,
    go_on: bool = False,
) -> None:
    """Train for that long, from the bundled weights where `go_on`, and install the averaged weights.

    Args:
        supply: what to train on; asked again every 50 steps, so that it may grow.
        seconds: of all, with what it takes to build and to compile.
    """
    began = time.monotonic()
    torch.manual_seed(config.seed + go_on)
    both, data = _Both(build_unet(config), build_text_encoder(config, tokenizer)), supply()
    if go_on:
        bundled_weights(both)
    both.to(data.mean.device)
    print(f"UNet: {sum(p.numel() for p in both.parameters()) / 1e6:.2f} M parameters", flush=True)
    optimizer = torch.optim.AdamW(
        both.parameters(), config.learning_rate, betas=(0.9, 0.99), weight_decay=0.01, fused=True
    )  # fmt: skip
    average = Average(both, config.average)
    alphas = build_scheduler().alphas_cumprod.to(data.mean.device)
    gradients = _Steps(both, draw(data, config, alphas), compiled=config.compiled)
    total = torch.zeros((), device=data.mean.device)
    clock = Clock(optimizer, seconds - (time.monotonic() - began), warmup=config.warmup_steps, floor=0.01)
    for step in clock:
        if step % 50 == 49:
            data = supply()
        total += gradients(draw(data, config, alphas))
        torch.nn.utils.clip_grad_norm_(both.parameters(), 1.0)
        optimizer.step()
        average.update(both)
        if step % 200 == 199:
            print(f"UNet: step {step + 1}, {len(data.mean)} pictures, loss {float(total) / 200:.4f}", flush=True)
            total.zero_()
    average.copy_to(both)
    install(both.eval(), vae, tokenizer, MODELS / "diffusion")
    print(f"UNet: {clock.step} steps of {config.batch}", flush=True)


def main(set_folder: Path, work: Path, seconds: float) -> None:
    """Train on a set."""
    vae: Any = AutoencoderKL.from_pretrained(work / "vae", torch_dtype=torch.float32)
    tokenizer, config = load_tokenizer(work), UnetConfig()
    data = prepare(training_set.read(set_folder, MODEL_SIDE), vae.to(best_device()), tokenizer, config)
    train(lambda: data, vae, tokenizer, seconds, config)


if __name__ == "__main__":
    main(Path(sys.argv[1]), Path(sys.argv[2]), float(sys.argv[3]) if len(sys.argv) > 3 else 3600.0)
