"""The training loop in plain PyTorch: one process or several, it knows of them through `Workers` alone.

Every random draw comes from a generator seeded by (seed, step), for the whole batch over all workers, of which each
worker takes its share. So nothing about randomness has to be saved, a resumed run draws what the run that was never
stopped would have drawn, and several workers draw what one would.
"""

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import Any, Protocol

import torch
from torch import Tensor, nn

from onmodel.core.errors import UserError
from onmodel.training import loss, network
from onmodel.training.buckets import Batch, batches_per_epoch, plan_epoch, seeded
from onmodel.training.config import OptimizerSection, TrainConfig, parse_optimizer_arg
from onmodel.training.data import TrainingData
from onmodel.training.families import Family
from onmodel.training.families.sizes import size_conditioning
from onmodel.training.schedule import make_schedule

EMPTY_CAPTION = ""


class Workers(Protocol):
    """The processes that train one model together."""

    rank: int
    world_size: int

    def sum(self, tensor: Tensor) -> Tensor:
        """The sum of `tensor` over all workers; every worker calls it equally often."""
        ...

    def barrier(self) -> None:
        """Wait for all workers."""
        ...


class Alone:
    """One process."""

    rank = 0
    world_size = 1

    def sum(self, tensor: Tensor) -> Tensor:
        return tensor

    def barrier(self) -> None:
        return


@dataclass(frozen=True)
class StepReport:
    """One optimizer step that was taken."""

    step: int
    """From 1."""
    epoch: int
    """From 1."""
    loss: float
    """Mean over the step's pictures, on all workers."""
    learning_rate: float
    """Of the first component that is trained."""
    grad_norm: float
    """Before clipping."""
    pictures: int


