"""Training images a second on the bundled UNet, as ratios in one run:

(a) to a minimal hand-written PyTorch loop: same UNet, LoRA layers, rank and batch, inputs encoded beforehand;
(b) to the same loop that encodes pictures and captions at every step, as diffusers' example script does.

All take turns in one process, so that what else the machine does falls on each alike; the first losses are compared
before anything is timed. Peak memory is measured beside, each loop in a process of its own.

The bundled autoencoder and text encoder are tiny, so there is little to save by caching. What there is to save on a
model that people use, one more row shows: OnModel's step on Stable Diffusion 1.5's shapes (random weights, 256 px), and
the same step after encoding its pictures and captions.
"""

import resource
import statistics
import subprocess
import sys
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

import diffusers
import torch
import torch.nn.functional as F
import transformers
from peft import LoraConfig, inject_adapter_in_model
from torch import Tensor

from onmodel.core.config import validate
from onmodel.toybox.models import bundled
from onmodel.training import network
from onmodel.training.buckets import plan_epoch, seeded
from onmodel.training.config import TrainConfig
from onmodel.training.data import TrainingData
from onmodel.training.families import StableDiffusion
from onmodel.training.job import TrainingPicture
from onmodel.training.loop import Alone, Trainer
from onmodel.training.pipeline import load_pipeline

BATCH, RANK, SIDE, PICTURES = 8, 16, 96, 32
ROUNDS, STEPS = 5, 8
"""Turns, and optimizer steps a turn."""
TRUE_SIDE, TRUE_BATCH, TRUE_TURNS = 256, 1, 2
SEED = 3


def _inputs() -> tuple[Tensor, list[str]]:
    generator = torch.Generator().manual_seed(SEED)
    pixels = torch.rand(PICTURES, 3, SIDE, SIDE, generator=generator) * 2 - 1
    return pixels, [f"a boy standing, number {index}" for index in range(PICTURES)]


def _peak(base: str, name: str) -> float:
    """Most memory in MB that a process holds which runs one of the loops for a turn."""
    found = subprocess.run([sys.executable, __file__, base, name], check=True, capture_output=True, text=True)
    return float(found.stdout)


def measure_peak(base: str, name: str) -> None:
    """Run one of the loops, and print what `_peak` reads."""
    pixels, captions = _inputs()
    if name == "ours":
        ours = Ours(StableDiffusion(load_pipeline(base)), pixels, captions)
        for _ in range(STEPS):
            ours.step()
    else:
        bare = Bare(base, encoded(StableDiffusion(load_pipeline(base)), pixels, captions))
        for _ in range(STEPS):
            if name == "uncached":
                bare.step(pixels, captions)
            else:
                bare.step()
    print(_most_memory())


def _most_memory() -> float:
    """Most memory in MB that this process has held."""
    status = Path("/proc/self/status")
    if status.is_file():
        # Linux' ru_maxrss is never below what the process held that started this one.
        lines = status.read_text(encoding="utf-8").splitlines()
        return next(int(line.split()[1]) / 2**10 for line in lines if line.startswith("VmHWM:"))
    most = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss
    return most / (2**20 if sys.platform == "darwin" else 2**10)


def main(base: str = "toybox") -> None:
    """Print `name | value | target | met`."""
    pixels, captions = _inputs()
    ours = Ours(StableDiffusion(load_pipeline(base)), pixels, captions)
    bare = Bare(base, ours.data)
    first = ours.step()
    expected = bare.first_loss()
    if abs(first - expected) > 1e-4 * expected:
        raise SystemExit(f"the loops do not do the same: first losses {first} and {expected}")
    turns: dict[str, Callable[[], object]] = {
        "ours": ours.step,
        "bare": bare.step,
        "uncached": lambda: bare.step(pixels, captions),
    }
    rates: dict[str, list[float]] = {name: [] for name in turns}
    for turn in range(ROUNDS + 1):
        for name, step in turns.items():
            start = time.perf_counter()
            for _ in range(STEPS):
                step()
            if turn:  # the first turn warms up
                rates[name].append(BATCH * STEPS / (time.perf_counter() - start))
    for name, target in (("bare", 0.95), ("uncached", 2.0)):
        value = statistics.median(mine / other for mine, other in zip(rates["ours"], rates[name], strict=True))
        print(f"training images/s over {name} loop | {value:.2f} | >= {target} | {'yes' if value >= target else 'no'}")
    peaks = {name: _peak(base, name) for name in turns}
    shown = ", ".join(f"{name} {peak:.0f} MB" for name, peak in peaks.items())
    print(f"peak memory: {shown}")
    shown = ", ".join(f"{name} {statistics.median(values):.1f}" for name, values in rates.items())
    print(f"images/s ({torch.get_num_threads()} threads): {shown}")


