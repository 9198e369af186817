"""Optimizers by the names that sd-scripts gives them, each with its library's own arguments, and the table [optimizer].

Imports nothing heavy.
"""

import ast
import difflib
import importlib
import importlib.util
import inspect
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Any, Literal, Self

from pydantic import Field, field_validator, model_validator

from onmodel.core.errors import UserError
from onmodel.training.section import Section

if TYPE_CHECKING:
    import torch


@dataclass(frozen=True)
class Kind:
    """Where an optimizer is, and how it is called."""

    module: str
    name: str
    fixed: Mapping[str, object] = field(default_factory=dict[str, object])
    """Arguments that its name implies."""
    renamed: Mapping[str, str] = field(default_factory=dict[str, str])
    """What sd-scripts' library calls an argument, and what this library calls it."""
    schedule_free: bool = False
    """It averages its own weights in place of a learning-rate schedule (Defazio et al. 2024)."""


# lion_pytorch, dadaptation and prodigyopt name these otherwise than pytorch_optimizer.
_DECOUPLED = {"decouple": "weight_decouple", "use_bias_correction": "bias_correction"}
_LION = {"decoupled_weight_decay": "fixed_decay"}

KINDS: dict[str, Kind] = {
    # Fused: on the CPU too, a loop over some hundred small tensors costs more than the arithmetic.
    "AdamW": Kind("torch.optim", "AdamW", {"fused": True}),
    "Adam": Kind("torch.optim", "Adam", {"fused": True}),
    "SGD": Kind("torch.optim", "SGD"),
    "SGDNesterov": Kind("torch.optim", "SGD", {"nesterov": True}),
    "RAdam": Kind("torch.optim", "RAdam"),
    "NAdam": Kind("torch.optim", "NAdam"),
    "Adamax": Kind("torch.optim", "Adamax"),
    "Adagrad": Kind("torch.optim", "Adagrad"),
    "RMSprop": Kind("torch.optim", "RMSprop"),
    "AdaFactor": Kind("transformers.optimization", "Adafactor"),
    "Lion": Kind("pytorch_optimizer", "Lion", renamed=_LION),
    "Prodigy": Kind("pytorch_optimizer", "Prodigy", renamed=_DECOUPLED),
    "DAdaptAdam": Kind("pytorch_optimizer", "DAdaptAdam", renamed=_DECOUPLED),
    "DAdaptAdaGrad": Kind("pytorch_optimizer", "DAdaptAdaGrad", renamed=_DECOUPLED),
    "DAdaptAdan": Kind("pytorch_optimizer", "DAdaptAdan", renamed=_DECOUPLED),
    "DAdaptLion": Kind("pytorch_optimizer", "DAdaptLion", renamed=_DECOUPLED),
    "DAdaptSGD": Kind("pytorch_optimizer", "DAdaptSGD", renamed=_DECOUPLED),
    "AdamWScheduleFree": Kind("pytorch_optimizer", "ScheduleFreeAdamW", schedule_free=True),
    "RAdamScheduleFree": Kind("pytorch_optimizer", "ScheduleFreeRAdam", schedule_free=True),
    "SGDScheduleFree": Kind("pytorch_optimizer", "ScheduleFreeSGD", schedule_free=True),
    "CAME": Kind("pytorch_optimizer", "CAME"),
    "AdEMAMix": Kind("pytorch_optimizer", "AdEMAMix"),
    "StableAdamW": Kind("pytorch_optimizer", "StableAdamW"),
    "AdamW8bit": Kind("bitsandbytes.optim", "AdamW8bit"),
    "PagedAdamW": Kind("bitsandbytes.optim", "PagedAdamW"),
    "PagedAdamW8bit": Kind("bitsandbytes.optim", "PagedAdamW8bit"),
    "PagedAdamW32bit": Kind("bitsandbytes.optim", "PagedAdamW32bit"),
    "Lion8bit": Kind("bitsandbytes.optim", "Lion8bit"),
    "PagedLion8bit": Kind("bitsandbytes.optim", "PagedLion8bit"),
    "SGDNesterov8bit": Kind("bitsandbytes.optim", "SGD8bit", {"nesterov": True}),
}
"""By `optimizer_type`."""

