"""The training config: TOML with sd-scripts' key names, every key of which takes effect.

Sections follow what a key is about; `locate` says where a key belongs when it stands in the wrong one.
`[[stage]]` tables split a run; see `stages`. Without them it has one.
"""

import json
from pathlib import Path
from typing import Any, Literal, Self

from pydantic import Field, field_validator, model_validator

from onmodel.core.config import Config, read_mapping, validate
from onmodel.core.errors import UserError
from onmodel.core.files import content_hash
from onmodel.training.network_spec import NetworkSpec, make_spec
from onmodel.training.section import UNRELATED_TO_WEIGHTS, Keeping, Section, Watching
from onmodel.training.stages import StageSection, check_stages

Scheduler = Literal["constant", "constant_with_warmup", "linear", "cosine", "cosine_with_restarts", "polynomial"]


class ModelSection(Section):
    """The base model."""

    pretrained_model_name_or_path: str
    """`toybox`, a diffusers folder, a single `.safetensors` checkpoint, or a hub id."""
    v_parameterization: bool | None = None
    """Train for v-prediction; absent: as the base model's scheduler says."""
    guidance_scale: float = Field(default=1.0, ge=0)
    """What a guidance-distilled model (Flux.1-dev) is told while it is trained; of no effect on others."""


class NetworkSection(Section):
    """What is trained."""

    network_module: Literal["networks.lora", "networks.lora_flux", "lycoris.kohya"] = "networks.lora"
    """sd-scripts' LoRA, or LyCORIS' networks by `algo` in `network_args`."""
    network_dim: int = Field(default=16, ge=1, le=100_000)
    """Rank of the LoRA."""
    network_alpha: float = Field(default=8.0, gt=0)
    """The LoRA's output is scaled by alpha / rank."""
    network_args: list[str] = Field(default_factory=list)
    """`key=value` strings, as `network_spec` knows them: `conv_dim=8`, `algo=loha`, `dora_wd=True`."""
    network_dropout: float = Field(default=0.0, ge=0, lt=1)
    """Share of a LoRA's inputs that are left out at each step."""
    network_train_unet_only: bool = True
    """False: the text encoders' attention and MLP layers get a LoRA too."""
    network_train_text_encoder_only: bool = False
    """Train the text encoders and leave the UNet (or transformer) alone; goes before `network_train_unet_only`."""
    network_weights: str | None = None
    """A LoRA `.safetensors` file (sd-scripts, LyCORIS or PEFT naming) to start from."""

    @model_validator(mode="after")
    def _makes_a_network(self) -> Self:
        _ = self.spec
        return self

    @property
    def trains_text(self) -> bool:
        """Whether text encoders are trained, so that captions cannot be encoded beforehand."""
        return self.network_train_text_encoder_only or not self.network_train_unet_only

    @property
    def spec(self) -> NetworkSpec:
        """The network. Raises ValueError for arguments that make none."""
        return make_spec(
            self.network_module, self.network_dim, self.network_alpha, self.network_args, self.network_dropout
        )


class OptimizerSection(Section):
    """Learning rate and its schedule, counted in optimizer steps that really happen."""

    optimizer_type: Literal["AdamW"] = "AdamW"
    optimizer_args: list[str] = Field(default_factory=list)
    """`key=value` strings for the optimizer: `weight_decay=0.01`, `betas=0.9,0.99`, `eps=1e-8`."""
    learning_rate: float = Field(default=1e-4, gt=0)
    unet_lr: float | None = Field(default=None, ge=0)
    """For the UNet's LoRA; absent: `learning_rate`."""
    text_encoder_lr: float | list[float] | None = None
    """For the text encoders' LoRA, one rate or one an encoder; absent: `learning_rate`."""
    lr_scheduler: Scheduler = "constant"
    lr_scheduler_num_cycles: int = Field(default=1, ge=1)
    """Restarts of `cosine_with_restarts`."""
    lr_warmup_steps: int | float = Field(default=0, ge=0)
    """Optimizer steps as an integer, or a share of all steps as a float below 1."""
    max_grad_norm: float = Field(default=1.0, ge=0)
    """Gradients are scaled down to this norm; 0 leaves them alone."""

    @field_validator("lr_warmup_steps")
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

    @field_validator("optimizer_args")
    @classmethod
    def _known_arguments(cls, value: list[str]) -> list[str]:
        for item in value:
            parse_optimizer_arg(item)
        return value


