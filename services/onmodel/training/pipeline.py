"""Base pipelines by name, and LoRA files put on them with not one key left over."""

import json
import logging
import tempfile
import warnings
from collections.abc import Generator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import diffusers
import safetensors
import torch
import transformers

from onmodel.core.errors import UserError, first_line
from onmodel.training import network
from onmodel.training.base_kind import index_file, single_file_class
from onmodel.training.locate import locate_model, locate_vae
from onmodel.training.lora_file import read_lora
from onmodel.training.naming import naming_of

MERGED_BYTES = 4 * 2**30
"""Of weights that are kept twice: those of SDXL that a LoRA changes fit, a Flux' do not."""


def load_pipeline(
    name_or_path: str,
    *,
    device: torch.device | str = "cpu",
    dtype: torch.dtype = torch.float32,
    vae: str | None = None,
) -> diffusers.DiffusionPipeline:
    """The base pipeline `name_or_path` on `device`, weights in `dtype`, without safety checker.

    Args:
        vae: an autoencoder in place of its own: a folder or file, see `load_vae`.

    Raises:
        NotFoundError, UserError: as `locate_model`; or the files cannot be read as a pipeline or an autoencoder.
    """
    where = locate_model(name_or_path)
    try:
        with quiet_libraries():
            if isinstance(where, Path) and where.is_file():
                pipeline: Any = _single_file(where, dtype)
            else:
                pipeline = diffusers.DiffusionPipeline.from_pretrained(
                    str(where), torch_dtype=dtype, **_left_out(where)
                )
    except (OSError, ValueError, KeyError, json.JSONDecodeError, safetensors.SafetensorError) as error:
        reason = first_line(error)
        advice = "check its files"
        if isinstance(where, Path) and where.is_file():
            advice += (
                f". A single file's configs and tokenizers come from the folder {where.with_suffix('')} (a diffusers "
                "folder; its weights are not needed) or else from the hub"
            )
        raise UserError(
            f"base model {name_or_path}: is no diffusion pipeline that can be loaded ({reason}); {advice}"
        ) from None
    if vae is not None:
        pipeline.vae = load_vae(vae, pipeline.vae, dtype)
    pipeline.set_progress_bar_config(disable=True)
    return pipeline.to(device)


def load_vae(path: str, own: Any, dtype: torch.dtype = torch.float32) -> Any:
    """The autoencoder in a diffusers folder (or its folder `vae`), or in a file of diffusers' or LDM's layout.

    Args:
        own: the base model's autoencoder; of a file, its config is taken.

    Raises:
        NotFoundError: no such file or folder.
        UserError: what is there is no autoencoder, or one whose latents the base model does not know.
    """
    where = locate_vae(path)
    try:
        with quiet_libraries():
            if where.is_dir():
                found: Any = type(own).from_pretrained(where, torch_dtype=dtype)
            else:
                with tempfile.TemporaryDirectory() as configs:
                    own.save_config(configs)
                    found = type(own).from_single_file(str(where), config=configs, torch_dtype=dtype)
    except (OSError, ValueError, KeyError, RuntimeError, NotImplementedError, safetensors.SafetensorError) as error:
        reason = first_line(error)
        raise UserError(f"vae {path}: is no autoencoder that can be loaded ({reason}); check its files") from None
    mine, theirs = ((vae.config["latent_channels"], len(vae.config["block_out_channels"])) for vae in (found, own))
    if mine != theirs:
        raise UserError(
            f"vae {path}: has {mine[0]} channels in {mine[1]} blocks, the base model's {theirs[0]} in {theirs[1]}; "
            "give one that is made for this base model"
        )
    return found


def _single_file(file: Path, dtype: torch.dtype) -> Any:
    """A pipeline from one `.safetensors` file, its configs from the folder beside it that has the file's name."""
    pipeline: Any = getattr(diffusers, single_file_class(file))
    configs = file.with_suffix("")
    beside = {"config": str(configs)} if (configs / "model_index.json").is_file() else {}
    return pipeline.from_single_file(str(file), torch_dtype=dtype, **beside)


