"""The training loop in plain PyTorch: one process or several, it knows of them through `Workers` alone.

Every random draw comes from a generator seeded by (seed, step), for the whole batch over all workers, of which each
worker takes its share. So nothing about randomness has to be saved, a resumed run draws what the run that was never
stopped would have drawn, and several workers draw what one would.
"""

import math
from collections.abc import Callable, Generator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from typing import Any, Protocol

import numpy as np
import torch
from torch import Tensor

from onmodel.core.errors import UserError
from onmodel.training import captions, network, validation
from onmodel.training.advanced import AdvancedSection
from onmodel.training.buckets import Batch, seeded
from onmodel.training.components import component_rates, trained_components
from onmodel.training.config import TrainConfig
from onmodel.training.data import TrainingData
from onmodel.training.devices import moved
from onmodel.training.families import Family
from onmodel.training.families.sizes import size_conditioning
from onmodel.training.forward import Forward
from onmodel.training.gather import gather
from onmodel.training.objective import Draw, Objective
from onmodel.training.plan import StagePlan, lay_out, plan_stages
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
    """From 1, over all stages."""
    stage: str
    epoch: int
    """From 1, over all stages."""
    loss: float
    """Mean over the step's pictures, on all workers."""
    learning_rate: float
    """Of the first component that is trained."""
    grad_norm: float
    """Before clipping."""
    pictures: int
    rates: dict[str, float]
    """Learning rate of each trained component; with LoRA+ of its up matrices besides, as `unet_plus`."""
    ends_epoch: bool
    """Whether the epoch is over with it."""


