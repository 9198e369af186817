"""Drawing the planned test pictures, many in a batch: plain functions of a diffusers pipeline."""

from collections.abc import Callable, Generator, Sequence
from typing import Any

import torch
from PIL import Image

from onmodel.core.errors import ResourceError
from onmodel.core.files import write_bytes
from onmodel.evaluation.planned import DrawingModel, Planned, encode_picture
from onmodel.evaluation.suite import Sampler, TestSuite
from onmodel.training.families import clip

_SAMPLERS: dict[Sampler, str] = {
    "ddim": "DDIMScheduler",
    "dpm": "DPMSolverMultistepScheduler",
    "euler": "EulerDiscreteScheduler",
}
_PIXELS_AT_ONCE = {"cpu": 32 * 96 * 96, "cuda": 16 * 512 * 512}
"""Pixels of one batch: on a CPU larger batches gain nothing and wait longer; on a GPU this fits 8 GB for SD 1.5."""
Encoded = dict[str, dict[str, torch.Tensor]]
"""Text embeddings by prompt, each by the pipeline's name for them, (1, …)."""


def generate(
    pictures: Sequence[Planned],
    suite: TestSuite,
    model: DrawingModel,
    pipeline: Any,
    *,
    batch_size: int | None = None,
    encoded: Encoded | None = None,
    advance: Callable[[int], None] = lambda count: None,
) -> None:
    """Draw and write `pictures`, as `drawn` makes them; `advance` is called with the number just written."""
    for batch in drawn(pictures, suite, model, pipeline, batch_size=batch_size, encoded=encoded):
        for picture, data in batch:
            write_bytes(picture.path, data)
        advance(len(batch))


def drawn(
    pictures: Sequence[Planned],
    suite: TestSuite,
    model: DrawingModel,
    pipeline: Any,
    *,
    batch_size: int | None = None,
    encoded: Encoded | None = None,
) -> Generator[list[tuple[Planned, bytes]]]:
    """Draw `pictures` with a loaded pipeline; yields each batch's as PNG files' bytes.

    Args:
        pipeline: a diffusers text-to-image pipeline (of SD, SDXL or Flux) with the model's LoRA already on it.
        batch_size: pictures in one call; None chooses by size and device.
        encoded: prompts that this pipeline's text encoders have encoded before; what is encoded here is added.

    Raises:
        ResourceError: not even one picture fits into the device's memory.
    """
    if not pictures:
        return
    _prepare(pipeline, suite.sampler)
    known: Encoded = {} if encoded is None else encoded
    known.update(_encode(pipeline, sorted({p.text for p in pictures} - known.keys()), suite, model.clip_skip))
    size = batch_size or _batch_size(pipeline, suite)
    done = 0
    while done < len(pictures):
        batch = pictures[done : done + size]
        try:
            images = _draw(pipeline, batch, suite, known)
        except torch.cuda.OutOfMemoryError:
            torch.cuda.empty_cache()
            if size == 1:
                raise ResourceError("the device's memory is too small for one picture; lower its size") from None
            size = max(1, size // 2)
            continue
        done += len(batch)
        yield [(picture, encode_picture(image, picture, model)) for picture, image in zip(batch, images, strict=True)]


def _prepare(pipeline: Any, sampler: Sampler) -> None:
    pipeline.set_progress_bar_config(disable=True)
    if _matches_flows(pipeline):
        return  # the samplers' names are those of diffusion; a flow has its own
    if sampler in _SAMPLERS and type(pipeline.scheduler).__name__ != _SAMPLERS[sampler]:
        import diffusers

        pipeline.scheduler = getattr(diffusers, _SAMPLERS[sampler]).from_config(pipeline.scheduler.config)


def _matches_flows(pipeline: Any) -> bool:
    return getattr(pipeline, "transformer", None) is not None


_EMBEDS = ("prompt_embeds", "negative_prompt_embeds", "pooled_prompt_embeds", "negative_pooled_prompt_embeds")
"""What SD's and SDXL's `encode_prompt` return, in order."""


_TEXTS_AT_ONCE = 32


def _encode(pipeline: Any, texts: Sequence[str], suite: TestSuite, clip_skip: int) -> Encoded:
    """Text embeddings of each distinct prompt, many at once."""
    encoded: Encoded = {}
    for start in range(0, len(texts), _TEXTS_AT_ONCE):
        part = list(texts[start : start + _TEXTS_AT_ONCE])
        with torch.inference_mode():
            found = _encode_together(pipeline, part, suite, clip_skip)
        for row, text in enumerate(part):
            encoded[text] = {name: rows[row : row + 1] for name, rows in found.items()}
    return encoded


def _encode_together(pipeline: Any, texts: list[str], suite: TestSuite, clip_skip: int) -> dict[str, torch.Tensor]:
    if _matches_flows(pipeline):
        # Guidance is told to the model, so there is no negative prompt; the ids of tokens are all 0.
        tokens = min(512, pipeline.tokenizer_2.model_max_length)
        prompt, pooled, _ = pipeline.encode_prompt(texts, device=pipeline.device, max_sequence_length=tokens)
        return {"prompt_embeds": prompt, "pooled_prompt_embeds": pooled}
    if clip_skip > 1 and not hasattr(pipeline, "text_encoder_2"):
        # Not by the pipeline: diffusers looks for a level of the text encoder that transformers 5 left out.
        rows = clip.encode(pipeline, [*texts, suite.negative_prompt], clip_skip, 1)
        return dict(zip(_EMBEDS, (rows[:-1], rows[-1:].expand(len(texts), -1, -1)), strict=False))
    parts = pipeline.encode_prompt(
        prompt=texts,
        device=pipeline.device,
        num_images_per_prompt=1,
        do_classifier_free_guidance=suite.guidance_scale > 1.0,
        negative_prompt=[suite.negative_prompt] * len(texts),
    )
    return {name: part for name, part in zip(_EMBEDS, parts, strict=False) if part is not None}


def _draw(pipeline: Any, batch: Sequence[Planned], suite: TestSuite, encoded: Encoded) -> list[Image.Image]:
    names = encoded[batch[0].text].keys()
    embeds = {name: torch.cat([encoded[p.text][name] for p in batch]) for name in names}
    with torch.inference_mode():
        result = pipeline(
            **embeds,
            generator=[torch.Generator("cpu").manual_seed(p.noise_seed) for p in batch],
            num_inference_steps=suite.steps,
            guidance_scale=suite.guidance_scale,
            width=suite.width,
            height=suite.height,
            output_type="pil",
        )
    return list(result.images)


def _batch_size(pipeline: Any, suite: TestSuite) -> int:
    cells = pipeline.default_sample_size if _matches_flows(pipeline) else pipeline.unet.config.sample_size
    side = int(cells) * int(pipeline.vae_scale_factor)
    pixels = (suite.width or side) * (suite.height or side)
    return min(64, max(1, _PIXELS_AT_ONCE["cuda" if pipeline.device.type == "cuda" else "cpu"] // pixels))
