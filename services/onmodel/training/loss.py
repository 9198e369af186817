"""The arithmetic of the diffusion losses: pure functions of tensors, the same for every model family.

Every prediction type noises latents as signal·x + noise·ε; what differs are the two factors and what is predicted.
Shapes: B pictures, C latent channels, H x W latent cells; T training timesteps.
"""

import math
from dataclasses import dataclass, replace
from typing import Literal

import torch
from torch import Tensor

from onmodel.core.errors import UserError
from onmodel.training.advanced import HuberSchedule, LossType

PredictionType = Literal["epsilon", "v_prediction", "flow"]
"""What a model predicts: the noise; the velocity of Salimans & Ho 2022; noise − picture (rectified flow, Liu 2022)."""

SNR_RANGE = (1e-3, 1e3)
"""Signal-to-noise ratios are clamped to it where they divide: the first one may be infinite, the last one 0."""


@dataclass(frozen=True)
class NoiseSchedule:
    """How much of the picture is left at each timestep, and what the model predicts."""

    alphas_cumprod: Tensor
    """float32 (T,), ᾱ from near 1 to near 0; of a flow model only its length counts."""
    prediction_type: PredictionType
    shift: float = 1.0
    """How far a flow model's noise levels are moved towards noise (Esser et al. 2024); 1 leaves them alone."""

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
        return replace(self, alphas_cumprod=self.alphas_cumprod.to(device))

    def with_zero_terminal_snr(self) -> "NoiseSchedule":
        """√ᾱ shifted so that the last one is 0 and scaled so that the first one stays (Lin et al. 2023).

        Raises:
            UserError: a model that does not predict v; at the last timestep it would learn nothing.
        """
        if self.prediction_type != "v_prediction":
            raise UserError("`zero_terminal_snr` is for v-prediction; set `v_parameterization = true`, or remove it")
        root = self.alphas_cumprod.double().sqrt()
        scaled = (root - root[-1]) * root[0] / (root[0] - root[-1])
        return replace(self, alphas_cumprod=scaled.square().float())

    def factors(self, timesteps: Tensor) -> tuple[Tensor, Tensor]:
        """How much picture and how much noise there is at `timesteps` (B,): two float32 (B,).

        √ᾱ and √(1−ᾱ) (Ho et al. 2020); of a flow model 1−σ and σ with σ = t/T.
        """
        if self.prediction_type == "flow":
            sigma = timesteps.float() / self.timesteps
            return 1 - sigma, sigma
        alpha = self.alphas_cumprod[timesteps]
        return alpha.sqrt(), (1 - alpha).sqrt()


def add_noise(latents: Tensor, noise: Tensor, signal: Tensor, level: Tensor) -> Tensor:
    """signal·x + level·ε. `signal` and `level` are (B,), as `NoiseSchedule.factors` gives them."""
    return signal.view(-1, 1, 1, 1) * latents + level.view(-1, 1, 1, 1) * noise


def target(latents: Tensor, noise: Tensor, signal: Tensor, level: Tensor, prediction_type: PredictionType) -> Tensor:
    """What the model is to predict: ε; v = signal·ε − level·x; or ε − x. Shapes as in `add_noise`."""
    if prediction_type == "flow":
        return noise - latents
    if prediction_type == "v_prediction":
        return signal.view(-1, 1, 1, 1) * noise - level.view(-1, 1, 1, 1) * latents
    return noise


def signal_to_noise(signal: Tensor, level: Tensor) -> Tensor:
    """SNR (B,): the squared ratio of the two factors; infinite where there is no noise."""
    return (signal / level).square()


def min_snr_weights(snr: Tensor, gamma: float, prediction_type: PredictionType) -> Tensor:
    """Loss weights (B,) of the min-SNR strategy (Hang et al. 2023).

    epsilon: min(SNR, γ) / SNR; v: min(SNR, γ) / (SNR + 1). At SNR 0 (zero terminal SNR) the epsilon weight is 0/0;
    its limit, 1, is used.
    """
    clipped = snr.clamp(max=gamma)
    if prediction_type == "v_prediction":
        return clipped / (snr + 1)
    return torch.where(snr > 0, clipped / snr, torch.ones_like(snr))


def debiased_weights(snr: Tensor, prediction_type: PredictionType) -> Tensor:
    """Loss weights (B,) of debiased estimation (Yu et al. 2024): epsilon 1/√SNR; v 1/(SNR + 1), SNR in `SNR_RANGE`."""
    snr = snr.clamp(*SNR_RANGE)
    return 1 / (snr + 1) if prediction_type == "v_prediction" else snr.rsqrt()


def noise_like_scale(snr: Tensor) -> Tensor:
    """SNR/(SNR + 1), (B,): brings a v loss to the size of a noise loss; SNR in `SNR_RANGE`."""
    snr = snr.clamp(max=SNR_RANGE[1])
    return snr / (snr + 1)


def huber_widths(schedule: HuberSchedule, c: float, scale: float, timesteps: Tensor, total: int, snr: Tensor) -> Tensor:
    """Width (B,) around 0 within which the Huber losses are quadratic.

    constant: c·scale; exponential: c^(t/T)·scale; snr: (1 − c)/(1 + σ)² + c with σ = 1/√SNR.
    Source: the scheduled pseudo-Huber loss of Khrapov et al. 2024, as sd-scripts parametrises it.
    """
    if schedule == "constant":
        return torch.full_like(snr, c * scale)
    if schedule == "exponential":
        return torch.exp(math.log(c) * timesteps.float() / total) * scale
    return (1 - c) / (1 + snr.rsqrt()).square() + c


def element_losses(prediction: Tensor, wanted: Tensor, loss_type: LossType, width: Tensor | None = None) -> Tensor:
    """The loss of each latent cell, float32 (B, C, H, W).

    l2: d²; l1: |d|; huber: 2w(√(d² + w²) − w), which is d² near 0 and 2w·|d| far away; smooth_l1: the same over w.

    Args:
        width: w of each picture, (B,); for the last two.
    """
    difference = prediction.float() - wanted.float()
    if loss_type == "l2":
        return difference.square()
    if loss_type == "l1":
        return difference.abs()
    assert width is not None
    w = width.view(-1, 1, 1, 1)
    rounded = 2 * ((difference.square() + w.square()).sqrt() - w)
    return w * rounded if loss_type == "huber" else rounded
