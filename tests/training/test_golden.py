"""The first step's loss and gradient norm against a derivation of its own, for each loss and prediction type."""

import math
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
import torch
from torch import Tensor

from onmodel.training import network
from onmodel.training.buckets import Batch, seeded
from onmodel.training.config import TrainConfig
from onmodel.training.loop import Trainer
from onmodel.training.loss import NoiseSchedule
from onmodel.training.naming import SdNaming
from onmodel.training.network_spec import NetworkSpec
from onmodel.training.pipeline import load_pipeline

from .conftest import MakeConfig
from .running import run_to
from .test_loop import make_trainer

Losses = Callable[[Tensor, Tensor, Tensor, str], Tensor]
"""Difference (B, C, H, W), signal-to-noise ratio (B,), share of time (B,) and prediction type to losses (B,)."""


def mean(values: Tensor) -> Tensor:
    return values.flatten(1).mean(1)


def square(d: Tensor, snr: Tensor, t: Tensor, kind: str) -> Tensor:
    return mean(d**2)


def huber(width: Callable[[Tensor, Tensor], Tensor], smooth: bool) -> Losses:
    def losses(d: Tensor, snr: Tensor, t: Tensor, kind: str) -> Tensor:
        w = width(snr, t).view(-1, 1, 1, 1)
        return mean((2 if smooth else 2 * w) * (torch.sqrt(d**2 + w**2) - w))

    return losses


def min_snr(d: Tensor, snr: Tensor, t: Tensor, kind: str) -> Tensor:
    return mean(d**2) * torch.minimum(snr, torch.full_like(snr, 5)) / (snr if kind == "epsilon" else snr + 1)


def debiased(d: Tensor, snr: Tensor, t: Tensor, kind: str) -> Tensor:
    snr = snr.clamp(max=1000)
    return mean(d**2) * (1 / torch.sqrt(snr) if kind == "epsilon" else 1 / (snr + 1))


BOTH, NOISE, V, FLOW = ("epsilon", "v"), ("epsilon",), ("v",), ("flow",)
ALL = (*BOTH, *FLOW)
CASES: dict[str, tuple[tuple[str, ...], dict[str, Any], Losses]] = {
    "l2": (ALL, {}, square),
    "l1": (ALL, {"loss_type": "l1"}, lambda d, snr, t, kind: mean(d.abs())),
    "huber constant": (
        ALL,
        {"loss_type": "huber", "huber_schedule": "constant", "huber_c": 0.3},
        huber(lambda snr, t: torch.full_like(snr, 0.3), smooth=False),
    ),
    "huber exponential": (
        ALL,
        {"loss_type": "huber", "huber_schedule": "exponential", "huber_c": 0.3},
        huber(lambda snr, t: 0.3**t, smooth=False),
    ),
    "smooth snr": (
        BOTH,
        {"loss_type": "smooth_l1", "huber_c": 0.2},
        huber(lambda snr, t: 0.8 / (1 + snr**-0.5) ** 2 + 0.2, smooth=True),
    ),
    "min snr": (BOTH, {"min_snr_gamma": 5.0}, min_snr),
    "debiased": (BOTH, {"debiased_estimation_loss": True}, debiased),
    "v like noise": (
        V,
        {"scale_v_pred_loss_like_noise_pred": True},
        lambda d, snr, t, kind: mean(d**2) * snr / (snr + 1),
    ),
    "noise with v": (
        NOISE,
        {"v_pred_like_loss": 0.5},
        lambda d, snr, t, kind: mean(d**2) * (1 + 0.5 * (snr + 1) / snr),
    ),
    "sigma sqrt": (FLOW, {"weighting_scheme": "sigma_sqrt"}, lambda d, snr, t, kind: mean(d**2) / t**2),
    "cosmap": (
        FLOW,
        {"weighting_scheme": "cosmap"},
        lambda d, snr, t, kind: mean(d**2) * 2 / (math.pi * (t**2 + (1 - t) ** 2)),
    ),
}
COMBINED = [(name, kind) for name, (kinds, _, _) in CASES.items() for kind in kinds]


def first_batch(trainer: Trainer) -> Callable[[], tuple[int, ...]]:
    """The pictures of the trainer's first batch, once it is trained."""
    seen: list[tuple[int, ...]] = []
    losses = trainer._losses  # pyright: ignore[reportPrivateUsage]

    def spy(batch: Batch, generator: torch.Generator, epoch: int) -> Tensor | None:
        seen.append(batch.pictures)
        return losses(batch, generator, epoch)

    trainer._losses = spy  # pyright: ignore[reportPrivateUsage]
    return lambda: seen[0]


def as_flow(config: TrainConfig) -> Trainer:
    """The tiny model as if it predicted noise minus picture: what it was made for does not matter to the arithmetic."""
    from onmodel.training.families import StableDiffusion

    original = StableDiffusion.__init__

    def init(self: Any, *given: Any, **named: Any) -> None:
        original(self, *given, **named)
        self.schedule = NoiseSchedule.flow(shift=2.0)

    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(StableDiffusion, "__init__", init)
        return make_trainer(config)


@pytest.mark.parametrize(("name", "kind"), COMBINED)
def test_first_loss_and_gradient(
    name: str, kind: str, make_config: MakeConfig, tiny_pipeline: Path, tiny_v_pipeline: Path
) -> None:
    base = tiny_v_pipeline if kind == "v" else tiny_pipeline
    _, advanced, formula = CASES[name]
    config = make_config(
        model={"pretrained_model_name_or_path": str(base)},
        optimizer={"max_grad_norm": 0.0},
        training={"seed": 11},
        advanced=advanced,
    )
    trainer = as_flow(config) if kind == "flow" else make_trainer(config)
    pictures = first_batch(trainer)
    data = trainer._data  # pyright: ignore[reportPrivateUsage]
    reports, _ = run_to(trainer, 1)

    chosen = pictures()
    generator = seeded(11, 0, 2)
    x = torch.stack([data.latents[index] for index in chosen]).double()
    noise = torch.randn(x.shape, generator=generator).double()
    if kind == "flow":
        u = torch.rand(len(x), generator=generator).double()
        t = 2 * u / (1 + u)
        signal, level, steps = 1 - t, t, (t * 1000).float()
        wanted = noise - x
    else:
        steps = torch.randint(1000, (len(x),), generator=generator)
        betas = torch.linspace(0.00085**0.5, 0.012**0.5, 1000, dtype=torch.float64) ** 2
        abar = torch.cumprod(1 - betas, 0)[steps]
        t, signal, level = steps / 1000, abar.sqrt(), (1 - abar).sqrt()
        wide = [factor.view(-1, 1, 1, 1) for factor in (signal, level)]
        wanted = noise if kind == "epsilon" else wide[0] * noise - wide[1] * x
    noisy = signal.view(-1, 1, 1, 1) * x + level.view(-1, 1, 1, 1) * noise
    pipeline: Any = load_pipeline(str(base))
    network.attach({"unet": pipeline.unet}, NetworkSpec(dim=4, alpha=2.0), SdNaming(), seed=11)
    text = torch.stack([data.conditioning[data.pictures[index].caption] for index in chosen])
    output = pipeline.unet(noisy.float(), steps, text).sample.double()
    value = formula(output - wanted, (signal / level) ** 2, t.double(), kind).mean()
    value.backward()
    norm = torch.stack([p.grad.norm() for p in network.parameters(pipeline.unet) if p.grad is not None]).norm()

    assert reports[0].loss == pytest.approx(value.item(), rel=1e-4)
    assert reports[0].grad_norm == pytest.approx(norm.item(), rel=1e-3)
