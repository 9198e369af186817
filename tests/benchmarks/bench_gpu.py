"""Training on a CUDA device: Stable Diffusion 1.5's structure with random weights, 512 px, bf16, a LoRA of rank 32.

    python tests/benchmarks/bench_gpu.py [SECONDS]

Prints images a second of OnModel's own optimizer step at batches of 1, 4 and 16, with and without gradient
checkpointing and torch.compile, the share of the card's measured bf16 matrix rate at 1.36 TFLOP an image (forward, and
backward to activations and LoRA weights), peak memory, and how many pictures a second are encoded for the cache. Inputs
are cached, as in training. After SECONDS (600) nothing more is begun.
"""

import sys
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

import torch
from diffusers import AutoencoderKL, DDIMScheduler, StableDiffusionPipeline, UNet2DConditionModel
from diffusers.models.attention import BasicTransformerBlock
from diffusers.models.resnet import ResnetBlock2D
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
VARIANTS: list[tuple[int, bool, bool]] = [
    (1, False, False), (4, False, False), (16, False, False), (16, False, True), (4, False, True),
    (1, True, False), (4, True, False), (16, True, False), (1, False, True),
]  # fmt: skip
"""Batch, gradient checkpointing, torch.compile."""


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


def trainer(base: Any, batch: int, *, checkpointing: bool, compiled: bool) -> Trainer:
    """OnModel's trainer on cached random latents and text."""
    config = validate(
        TrainConfig,
        {
            "model": {"pretrained_model_name_or_path": "random"},
            "network": {"network_dim": RANK, "network_alpha": RANK},
            "training": {"max_train_steps": 100_000, "train_batch_size": batch, "mixed_precision": "bf16"},
            "data": {"train_data_dir": "none"},
            "advanced": {"gradient_checkpointing": checkpointing},
        },
        "benchmark",
    )
    captions = [f"picture {index}" for index in range(PICTURES)]
    latents = [torch.randn(4, SIDE // 8, SIDE // 8) for _ in captions]
    text = {caption: torch.randn(77, 768) for caption in captions}
    pictures = [TrainingPicture(Path(caption), caption, 1, "") for caption in captions]
    data = TrainingData(pictures, [(SIDE, SIDE)] * PICTURES, latents, text)
    made = Trainer(config, StableDiffusion(base), data, Alone(), DEVICE)
    if compiled:
        # Block by block: a block that comes again is compiled once.
        for module in base.unet.modules():
            if isinstance(module, BasicTransformerBlock | ResnetBlock2D):
                module.compile()
    return made


def measure(batch: int, *, checkpointing: bool, compiled: bool) -> tuple[float, float]:
    """Images a second of the optimizer step, and peak GiB."""
    torch.cuda.empty_cache()
    torch.cuda.reset_peak_memory_stats()
    torch.compiler.reset()
    made = trainer(pipeline(), batch, checkpointing=checkpointing, compiled=compiled)
    group = [Batch(tuple(range(batch)))]
    taken = seconds(lambda: made._train_step(group, 0), WARMUP, TIMED)  # pyright: ignore[reportPrivateUsage]
    return batch / taken, torch.cuda.max_memory_allocated() / 2**30


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
    for batch, checkpointing, compiled in VARIANTS:
        if time.monotonic() - began > limit:
            break
        images, memory = measure(batch, checkpointing=checkpointing, compiled=compiled)
        share = images * TFLOP_AN_IMAGE / rate
        extras = "".join(
            text for text, on in ((", gradient checkpointing", checkpointing), (", torch.compile", compiled)) if on
        )
        print(
            f"batch {batch}{extras}: images/s {images:.1f}, {memory:.1f} GiB, share of matrix rate "
            f"| {share:.2f} | >= 0.4 | {'met' if share >= 0.4 else 'not met'}",
            flush=True,
        )


if __name__ == "__main__":
    main(float(sys.argv[1]) if len(sys.argv) > 1 else 600.0)