class Trainer:
    """A network on a family's components, its optimizer and schedule, and the data it is trained on."""

    def __init__(
        self, config: TrainConfig, family: Family, data: TrainingData, workers: Workers, device: torch.device
    ) -> None:
        self._config = config
        self._family = family
        self._data = data
        self._workers = workers
        self._device = device
        self._schedule = family.schedule.to(device)
        self._batch = config.training.train_batch_size * workers.world_size
        self.components = trained_components(config, family)
        network.attach(self.components, config.network.spec, family.naming, config.training.seed)
        self._groups = [network.parameters(module) for module in self.components.values()]
        self._parameters = [parameter for group in self._groups for parameter in group]
        self._optimizer = self._make_optimizer()
        self.steps_per_epoch, self.epochs, self.total_steps = self._lengths()
        self._lr_schedule = make_schedule(self._optimizer, config.optimizer, self.total_steps)
        self.step = 0
        self._prepare_modules()

    def _make_optimizer(self) -> torch.optim.Optimizer:
        options = self._config.optimizer
        rates = component_rates(options, list(self.components))
        groups = [
            {"params": group, "lr": rates[name]} for name, group in zip(self.components, self._groups, strict=True)
        ]
        extra: dict[str, Any] = dict(parse_optimizer_arg(item) for item in options.optimizer_args)
        # Fused: on the CPU too, a loop over some hundred small tensors costs more than the arithmetic.
        return torch.optim.AdamW(groups, fused=True, **extra)

    def _lengths(self) -> tuple[int, int, int]:
        """Optimizer steps an epoch, epochs, and optimizer steps in all."""
        training = self._config.training
        batches = batches_per_epoch(self._data.buckets, self._data.repeats, self._batch)
        steps = -(-batches // training.gradient_accumulation_steps)
        if training.max_train_epochs is not None:
            return steps, training.max_train_epochs, steps * training.max_train_epochs
        assert training.max_train_steps is not None
        return steps, -(-training.max_train_steps // steps), training.max_train_steps

    def _prepare_modules(self) -> None:
        for module in self._family.components.values():
            module.requires_grad_(False)
        for parameter in self._parameters:
            parameter.requires_grad_(True)
        if self._config.advanced.gradient_checkpointing:
            for name, module in self.components.items():
                if name in network.DENOISERS:
                    module.enable_gradient_checkpointing()  # pyright: ignore[reportCallIssue]
                else:
                    module.gradient_checkpointing_enable()  # pyright: ignore[reportCallIssue]
                # Both libraries checkpoint in training mode alone.
                module.train()

    def state(self) -> dict[str, Any]:
        """Everything that the next step depends on, on the CPU."""
        return {
            "step": self.step,
            "lora": [parameter.detach().cpu().clone() for parameter in self._parameters],
            "optimizer": self._optimizer.state_dict(),
            "lr_schedule": self._lr_schedule.state_dict(),
        }

    def load_state(self, state: dict[str, Any]) -> None:
        """Take up `state`, made by a trainer of the same config on the same data."""
        self.step = int(state["step"])
        with torch.no_grad():
            for parameter, value in zip(self._parameters, state["lora"], strict=True):
                parameter.copy_(value)
        self._optimizer.load_state_dict(state["optimizer"])
        self._lr_schedule.load_state_dict(state["lr_schedule"])

    def run(self, on_step: Callable[[StepReport], None], on_epoch_end: Callable[[int], None]) -> None:
        """Train from where the state stands to the end.

        Args:
            on_step: called after each optimizer step.
            on_epoch_end: called with the epoch (from 1) when it is complete, and at the run's last step.

        Raises:
            UserError: the loss is not finite; names the step and the pictures.
        """
        if self.step >= self.total_steps:
            return
        for epoch in range(self.step // self.steps_per_epoch, self.epochs):
            batches = plan_epoch(self._data.buckets, self._data.repeats, self._batch, self._config.training.seed, epoch)
            size = self._config.training.gradient_accumulation_steps
            groups = [batches[start : start + size] for start in range(0, len(batches), size)]
            for group in groups[self.step - epoch * self.steps_per_epoch :]:
                if self.step >= self.total_steps:
                    break
                on_step(self._train_step(group, epoch))
            on_epoch_end(epoch + 1)

    def _train_step(self, group: Sequence[Batch], epoch: int) -> StepReport:
        """One optimizer step over `group`, whose batches' gradients add up."""
        pictures = sum(len(batch.pictures) for batch in group)
        generator = seeded(self._config.training.seed, self.step, 2)
        total = torch.zeros((), device=self._device)
        for batch in group:
            losses = self._losses(batch, generator)
            if losses is not None:
                losses.sum().div(pictures).backward()
                total += losses.detach().sum()
        mean = self._combine_workers(total) / pictures
        if not torch.isfinite(mean):
            self._refuse_loss(mean.item(), group, epoch)
        limit = self._config.optimizer.max_grad_norm or float("inf")
        norm = nn.utils.clip_grad_norm_(self._parameters, limit)
        rate = float(self._lr_schedule.get_last_lr()[0])
        self._optimizer.step()
        self._lr_schedule.step()
        self._optimizer.zero_grad(set_to_none=True)
        self.step += 1
        return StepReport(self.step, epoch + 1, mean.item(), rate, norm.item(), pictures)

    def _losses(self, batch: Batch, generator: torch.Generator) -> Tensor | None:
        """Losses of this worker's pictures of `batch`, or None when a short batch leaves it none."""
        data, advanced = self._data, self._config.advanced
        latents = torch.stack([data.latents[index] for index in batch.pictures])
        noise = loss.draw_noise(tuple(latents.shape), advanced.noise_offset, generator)
        timesteps = torch.randint(self._schedule.timesteps, (len(latents),), generator=generator)
        dropped = torch.rand(len(latents), generator=generator) < self._config.data.caption_dropout_rate
        mine = slice(self._workers.rank, None, self._workers.world_size)
        said = self._drawn(batch)
        captions = [
            EMPTY_CAPTION if drop else caption for caption, drop in zip(said[mine], dropped[mine].tolist(), strict=True)
        ]
        if not captions:
            return None
        latents, noise, timesteps = (part[mine].to(self._device) for part in (latents, noise, timesteps))
        if self._schedule.prediction_type == "flow":
            timesteps = timesteps.float()
            sigma = (timesteps / self._schedule.timesteps).view(-1, 1, 1, 1)
            alphas = 1 - sigma.flatten()
            noisy = (1 - sigma) * latents + sigma * noise
        else:
            alphas = self._schedule.alphas_cumprod[timesteps]
            noisy = loss.add_noise(latents, noise, alphas)
        with torch.autocast(self._device.type, torch.bfloat16, enabled=self._config.training.mixed_precision == "bf16"):
            prediction = self._family.predict(
                noisy, timesteps, self._conditioning(captions), self._sizes(batch.pictures[mine])
            )
        kind = self._schedule.prediction_type
        wanted = loss.target(latents, noise, alphas, kind)
        return loss.picture_losses(prediction, wanted, alphas, kind, advanced.min_snr_gamma)

    def _drawn(self, batch: Batch) -> list[str]:
        """A caption of each picture: where it has several, one drawn anew each time, the same on all workers."""
        # A generator of its own: a set without variants trains as it did before there were any.
        generator = seeded(self._config.training.seed, self.step, *batch.pictures, 3)
        drawn = torch.rand(len(batch.pictures), generator=generator).tolist()
        lines = [self._data.pictures[index].captions for index in batch.pictures]
        return [each[int(place * len(each))] for each, place in zip(lines, drawn, strict=True)]

    def _sizes(self, pictures: Sequence[int]) -> Tensor | None:
        if not self._family.uses_sizes:
            return None
        return size_conditioning([(self._data.pictures[index].path, self._data.buckets[index]) for index in pictures])

    def _conditioning(self, captions: Sequence[str]) -> Tensor:
        if not self._data.conditioning:
            return self._family.encode_captions(captions)
        return torch.stack([self._data.conditioning[caption] for caption in captions]).to(self._device)

    def _combine_workers(self, total: Tensor) -> Tensor:
        """Add up gradients and loss over all workers, in one message."""
        if self._workers.world_size == 1:
            return total
        parts = [p.grad if p.grad is not None else torch.zeros_like(p) for p in self._parameters]
        summed = self._workers.sum(torch.cat([*(part.flatten() for part in parts), total[None]]))
        offset = 0
        for parameter in self._parameters:
            parameter.grad = summed[offset : offset + parameter.numel()].view_as(parameter)
            offset += parameter.numel()
        return summed[-1]

    def _refuse_loss(self, value: float, group: Sequence[Batch], epoch: int) -> None:
        names = [str(self._data.pictures[index].path) for batch in group for index in batch.pictures]
        shown = ", ".join(names[:8]) + (f" and {len(names) - 8} more" if len(names) > 8 else "")
        raise UserError(
            f"the loss is {value} at step {self.step + 1} (epoch {epoch + 1}); pictures of the batch: {shown}. "
            "Lower learning_rate, or look at these pictures"
        )


def trained_components(config: TrainConfig, family: Family) -> dict[str, nn.Module]:
    """The components of `family` that `config` trains."""
    options = config.network
    wanted = {
        name: module
        for name, module in family.components.items()
        if (not options.network_train_text_encoder_only if name in network.DENOISERS else options.trains_text)
    }
    if not wanted:
        raise UserError("network_train_text_encoder_only: the base model has no text encoder that can be trained")
    return wanted


def component_rates(options: OptimizerSection, names: Sequence[str]) -> dict[str, float]:
    """Learning rate of each component. Raises UserError for more text encoder rates than there are encoders."""
    texts = [name for name in names if name not in network.DENOISERS]
    given = options.text_encoder_lr
    each = given if isinstance(given, list) else [given] * len(texts)
    if len(each) == 1:
        each = each * len(texts)  # sd-scripts: one rate is everyone's
    if len(each) < len(texts) or (len(each) > len(texts) > 0):
        raise UserError(f"text_encoder_lr: {len(each)} rates for {len(texts)} text encoder(s); give one, or one each")
    rates = {name: options.unet_lr for name in names if name in network.DENOISERS} | dict(
        zip(texts, each, strict=False)
    )
    return {name: options.learning_rate if rates[name] is None else float(rates[name] or 0.0) for name in names}
