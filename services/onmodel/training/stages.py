"""Stages: `[[stage]]` tables, each a length, a mix and settings that hold while it lasts.

A stage starts from the weights that the one before left, with a fresh optimizer and a schedule of its own length.
It may override any key of [optimizer] and [advanced] that is no part of the model or of what is cached, and the
dropouts; never the network's shape.
"""

import difflib
from collections import Counter
from dataclasses import dataclass
from typing import TYPE_CHECKING, Annotated, Any, Literal

from pydantic import BeforeValidator, ConfigDict, Field, model_validator

from onmodel.core.config import Config, validate
from onmodel.core.errors import UserError
from onmodel.core.vocabulary import CATEGORIES
from onmodel.training.section import Section

if TYPE_CHECKING:
    from onmodel.training.config import TrainConfig

Mix = Literal["original", "balanced"] | dict[str, float]


def _mix(value: Any) -> Any:
    """Judged here: pydantic's own answer for a union names every branch of it."""
    if value not in ("original", "balanced") and not isinstance(value, dict):
        raise ValueError('must be "original", "balanced", or shares in per cent as {full_body = 35, far = 5}')
    return value


OVERRIDING = ("optimizer", "advanced")
"""Sections whose keys a stage may override."""
DROPOUTS: dict[str, str] = {
    "caption_dropout_rate": "data",
    "caption_tag_dropout_rate": "data",
    "network_dropout": "network",
}
"""Keys of other sections that a stage may override, by the section they stand in."""
NETWORK_ARGS = ("rank_dropout", "module_dropout")
"""Dropouts that stand in `network_args`, and that a stage may override as keys."""
FIXED = frozenset({"gradient_checkpointing", "torch_compile", "dynamo_backend"})
"""Keys of the overriding sections that hold for a whole run: how its modules are set up."""
WHOLE_RUN = "training"
"""Name of the one stage of a config without `[[stage]]` tables."""


class StageSection(Section):
    """One `[[stage]]` table. Keys beside these are overrides; `check_stages` knows which there can be."""

    model_config = ConfigDict(extra="allow")

    name: str = Field(pattern=r"^[A-Za-z0-9][A-Za-z0-9._-]*$")
    """For `--stage`, and the folder of its final state."""
    epochs: int | None = Field(default=None, ge=1)
    steps: int | None = Field(default=None, ge=1)
    """Optimizer steps, in place of `epochs`."""
    mix: Annotated[Mix, BeforeValidator(_mix)] = "original"
    """How often each picture is shown: as the dataset's folders say, towards the recommended shares, or shares in
    per cent by category, as in `{full_body = 35, multi_character = 25}`."""

    @model_validator(mode="after")
    def _has_one_length(self) -> "StageSection":
        if (self.epochs is None) == (self.steps is None):
            raise ValueError(f"stage `{self.name}`: give either `epochs` or `steps`")
        if isinstance(self.mix, dict):
            check_shares(self.mix, f"stage `{self.name}`")
        return self

    @property
    def overrides(self) -> dict[str, Any]:
        """Keys of other sections that this stage sets."""
        return dict(self.model_extra or {})


def check_shares(mix: dict[str, float], what: str) -> None:
    """Refuse a mix that names no category, or shares no mix can have. Raises ValueError with a sentence."""
    if not mix:
        raise ValueError(f"{what}: the mix names no category; give shares in per cent, as {{full_body = 35}}")
    for name, value in mix.items():
        if name not in CATEGORIES:
            near = difflib.get_close_matches(name, CATEGORIES, n=1, cutoff=0.5)
            hint = f"did you mean `{near[0]}`?" if near else f"there are: {', '.join(CATEGORIES)}"
            raise ValueError(f"{what}: the mix names `{name}`, which is no category; {hint}")
        if not 0 <= value <= 100:
            raise ValueError(f"{what}: the mix asks for {value:g} % {name}; shares lie between 0 and 100")


