"""Model families: how each structure encodes pictures and captions, and how its denoiser is called.

Loss, loop, network and export know families through `Family` alone.
"""

from collections.abc import Callable
from typing import Any

from onmodel.core.errors import UserError
from onmodel.training.config import ModelSection
from onmodel.training.families.base import Family
from onmodel.training.families.flux import Flux
from onmodel.training.families.stable_diffusion import StableDiffusion
from onmodel.training.families.stable_diffusion_xl import StableDiffusionXL

__all__ = ["FAMILIES", "Family", "Flux", "StableDiffusion", "StableDiffusionXL", "make_family"]

FAMILIES: dict[str, Callable[[Any, ModelSection], Family]] = {
    "StableDiffusionPipeline": lambda pipeline, model: StableDiffusion(
        pipeline, model.v_parameterization, clip_skip=model.clip_skip, windows=model.windows
    ),
    "StableDiffusionXLPipeline": lambda pipeline, model: StableDiffusionXL(
        pipeline, model.v_parameterization, windows=model.windows
    ),
    "FluxPipeline": lambda pipeline, model: Flux(pipeline, model.guidance_scale),
}
"""By the class of the diffusers pipeline."""


def make_family(pipeline: Any, model: ModelSection) -> Family:
    """The family of a loaded pipeline. Raises UserError for an unknown class, or settings it has no use for."""
    name = type(pipeline).__name__
    if name not in FAMILIES:
        raise UserError(
            f"{model.pretrained_model_name_or_path}: a {name} cannot be trained; give a base model of "
            f"{', '.join(FAMILIES)}"
        )
    if name == "FluxPipeline" and model.v_parameterization is not None:
        raise UserError("v_parameterization has no place in a flow model; remove it")
    return FAMILIES[name](pipeline, model)