_BY_LOWER = {name.lower(): name for name in KINDS}
_OURS = ("self", "params", "lr", "kwargs")


def canonical(name: str) -> str:
    """`name` as `KINDS` spells it; case does not count, nor does a module before a dot, as in `torch.optim.AdamW`.

    Raises:
        ValueError: no such optimizer; names the nearest one.
    """
    found = _BY_LOWER.get(name.rpartition(".")[2].lower())
    if found is None:
        near = difflib.get_close_matches(name.rpartition(".")[2].lower(), _BY_LOWER, n=1, cutoff=0.5)
        hint = f"did you mean {_BY_LOWER[near[0]]}?" if near else f"known are {', '.join(KINDS)}"
        raise ValueError(f"there is no optimizer {name!r}; {hint}")
    return found


def parse_arg(item: str) -> tuple[str, object]:
    """`weight_decay=0.01` to its name and value, a Python literal as in sd-scripts. Raises ValueError."""
    name, equals, text = item.partition("=")
    try:
        value: object = ast.literal_eval(text.strip())
    except (ValueError, SyntaxError):
        value = None
        equals = ""
    if not equals or not name.strip().isidentifier():
        raise ValueError(f"`{item}` must read name=value, as in weight_decay=0.01 or betas=0.9,0.99")
    return name.strip(), value


def check_optimizer(name: str, args: Sequence[str]) -> None:
    """Build the optimizer once, on one number, so that what is wrong is found before a run starts.

    Raises:
        UserError: as `make_optimizer`.
    """
    if not args and KINDS[name].module == "torch.optim":
        return
    import torch

    make_optimizer(name, args, [{"params": [torch.nn.Parameter(torch.zeros(1))]}], 1e-4, warmup=0)


def make_optimizer(
    name: str, args: Sequence[str], groups: list[dict[str, Any]], learning_rate: float, *, warmup: int
) -> "torch.optim.Optimizer":
    """The optimizer `name` of `KINDS` over parameter groups.

    Args:
        args: `key=value` strings, `optimizer_args` of the config.
        groups: each with `params`, and `lr` where it has a rate of its own.
        warmup: optimizer steps of rising rate; for the schedule-free ones alone, which do it themselves.

    Raises:
        UserError: its library is not installed, an argument that it does not have (with the nearest one), or a value
            that it refuses.
    """
    kind = KINDS[name]
    if importlib.util.find_spec(kind.module.partition(".")[0]) is None:
        raise UserError(
            f"`optimizer_type = {name!r}` needs {kind.module.partition('.')[0]}, which is not installed; "
            "`pip install bitsandbytes`, or take AdamW"
        )
    make = getattr(importlib.import_module(kind.module), kind.name)
    options = {**kind.fixed, **_arguments(name, kind, make, args)}
    if "warmup_steps" in inspect.signature(make).parameters and kind.schedule_free:
        options.setdefault("warmup_steps", warmup)
    if name == "AdaFactor" and options.get("relative_step", True):
        # With relative steps it sets its own rate and takes none.
        groups = [{**group, "lr": None} for group in groups]
        learning_rate = None  # pyright: ignore[reportAssignmentType]
    try:
        return make(groups, lr=learning_rate, **options)
    except (ValueError, TypeError, AssertionError) as error:
        raise UserError(f"`optimizer_args` {list(args)}: {name} refuses them ({error}); change them") from None


def _arguments(name: str, kind: Kind, make: Any, args: Sequence[str]) -> dict[str, object]:
    known = [key for key in inspect.signature(make).parameters if key not in _OURS]
    found: dict[str, object] = {}
    for item in args:
        key, value = parse_arg(item)
        renamed = kind.renamed.get(key, key)
        if renamed not in known:
            near = difflib.get_close_matches(key, [*known, *kind.renamed], n=1, cutoff=0.5)
            hint = f"did you mean `{near[0]}`?" if near else f"it has {', '.join(known)}"
            if key == "lr":
                hint = "the rate is `learning_rate`"
            raise UserError(f"`optimizer_args`: {name} has no argument `{key}`; {hint}")
        found[renamed] = value
    return found


