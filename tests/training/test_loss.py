"""Loss arithmetic against derivations of its own, in float64 and by other formulas."""

import math
from typing import Any, get_args

import pytest
import torch
from diffusers import DDPMScheduler
from diffusers.training_utils import compute_density_for_timestep_sampling, compute_loss_weighting_for_sd3
from torch import Tensor

from onmodel.core.errors import UserError
from onmodel.training import loss, noise
from onmodel.training.advanced import AdvancedSection, HuberSchedule
from onmodel.training.loss import NoiseSchedule
from onmodel.training.objective import Draw, Objective, resized_mask

SHAPE = (3, 4, 6, 8)


def diffusion() -> Any:
    return DDPMScheduler(beta_start=0.00085, beta_end=0.012, beta_schedule="scaled_linear")


def schedule(kind: loss.PredictionType = "epsilon") -> NoiseSchedule:
    return NoiseSchedule(diffusion().alphas_cumprod, kind) if kind != "flow" else NoiseSchedule.flow(shift=3.0)


def seeded(seed: int = 5) -> torch.Generator:
    return torch.Generator().manual_seed(seed)


def options(**values: Any) -> AdvancedSection:
    return AdvancedSection.model_validate(values)


def latents() -> Tensor:
    return torch.randn(SHAPE, generator=seeded(99))


def test_noising_and_velocity_equal_diffusers() -> None:
    reference = diffusion()
    x, e = (torch.randn(4, 4, 3, 5, generator=seeded(seed)) for seed in (1, 2))
    steps = torch.tensor([0, 10, 500, 999])
    factors = schedule().factors(steps)
    torch.testing.assert_close(loss.add_noise(x, e, *factors), reference.add_noise(x, e, steps))
    torch.testing.assert_close(loss.target(x, e, *factors, "v_prediction"), reference.get_velocity(x, e, steps))
    assert loss.target(x, e, *factors, "epsilon") is e


@pytest.mark.parametrize("kind", ["epsilon", "v_prediction"])
def test_min_snr_weights_equal_the_paper(kind: loss.PredictionType) -> None:
    steps = torch.arange(0, 1000, 37)
    weights = loss.min_snr_weights(loss.signal_to_noise(*schedule().factors(steps)), 5.0, kind)
    for step, weight in zip(steps.tolist(), weights.tolist(), strict=True):
        alpha = float(diffusion().alphas_cumprod[step])
        snr = alpha / (1 - alpha)
        expected = min(snr, 5.0) / (snr if kind == "epsilon" else snr + 1)
        assert math.isclose(weight, expected, rel_tol=1e-3)


def test_weights_are_finite_where_there_is_no_signal_or_no_noise() -> None:
    snr = torch.tensor([float("inf"), 1.0, 0.0])
    assert loss.min_snr_weights(snr, 5.0, "epsilon").tolist() == [0.0, 1.0, 1.0]
    assert loss.min_snr_weights(snr, 5.0, "v_prediction").tolist() == [0.0, 0.5, 0.0]
    for kind in ("epsilon", "v_prediction"):
        assert loss.debiased_weights(snr, kind).isfinite().all()
    assert loss.noise_like_scale(snr).tolist() == pytest.approx([1000 / 1001, 0.5, 0.0])


def test_zero_terminal_snr_keeps_the_start_and_empties_the_end() -> None:
    before = schedule("v_prediction")
    after = before.with_zero_terminal_snr()
    assert after.alphas_cumprod[-1] == 0
    assert float(after.alphas_cumprod[0]) == pytest.approx(float(before.alphas_cumprod[0]), rel=1e-6)
    assert (after.alphas_cumprod.diff() < 0).all()
    torch.testing.assert_close(
        after.alphas_cumprod,
        DDPMScheduler(
            beta_start=0.00085, beta_end=0.012, beta_schedule="scaled_linear", rescale_betas_zero_snr=True
        ).alphas_cumprod,
        atol=1e-6,
        rtol=1e-4,
    )
    with pytest.raises(UserError, match="v-prediction"):
        schedule("epsilon").with_zero_terminal_snr()


