"""What the training scripts share: where and how long to train, a running average of weights, folders written whole."""

from __future__ import annotations

import math
import shutil
import time
from collections.abc import Callable, Iterator
from pathlib import Path

import torch
from torch import Tensor, nn


def best_device() -> torch.device:
    """The CUDA device where there is one, else the processor."""
    return torch.device("cuda" if torch.cuda.is_available() else "cpu")


def half_precision(device: torch.device) -> torch.autocast:
    """A context in which matrix products run in bfloat16 on CUDA, and in float32 on a processor."""
    # Without its cache, which a captured graph would keep stale weights in.
    return torch.autocast(device.type, torch.bfloat16, enabled=device.type == "cuda", cache_enabled=False)


class Clock:
    """Training by the clock: steps until `seconds` are over, with the learning rate of that moment.

    The rate rises over `warmup` steps and falls as a cosine to `floor` of its height at the end.
    """

    def __init__(self, optimizer: torch.optim.Optimizer, seconds: float, *, warmup: int, floor: float) -> None:
        if seconds <= 0:
            raise ValueError(f"no time is left to train ({seconds:.0f} s)")
        self._optimizer, self._seconds, self._warmup, self._floor = optimizer, seconds, warmup, floor
        self._peak = [float(group["lr"]) for group in optimizer.param_groups]
        self.step = 0

    def __iter__(self) -> Iterator[int]:
        began = time.monotonic()
        while (done := (time.monotonic() - began) / self._seconds) < 1:
            shape = self._floor + (1 - self._floor) * 0.5 * (1 + math.cos(math.pi * done))
            for group, peak in zip(self._optimizer.param_groups, self._peak, strict=True):
                group["lr"] = peak * min(1.0, (self.step + 1) / self._warmup) * shape
            yield self.step
            self.step += 1


class Gradients:
    """Leaves a batch's gradients on a module's parameters; on CUDA as one graph, since launching a thousand small
    kernels takes longer than running them. The batch lies where `backward` reads it, in place."""

    def __init__(self, module: nn.Module, backward: Callable[[], Tensor], *, cuda: bool) -> None:
        """`backward` computes `module`'s gradients and returns the loss, detached; it is what the graph captures."""
        self._module, self._backward = module, backward
        self._graph: torch.cuda.CUDAGraph | None = None
        if cuda:
            side = torch.cuda.Stream()
            side.wait_stream(torch.cuda.current_stream())
            with torch.cuda.stream(side):
                for _ in range(3):
                    backward()
            torch.cuda.current_stream().wait_stream(side)
            module.zero_grad(set_to_none=True)
            self._graph = torch.cuda.CUDAGraph()
            with torch.cuda.graph(self._graph):
                self._loss = backward()

    def __call__(self) -> Tensor:
        """The loss."""
        if self._graph is not None:
            # The graph writes gradients anew, where its capture left them.
            self._graph.replay()
            return self._loss
        self._module.zero_grad(set_to_none=True)
        return self._backward()


class Average:
    """An exponential moving average of a module's parameters, with a warm-up so that early weights count little."""

    def __init__(self, model: nn.Module, decay: float) -> None:
        self.decay = decay
        self.steps = 0
        self.values: list[Tensor] = [p.detach().clone() for p in model.parameters()]

    @torch.no_grad()
    def update(self, model: nn.Module) -> None:
        self.steps += 1
        decay = min(self.decay, (1 + self.steps) / (10 + self.steps))
        torch._foreach_lerp_(self.values, [p.detach() for p in model.parameters()], 1 - decay)  # pyright: ignore[reportPrivateUsage]

    @torch.no_grad()
    def copy_to(self, model: nn.Module) -> None:
        for value, parameter in zip(self.values, model.parameters(), strict=True):
            parameter.copy_(value)


def write_whole(target: Path, write: Callable[[Path], object]) -> None:
    """Let `write` fill a folder beside `target`, then swap it in."""
    partial = target.with_name(target.name + ".partial")
    shutil.rmtree(partial, ignore_errors=True)
    partial.mkdir(parents=True)
    write(partial)
    old = target.with_name(target.name + ".old")
    shutil.rmtree(old, ignore_errors=True)
    if target.exists():
        target.rename(old)
    partial.rename(target)
    shutil.rmtree(old, ignore_errors=True)
