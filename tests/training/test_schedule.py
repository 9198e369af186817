"""Learning-rate curves at every step."""

import math

import pytest
import torch

from onmodel.training.optimizers import OptimizerSection
from onmodel.training.schedule import cosine_with_restarts, make_schedule, warmup_steps


def curve(config: OptimizerSection, total: int) -> list[float]:
    optimizer = torch.optim.AdamW([torch.nn.Parameter(torch.zeros(1))], lr=config.learning_rate)
    schedule = make_schedule(optimizer, config, total)
    rates: list[float] = []
    for _ in range(total):
        rates.append(float(schedule.get_last_lr()[0]))
        optimizer.step()
        schedule.step()
    return rates


def test_cosine_with_restarts_is_the_formula_at_every_step() -> None:
    config = OptimizerSection(
        learning_rate=8e-5, lr_scheduler="cosine_with_restarts", lr_scheduler_num_cycles=3, lr_warmup_steps=10
    )
    rates = curve(config, 100)
    for step, rate in enumerate(rates):
        if step < 10:
            expected = step / 10
        else:
            within = (3 * (step - 10) / 90) % 1
            expected = (1 + math.cos(math.pi * within)) / 2
        assert math.isclose(rate, 8e-5 * expected, rel_tol=1e-9, abs_tol=1e-15)
    assert rates[40] == 8e-5, "the second cycle starts at the full rate"


def test_nothing_is_left_after_the_last_step() -> None:
    assert cosine_with_restarts(100, 10, 100, 1) == 0.0
    assert cosine_with_restarts(5000, 10, 100, 3) == 0.0


@pytest.mark.parametrize("name", ["constant", "constant_with_warmup", "linear", "cosine", "polynomial"])
def test_other_schedules_start_and_end_where_they_should(name: str) -> None:
    config = OptimizerSection.model_validate(
        {"learning_rate": 1e-3, "lr_scheduler": name, "lr_warmup_steps": 0 if name == "constant" else 5}
    )
    rates = curve(config, 50)
    assert rates[0] == (1e-3 if name == "constant" else 0.0)
    assert math.isclose(rates[5], 1e-3)
    if name.startswith("constant"):
        assert rates[-1] == 1e-3
    else:
        assert rates[-1] < 1e-4


def test_warmup_is_a_count_or_a_share() -> None:
    assert warmup_steps(OptimizerSection(lr_scheduler="cosine", lr_warmup_steps=7), 100) == 7
    assert warmup_steps(OptimizerSection(lr_scheduler="cosine", lr_warmup_steps=0.1), 250) == 25
