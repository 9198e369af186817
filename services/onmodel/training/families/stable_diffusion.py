"""Stable Diffusion 1.x and 2.x, and anything of their structure (the bundled pipeline)."""

from collections.abc import Sequence
from typing import Any

from torch import Tensor

from onmodel.core.errors import UserError
from onmodel.training.families import base, clip
from onmodel.training.naming import Naming, SdNaming


class StableDiffusion(base.Encoders):
    """A UNet that predicts noise or v, told one text encoder's tokens."""

    uses_sizes = False

    def __init__(
        self, pipeline: Any, v_parameterization: bool | None = None, *, clip_skip: int = 1, windows: int = 1
    ) -> None:
        """Args:
            v_parameterization: None: as the pipeline's scheduler says.
            clip_skip: layer of the text encoder from its end, 1 being the last.
            windows: of the text encoder that a caption may fill.

        Raises:
            UserError: a text encoder with fewer layers.
        """
        super().__init__(pipeline, pipeline.text_encoder, said=(clip_skip, windows))
        layers = int(pipeline.text_encoder.config.num_hidden_layers)
        if clip_skip > layers:
            raise UserError(f"clip_skip {clip_skip}: the base model's text encoder has {layers} layers; lower it")
        self._clip_skip, self._windows = clip_skip, windows
        self.naming: Naming = SdNaming()
        self.schedule = base.diffusion_schedule(pipeline, v_parameterization)
        velocity = self.schedule.prediction_type == "v_prediction"
        width = pipeline.unet.config.cross_attention_dim
        second = "stable-diffusion-v2-768-v" if velocity else "stable-diffusion-v2-512"
        self.architecture = {768: "stable-diffusion-v1", 1024: second}.get(width, "onmodel-toybox")
        version = {768: "sd_v1", 1024: "sd_v2"}.get(width, "onmodel_toybox")
        self.base_version = version + ("_v" if velocity else "")

    def encode_captions(self, captions: Sequence[str]) -> Tensor:
        if self._clip_skip > 1 or self._windows > 1:
            return clip.encode(self._pipeline, captions, self._clip_skip, self._windows)
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