def test_noise_offset_adds_one_number_a_channel() -> None:
    plain = Objective(schedule(), options()).draw(latents(), seeded()).noise
    added = Objective(schedule(), options(noise_offset=0.5)).draw(latents(), seeded()).noise - plain
    generator = seeded()
    torch.randn(SHAPE, generator=generator)
    constant = 0.5 * torch.randn((3, 4, 1, 1), generator=generator)
    torch.testing.assert_close(added, constant.expand_as(added))
    adapted = Objective(schedule(), options(noise_offset=0.5, adaptive_noise_scale=-2.0))
    size = (0.5 - 2 * latents().mean(dim=(2, 3), keepdim=True).abs()).clamp(min=0)
    difference = adapted.draw(latents(), seeded()).noise - plain
    torch.testing.assert_close(difference, (constant * 2 * size).expand_as(added))


def test_multires_noise_is_a_pyramid_at_unit_deviation() -> None:
    made = Objective(schedule(), options(multires_noise_iterations=3, multires_noise_discount=0.4))
    generator = seeded()
    expected = torch.randn(SHAPE, generator=generator)
    for level in range(3):
        ratio = 2 + 2 * float(torch.rand((), generator=generator))
        height, width = (max(1, int(side / ratio**level)) for side in SHAPE[2:])
        small = torch.randn(3, 4, height, width, generator=generator)
        expected = expected + torch.nn.Upsample(size=SHAPE[2:], mode="bilinear")(small) * 0.4**level
        if height == 1 or width == 1:
            break
    torch.testing.assert_close(made.draw(latents(), seeded()).noise, expected / expected.std())


def test_input_perturbation_is_seen_and_not_predicted() -> None:
    objective = Objective(schedule(), options(ip_noise_gamma=0.1))
    draw = objective.draw(latents(), seeded())
    assert torch.equal(draw.noise, torch.randn(SHAPE, generator=seeded()))
    further = (draw.added - draw.noise) / 0.1
    assert 0.8 < float(further.std()) < 1.2
    perfect = objective.losses(draw.noise, latents(), draw)
    assert perfect.tolist() == [0.0, 0.0, 0.0]


@pytest.mark.parametrize("key", ["noise_offset", "ip_noise_gamma"])
def test_random_strength_lies_below_the_given_one(key: str) -> None:
    fixed = Objective(schedule(), options(**{key: 0.5}))
    random = Objective(schedule(), options(**{key: 0.5, f"{key}_random_strength": True}))
    plain = Objective(schedule(), options()).draw(latents(), seeded())
    sizes = [
        float((objective.draw(latents(), seeded(seed)).added - torch.randn(SHAPE, generator=seeded(seed))).std())
        for seed in range(6)
        for objective in (random, fixed)
    ]
    assert torch.equal(plain.added, plain.noise)
    assert sum(sizes[::2]) < 0.8 * sum(sizes[1::2])
    assert len({round(size, 4) for size in sizes[::2]}) == 6


def test_timesteps_keep_within_their_bounds() -> None:
    many = torch.zeros(400, 1, 1, 1)
    drawn = Objective(schedule(), options(min_timestep=200, max_timestep=210)).draw(many, seeded()).timesteps
    assert set(drawn.tolist()) == set(range(200, 210))
    flow = Objective(schedule("flow"), options(min_timestep=200, max_timestep=600)).draw(many, seeded()).timesteps
    assert 200 <= float(flow.min()) < 220
    assert 580 < float(flow.max()) <= 600


@pytest.mark.parametrize("scheme", ["none", "logit_normal", "mode"])
def test_flow_levels_are_drawn_as_diffusers_draws_them(scheme: noise.WeightingScheme) -> None:
    many = torch.zeros(1000, 4, 2, 2)
    values = options(weighting_scheme=scheme, logit_mean=0.4, logit_std=0.7, mode_scale=1.1, discrete_flow_shift=1.0)
    drawn = Objective(schedule("flow"), values).draw(many, seeded()).timesteps / 1000
    generator = seeded()
    torch.randn(many.shape, generator=generator)
    expected = compute_density_for_timestep_sampling(scheme, 1000, 0.4, 0.7, 1.1, generator=generator)
    torch.testing.assert_close(drawn, expected, atol=1e-6, rtol=1e-5)


