"""Loss arithmetic against derivations of its own, in float64 and by other formulas."""

import math
from typing import Any

import pytest
import torch
from diffusers import DDPMScheduler

from onmodel.training import loss


def schedule() -> Any:
    return DDPMScheduler(beta_start=0.00085, beta_end=0.012, beta_schedule="scaled_linear")


def test_noising_and_velocity_equal_diffusers() -> None:
    reference = schedule()
    generator = torch.Generator().manual_seed(1)
    latents, noise = (torch.randn(4, 4, 3, 5, generator=generator) for _ in range(2))
    steps = torch.tensor([0, 10, 500, 999])
    alphas = reference.alphas_cumprod[steps]
    torch.testing.assert_close(loss.add_noise(latents, noise, alphas), reference.add_noise(latents, noise, steps))
    torch.testing.assert_close(
        loss.target(latents, noise, alphas, "v_prediction"), reference.get_velocity(latents, noise, steps)
    )
    assert loss.target(latents, noise, alphas, "epsilon") is noise


@pytest.mark.parametrize("kind", ["epsilon", "v_prediction"])
def test_min_snr_weights_equal_the_paper(kind: str) -> None:
    alphas = schedule().alphas_cumprod
    weights = loss.min_snr_weights(alphas, 5.0, kind)
    for step in range(0, 1000, 37):
        alpha = float(alphas[step])
        snr = alpha / (1 - alpha)
        expected = min(snr, 5.0) / (snr if kind == "epsilon" else snr + 1)
        assert math.isclose(float(weights[step]), expected, rel_tol=1e-4)


def test_min_snr_is_finite_at_zero_terminal_snr() -> None:
    alphas = torch.tensor([0.5, 0.0])
    assert loss.min_snr_weights(alphas, 5.0, "epsilon").tolist() == [1.0, 1.0]
    assert loss.min_snr_weights(alphas, 5.0, "v_prediction").tolist() == [0.5, 0.0]


def test_noise_offset_adds_one_number_a_channel() -> None:
    plain = loss.draw_noise((2, 4, 8, 8), 0.0, torch.Generator().manual_seed(5))
    offset = loss.draw_noise((2, 4, 8, 8), 0.5, torch.Generator().manual_seed(5))
    added = offset - plain
    torch.testing.assert_close(added, added.mean(dim=(2, 3), keepdim=True).expand_as(added))
    generator = torch.Generator().manual_seed(5)
    torch.randn((2, 4, 8, 8), generator=generator)
    torch.testing.assert_close(added[:, :, 0, 0], 0.5 * torch.randn((2, 4, 1, 1), generator=generator)[:, :, 0, 0])


def test_picture_losses_are_weighted_means_over_each_picture() -> None:
    generator = torch.Generator().manual_seed(2)
    prediction, wanted = (torch.randn(3, 4, 2, 6, generator=generator) for _ in range(2))
    alphas = torch.tensor([0.99, 0.5, 0.01])
    plain = loss.picture_losses(prediction, wanted, alphas, "epsilon", None)
    for index in range(3):
        difference = (prediction[index] - wanted[index]).flatten().tolist()
        assert math.isclose(float(plain[index]), sum(d * d for d in difference) / len(difference), rel_tol=1e-5)
    weighted = loss.picture_losses(prediction, wanted, alphas, "epsilon", 5.0)
    torch.testing.assert_close(weighted, plain * torch.tensor([5.0 / 99.0, 1.0, 1.0]))
