"""The ablation file: a base config, and the variants of it by explicit override, or a search instead of them.

    base = "../training/trial_3_5.toml"

    [ablation]
    name = "trial_3_6"

    [[variant]]
    name = "higher_rank"
    [variant.network]
    network_dim = 128

`base` is relative to the file; every other path to where the command is run, as in a training config.
"""

from pathlib import Path
from typing import Any, Literal, Self

from pydantic import Field, field_validator, model_validator

from onmodel.core.config import Config, load
from onmodel.training.config import TrainConfig

NAME = r"^[A-Za-z0-9][A-Za-z0-9._-]*$"
SECTIONS: tuple[str, ...] = tuple(name for name in TrainConfig.model_fields if name != "stage")
"""Tables of a training config that a variant may override key by key."""
LOSSES = ("val_loss", "train_loss")
"""Metrics of a search that need no evaluation; lower is better."""
BASE = "base"
"""Name of the base as a variant."""


class AblationSection(Config):
    """What the trials are called, where they go, and how many run at once."""

    name: str = Field(pattern=NAME)
    """A trial is called `<name>_<variant>`."""
    output_dir: str | None = None
    """Folder of the trial folders and of `<name>/`, which holds the comparison; absent: the base config's."""
    include_base: bool = False
    """Train the base too, as the variant `base`, which the others are compared with."""
    allow_different_data: bool = False
    """Variants may change which pictures are trained on or held back, and the seed."""
    num_workers: int = Field(default=1, ge=1)
    """Ray Train workers of each variant, one GPU each where there are GPUs."""
    max_concurrent: int | None = Field(default=None, ge=1)
    """Variants at once; absent: as many as the cluster has GPUs (or CPUs) for."""
    threads: int | None = Field(default=None, ge=1)
    """Processor threads of a variant; absent: the cluster's CPUs shared out among those at once. The last bits of
    weights depend on it."""
    max_failures: int = Field(default=2, ge=0)
    """How often a variant whose process died is started again, from its last state."""
    stalled_after_s: float = Field(default=900.0, gt=0)
    """A variant that reports neither a step nor any other progress for so long is ended."""
    timeout_s: float | None = Field(default=None, gt=0)
    """A variant that takes longer is ended; absent: no limit."""


class VariantSection(Config):
    """What one variant changes: tables of the training config, with its key names."""

    name: str = Field(pattern=NAME)
    model: dict[str, Any] = Field(default_factory=dict)
    network: dict[str, Any] = Field(default_factory=dict)
    optimizer: dict[str, Any] = Field(default_factory=dict)
    training: dict[str, Any] = Field(default_factory=dict)
    data: dict[str, Any] = Field(default_factory=dict)
    advanced: dict[str, Any] = Field(default_factory=dict)
    stage: list[dict[str, Any]] | None = None
    """In place of all of the base's stages."""

    @field_validator("name")
    @classmethod
    def _not_the_base(cls, name: str) -> str:
        if name == BASE:
            raise ValueError("`base` is the base config itself, which `include_base` adds; choose another name")
        return name

    @field_validator("training")
    @classmethod
    def _goes_where_all_go(cls, keys: dict[str, Any]) -> dict[str, Any]:
        for key in ("output_dir", "output_name", "resume"):
            if key in keys:
                raise ValueError(f"`{key}` follows from [ablation] and the variant's name; remove it here")
        return keys


class EvaluationSection(Config):
    """How the trained variants are evaluated; `onmodel evaluate` has options of the same names."""

    test_suite: str
    """Suite file, or a packaged suite's name."""
    references: str | None = None
    impostors: str | None = None
    trigger: str | None = None
    class_word: str | None = Field(default=None, alias="class")
    age: str | None = None
    lora_scale: float = Field(default=1.0, ge=0, le=2)
    detector: str = "toybox"
    detector_config: str | None = None
    scorer: str = "toybox"
    scorer_pretrained: str | None = None
    services: str | None = None
    """HOST:PORT of running services; absent: those that ONMODEL_SERVICES names, else they are started here."""
    device: str = "auto"
    batch_size: int | None = Field(default=None, ge=1)


class Range(Config):
    """Numbers from `min` to `max`, whole ones where both are whole."""

    min: int | float
    max: int | float
    log: bool = False
    """Even in the logarithm."""

    @model_validator(mode="after")
    def _ordered(self) -> Self:
        if not self.min < self.max:
            raise ValueError(f"`min` {self.min} must be below `max` {self.max}")
        if self.log and self.min <= 0:
            raise ValueError("with `log`, `min` must be above 0")
        return self

    @property
    def whole(self) -> bool:
        """Whether it holds whole numbers alone."""
        return isinstance(self.min, int) and isinstance(self.max, int)


