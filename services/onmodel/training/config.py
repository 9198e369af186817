"""The training config: TOML with sd-scripts' key names, every key of which takes effect.

Sections follow what a key is about; `sdscripts_keys` brings keys that stand elsewhere into theirs.
`[[stage]]` tables split a run; see `stages`. Without them it has one.
The tables [network], [optimizer] and [advanced] stand beside what makes use of them: `network_spec`, `optimizers`,
`advanced`.
"""

import json
from collections.abc import Callable
from pathlib import Path
from typing import Any, Literal, Self

from pydantic import Field, field_validator, model_validator

from onmodel.core.config import Config, read_mapping, validate
from onmodel.core.files import content_hash
from onmodel.training.advanced import AdvancedSection
from onmodel.training.network_spec import NetworkSection
from onmodel.training.optimizers import KINDS, OptimizerSection
from onmodel.training.sdscripts_keys import sorted_in
from onmodel.training.section import UNRELATED_TO_WEIGHTS, Keeping, Section, Watching
from onmodel.training.stages import StageSection, check_stages, resolve_stages


class ModelSection(Section):
    """The base model."""

    pretrained_model_name_or_path: str
    """`toybox`, a diffusers folder, a single `.safetensors` checkpoint, or a hub id."""
    vae: str | None = None
    """Another autoencoder: a diffusers folder or a `.safetensors` file; absent: the base model's own."""
    clip_skip: int = Field(default=1, ge=1)
    """Layer of SD 1.x's and 2.x's text encoder, from its end, that captions are read by; 1 is the last. As in
    sd-scripts of no effect on SDXL and Flux."""
    max_token_length: Literal[75, 150, 225] = 75
    """Tokens of a caption that are read, in CLIP's windows of 75; Flux reads its own number."""
    v_parameterization: bool | None = None
    """Train for v-prediction; absent: as the base model's scheduler says."""
    guidance_scale: float = Field(default=1.0, ge=0)
    """What a guidance-distilled model (Flux.1-dev) is told while it is trained; of no effect on others."""
    zero_terminal_snr: bool = False
    """Noise the last timestep wholly (Lin et al. 2023); for v-prediction."""

    @property
    def windows(self) -> int:
        """CLIP's windows that a caption may fill."""
        return self.max_token_length // 75


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
    mixed_precision: Literal["no", "bf16", "fp16"] = "no"
    full_bf16: bool = False
    """Keep the network's weights in bfloat16 too; needs `mixed_precision = "bf16"`."""
    ema: bool = False
    """Keep a running average of the network's weights; checkpoints hold it."""
    ema_decay: float = Field(default=0.999, ge=0, lt=1)
    """How much of the average each step leaves."""
    seed: int = Field(default=0, ge=0, lt=2**63)

    @model_validator(mode="after")
    def _precisions_fit(self) -> Self:
        if self.full_bf16 and self.mixed_precision != "bf16":
            raise ValueError('`full_bf16` needs `mixed_precision = "bf16"`')
        return self


class DataSection(Section):
    """The pictures and how they are cut to size."""

    train_data_dir: str | None = None
    """Dataset folder, flat or with `10_name class` repeat folders."""
    dataset_config: str | None = None
    """An sd-scripts dataset TOML, in place of `train_data_dir`; what it says goes before this section."""
    reg_data_dir: str | None = None
    """Folder of regularisation pictures of the class, with `10_class` repeat folders."""
    prior_loss_weight: float = Field(default=1.0, ge=0)
    """How much a regularisation picture's loss counts."""
    caption_extension: str = Field(default=".txt", pattern=r"^\.\w+$")
    """Ending of the caption files; the other one of .txt and .caption is read where there is none."""
    resolution: int | list[int] = 512
    """Side, or [width, height], whose area the pictures are brought to."""
    enable_bucket: bool = True
    """Group pictures by aspect ratio; false: all are cut to `resolution`."""
    min_bucket_reso: int = Field(default=256, ge=8)
    max_bucket_reso: int = Field(default=1024, ge=8)
    bucket_reso_steps: int = Field(default=64, ge=8)
    """Sides of buckets are multiples of this; itself a multiple of 8, the autoencoder's factor."""
    vae_batch_size: int = Field(default=8, ge=1)
    shuffle_caption: bool = False
    """Shuffle a caption's comma-separated tags at each showing."""
    keep_tokens: int = Field(default=0, ge=0)
    """Tags at the start that stay where they are and are never dropped."""
    keep_tokens_separator: str | None = Field(default=None, min_length=1)
    """Divides a caption into tags that stay in front, tags that move, and (after a second one) tags that stay last."""
    caption_separator: str = Field(default=",", min_length=1)
    caption_tag_dropout_rate: float = Field(default=0.0, ge=0, le=1)
    """Chance of each tag to be left out at a showing."""
    caption_dropout_rate: float = Field(default=0.0, ge=0, le=1)
    """Share of pictures a step that are trained with an empty caption."""
    caption_dropout_every_n_epochs: int = Field(default=0, ge=0)
    """Every so many epochs all captions are empty."""
    caption_prefix: str | None = None
    """Put before each caption, with a blank between."""
    caption_suffix: str | None = None
    caption_variants: int = Field(default=16, ge=1, le=1024)
    """Shuffled and thinned captions that are encoded for each caption while the text encoder is not trained."""
    enable_wildcard: bool = False
    """Draw one of the alternatives of each `{a|b}` in a caption at each showing; `{{` and `}}` are braces."""
    flip_aug: bool = False
    """Show pictures mirrored in half of their showings."""
    alpha_mask: bool = False
    """The loss counts where a picture's alpha channel is opaque."""
    masked_loss: bool = False
    """The loss counts where masks say so: of `conditioning_data_dir`, of the alpha channel with `alpha_mask`, or else
    of the character that `onmodel analyze` found."""
    conditioning_data_dir: str | None = None
    """Folder of masks named like the pictures; a mask's red channel says how much a place counts."""
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

    @model_validator(mode="after")
    def _one_source(self) -> Self:
        if (self.train_data_dir is None) == (self.dataset_config is None):
            raise ValueError("give `train_data_dir` or `dataset_config`, one of the two")
        if self.reg_data_dir is not None and self.dataset_config is not None:
            raise ValueError("`reg_data_dir` goes with `train_data_dir`; in a `dataset_config` a subset says `is_reg`")
        if self.conditioning_data_dir is not None and not self.masked_loss:
            raise ValueError("`conditioning_data_dir` holds masks for `masked_loss`; set it to true")
        return self

    @property
    def source(self) -> Path:
        """The dataset: a folder, or a dataset TOML."""
        return Path(self.dataset_config or self.train_data_dir or "")

    @property
    def size(self) -> tuple[int, int]:
        """Width and height in pixels."""
        if isinstance(self.resolution, int):
            return (self.resolution, self.resolution)
        return (self.resolution[0], self.resolution[-1])


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
    def validation_seed(self) -> int:
        """Which pictures are held back, and the noise that they are measured with; the run's seed where none is set."""
        return self.training.seed if self.data.validation_seed is None else self.data.validation_seed

    @property
    def identity(self) -> str:
        """Hash of every setting that decides the weights: not where results go, nor what is shown on the way."""
        value = self.model_dump(mode="json")
        for key in ("output_dir", "output_name", *UNRELATED_TO_WEIGHTS):
            value["training"].pop(key)
        for key in (
            "cache_latents_to_disk",
            "train_data_dir",
            "dataset_config",
            "reg_data_dir",
            "conditioning_data_dir",
        ):
            value["data"].pop(key)
        return content_hash(json.dumps(value, sort_keys=True).encode())

    def through(self, stage: int) -> "TrainConfig":
        """The same with the stages after the one at place `stage` left out: what its end depends on."""
        return self.model_copy(update={"stage": self.stage[: stage + 1]})


