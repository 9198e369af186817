"""The base of the training config's tables, and the keys about what is kept and shown while a run goes on."""

from typing import Literal

from pydantic import ConfigDict, Field

from onmodel.core.config import Config


class Section(Config):
    """A table of the config; types are taken as written, so `network_dim = "16"` is an error."""

    model_config = ConfigDict(strict=True)


class Keeping(Section):
    """What is written while a run goes on. Nothing here changes the weights. Names are sd-scripts'."""

    save_every_n_epochs: int = Field(default=1, ge=1)
    """The last epoch of each stage is always saved."""
    save_every_n_steps: int | None = Field(default=None, ge=1)
    """A checkpoint and the full state besides, after every so many optimizer steps."""
    save_last_n_epochs: int | None = Field(default=None, ge=1)
    """Of the epochs' checkpoints only so many of the newest are kept; absent: all."""
    save_last_n_steps: int | None = Field(default=None, ge=1)
    """Of the steps' checkpoints only those of so many last steps are kept; absent: all."""
    save_state: bool = False
    """Keep a full state with every checkpoint, beside the newest one, which is always there."""
    resume: str | None = None
    """What `--resume` gives: a trial folder or a state to go on from, or a LoRA `.safetensors` to start from."""


class Watching(Section):
    """What is measured, drawn and logged while a run goes on. Nothing here changes the weights."""

    validate_every_n_epochs: int | None = Field(default=None, ge=1)
    """Where pictures are held back (`validation_split`); absent: after every epoch."""
    validate_every_n_steps: int | None = Field(default=None, ge=1)
    """In optimizer steps, besides."""
    max_validation_steps: int | None = Field(default=None, ge=1)
    """At most so many batches of held-back pictures are looked at; absent: all."""
    sample_prompts: str | None = None
    """A test suite (name or JSON file), or a text file of sd-scripts' prompt lines, to draw pictures from."""
    sample_every_n_epochs: int | None = Field(default=None, ge=1)
    sample_every_n_steps: int | None = Field(default=None, ge=1)
    sample_at_first: bool = False
    """Draw before the first step too."""
    log_with: Literal["tensorboard", "wandb", "mlflow", "all", "none"] = "tensorboard"
    """Where curves go; `all` is every one that is installed."""
    logging_dir: str | None = None
    """Folder of TensorBoard's files; absent: `tensorboard` in the trial folder."""
    log_tracker_name: str | None = None
    """Project (W&B) or experiment (MLflow); absent: `onmodel`."""
    wandb_run_name: str | None = None
    """Name of the run in W&B or MLflow; absent: `output_name`."""


UNRELATED_TO_WEIGHTS: tuple[str, ...] = (*Keeping.model_fields, *Watching.model_fields)
"""Keys of [training] that may differ between a run and its continuation."""
