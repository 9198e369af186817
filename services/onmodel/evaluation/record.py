"""What was measured of one checkpoint: the content of `evaluation.json`."""

from pathlib import Path

from onmodel import __version__
from onmodel.core.config import Config, load, load_whole
from onmodel.evaluation.metrics import Figure, TargetResult
from onmodel.evaluation.proportions import Proportions

RESULT_FILE = "evaluation.json"
SCHEMA_VERSION = 4


class PictureRow(Config):
    """One picture: what was asked, what was seen."""

    file: str
    """Relative to the evaluation's folder."""
    scenario: str
    prompt: int
    variation: int
    outcome: str
    shot_type: str | None
    attributes: tuple[str, ...]
    characters: int
    identity: float | None
    head_to_body: float | None
    """Head over body of the main character; None where it is not seen from head to feet."""
    fidelity: float | None
    """Cosine of picture and prompt."""
    memorisation: float | None
    """Cosine to the most similar training picture."""


class ScaleRecord(Config):
    """How identity was calibrated."""

    impostor: float
    genuine: float
    separation: float
    references: int
    impostors: int
    recognised: float
    """Identity from which a character counts as ours."""
    reference_source: str
    impostor_source: str


class Evaluation(Config):
    """Everything that was measured of one checkpoint at one scale; the content of `evaluation.json`."""

    schema_version: int = SCHEMA_VERSION
    onmodel_version: str = __version__
    key: str
    """Hash of all that the figures depend on; equal keys need no second measuring."""
    trial: str
    trial_folder: str
    """The folder that holds the checkpoint."""
    dataset: str | None
    """The folder it was trained on, where the trial says so and it still exists."""
    checkpoint: str
    checkpoint_hash: str
    epoch: int | None
    """Of the checkpoint, from 1; None where its metadata does not say."""
    step: int | None
    """Optimizer steps up to the checkpoint."""
    stage: str | None
    scale: float
    """Strength of the LoRA."""
    base: str
    base_hash: str
    vae: str | None
    """An autoencoder in place of the base model's own."""
    suite: str
    steps: int
    guidance_scale: float
    seeds: tuple[int, ...]
    trigger: str | None
    prompts: tuple[str, ...]
    measured_with: str
    """Detector and scorer with their settings."""
    calibration: ScaleRecord | None
    base_pictures: str | None
    """The folder of what the base model drew for the same prompts, which may be another trial's; None where strangers
    were given."""
    references_head_to_body: dict[str, Proportions]
    """The references' proportions by framing, and `all` together; empty where none was seen from head to feet."""
    warnings: tuple[str, ...]
    targets: tuple[TargetResult, ...]
    scenarios: dict[str, dict[str, Figure]]
    overall: dict[str, Figure]
    pictures: tuple[PictureRow, ...]


def evaluations_in(folder: Path) -> list[Evaluation]:
    """Every evaluation of this version in a folder of `folder`, by name; damaged and older ones are left out."""
    return [e for path in sorted(folder.glob(f"*/{RESULT_FILE}")) if (e := load_whole(Evaluation, path)) is not None]


def read_evaluation(path: Path) -> Evaluation:
    """Read an `evaluation.json`. Raises NotFoundError or UserError."""
    return load(Evaluation, path)