def true_shapes() -> None:
    """Print the row of Stable Diffusion 1.5's shapes; takes 7 GB of memory and some minutes."""
    generator = torch.Generator().manual_seed(SEED)
    pixels = torch.rand(TRUE_BATCH, 3, TRUE_SIDE, TRUE_SIDE, generator=generator) * 2 - 1
    captions = [f"a boy standing, number {index}" for index in range(TRUE_BATCH)]
    pipeline = _stable_diffusion()
    ours = Ours(StableDiffusion(pipeline), pixels, captions, side=TRUE_SIDE)

    def uncached() -> None:
        encoded(StableDiffusion(pipeline), pixels, captions, side=TRUE_SIDE)
        ours.step()

    ratios: list[float] = []
    for turn in range(TRUE_TURNS + 1):
        taken: list[float] = []
        for step in (ours.step, uncached):
            # Of the processor: a step takes long enough for other work on the machine to fall on some alone.
            start = time.process_time()
            step()
            taken.append(time.process_time() - start)
        if turn:
            ratios.append(taken[1] / taken[0])
    value = statistics.median(ratios)
    shape = f"Stable Diffusion 1.5's shapes, {TRUE_SIDE} px, batch {TRUE_BATCH}"
    print(f"{shape}: images/s over encoding at each step | {value:.2f} | >= 2 | {'yes' if value >= 2 else 'no'}")


def _stable_diffusion() -> Any:
    """A pipeline of Stable Diffusion 1.5's shapes with random weights, float32."""
    parts: Any = diffusers
    text: Any = transformers
    blocks = (128, 256, 512, 512)
    vae = parts.AutoencoderKL(
        block_out_channels=blocks,
        layers_per_block=2,
        latent_channels=4,
        down_block_types=("DownEncoderBlock2D",) * 4,
        up_block_types=("UpDecoderBlock2D",) * 4,
    )
    tokenizer = text.CLIPTokenizer.from_pretrained(bundled("diffusion") / "tokenizer", model_max_length=77)
    clip = {"num_hidden_layers": 12, "hidden_size": 768, "intermediate_size": 3072, "num_attention_heads": 12}
    return parts.StableDiffusionPipeline(
        vae=vae,
        text_encoder=text.CLIPTextModel(text.CLIPTextConfig(**clip)),
        tokenizer=tokenizer,
        unet=parts.UNet2DConditionModel(cross_attention_dim=768, attention_head_dim=8),
        scheduler=parts.DDIMScheduler(
            beta_start=0.00085, beta_end=0.012, beta_schedule="scaled_linear", steps_offset=1, clip_sample=False
        ),
        safety_checker=None,
        feature_extractor=None,
        requires_safety_checker=False,
    )


def encoded(family: StableDiffusion, pixels: Tensor, captions: list[str], side: int = SIDE) -> TrainingData:
    """The inputs as the cache would hold them."""
    latents = list(family.encode_pictures(pixels))
    with torch.no_grad():
        text = dict(zip(captions, family.encode_captions(captions), strict=True))
    pictures = [TrainingPicture(Path(f"{caption}.png"), caption, 1, "") for caption in captions]
    return TrainingData(pictures, [(side, side)] * len(pictures), latents, text)


