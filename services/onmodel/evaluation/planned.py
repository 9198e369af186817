"""Which test pictures there are: checkpoint x prompt x variation x LoRA scale, and which of them are made.

A picture depends on its prompt, its seed and the model alone: each has a noise generator of its own, so neither the
batch it is drawn in nor the pictures that were there before change it (beyond the last bit of a float: matrix kernels
sum in another order at another batch size). Nothing here draws, or imports what does.
"""

import io
import json
from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from PIL import Image, PngImagePlugin

from onmodel import __version__
from onmodel.core.errors import UserError
from onmodel.core.files import file_hash
from onmodel.evaluation.origin import TEXT_KEY, fingerprint, key_of, read_origin
from onmodel.evaluation.suite import Prompt, TestSuite


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
