"""Pipelines of each family's true structure with random weights, small enough to train in a second."""

from collections.abc import Callable
from pathlib import Path
from typing import Any

import diffusers
import torch
import transformers

from .tiny import WIDTH, save_pipeline, save_tokenizer

# Their constructors are annotated more narrowly than they are called everywhere.
parts: Any = diffusers
text_parts: Any = transformers


def save_sdxl(folder: Path) -> Path:
    """SDXL: blocks without and with attention, two layers a block, two text encoders of different widths."""
    torch.manual_seed(1)
    tokenizer = save_tokenizer(folder.parent / f"{folder.name}-tokenizer")
    unet = parts.UNet2DConditionModel(
        sample_size=8,
        block_out_channels=(16, 32),
        layers_per_block=2,
        down_block_types=("DownBlock2D", "CrossAttnDownBlock2D"),
        up_block_types=("CrossAttnUpBlock2D", "UpBlock2D"),
        cross_attention_dim=WIDTH + 16,
        attention_head_dim=(2, 4),
        norm_num_groups=4,
        use_linear_projection=True,
        addition_embed_type="text_time",
        addition_time_embed_dim=8,
        projection_class_embeddings_input_dim=6 * 8 + 24,
    )
    scheduler = parts.EulerDiscreteScheduler(
        beta_start=0.00085, beta_end=0.012, beta_schedule="scaled_linear", timestep_spacing="leading", steps_offset=1
    )
    parts.StableDiffusionXLPipeline(
        vae=vae(channels=4),
        text_encoder=text_parts.CLIPTextModel(text_config(tokenizer, WIDTH)),
        text_encoder_2=text_parts.CLIPTextModelWithProjection(text_config(tokenizer, 16, projection_dim=24)),
        tokenizer=tokenizer,
        tokenizer_2=tokenizer,
        unet=unet,
        scheduler=scheduler,
        add_watermarker=False,
    ).save_pretrained(folder)
    return folder


def save_flux(folder: Path) -> Path:
    """Flux.1-dev: two double blocks, one single block, CLIP and T5, guidance embedded."""
    torch.manual_seed(2)
    tokenizer = save_tokenizer(folder.parent / f"{folder.name}-tokenizer")
    letters = [(letter, -3.0) for letter in "abcdefghijklmnopqrstuvwxyz,▁"]
    sentences = text_parts.T5Tokenizer(
        vocab=[("<pad>", 0.0), ("</s>", 0.0), ("<unk>", 0.0), *letters], extra_ids=0, model_max_length=20
    )
    transformer = parts.FluxTransformer2DModel(
        patch_size=1,
        in_channels=16,
        num_layers=2,
        num_single_layers=1,
        attention_head_dim=16,
        num_attention_heads=2,
        joint_attention_dim=24,
        pooled_projection_dim=WIDTH,
        guidance_embeds=True,
        axes_dims_rope=(4, 4, 8),
    )
    t5 = text_parts.T5EncoderModel(
        text_parts.T5Config(
            vocab_size=len(sentences),
            d_model=24,
            d_kv=8,
            d_ff=32,
            num_layers=1,
            num_heads=3,
            feed_forward_proj="gated-gelu",
        )
    )
    parts.FluxPipeline(
        vae=vae(channels=4, shift_factor=0.1),
        text_encoder=text_parts.CLIPTextModel(text_config(tokenizer, WIDTH)),
        tokenizer=tokenizer,
        text_encoder_2=t5,
        tokenizer_2=sentences,
        transformer=transformer,
        scheduler=parts.FlowMatchEulerDiscreteScheduler(shift=3.0),
    ).save_pretrained(folder)
    return folder


def vae(channels: int, **changes: Any) -> Any:
    """An autoencoder that makes pictures eight times smaller."""
    return parts.AutoencoderKL(
        block_out_channels=(8, 8, 16, 16),
        down_block_types=("DownEncoderBlock2D",) * 4,
        up_block_types=("UpDecoderBlock2D",) * 4,
        latent_channels=channels,
        norm_num_groups=4,
        sample_size=64,
        **changes,
    )


def text_config(tokenizer: Any, width: int, **changes: Any) -> Any:
    """A CLIP text encoder of two layers."""
    return text_parts.CLIPTextConfig(
        vocab_size=len(tokenizer),
        hidden_size=width,
        intermediate_size=2 * width,
        num_hidden_layers=2,
        num_attention_heads=4,
        max_position_embeddings=16,
        bos_token_id=tokenizer.bos_token_id,
        eos_token_id=tokenizer.eos_token_id,
        pad_token_id=tokenizer.pad_token_id,
        **{"projection_dim": width} | changes,
    )


MAKERS: dict[str, Callable[[Path], Path]] = {
    "sd1": save_pipeline,
    "sd2": lambda folder: save_pipeline(folder, prediction_type="v_prediction"),
    "sdxl": save_sdxl,
    "flux": save_flux,
}
