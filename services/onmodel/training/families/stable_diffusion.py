"""Stable Diffusion 1.x and 2.x, and anything of their structure (the bundled pipeline)."""

from collections.abc import Sequence
from typing import Any

from torch import Tensor

from onmodel.training.families import base
from onmodel.training.naming import Naming, SdNaming


class StableDiffusion(base.Encoders):
    """A UNet that predicts noise or v, told one text encoder's tokens."""

    uses_sizes = False

    def __init__(self, pipeline: Any, v_parameterization: bool | None = None) -> None:
        """`v_parameterization` None: as the pipeline's scheduler says."""
        super().__init__(pipeline, pipeline.text_encoder)
        self.naming: Naming = SdNaming()
        self.schedule = base.diffusion_schedule(pipeline, v_parameterization)
        velocity = self.schedule.prediction_type == "v_prediction"
        width = pipeline.unet.config.cross_attention_dim
        second = "stable-diffusion-v2-768-v" if velocity else "stable-diffusion-v2-512"
        self.architecture = {768: "stable-diffusion-v1", 1024: second}.get(width, "onmodel-toybox")
        version = {768: "sd_v1", 1024: "sd_v2"}.get(width, "onmodel_toybox")
        self.base_version = version + ("_v" if velocity else "")

    def encode_captions(self, captions: Sequence[str]) -> Tensor:
        # The pipeline's own encoder: what is trained on is to the bit what pictures will be drawn from.
        embeddings, _ = self._pipeline.encode_prompt(
            prompt=list(captions),
            device=self._pipeline.text_encoder.device,
            num_images_per_prompt=1,
            do_classifier_free_guidance=False,
        )
        return embeddings

    def predict(self, noisy: Tensor, timesteps: Tensor, conditioning: Tensor, sizes: Tensor | None = None) -> Tensor:
        return self._pipeline.unet(noisy, timesteps, encoder_hidden_states=conditioning, return_dict=False)[0]
