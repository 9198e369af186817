"""Curves for people who watch: TensorBoard, W&B and MLflow behind one small interface."""

import importlib
import importlib.util
from collections.abc import Callable, Mapping, Sequence
from pathlib import Path
from typing import Any, Protocol

from onmodel.core.errors import UserError
from onmodel.training.config import TrainConfig

PROJECT = "onmodel"
INSTALLABLE = ("wandb", "mlflow")
"""Trackers that do not come with OnModel."""
MLFLOW_PARAMS = 100
"""MLflow takes so many settings in one call at most (`MAX_PARAMS_TAGS_PER_BATCH` of its `validation.py`)."""


class Log(Protocol):
    """Where curves and pictures go."""

    def scalars(self, values: Mapping[str, float], step: int) -> None:
        """Values at an optimizer step, by name (`loss`, `validation/full_body`)."""
        ...

    def pictures(self, files: Sequence[Path], step: int) -> None:
        """Pictures drawn after an optimizer step."""
        ...

    def close(self) -> None:
        """Send what is left."""
        ...


class TensorBoard:
    """Event files, by tensorboardX."""

    def __init__(self, config: TrainConfig, trial_dir: Path, step: int) -> None:
        from tensorboardX import SummaryWriter

        folder = Path(config.training.logging_dir) if config.training.logging_dir else trial_dir / "tensorboard"
        # A run that goes on takes up after `step`; what an interrupted one wrote beyond it is told to be forgotten.
        self._writer = SummaryWriter(str(folder), purge_step=step + 1 if step else None)

    def scalars(self, values: Mapping[str, float], step: int) -> None:
        for name, value in values.items():
            self._writer.add_scalar(name, value, step)

    def pictures(self, files: Sequence[Path], step: int) -> None:
        import numpy as np
        from PIL import Image

        for file in files:
            with Image.open(file) as image:
                pixels = np.asarray(image.convert("RGB"))
            self._writer.add_image(f"samples/{file.stem}", pixels, step, dataformats="HWC")

    def close(self) -> None:
        self._writer.close()


class WandB:
    """A run of Weights & Biases."""

    def __init__(self, config: TrainConfig, trial_dir: Path, step: int) -> None:
        self._wandb: Any = importlib.import_module("wandb")
        self._run = self._wandb.init(
            project=config.training.log_tracker_name or PROJECT,
            name=config.training.wandb_run_name or config.training.output_name,
            dir=str(trial_dir),
            config=config.model_dump(mode="json"),
        )

    def scalars(self, values: Mapping[str, float], step: int) -> None:
        self._run.log(dict(values), step=step)

    def pictures(self, files: Sequence[Path], step: int) -> None:
        self._run.log({f"samples/{file.stem}": self._wandb.Image(str(file)) for file in files}, step=step)

    def close(self) -> None:
        self._run.finish()


class MLflow:
    """A run of MLflow, on the server that MLFLOW_TRACKING_URI names."""

    def __init__(self, config: TrainConfig, trial_dir: Path, step: int) -> None:
        self._mlflow: Any = importlib.import_module("mlflow")
        self._mlflow.set_experiment(config.training.log_tracker_name or PROJECT)
        self._mlflow.start_run(run_name=config.training.wandb_run_name or config.training.output_name)
        flat = {
            f"{s}.{k}": v
            for s, keys in config.model_dump(mode="json", exclude={"stage"}).items()
            for k, v in keys.items()
        }
        items = list(flat.items())
        for start in range(0, len(items), MLFLOW_PARAMS):
            self._mlflow.log_params(dict(items[start : start + MLFLOW_PARAMS]))

    def scalars(self, values: Mapping[str, float], step: int) -> None:
        self._mlflow.log_metrics(dict(values), step=step)

    def pictures(self, files: Sequence[Path], step: int) -> None:
        for file in files:
            self._mlflow.log_artifact(str(file), artifact_path="samples")

    def close(self) -> None:
        self._mlflow.end_run()


TRACKERS: dict[str, Callable[[TrainConfig, Path, int], Log]] = {
    "tensorboard": TensorBoard,
    "wandb": WandB,
    "mlflow": MLflow,
}


def chosen(config: TrainConfig) -> list[str]:
    """The trackers that `log_with` means here. Raises UserError for one that is not installed."""
    name = config.training.log_with
    if name == "none":
        return []
    installed = [each for each in INSTALLABLE if importlib.util.find_spec(each) is not None]
    if name == "all":
        return ["tensorboard", *installed]
    if name in INSTALLABLE and name not in installed:
        raise UserError(
            f'log_with = "{name}": {name} is not installed; run `pip install {name}`, or log with tensorboard'
        )
    return [name]


def open_logs(config: TrainConfig, trial_dir: Path, step: int) -> list[Log]:
    """The logs of a run that stands at `step`. Raises as `chosen`."""
    return [TRACKERS[name](config, trial_dir, step) for name in chosen(config)]
