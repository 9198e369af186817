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
from onmodel.training import captions, network
from onmodel.training.buckets import Batch, batches_per_epoch, plan_epoch, seeded
from onmodel.training.config import TrainConfig
from onmodel.training.data import TrainingData
from onmodel.training.families import Family
from onmodel.training.gather import gather
from onmodel.training.objective import Objective
from onmodel.training.update import Update, make_average

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
        self._batch = config.training.train_batch_size * workers.world_size
        self.components = trained_components(config, family)
        network.attach(self.components, config.network.network_dim, config.network.network_alpha, config.training.seed)
        self._groups = [network.parameters(module) for module in self.components.values()]
        self._parameters = [parameter for group in self._groups for parameter in group]
        if config.training.full_bf16:
            for parameter in self._parameters:
                parameter.data = parameter.data.to(torch.bfloat16)
        self.steps_per_epoch, self.epochs, self.total_steps = self._lengths()
        self._average = make_average(config.training, self._parameters)
        self._objective = self._make_objective(config)
        self.update = self._make_update(self.total_steps)
        self.step = 0
        self._prepare_modules()

    def _make_objective(self, config: TrainConfig) -> Objective:
        schedule = self._family.schedule
        if config.model.zero_terminal_snr:
            schedule = schedule.with_zero_terminal_snr()
        return Objective(schedule, config.advanced).to(self._device)

    def _make_update(self, steps: int) -> Update:
        options = self._config.optimizer
        rates = {"unet": options.unet_lr, "text_encoder": options.text_encoder_lr}
        groups = [
            {"params": group, "lr": options.learning_rate if rates[name] is None else rates[name]}
            for name, group in zip(self.components, self._groups, strict=True)
        ]
        return Update(self._config, self.components, groups, steps, self._device, self._average)

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
                if name == "unet":
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
            "update": self.update.state(),
        }

    def load_state(self, state: dict[str, Any]) -> None:
        """Take up `state`, made by a trainer of the same config on the same data."""
        self.step = int(state["step"])
        with torch.no_grad():
            for parameter, value in zip(self._parameters, state["lora"], strict=True):
                parameter.copy_(value)
        self.update.load_state(state["update"])

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
            losses = self._losses(batch, generator, epoch)
            if losses is not None:
                self.update.backward(losses.sum().div(pictures))
                total += losses.detach().sum()
        mean = self._combine_workers(total) / pictures
        if not torch.isfinite(mean):
            self._refuse_loss(mean.item(), group, epoch)
        rate = self.update.learning_rates[0]
        norm = self.update.step()
        self.step += 1
        return StepReport(self.step, epoch + 1, mean.item(), rate, norm, pictures)

    def _losses(self, batch: Batch, generator: torch.Generator, epoch: int) -> Tensor | None:
        """Losses of this worker's pictures of `batch`, or None when a short batch leaves it none."""
        data, training = self._data, self._config.training
        # A generator of its own: a set without variants trains as it did before there were any.
        own = seeded(training.seed, self.step, *batch.pictures, 3)
        said = self._said(batch, own)
        known = gather(data, batch.pictures, own)
        draw = self._objective.draw(known.latents, generator)
        chances = torch.rand(len(said), generator=generator).tolist()
        said = [
            EMPTY_CAPTION if captions.dropped(data.pictures[index].rules, self._config.data, chance, epoch) else caption
            for index, caption, chance in zip(batch.pictures, said, chances, strict=True)
        ]
        mine = slice(self._workers.rank, None, self._workers.world_size)
        if not said[mine]:
            return None
        draw, known = draw.part(mine, self._device), known.part(mine, self._device)
        noisy = self._objective.noisy(known.latents, draw)
        precision = {"bf16": torch.bfloat16, "fp16": torch.float16}.get(training.mixed_precision)
        with torch.autocast(self._device.type, precision, enabled=precision is not None):
            prediction = self._family.predict(noisy, draw.timesteps, self._conditioning(said[mine]))
        losses = self._objective.losses(prediction, known.latents, draw, known.masks)
        return losses if known.weights is None else losses * known.weights

    def _said(self, batch: Batch, generator: torch.Generator) -> list[str]:
        """A caption of each picture: of several one is drawn anew each time, the same on all workers."""
        drawn = torch.rand(len(batch.pictures), generator=generator).tolist()
        pictures = [self._data.pictures[index] for index in batch.pictures]
        lines = [each.captions[int(place * len(each.captions))] for each, place in zip(pictures, drawn, strict=True)]
        if self._data.conditioning:
            return lines
        rate = self._config.data.caption_tag_dropout_rate
        return [captions.vary(line, each.rules, rate, generator) for line, each in zip(lines, pictures, strict=True)]

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
            parameter.grad = summed[offset : offset + parameter.numel()].view_as(parameter).to(parameter.dtype)
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
    wanted = ("unet",) if config.network.network_train_unet_only else ("unet", "text_encoder")
    return {name: family.components[name] for name in wanted if name in family.components}