class Ours:
    """OnModel's trainer on pictures encoded once."""

    def __init__(self, family: StableDiffusion, pixels: Tensor, captions: list[str], side: int = SIDE) -> None:
        batch = min(BATCH, len(pixels))
        config = validate(
            TrainConfig,
            {
                "model": {"pretrained_model_name_or_path": "benchmark"},
                "network": {"network_dim": RANK, "network_alpha": RANK},
                "training": {"max_train_steps": 100_000, "train_batch_size": batch, "seed": SEED},
                "data": {"train_data_dir": "none"},
            },
            "benchmark",
        )
        self.data = encoded(family, pixels, captions, side)
        self.trainer = Trainer(config, family, self.data, Alone(), torch.device("cpu"))
        self._plan = plan_epoch(self.data.buckets, self.data.repeats, batch, SEED, 0)

    def step(self) -> float:
        batch = self._plan[self.trainer.step % len(self._plan)]
        return self.trainer._train_step([batch], 0).loss  # pyright: ignore[reportPrivateUsage]


class Bare:
    """What one would write by hand: peft layers, AdamW, mean squared error."""

    def __init__(self, base: str, data: TrainingData) -> None:
        self._pipeline: Any = load_pipeline(base)
        unet = self._pipeline.unet
        unet.requires_grad_(False)
        targets = network.target_modules("unet", unet)
        inject_adapter_in_model(LoraConfig(r=RANK, lora_alpha=RANK, target_modules=targets), unet)
        self._parameters = [p for p in unet.parameters() if p.requires_grad]
        self._optimizer = torch.optim.AdamW(self._parameters, lr=1e-4, fused=True)
        self._alphas = self._pipeline.scheduler.alphas_cumprod
        self._latents = torch.stack(data.latents)
        self._text = torch.stack([data.conditioning[picture.caption] for picture in data.pictures])
        self._first = list(plan_epoch(data.buckets, data.repeats, BATCH, SEED, 0)[0].pictures)
        self._at = 0

    def first_loss(self) -> float:
        """The loss that `Ours` must have had at its first step: up matrices are zero, so the base model's."""
        generator = seeded(SEED, 0, 2)
        noise = torch.randn(BATCH, *self._latents.shape[1:], generator=generator)
        steps = torch.randint(1000, (BATCH,), generator=generator)
        with torch.no_grad():
            return float(self._loss(self._latents[self._first], self._text[self._first], noise, steps))

    def step(self, pixels: Tensor | None = None, captions: list[str] | None = None) -> None:
        chosen = [(self._at + index) % len(self._latents) for index in range(BATCH)]
        self._at += BATCH
        latents, text = self._latents[chosen], self._text[chosen]
        if pixels is not None and captions is not None:
            with torch.no_grad():
                vae = self._pipeline.vae
                latents = vae.encode(pixels[chosen]).latent_dist.sample() * vae.config.scaling_factor
                ids = self._pipeline.tokenizer(
                    [captions[index] for index in chosen],
                    padding="max_length",
                    truncation=True,
                    max_length=self._pipeline.tokenizer.model_max_length,
                    return_tensors="pt",
                ).input_ids
                text = self._pipeline.text_encoder(ids)[0]
        loss = self._loss(latents, text, torch.randn_like(latents), torch.randint(1000, (BATCH,)))
        loss.backward()
        torch.nn.utils.clip_grad_norm_(self._parameters, 1.0)
        self._optimizer.step()
        self._optimizer.zero_grad()

    def _loss(self, latents: Tensor, text: Tensor, noise: Tensor, steps: Tensor) -> Tensor:
        alpha = self._alphas[steps].view(-1, 1, 1, 1)
        noisy = alpha.sqrt() * latents + (1 - alpha).sqrt() * noise
        return F.mse_loss(self._pipeline.unet(noisy, steps, text).sample, noise)


if __name__ == "__main__":
    if len(sys.argv) == 3:
        measure_peak(sys.argv[1], sys.argv[2])
    else:
        main()
        true_shapes()