class TrainingSection(Keeping, Watching):
    """How long, from which seed, and where the results go."""

    output_dir: str = "runs"
    """Folder that holds the trial folders."""
    output_name: str = Field(default="trial", pattern=r"^[A-Za-z0-9][A-Za-z0-9._-]*$")
    """Name of the trial: its folder, and the start of its checkpoints' names."""
    max_train_epochs: int | None = Field(default=None, ge=1)
    max_train_steps: int | None = Field(default=None, ge=1)
    """Optimizer steps; `max_train_epochs` goes before it."""
    train_batch_size: int = Field(default=1, ge=1)
    """Pictures a step for each worker."""
    gradient_accumulation_steps: int = Field(default=1, ge=1)
    mixed_precision: Literal["no", "bf16"] = "no"
    seed: int = Field(default=0, ge=0, lt=2**63)


class DataSection(Section):
    """The pictures and how they are cut to size."""

    train_data_dir: str
    """Dataset folder, flat or with `10_name class` repeat folders."""
    resolution: int | list[int] = 512
    """Side, or [width, height], whose area the pictures are brought to."""
    enable_bucket: bool = True
    """Group pictures by aspect ratio; false: all are cut to `resolution`."""
    min_bucket_reso: int = Field(default=256, ge=8)
    max_bucket_reso: int = Field(default=1024, ge=8)
    bucket_reso_steps: int = Field(default=64, ge=8)
    """Sides of buckets are multiples of this; itself a multiple of 8, the autoencoder's factor."""
    vae_batch_size: int = Field(default=8, ge=1)
    caption_dropout_rate: float = Field(default=0.0, ge=0, le=1)
    """Share of pictures a step that are trained with an empty caption."""
    cache_latents_to_disk: bool = True
    """Keep encoded pictures and captions for the next trial on them."""
    validation_split: float = Field(default=0.0, ge=0, lt=1)
    """Share of the pictures that is held back from training, for the validation loss; spread over the categories."""
    validation_seed: int | None = Field(default=None, ge=0, lt=2**63)
    """Decides which ones, and their noise; absent: `seed`."""

    @field_validator("resolution")
    @classmethod
    def _one_or_two_sides(cls, value: int | list[int]) -> int | list[int]:
        sides = [value] if isinstance(value, int) else value
        if len(sides) not in (1, 2) or any(side < 16 or side % 8 for side in sides):
            raise ValueError("must be one side or [width, height], each a multiple of 8 and at least 16")
        return value

    @property
    def size(self) -> tuple[int, int]:
        """Width and height in pixels."""
        if isinstance(self.resolution, int):
            return (self.resolution, self.resolution)
        return (self.resolution[0], self.resolution[-1])


class AdvancedSection(Section):
    """Loss and memory."""

    min_snr_gamma: float | None = Field(default=None, gt=0)
    """Weight of the min-SNR strategy (Hang et al. 2023); 5 is usual."""
    noise_offset: float = Field(default=0.0, ge=0)
    """Strength of a per-channel constant added to the noise; 0.05 is usual."""
    gradient_checkpointing: bool = False
    """Less memory for about a third more time."""


