"""Training on a CUDA device: Stable Diffusion 1.5's structure with random weights, 512 px, bf16, a LoRA of rank 32.

    python tests/benchmarks/bench_gpu.py [SECONDS]

Prints images a second of OnModel's own optimizer step at batches of 1, 4 and 16, with and without gradient
checkpointing and `torch_compile` (`dynamo_backend` cudagraphs and inductor), the share of the card's measured bf16
matrix rate at 1.36 TFLOP an image (forward, and backward to activations and LoRA weights), peak memory, the first
step's seconds (compiling is in it), and how many pictures a second are encoded for the cache. Inputs are cached, as in
training. The most telling come first; after SECONDS (240) nothing more is begun.
"""

import sys
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

import torch
from diffusers import AutoencoderKL, DDIMScheduler, StableDiffusionPipeline, UNet2DConditionModel
from transformers import CLIPTextConfig, CLIPTextModel, CLIPTokenizer

from onmodel.core.config import validate
from onmodel.toybox.models import bundled
from onmodel.training.buckets import Batch
from onmodel.training.config import TrainConfig
from onmodel.training.data import TrainingData
from onmodel.training.families import StableDiffusion
from onmodel.training.job import TrainingPicture
from onmodel.training.loop import Alone, Trainer

SIDE, RANK, PICTURES = 512, 32, 64
TFLOP_AN_IMAGE = 1.36
WARMUP, TIMED = 3, 8
DEVICE = torch.device("cuda")
VARIANTS: list[tuple[int, bool, str]] = [
    (1, False, "no"), (16, False, "no"), (16, False, "cudagraphs"), (16, False, "inductor"), (16, True, "no"),
    (1, False, "cudagraphs"), (1, False, "inductor"), (4, False, "inductor"), (16, True, "inductor"),
    (4, False, "no"), (4, False, "cudagraphs"), (4, True, "no"), (1, True, "no"),
]  # fmt: skip
"""Batch, gradient checkpointing, `dynamo_backend`."""


def pipeline() -> Any:
    """A pipeline of Stable Diffusion 1.5's structure, random weights in bf16."""
    kind: Any = StableDiffusionPipeline
    with DEVICE:
        text: Any = CLIPTextModel(CLIPTextConfig(num_hidden_layers=1, hidden_size=768, num_attention_heads=12))
        unet: Any = UNet2DConditionModel(cross_attention_dim=768, attention_head_dim=8)
        autoencoder: Any = AutoencoderKL
        vae = autoencoder(
            block_out_channels=(128, 256, 512, 512), layers_per_block=2, latent_channels=4,
            down_block_types=("DownEncoderBlock2D",) * 4, up_block_types=("UpDecoderBlock2D",) * 4,
        )  # fmt: skip
    parts = {
        "vae": vae.to(torch.bfloat16),
        "text_encoder": text,
        "tokenizer": CLIPTokenizer.from_pretrained(bundled("diffusion") / "tokenizer"),
        "unet": unet.to(torch.bfloat16),
        "scheduler": DDIMScheduler(beta_start=0.00085, beta_end=0.012, beta_schedule="scaled_linear"),
    }
    return kind(**parts, safety_checker=None, feature_extractor=None, requires_safety_checker=False)


def matrix_rate() -> float:
    """TFLOP/s of an 8192 x 8192 x 8192 bf16 product of random data."""
    left, right = (torch.randn(8192, 8192, device=DEVICE, dtype=torch.bfloat16) for _ in range(2))
    return 2 * 8192**3 / 1e12 / seconds(lambda: left @ right, 3, 10)


def seconds(work: Callable[[], object], warmup: int, timed: int) -> float:
    """Seconds of one call on the device, the mean of `timed` after `warmup`."""
    for _ in range(warmup):
        work()
    start, end = torch.cuda.Event(enable_timing=True), torch.cuda.Event(enable_timing=True)
    start.record()
    for _ in range(timed):
        work()
    end.record()
    torch.cuda.synchronize()
    return start.elapsed_time(end) / 1000 / timed


