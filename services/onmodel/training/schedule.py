"""Learning-rate schedules, counted in optimizer steps that really happen whatever the number of workers."""

import math

import torch
from diffusers.optimization import get_scheduler
from torch.optim.lr_scheduler import LambdaLR

from onmodel.training.config import OptimizerSection


def warmup_steps(config: OptimizerSection, total: int) -> int:
    """`lr_warmup_steps` as a number of optimizer steps: an integer as it is, a float as a share of `total`."""
    value = config.lr_warmup_steps
    return value if isinstance(value, int) else int(value * total)


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
    """The schedule of `config` over `total` optimizer steps."""
    warmup = warmup_steps(config, total)
    if config.lr_scheduler == "cosine_with_restarts":
        cycles = config.lr_scheduler_num_cycles
        return LambdaLR(optimizer, lambda step: cosine_with_restarts(step, warmup, total, cycles))
    return get_scheduler(config.lr_scheduler, optimizer=optimizer, num_warmup_steps=warmup, num_training_steps=total)
