"""The arithmetic of the diffusion loss: pure functions of tensors, the same for every model family.

Shapes: B pictures, C latent channels, H x W latent cells; T training timesteps.
"""

from dataclasses import dataclass

import torch
from torch import Tensor


@dataclass(frozen=True)
class NoiseSchedule:
    """How much of the picture is left at each timestep, and what the model predicts."""

    alphas_cumprod: Tensor
    """float32 (T,), ᾱ from near 1 to near 0."""
    prediction_type: str
    """`epsilon` (the noise), `v_prediction` (Salimans & Ho 2022) or `flow` (noise − picture, Liu 2022)."""
    shift: float = 1.0

    @classmethod
    def flow(cls, shift: float = 1.0, timesteps: int = 1000) -> "NoiseSchedule":
        """The schedule of a flow-matching model: noise level σ from 0 to 1, timestep σ·T."""
        return cls(torch.empty(timesteps), "flow", shift)

    @property
    def timesteps(self) -> int:
        """T."""
        return int(self.alphas_cumprod.shape[0])

    def to(self, device: torch.device) -> "NoiseSchedule":
        """The same on another device."""
        return NoiseSchedule(self.alphas_cumprod.to(device), self.prediction_type, self.shift)


def draw_noise(shape: tuple[int, ...], noise_offset: float, generator: torch.Generator) -> Tensor:
    """Noise (B, C, H, W): standard normal plus `noise_offset` times one standard normal a picture and channel.

    Source: Guttenberg 2023, "Diffusion with offset noise".
    """
    noise = torch.randn(shape, generator=generator)
    if noise_offset:
        noise = noise + noise_offset * torch.randn((shape[0], shape[1], 1, 1), generator=generator)
    return noise


def add_noise(latents: Tensor, noise: Tensor, alphas_cumprod: Tensor) -> Tensor:
    """√ᾱ·x + √(1−ᾱ)·ε (Ho et al. 2020). `alphas_cumprod` is (B,), already picked by timestep."""
    alpha = alphas_cumprod.view(-1, 1, 1, 1)
    return alpha.sqrt() * latents + (1 - alpha).sqrt() * noise


def target(latents: Tensor, noise: Tensor, alphas_cumprod: Tensor, prediction_type: str) -> Tensor:
    """What the model is to predict: ε, or v = √ᾱ·ε − √(1−ᾱ)·x. Shapes as in `add_noise`."""
    if prediction_type == "v_prediction":
        alpha = alphas_cumprod.view(-1, 1, 1, 1)
        return alpha.sqrt() * noise - (1 - alpha).sqrt() * latents
    return noise


def min_snr_weights(alphas_cumprod: Tensor, gamma: float, prediction_type: str) -> Tensor:
    """Loss weights (B,) of the min-SNR strategy (Hang et al. 2023), SNR = ᾱ / (1 − ᾱ).

    epsilon: min(SNR, γ) / SNR; v: min(SNR, γ) / (SNR + 1). At SNR 0 (zero terminal SNR) the epsilon weight is 0/0;
    its limit, 1, is used.
    """
    snr = alphas_cumprod / (1 - alphas_cumprod)
    clipped = snr.clamp(max=gamma)
    if prediction_type == "v_prediction":
        return clipped / (snr + 1)
    return torch.where(snr > 0, clipped / snr, torch.ones_like(snr))


def picture_losses(
    prediction: Tensor, wanted: Tensor, alphas_cumprod: Tensor, prediction_type: str, min_snr_gamma: float | None
) -> Tensor:
    """Mean squared error of each picture, weighted: float32 (B,)."""
    losses = (prediction.float() - wanted.float()).square().mean(dim=(1, 2, 3))
    if min_snr_gamma is not None:
        losses = losses * min_snr_weights(alphas_cumprod, min_snr_gamma, prediction_type)
    return losses
