"""From latents and draws to the loss of each picture: the part of a step that a device computes, compiled or not."""

from collections.abc import Callable
from typing import Any

import torch
from torch import Tensor

from onmodel.training.advanced import AdvancedSection
from onmodel.training.families import Family
from onmodel.training.gather import Gathered
from onmodel.training.objective import Draw, Objective

SHAPES = 64
"""Buckets, times the sizes of short batches, that are compiled before one more is run as it stands."""


class Forward:
    """The denoiser with a loss behind it."""

    def __init__(
        self, family: Family, device: torch.device, precision: torch.dtype | None, options: AdvancedSection
    ) -> None:
        """Args:
        precision: type that autocast computes in; None: each layer in its own.
        options: say whether, and by what, it is compiled.
        """
        self._family = family
        self._device = device
        self._precision = precision
        self._compiled = options.torch_compile and options.dynamo_backend != "no"
        self.records = self._compiled and device.type == "cuda" and options.dynamo_backend in ("inductor", "cudagraphs")
        """Whether the device replays a recorded graph, whose memory the next replay writes over."""
        self._losses: Callable[..., Tensor] = self._plain_losses
        if self._compiled:
            self._losses = self._compile(options.dynamo_backend)

    def _compile(self, backend: str) -> Callable[..., Tensor]:
        # Each shape for itself: only a graph of one shape can be recorded.
        settings: Any = torch._dynamo.config  # pyright: ignore[reportPrivateUsage]
        settings.recompile_limit = max(settings.recompile_limit, SHAPES)
        settings.accumulated_recompile_limit = max(settings.accumulated_recompile_limit, 8 * SHAPES)
        # Launching some thousand small kernels takes longer than running them.
        mode = "reduce-overhead" if self.records and backend == "inductor" else None
        return torch.compile(self._plain_losses, backend=backend, mode=mode, dynamic=False)

    def predict(self, noisy: Tensor, timesteps: Tensor, text: Tensor, sizes: Tensor | None) -> Tensor:
        """The denoiser's output as `Family.predict` gives it, never compiled; all tensors on the device."""
        with torch.autocast(self._device.type, self._precision, enabled=self._precision is not None):
            return self._family.predict(noisy, timesteps, text, sizes)

    def losses(self, objective: Objective, known: Gathered, draw: Draw, text: Tensor, sizes: Tensor | None) -> Tensor:
        """The loss of each picture, weighted: float32 (B,). All tensors lie on the device."""
        if self.records:
            torch.compiler.cudagraph_mark_step_begin()
        added = None if draw.added is draw.noise else draw.added
        return self._losses(
            objective, known.latents, draw.noise, added, draw.timesteps, text, sizes, known.masks, known.weights
        )

    def _plain_losses(
        self,
        objective: Objective,
        latents: Tensor,
        noise: Tensor,
        added: Tensor | None,
        timesteps: Tensor,
        text: Tensor,
        sizes: Tensor | None,
        masks: Tensor | None,
        weights: Tensor | None,
    ) -> Tensor:
        draw = Draw(noise, noise if added is None else added, timesteps)
        prediction = self.predict(objective.noisy(latents, draw), timesteps, text, sizes)
        losses = objective.losses(prediction, latents, draw, masks)
        return losses if weights is None else losses * weights
