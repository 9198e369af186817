"""A LoRA merged into its base model: a diffusers folder that draws with it and needs nothing else."""

from pathlib import Path

from onmodel.core.errors import UserError
from onmodel.core.files import folder_aside
from onmodel.training import network
from onmodel.training.pipeline import load_lora, load_pipeline, quiet_libraries


def merge_lora(file: Path, base: str, output_dir: Path, scale: float = 1.0) -> None:
    """Write `base` with the LoRA of `file` added to its weights, float32, to the new folder `output_dir`.

    Args:
        base: as `load_pipeline` takes it.
        scale: what the LoRA's change is multiplied with.

    Raises:
        NotFoundError, UserError: as `load_pipeline` and `load_lora`; or the folder is there already.
    """
    if output_dir.exists() and any(output_dir.iterdir()):
        raise UserError(f"{output_dir}: is there already and not empty; give a new folder")
    pipeline = load_pipeline(base)
    load_lora(pipeline, file, scale)
    network.merge(network.lora_components(pipeline))
    with folder_aside(output_dir) as aside, quiet_libraries():
        pipeline.save_pretrained(aside)
