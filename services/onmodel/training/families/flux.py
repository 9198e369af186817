"""Flux.1 (Black Forest Labs 2024): a transformer that matches flows, told CLIP's pooled vector and T5's tokens."""

from collections.abc import Sequence
from typing import Any

import torch
from torch import Tensor

from onmodel.core.errors import UserError
from onmodel.training.families import base
from onmodel.training.loss import NoiseSchedule
from onmodel.training.naming import FluxNaming, Naming


class Flux(base.Encoders):
    """Predicts noise − picture from latents packed into patches of 2x2."""

    uses_sizes = False

    def __init__(self, pipeline: Any, guidance_scale: float = 1.0) -> None:
        """`guidance_scale` is what a guidance-distilled model (Flux.1-dev) is told while it is trained.

        Raises:
            UserError: a pipeline without one of its text encoders.
        """
        if pipeline.text_encoder is None or pipeline.text_encoder_2 is None:
            raise UserError("the base model lacks a text encoder; give a whole Flux pipeline")
        super().__init__(pipeline, pipeline.text_encoder, pipeline.text_encoder_2)
        self.naming: Naming = FluxNaming()
        self._guidance = guidance_scale if pipeline.transformer.config.guidance_embeds else None
        self._pooled = int(pipeline.text_encoder.config.hidden_size)
        scheduler = pipeline.scheduler.config
        # With a shift by size the scheduler's own is not used, and training's draws are shifted as configured.
        shift = 1.0 if scheduler.get("use_dynamic_shifting") else float(scheduler.get("shift", 1.0))
        self.schedule = NoiseSchedule.flow(shift, int(scheduler.get("num_train_timesteps", 1000)))
        self.base_version = "flux1"
        self.architecture = "flux-1-schnell" if self._guidance is None else "flux-1-dev"

    def encode_captions(self, captions: Sequence[str]) -> Tensor:
        """Rows: T5's tokens, then CLIP's pooled vector."""
        text, pooled, _ = self._pipeline.encode_prompt(
            prompt=list(captions),
            device=self._pipeline.text_encoder.device,
            num_images_per_prompt=1,
            max_sequence_length=min(512, self._pipeline.tokenizer_2.model_max_length),
        )
        return base.pack(text, pooled)

    def predict(self, noisy: Tensor, timesteps: Tensor, conditioning: Tensor, sizes: Tensor | None = None) -> Tensor:
        text, pooled = base.unpack(conditioning, self._pooled)
        count, channels, height, width = noisy.shape
        if height % 2 or width % 2:
            raise UserError(
                f"Flux takes latents in pairs, and {width}x{height} are odd; set bucket_reso_steps to a multiple of "
                f"{2 * self.pixels_per_latent}"
            )
        guidance = None if self._guidance is None else torch.full((count,), self._guidance, device=noisy.device)
        packed = self._pipeline.transformer(
            hidden_states=_packed(noisy),
            timestep=timesteps.float() / self.schedule.timesteps,
            guidance=guidance,
            pooled_projections=pooled,
            encoder_hidden_states=text,
            txt_ids=torch.zeros(text.shape[1], 3, device=noisy.device),
            img_ids=_places(height // 2, width // 2).to(noisy.device),
            return_dict=False,
        )[0]
        cells = packed.view(count, height // 2, width // 2, channels, 2, 2)
        return cells.permute(0, 3, 1, 4, 2, 5).reshape(count, channels, height, width)


def _packed(latents: Tensor) -> Tensor:
    """(B, C, h, w) to tokens (B, h/2 · w/2, 4C): each is the C channels of a 2x2 patch, channels first."""
    count, channels, height, width = latents.shape
    cells = latents.view(count, channels, height // 2, 2, width // 2, 2).permute(0, 2, 4, 1, 3, 5)
    return cells.reshape(count, height // 2 * (width // 2), 4 * channels)


def _places(rows: int, columns: int) -> Tensor:
    """Row and column of each token: float32 (rows · columns, 3), the first number 0."""
    grid = torch.cartesian_prod(torch.arange(rows), torch.arange(columns)).float().view(-1, 2)
    return torch.nn.functional.pad(grid, (1, 0))
