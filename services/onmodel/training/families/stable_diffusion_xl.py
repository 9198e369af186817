"""Stable Diffusion XL (Podell et al. 2023): two text encoders, a pooled text vector, and the pictures' sizes."""

from collections.abc import Sequence
from typing import Any

import torch
from torch import Tensor

from onmodel.core.errors import UserError
from onmodel.training.families import base, clip
from onmodel.training.naming import Naming, SdxlNaming


class StableDiffusionXL(base.Encoders):
    """A UNet that predicts noise or v, told the tokens of two text encoders, a pooled vector and sizes."""

    uses_sizes = True
    architecture = "stable-diffusion-xl-v1-base"

    def __init__(self, pipeline: Any, v_parameterization: bool | None = None, *, windows: int = 1) -> None:
        """Args:
            v_parameterization: None: as the pipeline's scheduler says.
            windows: of the text encoders that a caption may fill.

        Raises:
            UserError: the refiner.
        """
        if pipeline.text_encoder is None or pipeline.text_encoder_2 is None:
            raise UserError("the base model lacks a text encoder, as SDXL's refiner does; give an SDXL base model")
        super().__init__(pipeline, pipeline.text_encoder, pipeline.text_encoder_2, said=(1, windows))
        self._windows = windows
        self.naming: Naming = SdxlNaming(pipeline.unet.config.layers_per_block)
        self._pooled = int(pipeline.text_encoder_2.config.projection_dim)
        self.schedule = base.diffusion_schedule(pipeline, v_parameterization)
        velocity = self.schedule.prediction_type == "v_prediction"
        self.base_version = "sdxl_base_v1-0" + ("_v" if velocity else "")

    def encode_captions(self, captions: Sequence[str]) -> Tensor:
        """Rows: the encoders' last but one layers side by side for each token, then the second's pooled vector."""
        if self._windows > 1:
            return base.pack(*clip.encode_two(self._pipeline, captions, self._windows))
        text, _, pooled, _ = self._pipeline.encode_prompt(
            prompt=list(captions),
            device=self._pipeline.text_encoder.device,
            num_images_per_prompt=1,
            do_classifier_free_guidance=False,
        )
        return base.pack(text, pooled)

    def predict(self, noisy: Tensor, timesteps: Tensor, conditioning: Tensor, sizes: Tensor | None = None) -> Tensor:
        if sizes is None:
            height, width = (side * self.pixels_per_latent for side in noisy.shape[2:])
            sizes = torch.tensor([[height, width, 0, 0, height, width]]).expand(len(noisy), -1)
        text, pooled = base.unpack(conditioning, self._pooled)
        added = {"text_embeds": pooled, "time_ids": sizes.to(noisy.device, pooled.dtype)}
        return self._pipeline.unet(
            noisy, timesteps, encoder_hidden_states=text, added_cond_kwargs=added, return_dict=False
        )[0]