Scheduler = Literal[
    "constant",
    "constant_with_warmup",
    "linear",
    "cosine",
    "cosine_with_restarts",
    "polynomial",
    "piecewise_constant",
    "inverse_sqrt",
    "cosine_with_min_lr",
    "warmup_stable_decay",
]


class OptimizerSection(Section):
    """Learning rate and its schedule, counted in optimizer steps that really happen."""

    optimizer_type: str = "AdamW"
    """A name of `optimizers.KINDS`, in any case: AdamW, AdamW8bit, Lion, Prodigy, AdaFactor, AdamWScheduleFree …"""
    optimizer_args: list[str] = Field(default_factory=list)
    """`key=value` strings for the optimizer's own arguments: `weight_decay=0.01`, `betas=0.9,0.99`."""
    learning_rate: float = Field(default=1e-4, gt=0)
    unet_lr: float | None = Field(default=None, ge=0)
    """For the UNet's LoRA; absent: `learning_rate`."""
    text_encoder_lr: float | list[float] | None = None
    """For the text encoders' LoRA, one rate or one an encoder; absent: `learning_rate`."""
    lr_scheduler: Scheduler = "constant"
    lr_scheduler_num_cycles: int = Field(default=1, ge=1)
    """Restarts of `cosine_with_restarts`; waves of the other two that end low."""
    lr_warmup_steps: int | float = Field(default=0, ge=0)
    """Optimizer steps as an integer, or a share of all steps as a float below 1."""
    lr_decay_steps: int | float = Field(default=0, ge=0)
    """Steps in which `warmup_stable_decay` falls, given as `lr_warmup_steps` is."""
    lr_scheduler_power: float = Field(default=1.0, gt=0)
    """Exponent of `polynomial`."""
    lr_scheduler_min_lr_ratio: float | None = Field(default=None, ge=0, le=1)
    """Share of the rate that `cosine_with_min_lr` and `warmup_stable_decay` end at."""
    lr_scheduler_timescale: int | None = Field(default=None, ge=1)
    """Steps that `inverse_sqrt` counts in; absent: those of the warmup."""
    lr_scheduler_args: list[str] = Field(default_factory=list)
    """`["step_rules='1:10,0.1:20,0.01'"]` of `piecewise_constant`."""
    max_grad_norm: float = Field(default=1.0, ge=0)
    """Gradients are scaled down to this norm; 0 leaves them alone."""
    scale_weight_norms: float | None = Field(default=None, ge=0)
    """After each step the change that each layer makes to its base layer is scaled down to this norm; 1 is usual."""

    @field_validator("lr_warmup_steps", "lr_decay_steps")
    @classmethod
    def _share_below_one(cls, value: int | float) -> int | float:
        if isinstance(value, float) and value >= 1:
            raise ValueError("a share of all steps must lie below 1.0; write an integer for a number of steps")
        return value

    @field_validator("text_encoder_lr")
    @classmethod
    def _rates_not_negative(cls, value: float | list[float] | None) -> float | list[float] | None:
        rates = value if isinstance(value, list) else [0.0 if value is None else value]
        if not rates or min(rates) < 0:
            raise ValueError("must be a rate of at least 0, or a list of them, one a text encoder")
        return value

    @field_validator("optimizer_type")
    @classmethod
    def _known_optimizer(cls, value: str) -> str:
        return canonical(value)

    @field_validator("optimizer_args", "lr_scheduler_args")
    @classmethod
    def _named_values(cls, value: list[str]) -> list[str]:
        for item in value:
            parse_arg(item)
        return value

    @model_validator(mode="after")
    def _schedule_fits(self) -> Self:
        if self.lr_scheduler == "constant" and self.lr_warmup_steps and not KINDS[self.optimizer_type].schedule_free:
            raise ValueError("`lr_warmup_steps` has no place in `constant`; set `lr_scheduler` to constant_with_warmup")
        rules = [parse_arg(item)[0] for item in self.lr_scheduler_args]
        if rules != (["step_rules"] if self.lr_scheduler == "piecewise_constant" else []):
            raise ValueError("`lr_scheduler_args` holds `step_rules=…` with piecewise_constant, and nothing else")
        return self