class TrainConfig(Config):
    """One trial."""

    model: ModelSection
    network: NetworkSection = NetworkSection()
    optimizer: OptimizerSection = OptimizerSection()
    training: TrainingSection
    data: DataSection
    advanced: AdvancedSection = AdvancedSection()
    stage: tuple[StageSection, ...] = ()
    """Phases of the run in their order; none: the run is one."""

    @model_validator(mode="after")
    def _has_length(self) -> Self:
        if not self.stage and self.training.max_train_epochs is None and self.training.max_train_steps is None:
            raise ValueError("give `max_train_epochs` or `max_train_steps` in [training], or [[stage]] tables")
        check_stages(self)
        return self

    @property
    def trial_dir(self) -> Path:
        """Folder of this trial."""
        return Path(self.training.output_dir) / self.training.output_name

    def with_changes(self, **sections: dict[str, Any]) -> "TrainConfig":
        """A copy with keys of sections replaced: `with_changes(training={"seed": 1})`. Raises UserError."""
        value = self.model_dump()
        for section, changes in sections.items():
            value[section].update(changes)
        return validate(TrainConfig, value, "training config")

    @property
    def identity(self) -> str:
        """Hash of every setting that decides the weights: not where results go, nor what is shown on the way."""
        value = self.model_dump(mode="json")
        for key in ("output_dir", "output_name", *UNRELATED_TO_WEIGHTS):
            value["training"].pop(key)
        for key in ("cache_latents_to_disk", "train_data_dir"):
            value["data"].pop(key)
        return content_hash(json.dumps(value, sort_keys=True).encode())

    def through(self, stage: int) -> "TrainConfig":
        """The same with the stages after the one at place `stage` left out: what its end depends on."""
        return self.model_copy(update={"stage": self.stage[: stage + 1]})


def load_train_config(path: Path) -> TrainConfig:
    """Read a training TOML.

    Raises:
        NotFoundError: no such file.
        UserError: not TOML, an unknown key (with the nearest known one or the section it belongs to), a wrong type.
    """
    value = read_mapping(path)
    for section, keys in value.items():
        for key in keys if isinstance(keys, dict) else ():
            home = locate(key)
            if section in TrainConfig.model_fields and home not in (None, section):
                raise UserError(f"{path}: key `{section}.{key}` belongs in [{home}]; move it there")
    return validate(TrainConfig, value, str(path))


def locate(key: str) -> str | None:
    """The section that knows `key`, or None."""
    for section, field in TrainConfig.model_fields.items():
        kind = field.annotation
        if isinstance(kind, type) and issubclass(kind, Config) and key in kind.model_fields:
            return section
    return None


def parse_optimizer_arg(item: str) -> tuple[str, float | tuple[float, float]]:
    """`weight_decay=0.01` to its name and value. Raises ValueError with a sentence."""
    name, _, text = item.partition("=")
    numbers = text.strip("() ").split(",")
    try:
        values = [float(number) for number in numbers]
    except ValueError:
        raise ValueError(f"`{item}` must read name=number") from None
    if name == "betas" and len(values) == 2:
        return name, (values[0], values[1])
    if name in ("weight_decay", "eps") and len(values) == 1:
        return name, values[0]
    raise ValueError(f"`{item}` is none of weight_decay=NUMBER, eps=NUMBER, betas=NUMBER,NUMBER")


def to_toml(config: TrainConfig) -> str:
    """The resolved config as TOML that `load_train_config` reads back to an equal config."""
    lines: list[str] = []
    for section, keys in config.model_dump(mode="json", exclude_none=True).items():
        for table in keys if isinstance(keys, list) else [keys]:
            lines.append(f"[[{section}]]" if isinstance(keys, list) else f"[{section}]")
            lines += [f"{key} = {_toml_value(value)}" for key, value in table.items()]
            lines.append("")
    return "\n".join(lines)


def _toml_value(value: Any) -> str:
    """A JSON string, number, boolean or list of these is the same in TOML; a table is written inline."""
    if isinstance(value, dict):
        return "{" + ", ".join(f"{key} = {_toml_value(inner)}" for key, inner in value.items()) + "}"
    return json.dumps(value, ensure_ascii=False)
