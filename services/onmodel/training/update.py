"""One optimizer step and all that goes with it: mixed precision, clipping, max-norm, averaging, the learning rate."""

from collections.abc import Generator, Mapping
from contextlib import contextmanager
from typing import Any

import torch
from diffusers.training_utils import EMAModel
from torch import Tensor, nn

from onmodel.training import network
from onmodel.training.config import TrainConfig, TrainingSection
from onmodel.training.optimizers import KINDS, OptimizerSection, make_optimizer
from onmodel.training.schedule import make_schedule, warmup_steps


def make_average(training: TrainingSection, parameters: list[nn.Parameter]) -> EMAModel | None:
    """The running average of the weights that `ema` asks for, or None.

    After step t the average moves by 1 − min(ema_decay, t/(9 + t)) towards the weights, as diffusers does it.
    """
    return EMAModel(parameters, decay=training.ema_decay, foreach=True) if training.ema else None


class Update:
    """The optimizer of a run (or of a stage) over the parameters that are trained."""

    def __init__(
        self,
        config: TrainConfig,
        components: Mapping[str, nn.Module],
        groups: list[dict[str, Any]],
        total_steps: int,
        device: torch.device,
        average: EMAModel | None = None,
        *,
        records: bool = False,
    ) -> None:
        """Args:
            components: what carries the network, for max-norm.
            groups: parameter groups, each with `params` and `lr`.
            total_steps: optimizer steps of the schedule.
            average: moves along with each step, and is what is exported.
            records: gradients come from a recorded graph, whose next replay writes over them.

        Raises:
            UserError: optimizer arguments or a schedule that cannot be had.
        """
        options = config.optimizer
        self._options: OptimizerSection = options
        self._components = components
        self._parameters: list[nn.Parameter] = [parameter for group in groups for parameter in group["params"]]
        self._schedule_free = KINDS[options.optimizer_type].schedule_free
        self.optimizer = make_optimizer(
            options.optimizer_type,
            options.optimizer_args,
            groups,
            options.learning_rate,
            warmup=warmup_steps(options, total_steps),
        )
        # Without a rate in its groups the optimizer sets its own; a schedule-free one replaces the schedule.
        scheduled = not self._schedule_free and self.optimizer.param_groups[0]["lr"] is not None
        self._schedule = make_schedule(self.optimizer, options, total_steps) if scheduled else None
        self._scaler = torch.amp.GradScaler(device.type, enabled=config.training.mixed_precision == "fp16")
        self._average = average
        self._kept = [torch.zeros_like(parameter) for parameter in self._parameters] if records else []

    @property
    def learning_rates(self) -> list[float]:
        """The rate of each group at the step that comes next; 0 where the optimizer sets its own."""
        return [float(group["lr"] or 0.0) for group in self.optimizer.param_groups]

    def backward(self, loss: Tensor) -> None:
        """Add `loss`'s gradients, scaled up where float16 would lose small ones."""
        self._scaler.scale(loss).backward()
        if self._kept:
            self._take_out()

    def _take_out(self) -> None:
        """Bring gradients into memory of their own, all at once; a further batch of the step adds to them there."""
        fresh = [
            (parameter, kept, parameter.grad)
            for parameter, kept in zip(self._parameters, self._kept, strict=True)
            if parameter.grad is not None and parameter.grad is not kept
        ]
        if fresh:
            kept, found = [kept for _, kept, _ in fresh], [grad for _, _, grad in fresh]
            torch._foreach_copy_(kept, found)  # pyright: ignore[reportPrivateUsage]
            for parameter, own, _ in fresh:
                parameter.grad = own

    def step(self) -> Tensor:
        """Take one optimizer step with the gradients there are, and drop them.

        Returns:
            The gradients' norm before clipping, (), on the device. Where it is not finite in fp16, the weights and the
            schedule stay where they are, and the scale is lowered.
        """
        self._scaler.unscale_(self.optimizer)
        norm = nn.utils.clip_grad_norm_(self._parameters, self._options.max_grad_norm or float("inf"))
        scale = self._scaler.get_scale()
        self._scaler.step(self.optimizer)
        self._scaler.update()
        taken = self._scaler.get_scale() >= scale
        if taken:
            if self._options.scale_weight_norms:
                for module in self._components.values():
                    network.scale_norms(module, self._options.scale_weight_norms)
            if self._schedule is not None:
                self._schedule.step()
            if self._average is not None:
                self._average.step(self._parameters)
        self.optimizer.zero_grad(set_to_none=True)
        return norm

    @contextmanager
    def exported(self) -> Generator[None, None, None]:
        """While the block runs the parameters hold what is saved and measured: the average, where one is kept.

        After it they are to the bit what they were before.
        """
        if self._average is None and not self._schedule_free:
            yield
            return
        before = [parameter.detach().clone() for parameter in self._parameters]
        optimizer: Any = self.optimizer
        try:
            if self._schedule_free:
                optimizer.eval()
            if self._average is not None:
                self._average.copy_to(self._parameters)
            yield
        finally:
            if self._schedule_free:
                optimizer.train()
            with torch.no_grad():
                for parameter, value in zip(self._parameters, before, strict=True):
                    parameter.copy_(value)

    def settle(self) -> None:
        """Leave the parameters as the optimizer means them when it is through: no step can follow."""
        if self._schedule_free:
            optimizer: Any = self.optimizer
            optimizer.eval()

    def state(self) -> dict[str, Any]:
        """Everything but the parameters that the next step depends on."""
        return {
            "optimizer": self.optimizer.state_dict(),
            "lr_schedule": None if self._schedule is None else self._schedule.state_dict(),
            "scaler": self._scaler.state_dict(),
            "average": None if self._average is None else self._average.state_dict(),
        }

    def load_state(self, state: Mapping[str, Any]) -> None:
        """Take up `state`, made by an update of the same config."""
        self.optimizer.load_state_dict(state["optimizer"])
        if self._schedule is not None:
            self._schedule.load_state_dict(state["lr_schedule"])
        self._scaler.load_state_dict(state["scaler"])
        if self._average is not None:
            self._average.load_state_dict(state["average"])
            self._average.to(self._parameters[0].device)
