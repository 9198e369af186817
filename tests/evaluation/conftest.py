# pyright: reportArgumentType=none
# diffusers annotates its constructors by their defaults (a tuple of one block name, …).
"""A Stable-Diffusion-shaped pipeline with random weights, and a small suite."""

import json
from pathlib import Path
from typing import Any

import pytest
import torch

from onmodel.core.config import validate
from onmodel.evaluation.suite import TestSuite


def small_suite(**changes: Any) -> TestSuite:
    value = {
        "name": "small",
        "trigger": "zibo",
        "class": "boy",
        "seeds": [1, 2],
        "steps": 2,
        "guidance_scale": 3.0,
        "scenarios": {
            "close_up": ["close-up of {trigger}, a {age}", "portrait of {trigger}"],
            "full_body": ["full body of {trigger}", "{trigger} standing"],
            "multi_character": ["{trigger} with {companion}", "{trigger} beside {companion}"],
        },
    }
    return validate(TestSuite, {**value, **changes}, "small suite")


@pytest.fixture
def suite() -> TestSuite:
    return small_suite()


@pytest.fixture(scope="session")
def tiny_pipeline(tmp_path_factory: pytest.TempPathFactory) -> Any:
    """16 px pictures from 2x2 latents; random weights of fixed seed."""
    from diffusers import AutoencoderKL, DDIMScheduler, StableDiffusionPipeline, UNet2DConditionModel
    from transformers import CLIPTextConfig, CLIPTextModel, CLIPTokenizer

    torch.manual_seed(0)
    folder: Path = tmp_path_factory.mktemp("tokenizer")
    letters = "abcdefghijklmnopqrstuvwxyz,.- "
    vocabulary = ["<|startoftext|>", "<|endoftext|>", *letters, *(f"{letter}</w>" for letter in letters)]
    (folder / "vocab.json").write_text(json.dumps({t: i for i, t in enumerate(vocabulary)}))
    (folder / "merges.txt").write_text("#version: 0.2\n")
    tokenizer = CLIPTokenizer.from_pretrained(folder, model_max_length=77)
    text_config = CLIPTextConfig(
        vocab_size=len(vocabulary),
        hidden_size=32,
        intermediate_size=37,
        num_attention_heads=4,
        num_hidden_layers=2,
        max_position_embeddings=77,
        bos_token_id=0,
        eos_token_id=1,
    )
    unet = UNet2DConditionModel(
        sample_size=4,
        block_out_channels=(32, 64),
        layers_per_block=1,
        down_block_types=("CrossAttnDownBlock2D", "DownBlock2D"),
        up_block_types=("UpBlock2D", "CrossAttnUpBlock2D"),
        cross_attention_dim=32,
        attention_head_dim=8,
    )
    vae = AutoencoderKL(
        block_out_channels=(32, 32),
        down_block_types=("DownEncoderBlock2D",) * 2,
        up_block_types=("UpDecoderBlock2D",) * 2,
        norm_num_groups=8,
    )
    scheduler = DDIMScheduler(beta_start=0.00085, beta_end=0.012, beta_schedule="scaled_linear", clip_sample=False)
    return StableDiffusionPipeline(
        vae=vae,
        text_encoder=CLIPTextModel(text_config).eval(),
        tokenizer=tokenizer,
        unet=unet,
        scheduler=scheduler,
        safety_checker=None,
        feature_extractor=None,
        requires_safety_checker=False,
    )