Choices = list[int | float | str | bool]


class SearchSection(Config):
    """Samples of some keys in place of variants, the poor ones ended early."""

    metric: str
    """`val_loss`, `train_loss`, or `<scenario>.<figure>` of the evaluation, as `full_body.on_model`."""
    samples: int = Field(ge=2, le=10_000)
    parameters: dict[str, Range | Choices]
    """By `<table>.<key>` of the training config: a range, or the values to choose from."""
    scheduler: Literal["asha", "fifo"] = "asha"
    """`asha`: at each rung only the best go on (Li et al. 2020); `fifo`: all go to their end."""
    first_rung: int = Field(default=1, ge=1)
    """Epochs that every sample gets."""
    reduction: float = Field(default=3.0, gt=1)
    """One in so many goes on to the next rung, at so many times the epochs."""
    seed: int = Field(default=0, ge=0, lt=2**32)
    """Decides the samples; each is trained with the base's seed."""

    @field_validator("parameters", mode="before")
    @classmethod
    def _flat(cls, value: Any) -> Any:
        """TOML reads `optimizer.learning_rate = …` without quotes as a table in a table."""
        if not isinstance(value, dict):
            return value
        flat: dict[str, Any] = {}
        for key, inner in value.items():
            if key in SECTIONS and isinstance(inner, dict):
                flat |= {f"{key}.{name}": each for name, each in inner.items()}
            else:
                flat[key] = inner
        return flat

    @field_validator("parameters")
    @classmethod
    def _usable(cls, parameters: dict[str, Range | Choices]) -> dict[str, Range | Choices]:
        if not parameters:
            raise ValueError("names no key to search over; add some")
        for key, values in parameters.items():
            section, _, name = key.partition(".")
            if section not in SECTIONS or not name:
                raise ValueError(f"`{key}`: write <table>.<key>, the table one of {', '.join(SECTIONS)}")
            if not isinstance(values, Range) and len({str(each) for each in values}) != len(values):
                raise ValueError(f"`{key}`: the same value stands there twice; name each once")
            if not isinstance(values, Range) and len(values) < 2:
                raise ValueError(f"`{key}`: needs two values or more to choose from")
        return parameters

    @property
    def higher_is_better(self) -> bool:
        """Whether more of the metric is better."""
        from onmodel.evaluation.metrics import METRICS

        return self.metric not in LOSSES and METRICS[self.metric.partition(".")[2]].higher_is_better

    @property
    def needs_evaluation(self) -> bool:
        """Whether pictures have to be drawn for the metric."""
        return self.metric not in LOSSES


class AblationConfig(Config):
    """An ablation file."""

    base: str
    """Training TOML, relative to this file."""
    ablation: AblationSection
    variant: tuple[VariantSection, ...] = ()
    search: SearchSection | None = None
    evaluation: EvaluationSection | None = None
    """Absent: losses alone are compared."""

    @model_validator(mode="after")
    def _one_kind(self) -> Self:
        if bool(self.variant) == (self.search is not None):
            raise ValueError("give [[variant]] tables or a [search] table, one of the two")
        names = [each.name for each in self.variant]
        for name in names:
            if names.count(name) > 1:
                raise ValueError(f"two variants are named `{name}`; name each once")
        if self.search is None and len(names) + self.ablation.include_base < 2:
            raise ValueError("one variant alone compares nothing; add another, or `include_base = true`")
        if self.search is not None and self.ablation.include_base:
            raise ValueError("`include_base` goes with [[variant]] tables; remove it from [ablation] of a search")
        if self.search is not None:
            _check_metric(self.search, self.evaluation)
        return self


def _check_metric(search: SearchSection, evaluation: EvaluationSection | None) -> None:
    if not search.needs_evaluation:
        return
    from onmodel.core.vocabulary import CATEGORIES
    from onmodel.evaluation.metrics import METRICS

    scenario, _, figure = search.metric.partition(".")
    if scenario not in (*CATEGORIES, "all") or figure not in METRICS:
        raise ValueError(
            f"`search.metric`: {search.metric!r} is none of {', '.join(LOSSES)} and no <scenario>.<figure>; scenarios "
            f"are all, {', '.join(CATEGORIES)}, figures {', '.join(METRICS)}"
        )
    if evaluation is None:
        raise ValueError(f"`search.metric`: {search.metric} needs pictures; add [evaluation] with a `test_suite`")


def load_ablation(path: Path) -> AblationConfig:
    """Read an ablation TOML. Raises NotFoundError or UserError naming the nearest known key."""
    return load(AblationConfig, path)