def test_flow_levels_are_shifted() -> None:
    many = torch.zeros(1000, 1, 64, 64)
    normal = seeded()
    torch.randn(many.shape, generator=normal)
    sigma = torch.sigmoid(2 * torch.randn(1000, generator=normal))

    def drawn(**values: Any) -> Tensor:
        objective = Objective(schedule("flow"), options(sigmoid_scale=2.0, **values))
        return objective.draw(many, seeded()).timesteps / 1000

    torch.testing.assert_close(drawn(timestep_sampling="sigmoid"), sigma)
    by_model = drawn(timestep_sampling="shift")
    torch.testing.assert_close(by_model, 3 / (3 + (1 / sigma - 1)), atol=1e-6, rtol=1e-5)
    asked = drawn(timestep_sampling="shift", discrete_flow_shift=1.5)
    torch.testing.assert_close(asked, 1.5 / (1.5 + (1 / sigma - 1)), atol=1e-6, rtol=1e-5)
    mu = 0.5 + (1.15 - 0.5) * (32 * 32 - 256) / (4096 - 256)
    by_size = math.exp(mu) / (math.exp(mu) + (1 / sigma - 1))
    torch.testing.assert_close(drawn(timestep_sampling="flux_shift"), by_size, atol=1e-6, rtol=1e-5)


@pytest.mark.parametrize("scheme", ["sigma_sqrt", "cosmap", "none"])
def test_flow_weights_equal_diffusers(scheme: noise.WeightingScheme) -> None:
    sigma = torch.linspace(0.05, 1, 20)
    torch.testing.assert_close(noise.flow_weights(sigma, scheme), compute_loss_weighting_for_sd3(scheme, sigma))


def one(value: float) -> Tensor:
    return torch.full((1, 1, 1, 1), value)


@pytest.mark.parametrize("kind", get_args(HuberSchedule))
@pytest.mark.parametrize("loss_type", ["huber", "smooth_l1"])
def test_huber_is_square_near_and_straight_far(loss_type: loss.LossType, kind: HuberSchedule) -> None:
    step, c, scale = 300, 0.2, 0.5
    alpha = float(diffusion().alphas_cumprod[step])
    width = {
        "constant": c * scale,
        "exponential": math.exp(math.log(c) / 1000 * step) * scale,
        "snr": (1 - c) / (1 + math.sqrt((1 - alpha) / alpha)) ** 2 + c,
    }[kind]
    objective = Objective(schedule(), options(loss_type=loss_type, huber_schedule=kind, huber_c=c, huber_scale=scale))
    draw = Draw(one(0.0), one(0.0), torch.tensor([step]))

    def value(difference: float) -> float:
        return float(objective.losses(one(difference), one(0.3), draw))

    factor = 1.0 if loss_type == "huber" else 1 / width
    for difference in (0.01, 0.4, 3.0):
        expected = 2 * width * (math.hypot(difference, width) - width) * factor
        assert value(difference) == pytest.approx(expected, rel=1e-3)
    assert value(width / 100) == pytest.approx((width / 100) ** 2 * factor, rel=1e-2)
    assert (value(1001 * width) - value(1000 * width)) == pytest.approx(2 * width * width * factor, rel=1e-2)


def test_masked_cells_do_not_count() -> None:
    objective = Objective(schedule(), options())
    draw = objective.draw(latents(), seeded())
    prediction = draw.noise + 1
    masks = torch.zeros(3, 6, 8)
    masks[1] = 1
    masks[2, :3] = 0.5
    assert objective.losses(prediction, latents(), draw, masks).tolist() == pytest.approx([0.0, 1.0, 0.25])
    shrunk = resized_mask(torch.tensor([[1.0, 1, 0, 0], [1, 0, 0, 0]]), (1, 2))
    assert shrunk.tolist() == [[0.75, 0.0]]


@pytest.mark.parametrize(
    ("kind", "values", "said"),
    [
        ("flow", {"min_snr_gamma": 5.0}, "`min_snr_gamma` is for models that predict noise or v"),
        ("flow", {"loss_type": "huber"}, "huber_schedule"),
        ("epsilon", {"scale_v_pred_loss_like_noise_pred": True}, "v-prediction"),
        ("v_prediction", {"v_pred_like_loss": 0.5}, "predicts v already"),
        ("epsilon", {"max_timestep": 1001}, "beyond the model's 1000"),
    ],
)
def test_settings_that_do_not_fit_the_model_are_refused(
    kind: loss.PredictionType, values: dict[str, Any], said: str
) -> None:
    with pytest.raises(UserError, match=said):
        Objective(schedule(kind), options(**values))
