"""Random draws of a training step, each from a CPU generator: noise and noise levels.

Shapes as in `loss`. All draw for a whole batch over all workers, so that several workers draw what one would.
"""

import math

import torch
import torch.nn.functional as F
from torch import Tensor

from onmodel.training.advanced import TimestepSampling, WeightingScheme

PYRAMID_RATIO = (2.0, 4.0)
"""How many times smaller each level of multi-resolution noise is than the one before; drawn evenly between these."""
FLUX_TOKENS, FLUX_SHIFTS = (256, 4096), (0.5, 1.15)
"""Flux moves its noise levels by exp(μ), μ linear between these numbers of 2 x 2 latent patches."""


def gaussian(shape: tuple[int, ...], generator: torch.Generator) -> Tensor:
    """Standard normal float32 of `shape`."""
    return torch.randn(shape, generator=generator)


def strength(limit: float, generator: torch.Generator, *, random: bool) -> float:
    """`limit`, or with `random` a number drawn evenly between 0 and it."""
    return limit * float(torch.rand((), generator=generator)) if random else limit


def offset(latents: Tensor, size: float, adaptive: float, generator: torch.Generator) -> Tensor:
    """What noise_offset adds, (B, C, 1, 1): one normal number a picture and channel, times `size`.

    Source: Guttenberg 2023, "Diffusion with offset noise". With `adaptive`, the size of each picture and channel is
    size + adaptive·|mean of the latents|, at least 0 (sd-scripts' adaptive_noise_scale).
    """
    drawn = gaussian((latents.shape[0], latents.shape[1], 1, 1), generator)
    if not adaptive:
        return size * drawn
    return (size + adaptive * latents.mean(dim=(2, 3), keepdim=True).abs()).clamp(min=0) * drawn


def pyramid(noise: Tensor, iterations: int, discount: float, generator: torch.Generator) -> Tensor:
    """Multi-resolution noise: `noise` plus ever coarser noise, each level `discount` times weaker, at unit deviation.

    Level i is r^i times smaller on each side with r drawn anew between `PYRAMID_RATIO`; it ends at one cell.
    Source: Whitaker 2023, "Multi-resolution noise for diffusion model training", as sd-scripts has it.
    """
    pictures, channels, height, width = noise.shape
    total = noise.clone()
    for level in range(iterations):
        ratio = PYRAMID_RATIO[0] + (PYRAMID_RATIO[1] - PYRAMID_RATIO[0]) * float(torch.rand((), generator=generator))
        small = (max(1, int(height / ratio**level)), max(1, int(width / ratio**level)))
        coarse = gaussian((pictures, channels, *small), generator)
        total += F.interpolate(coarse, size=(height, width), mode="bilinear") * discount**level
        if 1 in small:
            break
    return total / total.std()


def timesteps(count: int, least: int, most: int, generator: torch.Generator) -> Tensor:
    """Integer timesteps (count,) drawn evenly from `least` to `most` − 1; all `most` − 1 where these do not differ."""
    if least >= most:
        return torch.full((count,), most - 1)
    return torch.randint(least, most, (count,), generator=generator)


def flow_sigmas(
    count: int,
    size: tuple[int, int],
    generator: torch.Generator,
    *,
    sampling: TimestepSampling,
    scheme: WeightingScheme,
    shift: float,
    sigmoid_scale: float,
    logit_mean: float,
    logit_std: float,
    mode_scale: float,
) -> Tensor:
    """Noise levels σ (count,) of a flow model, 0 to 1, 1 being all noise.

    `sampling` by sd-scripts' names: uniform: even; sigmoid: sigmoid(scale·n), n normal; shift: that, moved by s·σ/(1 +
    (s − 1)σ); flux_shift: that, moved by the number of 2 x 2 patches of `size`; sigma: by `scheme`, moved by `shift`.
    `scheme` (Esser et al. 2024, section 3.1): logit_normal: sigmoid(mean + std·n); mode: u − m(cos²(πu/2) − 1 + u)
    of 1 − even u; else even.

    Args:
        size: height and width of the latents.
    """
    if sampling in ("sigmoid", "shift", "flux_shift"):
        sigma = torch.sigmoid(sigmoid_scale * gaussian((count,), generator))
    elif sampling == "sigma" and scheme == "logit_normal":
        sigma = torch.sigmoid(logit_mean + logit_std * gaussian((count,), generator))
    else:
        sigma = torch.rand(count, generator=generator)
        if sampling == "sigma" and scheme == "mode":
            sigma = 1 - sigma - mode_scale * (torch.cos(math.pi / 2 * sigma).square() - 1 + sigma)
    if sampling == "flux_shift":
        share = ((size[0] // 2) * (size[1] // 2) - FLUX_TOKENS[0]) / (FLUX_TOKENS[1] - FLUX_TOKENS[0])
        shift = math.exp(FLUX_SHIFTS[0] + share * (FLUX_SHIFTS[1] - FLUX_SHIFTS[0]))
    return shifted(sigma, shift) if sampling in ("sigma", "shift", "flux_shift") else sigma


def shifted(sigma: Tensor, shift: float) -> Tensor:
    """s·σ / (1 + (s − 1)·σ): noise levels moved towards noise by s > 1 (Esser et al. 2024, equation 23)."""
    return shift * sigma / (1 + (shift - 1) * sigma)


def flow_weights(sigma: Tensor, scheme: WeightingScheme) -> Tensor:
    """Loss weights (B,) at noise levels `sigma`: sigma_sqrt σ⁻²; cosmap 2/(π(1 − 2σ + 2σ²)); else 1.

    Source: Esser et al. 2024; diffusers' SD3 training example names them so.
    """
    if scheme == "sigma_sqrt":
        return sigma.clamp(min=1e-3) ** -2
    if scheme == "cosmap":
        return 2 / (math.pi * (1 - 2 * sigma + 2 * sigma.square()))
    return torch.ones_like(sigma)
