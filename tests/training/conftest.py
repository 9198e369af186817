"""Fixtures: a tiny pipeline, a tiny dataset, and configs over them."""

from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

from onmodel.core.config import validate
from onmodel.training.config import TrainConfig

from .tiny import save_dataset, save_pipeline
from .tiny_models import MAKERS

MakeConfig = Callable[..., TrainConfig]


@pytest.fixture(scope="session")
def tiny_pipeline(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Folder of a Stable-Diffusion-shaped pipeline that predicts noise."""
    return save_pipeline(tmp_path_factory.mktemp("base") / "epsilon")


@pytest.fixture(scope="session")
def tiny_v_pipeline(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The same for v-prediction."""
    return save_pipeline(tmp_path_factory.mktemp("base") / "v", prediction_type="v_prediction")


@pytest.fixture(scope="session")
def tiny_base(tmp_path_factory: pytest.TempPathFactory) -> Callable[[str], Path]:
    """Folder of the tiny pipeline of a family (a key of `MAKERS`), made once."""
    folder = tmp_path_factory.mktemp("bases")
    return lambda name: folder / name if (folder / name).is_dir() else MAKERS[name](folder / name)


@pytest.fixture(scope="session")
def tiny_dataset(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Six captioned pictures of two aspect ratios, repeated twice."""
    return save_dataset(tmp_path_factory.mktemp("data") / "set")


@pytest.fixture
def make_config(tiny_pipeline: Path, tiny_dataset: Path, tmp_path: Path) -> MakeConfig:
    """A config over the tiny pipeline and dataset; keyword arguments change keys of sections."""

    def make(**changes: dict[str, Any]) -> TrainConfig:
        value: dict[str, dict[str, Any]] = {
            "model": {"pretrained_model_name_or_path": str(tiny_pipeline)},
            "network": {"network_dim": 4, "network_alpha": 2},
            "optimizer": {"learning_rate": 1e-2},
            "training": {
                "output_dir": str(tmp_path / "runs"),
                "output_name": "zork",
                "max_train_epochs": 2,
                "train_batch_size": 2,
            },
            "data": {
                "train_data_dir": str(tiny_dataset),
                "resolution": 64,
                "min_bucket_reso": 32,
                "max_bucket_reso": 128,
                "bucket_reso_steps": 16,
            },
            "advanced": {},
        }
        for section, keys in changes.items():
            value[section] |= keys
        return validate(TrainConfig, value, "test config")

    return make
