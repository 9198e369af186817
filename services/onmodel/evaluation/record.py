"""What was measured of one checkpoint: the content of `evaluation.json`."""

from pathlib import Path

from onmodel import __version__
from onmodel.core.config import Config, load
from onmodel.evaluation.metrics import Figure, TargetResult

RESULT_FILE = "evaluation.json"
SCHEMA_VERSION = 1


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


class ScaleRecord(Config):
    """How identity was calibrated."""

    impostor: float
    genuine: float
    separation: float
    references: int
    impostors: int
    reference_source: str
    impostor_source: str


class Evaluation(Config):
    """Everything that was measured of one checkpoint at one scale; the content of `evaluation.json`."""

    schema_version: int = SCHEMA_VERSION
    onmodel_version: str = __version__
    key: str
    """Hash of all that the figures depend on; equal keys need no second measuring."""
    trial: str
    checkpoint: str
    checkpoint_hash: str
    scale: float
    base: str
    base_hash: str
    suite: str
    steps: int
    guidance_scale: float
    seeds: tuple[int, ...]
    trigger: str | None
    prompts: tuple[str, ...]
    calibration: ScaleRecord | None
    warnings: tuple[str, ...]
    targets: tuple[TargetResult, ...]
    scenarios: dict[str, dict[str, Figure]]
    overall: dict[str, Figure]
    pictures: tuple[PictureRow, ...]


def read_evaluation(path: Path) -> Evaluation:
    """Read an `evaluation.json`. Raises NotFoundError or UserError."""
    return load(Evaluation, path)
