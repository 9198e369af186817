"""The training config: TOML with sd-scripts' key names, every key of which takes effect.

Sections follow what a key is about; `sdscripts_keys` brings keys that stand elsewhere into theirs.
`[[stage]]` tables split a run; see `stages`. Without them it has one.
"""

import json
from collections.abc import Callable
from pathlib import Path
from typing import Any, Literal, Self

from pydantic import Field, field_validator, model_validator

from onmodel.core.config import Config, read_mapping, validate
from onmodel.core.files import content_hash
from onmodel.training.network_spec import NetworkSpec, make_spec
from onmodel.training.optimizers import KINDS, canonical, parse_arg
from onmodel.training.sdscripts_keys import sorted_in
from onmodel.training.section import UNRELATED_TO_WEIGHTS, Keeping, Section, Watching
from onmodel.training.stages import StageSection, check_stages, resolve_stages

LossType = Literal["l2", "l1", "huber", "smooth_l1"]
HuberSchedule = Literal["constant", "exponential", "snr"]
TimestepSampling = Literal["sigma", "uniform", "sigmoid", "shift", "flux_shift"]
WeightingScheme = Literal["none", "uniform", "logit_normal", "mode", "sigma_sqrt", "cosmap"]
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


class ModelSection(Section):
    """The base model."""

    pretrained_model_name_or_path: str
    """`toybox`, a diffusers folder, a single `.safetensors` checkpoint, or a hub id."""
    v_parameterization: bool | None = None
    """Train for v-prediction; absent: as the base model's scheduler says."""
    guidance_scale: float = Field(default=1.0, ge=0)
    """What a guidance-distilled model (Flux.1-dev) is told while it is trained; of no effect on others."""
    zero_terminal_snr: bool = False
    """Noise the last timestep wholly (Lin et al. 2023); for v-prediction."""


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


class AdvancedSection(Section):
    """Loss and memory."""

    min_snr_gamma: float | None = Field(default=None, ge=0)
    """Weight of the min-SNR strategy (Hang et al. 2023); 5 is usual, 0 is none."""
    debiased_estimation_loss: bool = False
    """Weight 1/√SNR (Yu et al. 2024)."""
    scale_v_pred_loss_like_noise_pred: bool = False
    """Weight SNR/(SNR + 1), for v-prediction."""
    v_pred_like_loss: float | None = Field(default=None, ge=0)
    """Adds so much of the v loss to the noise loss."""
    loss_type: LossType = "l2"
    huber_schedule: HuberSchedule = "snr"
    """How the width of `huber` and `smooth_l1` goes with the timestep."""
    huber_c: float = Field(default=0.1, gt=0, le=1)
    """Their width at the end of the schedule."""
    huber_scale: float = Field(default=1.0, gt=0)
    noise_offset: float = Field(default=0.0, ge=0)
    """Strength of a per-channel constant added to the noise; 0.05 is usual."""
    noise_offset_random_strength: bool = False
    """Draw the strength anew for each batch, between 0 and `noise_offset`."""
    adaptive_noise_scale: float = 0.0
    """Adds so much of each channel's mean latent to `noise_offset`."""
    multires_noise_iterations: int = Field(default=0, ge=0)
    """Levels of coarser noise that are added; 6 to 10 are usual."""
    multires_noise_discount: float = Field(default=0.3, ge=0, le=1)
    """How much weaker each coarser level is."""
    ip_noise_gamma: float = Field(default=0.0, ge=0)
    """Strength of further noise that the model sees and is not to predict; 0.1 is usual."""
    ip_noise_gamma_random_strength: bool = False
    min_timestep: int | None = Field(default=None, ge=0)
    max_timestep: int | None = Field(default=None, ge=1)
    """Timesteps are drawn from `min_timestep` to just below this."""
    timestep_sampling: TimestepSampling = "sigma"
    """How a flow model's noise levels are drawn."""
    weighting_scheme: WeightingScheme = "none"
    """Of a flow model: how `sigma` draws (logit_normal, mode), or how noise levels weigh (sigma_sqrt, cosmap)."""
    discrete_flow_shift: float | None = Field(default=None, gt=0)
    """Moves a flow model's noise levels towards noise; absent: as the base model's scheduler says."""
    sigmoid_scale: float = Field(default=1.0, gt=0)
    logit_mean: float = 0.0
    logit_std: float = Field(default=1.0, gt=0)
    mode_scale: float = 1.29
    gradient_checkpointing: bool = False
    """Less memory for about a third more time."""

    @model_validator(mode="after")
    def _timesteps_in_order(self) -> Self:
        if self.max_timestep is not None and (self.min_timestep or 0) >= self.max_timestep:
            raise ValueError("`min_timestep` must lie below `max_timestep`")
        if self.adaptive_noise_scale and not self.noise_offset:
            raise ValueError("`adaptive_noise_scale` adds to `noise_offset`; give that too")
        return self


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
