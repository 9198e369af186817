"""Ablation files over a small character of the bundled world."""

from collections.abc import Callable
from pathlib import Path

import pytest

from onmodel.ablation.config import load_ablation
from onmodel.ablation.variants import Ablation, make_ablation
from onmodel.toybox.character import HELD_OUT
from onmodel.toybox.dataset import TRIAL_SHARES, make_dataset

BASE = """
[model]
pretrained_model_name_or_path = "toybox"
[network]
network_dim = 4
[optimizer]
learning_rate = 1e-3
[training]
output_dir = "{runs}"
output_name = "toy"
max_train_epochs = 2
train_batch_size = 4
log_with = "none"
[data]
train_data_dir = "{data}"
resolution = 48
min_bucket_reso = 48
max_bucket_reso = 48
bucket_reso_steps = 16
validation_split = 0.2
"""

Write = Callable[[str], Path]
Make = Callable[[str], Ablation]


@pytest.fixture(scope="session")
def toy_dataset(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Twelve captioned renders."""
    folder = tmp_path_factory.mktemp("data") / "toy"
    make_dataset(folder, HELD_OUT["zibo"], 12, TRIAL_SHARES, seed=3, size=64, trigger="zibo")
    return folder


@pytest.fixture
def write(tmp_path: Path, toy_dataset: Path) -> Write:
    """Writes an ablation file beside `base.toml`; `base` and the name `test` are put before the text."""
    (tmp_path / "base.toml").write_text(BASE.format(runs=tmp_path / "runs", data=toy_dataset))

    def written(text: str) -> Path:
        file = tmp_path / "ablation.toml"
        file.write_text(f'base = "base.toml"\n[ablation]\nname = "test"\n{text}')
        return file

    return written


@pytest.fixture
def make(write: Write) -> Make:
    """An ablation from the text of its file."""

    def made(text: str) -> Ablation:
        file = write(text)
        return make_ablation(file, load_ablation(file))

    return made
