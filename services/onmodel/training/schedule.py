"""Learning-rate schedules, counted in optimizer steps that really happen whatever the number of workers."""

import math
from functools import partial

import torch
from diffusers.optimization import get_piecewise_constant_schedule, get_scheduler
from torch.optim.lr_scheduler import LambdaLR
from transformers.optimization import (
    get_cosine_with_min_lr_schedule_with_warmup,
    get_inverse_sqrt_schedule,
    get_wsd_schedule,
)

from onmodel.core.errors import UserError
from onmodel.training.optimizers import OptimizerSection, parse_arg


def counted(value: int | float, total: int) -> int:
    """A number of optimizer steps: an integer as it is, a float as a share of `total`."""
    return value if isinstance(value, int) else int(value * total)


def warmup_steps(config: OptimizerSection, total: int) -> int:
    """`lr_warmup_steps` as a number of optimizer steps."""
    return counted(config.lr_warmup_steps, total)


def cosine_with_restarts(step: int, warmup: int, total: int, cycles: int) -> float:
    """Factor of the learning rate at `step` of `total`.

    t/W while warming up; then with p = (t − W) / (T − W): 0 at p ≥ 1, else ½(1 + cos(π((cycles·p) mod 1))).
    """
    if step < warmup:
        return step / max(1, warmup)
    progress = (step - warmup) / max(1, total - warmup)
    if progress >= 1:
        return 0.0
    return max(0.0, 0.5 * (1 + math.cos(math.pi * ((cycles * progress) % 1.0))))


def make_schedule(optimizer: torch.optim.Optimizer, config: OptimizerSection, total: int) -> LambdaLR:
    """The schedule of `config` over `total` optimizer steps, by sd-scripts' names and parameters.

    Raises:
        UserError: warmup and decay together are longer than the run; a `lr_scheduler_args` that does not fit.
    """
    warmup, name = warmup_steps(config, total), config.lr_scheduler
    least = config.lr_scheduler_min_lr_ratio or 0.0
    if name == "cosine_with_restarts":
        return LambdaLR(
            optimizer,
            partial(cosine_with_restarts, warmup=warmup, total=total, cycles=config.lr_scheduler_num_cycles),
        )
    if name == "piecewise_constant":
        return _piecewise(optimizer, config)
    if name == "inverse_sqrt":
        return get_inverse_sqrt_schedule(optimizer, warmup, timescale=config.lr_scheduler_timescale)
    # Half a cosine wave for each of sd-scripts' cycles.
    waves = config.lr_scheduler_num_cycles / 2
    if name == "cosine_with_min_lr":
        return get_cosine_with_min_lr_schedule_with_warmup(
            optimizer, warmup, total, num_cycles=waves, min_lr_rate=least
        )
    if name == "warmup_stable_decay":
        decay = counted(config.lr_decay_steps, total)
        if warmup + decay > total:
            raise UserError(
                f"`lr_warmup_steps` and `lr_decay_steps` take {warmup} + {decay} steps of the run's {total}; lower them"
            )
        stable = total - warmup - decay
        return get_wsd_schedule(optimizer, warmup, decay, num_stable_steps=stable, min_lr_ratio=least, num_cycles=waves)
    return get_scheduler(
        name,
        optimizer=optimizer,
        num_warmup_steps=warmup,
        num_training_steps=total,
        power=config.lr_scheduler_power,
    )


def _piecewise(optimizer: torch.optim.Optimizer, config: OptimizerSection) -> LambdaLR:
    """`lr_scheduler_args = ["step_rules='1:10,0.1:20,0.01'"]`: factor 1 for 10 steps, 0.1 to step 20, then 0.01."""
    given = dict(parse_arg(item) for item in config.lr_scheduler_args)
    rules = str(given.get("step_rules", ""))
    try:
        return get_piecewise_constant_schedule(optimizer, rules)
    except ValueError as error:
        raise UserError(
            f"`lr_scheduler_args`: step_rules {rules!r} cannot be read ({error}); "
            "write \"step_rules='1:10,0.1:20,0.01'\""
        ) from None