def trainer(base: Any, batch: int, *, checkpointing: bool, backend: str) -> Trainer:
    """OnModel's trainer on cached random latents and text."""
    config = validate(
        TrainConfig,
        {
            "model": {"pretrained_model_name_or_path": "random"},
            "network": {"network_dim": RANK, "network_alpha": RANK},
            "training": {"max_train_steps": 100_000, "train_batch_size": batch, "mixed_precision": "bf16"},
            "data": {"train_data_dir": "none"},
            "advanced": {
                "gradient_checkpointing": checkpointing,
                "torch_compile": backend != "no",
                "dynamo_backend": backend,
            },
        },
        "benchmark",
    )
    captions = [f"picture {index}" for index in range(PICTURES)]
    latents = [torch.randn(4, SIDE // 8, SIDE // 8) for _ in captions]
    text = {caption: torch.randn(77, 768) for caption in captions}
    pictures = [TrainingPicture(Path(caption), caption, 1, "") for caption in captions]
    data = TrainingData(pictures, [(SIDE, SIDE)] * PICTURES, latents, text)
    return Trainer(config, StableDiffusion(base), data, Alone(), DEVICE)


def measure(batch: int, *, checkpointing: bool, backend: str) -> tuple[float, float, float]:
    """Images a second of the optimizer step, peak GiB, and seconds of the first step."""
    torch.cuda.empty_cache()
    torch.cuda.reset_peak_memory_stats()
    torch.compiler.reset()
    made = trainer(pipeline(), batch, checkpointing=checkpointing, backend=backend)
    group = [Batch(tuple(range(batch)))]
    first = seconds(lambda: made._train_step(group, 0), 0, 1)  # pyright: ignore[reportPrivateUsage]
    taken = seconds(lambda: made._train_step(group, 0), WARMUP, TIMED)  # pyright: ignore[reportPrivateUsage]
    return batch / taken, torch.cuda.max_memory_allocated() / 2**30, first


def encoding_rate() -> float:
    """Pictures a second through the autoencoder, 16 at a time."""
    family = StableDiffusion(pipeline())
    pixels = torch.rand(16, 3, SIDE, SIDE, device=DEVICE) * 2 - 1
    return len(pixels) / seconds(lambda: family.encode_pictures(pixels), 2, 5)


def main(limit: float) -> None:
    """Print `name | value | target | met`."""
    if not torch.cuda.is_available():
        print("training on a CUDA device | - | - | no CUDA device here")
        return
    began = time.monotonic()
    print(f"card | {torch.cuda.get_device_name()} | - | -")
    rate = matrix_rate()
    print(f"bf16 matrix rate, TFLOP/s | {rate:.0f} | - | -", flush=True)
    print(f"encoded for the cache, pictures/s | {encoding_rate():.0f} | - | -", flush=True)
    for batch, checkpointing, backend in VARIANTS:
        if time.monotonic() - began > limit:
            break
        name = f"batch {batch}{', gradient checkpointing' if checkpointing else ''}"
        name += f", torch_compile by {backend}" if backend != "no" else ""
        try:
            images, memory, first = measure(batch, checkpointing=checkpointing, backend=backend)
        except Exception as error:  # one variant's fault leaves the others their time on the card
            print(f"{name} | {type(error).__name__}: {str(error).splitlines()[:1]} | >= 0.4 | not met", flush=True)
            continue
        share = images * TFLOP_AN_IMAGE / rate
        print(
            f"{name}: images/s {images:.1f}, {memory:.1f} GiB, first step {first:.0f} s, share of matrix rate "
            f"| {share:.2f} | >= 0.4 | {'met' if share >= 0.4 else 'not met'}",
            flush=True,
        )


if __name__ == "__main__":
    main(float(sys.argv[1]) if len(sys.argv) > 1 else 240.0)
