"""The plan of a run: its stages laid out over optimizer steps and epochs, and what each epoch shows."""

from collections.abc import Iterable
from dataclasses import dataclass, replace
from functools import cached_property
from itertools import accumulate

import numpy as np
import numpy.typing as npt

from onmodel.core.buckets import Size
from onmodel.training.buckets import (
    Batch,
    Counts,
    batches_per_epoch,
    count_showings,
    order_by_kind,
    plan_epoch,
)
from onmodel.training.config import TrainConfig
from onmodel.training.data import TrainingData
from onmodel.training.mix import shares_of, solve_mixes
from onmodel.training.stages import Stage, resolve_stages


@dataclass(frozen=True)
class StagePlan:
    """One stage of a run."""

    index: int
    stage: Stage
    showings: npt.NDArray[np.float64]
    """float64 (pictures,): how often an epoch shows each, in fractions."""
    first_step: int
    """Optimizer steps before it."""
    first_epoch: int
    """Epochs before it."""
    ends: tuple[int, ...]
    """Optimizer steps from the run's start at which each of its epochs ends; the last is the stage's end."""
    batch: int
    """Pictures a forward pass, over all workers."""
    buckets: tuple[Size, ...]
    categories: tuple[tuple[str, ...], ...]
    regular: tuple[bool, ...]
    """Which pictures are there for regularisation."""

    @property
    def config(self) -> TrainConfig:
        """The settings that hold while it lasts."""
        return self.stage.config

    @property
    def last_step(self) -> int:
        """Optimizer steps of the run when it is over."""
        return self.ends[-1]

    @property
    def steps(self) -> int:
        """Its own optimizer steps: the length of its learning-rate schedule."""
        return self.last_step - self.first_step

    @cached_property
    def _order(self) -> npt.NDArray[np.int64]:
        return order_by_kind(self.categories, self.buckets, self.config.training.seed)

    def counts(self, epoch: int) -> Counts:
        """How often the epoch (of the run, from 0) shows each picture: int64 (pictures,)."""
        return count_showings(self.showings, self._order, self.config.training.seed, epoch)

    def shares(self, epoch: int) -> dict[str, float]:
        """Share in per cent of each category in what the epoch shows, but for regularisation pictures."""
        shown = self.counts(epoch).astype(np.float64) * ~np.array(self.regular)
        return shares_of(shown, self.categories)

    def groups(self, epoch: int) -> list[list[Batch]]:
        """The batches of each optimizer step of an epoch (of the run, from 0)."""
        training = self.config.training
        batches = plan_epoch(self.buckets, self.counts(epoch), self.batch, training.seed, epoch)
        size = training.gradient_accumulation_steps
        return [batches[start : start + size] for start in range(0, len(batches), size)]


def plan_stages(config: TrainConfig, data: TrainingData, batch: int) -> list[StagePlan]:
    """Solve the mixes of the stages of `config` on `data`, and lay them out, `batch` pictures a forward pass.

    Raises:
        UserError: a mix that these pictures cannot have.
    """
    return lay_out(config, data, batch, [solved.showings for solved in solve_mixes(config, data.pictures)])


def lay_out(
    config: TrainConfig, data: TrainingData, batch: int, showings: Iterable[npt.NDArray[np.float64]]
) -> list[StagePlan]:
    """The stages one after the other, each with its showings, float64 (pictures,)."""
    plans: list[StagePlan] = []
    categories = tuple(picture.categories for picture in data.pictures)
    regular = tuple(picture.is_reg for picture in data.pictures)
    for index, (stage, shown) in enumerate(zip(resolve_stages(config), showings, strict=True)):
        step = plans[-1].last_step if plans else 0
        epoch = plans[-1].first_epoch + len(plans[-1].ends) if plans else 0
        plan = StagePlan(index, stage, shown, step, epoch, (), batch, tuple(data.buckets), categories, regular)
        plans.append(replace(plan, ends=tuple(step + end for end in accumulate(_epoch_lengths(plan)))))
    return plans


def _epoch_lengths(plan: StagePlan) -> list[int]:
    """Optimizer steps of each epoch of a stage. Fractions fall otherwise in each epoch, and so may its batches."""
    training = plan.config.training
    whole = bool((plan.showings == np.round(plan.showings)).all())
    every = _steps(plan, plan.first_epoch) if whole else 0

    def steps_of(number: int) -> int:
        return every or _steps(plan, plan.first_epoch + number)

    if training.max_train_epochs is not None:
        return [steps_of(number) for number in range(training.max_train_epochs)]
    lengths: list[int] = []
    left = training.max_train_steps or 0
    while left > 0:
        lengths.append(min(left, steps_of(len(lengths))))
        left -= lengths[-1]
    return lengths


def _steps(plan: StagePlan, epoch: int) -> int:
    batches = batches_per_epoch(plan.buckets, plan.counts(epoch), plan.batch)
    return -(-batches // plan.config.training.gradient_accumulation_steps)
