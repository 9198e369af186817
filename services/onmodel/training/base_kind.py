"""Which kind of model a base is, read from its index or its keys: known before anything heavy is loaded."""

import json
from pathlib import Path

from onmodel.training.config import ModelSection
from onmodel.training.locate import locate_model

SINGLE_FILES = {
    "conditioner.embedders.1.": "StableDiffusionXLPipeline",
    "double_blocks.": "FluxPipeline",
    "model.diffusion_model.double_blocks.": "FluxPipeline",
}
"""Classes of diffusers by the beginning of a key that only their single files have."""
LAYERS_READ = {
    "StableDiffusionXLPipeline": "SDXL always reads the last but one layer",
    "FluxPipeline": "Flux always reads the last one",
}
"""Of classes whose text encoders give no choice, which layer it is."""


def single_file_class(file: Path) -> str:
    """The diffusers class that a `.safetensors` checkpoint is for. Raises safetensors.SafetensorError."""
    import safetensors

    with safetensors.safe_open(file, framework="pt") as opened:
        keys = list(opened.keys())
    found = (kind for start, kind in SINGLE_FILES.items() if any(key.startswith(start) for key in keys))
    return next(found, "StableDiffusionPipeline")


def index_file(where: Path | str) -> Path:
    """The `model_index.json` of a diffusers folder or a hub id, fetched where the local cache lacks it."""
    from huggingface_hub import hf_hub_download

    return where / "model_index.json" if isinstance(where, Path) else Path(hf_hub_download(where, "model_index.json"))


def without_effect(model: ModelSection) -> list[str]:
    """Settings that this base model has no use for, a phrase each, as sd-scripts warns of them.

    Raises:
        NotFoundError, UserError: as `locate_model`.
    """
    set_ones = [model.clip_skip > 1, model.max_token_length > 75, model.guidance_scale != 1.0]
    if not any(set_ones):
        return []
    try:
        where = locate_model(model.pretrained_model_name_or_path)
        if isinstance(where, Path) and where.is_file():
            kind = single_file_class(where)
        else:
            kind = str(json.loads(index_file(where).read_text(encoding="utf-8"))["_class_name"])
    except (OSError, ValueError, KeyError, ImportError):
        # Loading says what is wrong with the files, and better.
        return []
    phrases: list[str] = []
    if model.clip_skip > 1 and kind in LAYERS_READ:
        phrases.append(f"`clip_skip` ({LAYERS_READ[kind]})")
    if model.max_token_length > 75 and kind == "FluxPipeline":
        phrases.append("`max_token_length` (Flux reads 512 tokens)")
    if model.guidance_scale != 1.0 and kind != "FluxPipeline":
        phrases.append("`guidance_scale` (only a guidance-distilled Flux is told one while it is trained)")
    return phrases