class Trainer:
    """A network on a family's components, its optimizer and schedule, and the data it is trained on."""

    def __init__(
        self,
        config: TrainConfig,
        family: Family,
        data: TrainingData,
        workers: Workers,
        device: torch.device,
        *,
        batch: int | None = None,
    ) -> None:
        """`batch` is the pictures of a forward pass over all workers; None: `train_batch_size` for each of them."""
        self._family = family
        self._data = data
        self._workers = workers
        self._device = device
        self._schedule = family.schedule.with_zero_terminal_snr() if config.model.zero_terminal_snr else family.schedule
        self._plain = Objective(self._schedule, AdvancedSection()).to(device)
        self.batch = batch or config.training.train_batch_size * workers.world_size
        self.components = trained_components(config, family)
        network.attach(self.components, config.network.spec, family.naming, config.training.seed)
        self._groups = network.rate_groups(self.components, config.network.spec)
        self._parameters = [parameter for group in self._groups for parameter in group.parameters]
        if config.training.full_bf16:
            for parameter in self._parameters:
                parameter.data = parameter.data.to(torch.bfloat16)
        self._average = make_average(config.training, self._parameters)
        self._precision = {"bf16": torch.bfloat16, "fp16": torch.float16}.get(config.training.mixed_precision)
        self._forward = Forward(family, device, self._precision, config.advanced)
        # Under autocast a layer's input is cast anyway, and to the type that is computed in.
        self._casts = self._precision is None
        self.stages = self._plan(config)
        self.step = 0
        for plan in reversed(self.stages):
            # Each once: what is wrong with a later stage is said before the first step.
            self._enter(plan)
        self._prepare_modules()

    def _plan(self, config: TrainConfig) -> list[StagePlan]:
        """The stages, on every worker as the first one solved their mixes: a last bit may differ between machines."""
        plans = plan_stages(config, self._data, self.batch)
        if self._workers.world_size == 1 or all(plan.stage.mix == "original" for plan in plans):
            return plans
        own = torch.from_numpy(np.concatenate([plan.showings for plan in plans])).to(self._device)
        first = self._workers.sum(own if self._workers.rank == 0 else torch.zeros_like(own)).cpu().numpy()
        return lay_out(config, self._data, self.batch, first.reshape(len(plans), -1))

    def _enter(self, plan: StagePlan) -> None:
        """Begin a stage: its settings, a fresh optimizer and a schedule of its length, on the weights as they are."""
        self.stage = plan
        self._config = plan.config
        network.set_dropout(self.components, plan.config.network.spec)
        self._objective = Objective(self._schedule, plan.config.advanced).to(self._device)
        self.update = self._make_update(plan.steps)

    def start_at(self, stage: int) -> None:
        """Begin with the stage at place `stage`, on the weights as they are, as if the ones before were over."""
        self.step = self.stages[stage].first_step
        self._enter(self.stages[stage])

    @property
    def total_steps(self) -> int:
        """Optimizer steps of all stages."""
        return self.stages[-1].last_step

    @property
    def epochs(self) -> int:
        """Epochs of all stages."""
        return self.stages[-1].first_epoch + len(self.stages[-1].ends)

    @property
    def steps_per_epoch(self) -> int:
        """Optimizer steps of the present stage's first epoch."""
        return self.stage.ends[0] - self.stage.first_step

    def _make_update(self, steps: int) -> Update:
        options = self._config.optimizer
        rates = component_rates(options, list(self.components))
        groups = [{"params": group.parameters, "lr": group.ratio * rates[group.component]} for group in self._groups]
        records = self._forward.records
        return Update(self._config, self.components, groups, steps, self._device, self._average, records=records)

    def _prepare_modules(self) -> None:
        for module in self._family.components.values():
            module.requires_grad_(False)
        for parameter in self._parameters:
            parameter.requires_grad_(True)
        network.cast_inputs(self.components, self._casts)
        if self._config.advanced.gradient_checkpointing:
            for name, module in self.components.items():
                if name in network.DENOISERS:
                    module.enable_gradient_checkpointing()  # pyright: ignore[reportCallIssue]
                else:
                    module.gradient_checkpointing_enable()  # pyright: ignore[reportCallIssue]
                # Both libraries checkpoint in training mode alone.
                module.train()

    def state(self) -> dict[str, Any]:
        """Everything that the next step depends on, on the CPU. Generators are seeded anew at each step."""
        return {
            "step": self.step,
            "stage": self.stage.index,
            "lora": [parameter.detach().cpu().clone() for parameter in self._parameters],
            "update": self.update.state(),
        }

    def load_state(self, state: dict[str, Any]) -> None:
        """Take up `state`, made by a trainer of the same config (up to its stage) on the same data."""
        self._enter(self.stages[int(state["stage"])])
        self.step = int(state["step"])
        with torch.no_grad():
            for parameter, value in zip(self._parameters, state["lora"], strict=True):
                parameter.copy_(value)
        self.update.load_state(state["update"])

    def run(
        self,
        on_step: Callable[[StepReport], None],
        on_epoch_end: Callable[[int], None],
        *,
        last_stage: int | None = None,
    ) -> None:
        """Train from where the state stands to the end of all stages, or of the one at place `last_stage`.

        Args:
            on_step: called after each optimizer step.
            on_epoch_end: called with the epoch (from 1) when it is complete, and at each stage's last step.

        Raises:
            UserError: the loss is not finite; names the step and the pictures.
        """
        for plan in self.stages[self.stage.index : None if last_stage is None else last_stage + 1]:
            if plan is not self.stage:
                self.update.settle()
                self._enter(plan)
            for number, end in enumerate(plan.ends):
                if self.step >= end:
                    continue
                epoch = plan.first_epoch + number
                start = plan.ends[number - 1] if number else plan.first_step
                for group in plan.groups(epoch)[self.step - start : end - start]:
                    on_step(self._train_step(group, epoch))
                on_epoch_end(epoch + 1)

    def _train_step(self, group: Sequence[Batch], epoch: int) -> StepReport:
        """One optimizer step over `group`, whose batches' gradients add up."""
        pictures = sum(len(batch.pictures) for batch in group)
        generator = seeded(self._config.training.seed, self.step, 2)
        # Dropout layers draw from the process's generators.
        torch.manual_seed(seeded(self._config.training.seed, self.step, self._workers.rank, 4).initial_seed())
        total = torch.zeros((), device=self._device)
        for batch in group:
            losses = self._losses(batch, generator, epoch)
            if losses is not None:
                self.update.backward(losses.sum().div(pictures))
                total += losses.detach().sum()
        mean = self._combine_workers(total) / pictures
        rates = dict(zip((group.name for group in self._groups), self.update.learning_rates, strict=True))
        norm = self.update.step()
        # The one place in a step that waits for the device.
        loss, grad_norm = torch.stack([mean.float(), norm.float()]).tolist()
        if not math.isfinite(loss):
            self._refuse_loss(loss, group, epoch)
        self.step += 1
        return StepReport(
            step=self.step,
            stage=self.stage.stage.name,
            epoch=epoch + 1,
            loss=loss,
            learning_rate=next(iter(rates.values())),
            grad_norm=grad_norm,
            pictures=pictures,
            rates=rates,
            ends_epoch=self.step in self.stage.ends,
        )

    def _losses(self, batch: Batch, generator: torch.Generator, epoch: int) -> Tensor | None:
        """Losses of this worker's pictures of `batch`, or None when a short batch leaves it none."""
        data, options = self._data, self._config.data
        # A generator of its own: a set without variants trains as it did before there were any.
        own = seeded(self._config.training.seed, self.step, *batch.pictures, 3)
        said = self._said(batch, own)
        known = gather(data, batch.pictures, own)
        draw = self._objective.draw(known.latents, generator)
        chances = torch.rand(len(said), generator=generator).tolist()
        said = [
            EMPTY_CAPTION if captions.dropped(data.pictures[index].rules, options, chance, epoch) else caption
            for index, caption, chance in zip(batch.pictures, said, chances, strict=True)
        ]
        mine = slice(self._workers.rank, None, self._workers.world_size)
        if not said[mine]:
            return None
        draw, known = draw.part(mine, self._device), known.part(mine, self._device)
        text, sizes = self._conditioning(said[mine]), self._sizes(batch.pictures[mine])
        return self._forward.losses(self._objective, known, draw, text, sizes)

    @contextmanager
    def evaluating(self) -> Generator[None]:
        """The network as it will be used, while the block runs: no dropout, and averaged where that is what is kept."""
        modules = [module for component in self.components.values() for module in component.modules()]
        training = [module for module in modules if module.training]
        for component in self.components.values():
            component.eval()
        # Pictures are drawn without autocast.
        network.cast_inputs(self.components, True)
        try:
            with self.update.exported():
                yield
        finally:
            network.cast_inputs(self.components, self._casts)
            for module in training:
                module.training = True

    def release_encoders(self) -> None:
        """Move what training no longer needs off the accelerator, after something else needed it there."""
        self._family.release_encoders(captions=bool(self._data.conditioning))

    def validate(self) -> dict[str, float]:
        """Mean loss of the held-back pictures, in all and by category; every worker calls it. Empty without any."""
        options, data = self._config, self._data
        with self.evaluating(), torch.no_grad():
            return validation.validate(
                data,
                self._plain_losses,
                lambda sums: self._workers.sum(sums.to(self._device)).cpu(),
                batch=self.batch,
                most=options.training.max_validation_steps,
                seed=options.validation_seed,
                timesteps=self._schedule.timesteps,
                rank=self._workers.rank,
                world_size=self._workers.world_size,
            )

    def _plain_losses(self, pictures: Sequence[int], noise: Tensor, timesteps: Tensor) -> Tensor:
        """Mean squared error (B,) of what the network predicts, each picture with its first caption."""
        latents = torch.stack([self._data.latents[index] for index in pictures]).to(self._device)
        if self._schedule.prediction_type == "flow":
            timesteps = timesteps.float()
        draw = Draw(noise, noise, timesteps).part(slice(None), self._device)
        said = [self._data.pictures[index].plain_caption for index in pictures]
        noisy, text, sizes = self._plain.noisy(latents, draw), self._conditioning(said), self._sizes(pictures)
        return self._plain.losses(self._forward.predict(noisy, draw.timesteps, text, sizes), latents, draw)

    def _said(self, batch: Batch, generator: torch.Generator) -> list[str]:
        """A caption of each picture: of several one is drawn anew each time, the same on all workers."""
        drawn = torch.rand(len(batch.pictures), generator=generator).tolist()
        pictures = [self._data.pictures[index] for index in batch.pictures]
        lines = [each.captions[int(place * len(each.captions))] for each, place in zip(pictures, drawn, strict=True)]
        if self._data.conditioning:
            return lines
        rate = self._config.data.caption_tag_dropout_rate
        return [captions.vary(line, each.rules, rate, generator) for line, each in zip(lines, pictures, strict=True)]

    def _sizes(self, pictures: Sequence[int]) -> Tensor | None:
        if not self._family.uses_sizes:
            return None
        places = [(self._data.pictures[index].path, self._data.buckets[index]) for index in pictures]
        return moved(size_conditioning(places), self._device)

    def _conditioning(self, said: Sequence[str]) -> Tensor:
        if not self._data.conditioning:
            with torch.autocast(self._device.type, self._precision, enabled=self._precision is not None):
                return self._family.encode_captions(said)
        return moved(torch.stack([self._data.conditioning[caption] for caption in said]), self._device)

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
