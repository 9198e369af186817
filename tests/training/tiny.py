"""A Stable-Diffusion-shaped pipeline with random weights, small enough to train in a second."""

import json
from pathlib import Path
from typing import Any

import diffusers
import numpy as np
import torch
import transformers
from PIL import Image
from transformers import CLIPTokenizer

WORDS = ("zork", "standing", "close", "up", "forest", "street", "a", "boy", "of", "in", "the")
WIDTH = 32

# Their constructors are annotated more narrowly than they are called everywhere.
parts: Any = diffusers
text_parts: Any = transformers


def save_pipeline(folder: Path, *, prediction_type: str = "epsilon", seed: int = 0) -> Path:
    """Write the pipeline to `folder` in diffusers' layout."""
    torch.manual_seed(seed)
    unet = parts.UNet2DConditionModel(
        sample_size=8,
        block_out_channels=(32, 64),
        layers_per_block=1,
        down_block_types=("CrossAttnDownBlock2D", "DownBlock2D"),
        up_block_types=("UpBlock2D", "CrossAttnUpBlock2D"),
        cross_attention_dim=WIDTH,
        attention_head_dim=4,
        norm_num_groups=8,
    )
    vae = parts.AutoencoderKL(
        block_out_channels=(8, 8, 16, 16),
        down_block_types=("DownEncoderBlock2D",) * 4,
        up_block_types=("UpDecoderBlock2D",) * 4,
        latent_channels=4,
        norm_num_groups=4,
        sample_size=64,
    )
    tokenizer = save_tokenizer(folder.parent / f"{folder.name}-tokenizer")
    text = text_parts.CLIPTextModel(
        text_parts.CLIPTextConfig(
            vocab_size=len(tokenizer),
            hidden_size=WIDTH,
            intermediate_size=64,
            num_hidden_layers=2,
            num_attention_heads=4,
            max_position_embeddings=16,
            projection_dim=WIDTH,
            bos_token_id=tokenizer.bos_token_id,
            eos_token_id=tokenizer.eos_token_id,
            pad_token_id=tokenizer.pad_token_id,
        )
    )
    scheduler = parts.DDIMScheduler(
        beta_start=0.00085,
        beta_end=0.012,
        beta_schedule="scaled_linear",
        clip_sample=False,
        set_alpha_to_one=False,
        steps_offset=1,
        prediction_type=prediction_type,
    )
    pipeline = parts.StableDiffusionPipeline(
        vae=vae,
        text_encoder=text,
        tokenizer=tokenizer,
        unet=unet,
        scheduler=scheduler,
        safety_checker=None,
        feature_extractor=None,
        requires_safety_checker=False,
    )
    pipeline.save_pretrained(folder)
    return folder


def save_tokenizer(folder: Path) -> CLIPTokenizer:
    """Write a byte-pair tokenizer that knows letters and `WORDS` to `folder`."""
    letters = [chr(code) for code in range(ord("a"), ord("z") + 1)]
    vocabulary = [*letters, *(f"{letter}</w>" for letter in letters), ",</w>"]
    merges: list[str] = []
    for word in WORDS:
        parts = [*word[:-1], f"{word[-1]}</w>"]
        while len(parts) > 1:
            merge = f"{parts[0]} {parts[1]}"
            if merge not in merges:
                merges.append(merge)
                vocabulary.append(parts[0] + parts[1])
            parts = [parts[0] + parts[1], *parts[2:]]
    vocabulary += ["<|startoftext|>", "<|endoftext|>"]
    folder.mkdir(parents=True)
    (folder / "vocab.json").write_text(json.dumps({token: index for index, token in enumerate(vocabulary)}))
    (folder / "merges.txt").write_text("\n".join(["#version: 0.2", *merges]) + "\n")
    return CLIPTokenizer(str(folder / "vocab.json"), str(folder / "merges.txt"), model_max_length=16)


def save_dataset(folder: Path, *, count: int = 6, sizes: tuple[tuple[int, int], ...] = ((64, 64), (96, 64))) -> Path:
    """Write `count` coloured pictures with captions in a `2_zork boy` repeat folder below `folder`."""
    inside = folder / "2_zork boy"
    inside.mkdir(parents=True)
    numbers = np.random.default_rng(3)
    for index in range(count):
        width, height = sizes[index % len(sizes)]
        colour = numbers.integers(0, 255, (height // 8, width // 8, 3), dtype=np.uint8)
        Image.fromarray(colour).resize((width, height)).save(inside / f"{index:02d}.png")
        caption = f"zork, standing in the {'forest' if index % 2 else 'street'}"
        (inside / f"{index:02d}.txt").write_text(caption)
    return folder