@dataclass(frozen=True)
class Stage:
    """One stage as it is run."""

    name: str
    config: "TrainConfig"
    """The trial's config with the stage's overrides and length in it, and no stages."""
    mix: Mix


def check_stages(config: "TrainConfig") -> None:
    """Refuse stages that cannot be run. Raises ValueError with a sentence."""
    twice = [name for name, count in Counter(stage.name for stage in config.stage).items() if count > 1]
    if twice:
        raise ValueError(f"two stages are named `{twice[0]}`; give each a name of its own")
    for key in ("max_train_epochs", "max_train_steps"):
        if config.stage and getattr(config.training, key) is not None:
            raise ValueError(f"`training.{key}` has no place beside [[stage]] tables, which have `epochs`; remove it")
    for stage in config.stage:
        for key in stage.overrides:
            _section_of(config, stage.name, key)
            if key == "caption_tag_dropout_rate" and not config.network.trains_text:
                raise ValueError(
                    f"[[stage]] `{stage.name}`: `{key}` acts on captions, and these are encoded before the first "
                    "stage; set it in [data], or train the text encoder"
                )
        try:
            _resolved(config, stage)
        except UserError as error:
            raise ValueError(str(error)) from None


def resolve_stages(config: "TrainConfig") -> tuple[Stage, ...]:
    """The stages of `config` in their order; one for all of it where it has no `[[stage]]` table."""
    if not config.stage:
        return (Stage(WHOLE_RUN, config, "original"),)
    return tuple(Stage(stage.name, _resolved(config, stage), stage.mix) for stage in config.stage)


def _resolved(config: "TrainConfig", stage: StageSection) -> "TrainConfig":
    value = config.model_dump(exclude={"stage"})
    value["training"] |= {"max_train_epochs": stage.epochs, "max_train_steps": stage.steps}
    for key, given in stage.overrides.items():
        section = value[_section_of(config, stage.name, key)]
        if key in NETWORK_ARGS:
            kept = [item for item in section["network_args"] if item.partition("=")[0].strip() != key]
            section["network_args"] = [*kept, f"{key}={given}"]
        else:
            section[key] = given
    return validate(type(config), value, f"[[stage]] `{stage.name}`")


def _section_of(config: "TrainConfig", stage: str, key: str) -> str:
    """The section in which an override belongs. Raises ValueError for a key that a stage cannot set."""
    fields: dict[str, Any] = {name: getattr(config, name) for name in type(config).model_fields if name != "stage"}
    known = {
        name: section for section in OVERRIDING for name in type(fields[section]).model_fields if name not in FIXED
    }
    known |= DROPOUTS | dict.fromkeys(NETWORK_ARGS, "network")
    if key in known:
        return known[key]
    home = [s for s, value in fields.items() if isinstance(value, Config) and key in type(value).model_fields]
    if home:
        raise ValueError(f"[[stage]] `{stage}`: `{key}` is the same in all stages; set it in [{home[0]}]")
    names = [*StageSection.model_fields, *known]
    near = difflib.get_close_matches(key, names, n=1, cutoff=0.5)
    hint = f"did you mean `{near[0]}`?" if near else f"known keys here: {', '.join(sorted(names))}"
    raise ValueError(f"[[stage]] `{stage}`: unknown key `{key}`; {hint}")


def stage_index(config: "TrainConfig", name: str) -> int:
    """The place of the stage called `name`. Raises UserError where there is none."""
    names = [stage.name for stage in config.stage]
    if not names:
        raise UserError(f"--stage {name}: the config has no [[stage]] table; leave --stage out")
    if name not in names:
        near = difflib.get_close_matches(name, names, n=1, cutoff=0.5)
        hint = f"did you mean `{near[0]}`?" if near else f"it has: {', '.join(names)}"
        raise UserError(f"--stage {name}: the config has no such stage; {hint}")
    return names.index(name)