def _left_out(where: Path | str) -> dict[str, Any]:
    """The parts that are not loaded: a safety checker of 1.2 GB has no place in training or measuring."""
    parts = json.loads(index_file(where).read_text(encoding="utf-8"))
    return {"safety_checker": None, "requires_safety_checker": False} if "safety_checker" in parts else {}


@contextmanager
def quiet_libraries() -> Generator[None, None, None]:
    """Hold back the loaders' bars and notices; errors still come as exceptions."""
    levels = (diffusers.utils.logging.get_verbosity(), transformers.logging.get_verbosity())
    diffusers.utils.logging.set_verbosity_error()
    transformers.logging.set_verbosity_error()
    diffusers.utils.logging.disable_progress_bar()
    transformers.logging.disable_progress_bar()
    logging.getLogger("huggingface_hub").setLevel(logging.ERROR)
    try:
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")
            yield
    finally:
        diffusers.utils.logging.set_verbosity(levels[0])
        transformers.logging.set_verbosity(levels[1])


def load_lora(pipeline: diffusers.DiffusionPipeline, file: Path, scale: float = 1.0) -> None:
    """Put the LoRA of `file` (sd-scripts or PEFT naming) on `pipeline`, in place of one loaded before.

    Raises:
        NotFoundError: no such file.
        UserError: not a LoRA, a key that matches no layer of the pipeline, or a shape that does not fit.
    """
    unload_lora(pipeline)
    components = network.lora_components(pipeline)
    weights = read_lora(file, components, naming_of(pipeline))
    network.attach_weights(components, weights, str(file))
    set_lora_scale(pipeline, scale)


def set_lora_scale(pipeline: diffusers.DiffusionPipeline, scale: float) -> None:
    """Multiply the loaded LoRA's output by `scale`; 1 is as trained, 0 is the base model."""
    for module in network.lora_components(pipeline).values():
        for _, layer in network.lora_layers(module):
            layer.set_scale(network.ADAPTER, scale)


def unload_lora(pipeline: diffusers.DiffusionPipeline) -> None:
    """Give `pipeline` its own layers back; nothing happens when no LoRA is loaded."""
    for module in network.lora_components(pipeline).values():
        network.detach(module)


class LoadedLora:
    """A LoRA on a pipeline, added to its weights, until `undo` gives it its own back.

    Layers beside the weights take a quarter of the time that a small UNet needs. A big model keeps them all the same:
    its own weights are kept in memory meanwhile, and would not fit twice.
    """

    def __init__(self, pipeline: diffusers.DiffusionPipeline, file: Path, scale: float = 1.0) -> None:
        """Raises as `load_lora`."""
        load_lora(pipeline, file, scale)
        self._pipeline = pipeline
        self.changes_text = changes_text(pipeline)
        components = network.lora_components(pipeline)
        layers: list[Any] = [
            layer.get_base_layer() for module in components.values() for _, layer in network.lora_layers(module)
        ]
        weights: list[torch.Tensor] = [layer.weight for layer in layers]
        self._own: list[tuple[torch.Tensor, torch.Tensor]] = []
        if sum(weight.nbytes for weight in weights) <= MERGED_BYTES:
            self._own = [(weight, weight.detach().to("cpu", copy=True)) for weight in weights]
            network.merge(components)

    def undo(self) -> None:
        """Give the pipeline its own weights back, bit for bit."""
        unload_lora(self._pipeline)
        with torch.no_grad():
            for weight, own in self._own:
                weight.copy_(own)


def changes_text(pipeline: diffusers.DiffusionPipeline) -> bool:
    """Whether the loaded LoRA changes a text encoder, so that prompts mean something else to it."""
    return any(
        next(network.lora_layers(module), None) is not None
        for name, module in network.lora_components(pipeline).items()
        if name not in network.DENOISERS
    )