def keep_quiet(text: str) -> None:
    """Say nothing: of what was said when the run began."""


def load_train_config(path: Path, say: Callable[[str], None] = keep_quiet) -> TrainConfig:
    """Read a training TOML: ours, or an sd-scripts config file as it is.

    Args:
        say: gets a sentence about keys that have no effect, where there are some.

    Raises:
        NotFoundError: no such file.
        UserError: not TOML, an unknown key (with the nearest known one), a key given twice, a wrong type.
    """
    value, notes = sorted_in(read_mapping(path), TrainConfig, str(path))
    config = validate(TrainConfig, value, str(path))
    notes += idle_keys(config)
    if notes:
        say(f"{path}: no effect here: {'; '.join(notes)}")
    return config


def idle_keys(config: TrainConfig) -> list[str]:
    """What other settings leave without effect in every stage, as "`key` (why)"."""
    idle: dict[str, str] = {}
    used: set[str] = set()
    for stage in resolve_stages(config):
        for section, key, without, why in _conditions(stage.config):
            if _differs(getattr(stage.config, section), key):
                idle |= {key: why} if without else {}
                used |= set() if without else {key}
    return [f"`{key}` ({why})" for key, why in idle.items() if key not in used]


def _conditions(config: TrainConfig) -> list[tuple[str, str, bool, str]]:
    """Keys that are of use to some settings alone: section, key, whether it is of none here, and why."""
    options, advanced, data = config.optimizer, config.advanced, config.data
    decays = options.lr_scheduler in ("cosine_with_min_lr", "warmup_stable_decay")
    huber = advanced.loss_type in ("huber", "smooth_l1")
    free = KINDS[options.optimizer_type].schedule_free
    return [
        ("optimizer", "lr_scheduler", free, f"{options.optimizer_type} has no schedule"),
        ("optimizer", "lr_decay_steps", options.lr_scheduler != "warmup_stable_decay", "for warmup_stable_decay"),
        ("optimizer", "lr_scheduler_power", options.lr_scheduler != "polynomial", "for polynomial"),
        ("optimizer", "lr_scheduler_min_lr_ratio", not decays, "for cosine_with_min_lr and warmup_stable_decay"),
        ("optimizer", "lr_scheduler_timescale", options.lr_scheduler != "inverse_sqrt", "for inverse_sqrt"),
        ("training", "ema_decay", not config.training.ema, "`ema` is not set"),
        ("data", "prior_loss_weight", not (data.reg_data_dir or data.dataset_config), "no regularisation pictures"),
        ("data", "keep_tokens", not (data.shuffle_caption or data.caption_tag_dropout_rate), "nothing is shuffled"),
        *(
            ("advanced", key, not huber, "for huber and smooth_l1")
            for key in ("huber_c", "huber_schedule", "huber_scale")
        ),
        (
            "advanced",
            "dynamo_backend",
            not advanced.torch_compile and advanced.dynamo_backend != "no",
            "`torch_compile` is not set",
        ),
        ("advanced", "multires_noise_discount", not advanced.multires_noise_iterations, "no multires noise"),
        ("advanced", "noise_offset_random_strength", not advanced.noise_offset, "no noise_offset"),
        ("advanced", "ip_noise_gamma_random_strength", not advanced.ip_noise_gamma, "no ip_noise_gamma"),
    ]


def _differs(section: Section, key: str) -> bool:
    """Whether a key was set to something else than it is without."""
    return getattr(section, key) != type(section).model_fields[key].get_default(call_default_factory=True)


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
