"""Test pictures: checkpoint x prompt x variation x LoRA scale, batched over prompts, only what is missing.

A picture depends on its prompt, its seed and the model alone: each has a noise generator of its own, so neither the
batch it is drawn in nor the pictures that were there before change it (beyond the last bit of a float: matrix kernels
sum in another order at another batch size). Plain functions of a diffusers pipeline; nothing here knows of Ray.
"""

import io
import json
from collections.abc import Callable, Generator, Iterable, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import torch
from PIL import Image, PngImagePlugin

from onmodel import __version__
from onmodel.core.errors import ResourceError, UserError
from onmodel.core.files import file_hash, write_bytes
from onmodel.evaluation.origin import TEXT_KEY, fingerprint, key_of, read_origin
from onmodel.evaluation.suite import Prompt, Sampler, TestSuite
from onmodel.training.families import clip

_SAMPLERS: dict[Sampler, str] = {
    "ddim": "DDIMScheduler",
    "dpm": "DPMSolverMultistepScheduler",
    "euler": "EulerDiscreteScheduler",
}
_PIXELS_AT_ONCE = {"cpu": 32 * 96 * 96, "cuda": 16 * 512 * 512}
"""Pixels of one batch: on a CPU larger batches gain nothing and wait longer; on a GPU this fits 8 GB for SD 1.5."""


@dataclass(frozen=True, slots=True)
class DrawingModel:
    """What draws the pictures: a base model and, unless it stands alone, a LoRA at a scale."""

    base: str
    """`toybox`, a hub id, a diffusers folder or a single file."""
    base_hash: str
    lora: Path | None = None
    lora_hash: str | None = None
    scale: float = 1.0
    vae: str | None = None
    """An autoencoder in place of the base model's own."""
    clip_skip: int = 1
    """Layer of an SD text encoder, from its end, that prompts are read by."""

    @property
    def label(self) -> str:
        """Folder name of its pictures: the checkpoint's stem, with `@scale` where that is not 1."""
        if self.lora is None:
            return f"base-{self.base_hash[:8]}"
        return self.lora.stem if self.scale == 1.0 else f"{self.lora.stem}@{self.scale:.2f}"


@dataclass(frozen=True, slots=True)
class Planned:
    """One picture that a suite asks of a model, made or not."""

    path: Path
    prompt: Prompt
    variation: int
    text: str
    """The prompt as it is given to the model."""
    noise_seed: int
    origin: dict[str, Any]
    """Everything that the picture depends on, as its PNG text keeps it."""

    @property
    def key(self) -> str:
        """SHA-256 of `origin`: equal keys mean the same picture."""
        return key_of(self.origin)


def drawing_model(
    base: str, lora: Path | None = None, scale: float = 1.0, *, vae: str | None = None, clip_skip: int = 1
) -> DrawingModel:
    """Describe a base model and LoRA with their hashes. Raises UserError for a scale outside 0 to 2."""
    if not 0.0 <= scale <= 2.0:
        raise UserError(f"LoRA scale {scale}: must lie between 0 and 2; 1 is the strength it was trained at")
    return DrawingModel(base, fingerprint(base, vae), lora, file_hash(lora) if lora else None, scale, vae, clip_skip)


def plan(suite: TestSuite, prompts: Sequence[Prompt], model: DrawingModel, folder: Path) -> list[Planned]:
    """Every picture that `suite` asks of `model`, in order, below `folder / model.label`.

    The base model alone is asked without the trigger word, which it does not know.
    """
    pictures: list[Planned] = []
    for prompt in prompts:
        text = prompt.plain if model.lora is None else prompt.text
        for variation, seed in enumerate(suite.seeds):
            number = prompt.index * len(suite.seeds) + variation
            name = f"img_{number:03d}_p{prompt.index:03d}_v{variation:02d}.png"
            noise_seed = suite.noise_seed(prompt, variation)
            origin = {
                "prompt": text,
                "negative_prompt": suite.negative_prompt,
                "seed": seed,
                "noise_seed": noise_seed,
                "steps": suite.steps,
                "guidance_scale": suite.guidance_scale,
                "sampler": suite.sampler,
                "width": suite.width,
                "height": suite.height,
                "base_hash": model.base_hash,
                "lora_hash": model.lora_hash,
                "scale": model.scale,
                **({"clip_skip": model.clip_skip} if model.clip_skip > 1 else {}),
            }
            pictures.append(Planned(folder / model.label / name, prompt, variation, text, noise_seed, origin))
    return pictures


def missing(pictures: Iterable[Planned]) -> list[Planned]:
    """Those that are not on disk with the same origin.

    A picture that has its origin but another name (prompts or seeds were added before it) is renamed, not drawn again.
    """
    planned = list(pictures)
    wrong = [p for p in planned if _key_on_disk(p.path) != p.key]
    if not wrong:
        return []
    stored: dict[str, Path] = {}
    for folder in {p.path.parent for p in wrong}:
        stored.update({key: f for f in sorted(folder.glob("img_*.png")) if (key := _key_on_disk(f))})
    moves = [(stored[p.key], p.path) for p in wrong if p.key in stored]
    # In two steps through names that no picture has: a move's target may be another move's source.
    for source, target in moves:
        source.rename(target.with_suffix(".moving"))
    for _, target in moves:
        target.with_suffix(".moving").replace(target)
    return [p for p in wrong if p.key not in stored]


def _key_on_disk(path: Path) -> str | None:
    found = (read_origin(path) or {}).get("key") if path.is_file() else None
    return found if isinstance(found, str) else None


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


def encode_picture(image: Image.Image, picture: Planned, model: DrawingModel) -> bytes:
    """A drawn picture as PNG with its origin in its text."""
    info = PngImagePlugin.PngInfo()
    lora = model.lora.name if model.lora else None
    names = {"base": model.base, "vae": model.vae, "lora": lora, "onmodel": __version__}
    info.add_itxt(TEXT_KEY, json.dumps({**picture.origin, **names, "key": picture.key}))
    # The line that image browsers and model sites already know how to show.
    info.add_itxt(
        "parameters",
        f"{picture.text}\nNegative prompt: {picture.origin['negative_prompt']}\n"
        f"Steps: {picture.origin['steps']}, Sampler: {picture.origin['sampler']}, "
        f"CFG scale: {picture.origin['guidance_scale']}, Seed: {picture.noise_seed}, "
        f"Size: {image.width}x{image.height}, Model: {names['base']}, Lora: {names['lora']} at {model.scale:g}",
    )
    buffer = io.BytesIO()
    image.save(buffer, "PNG", pnginfo=info)
    return buffer.getvalue()
