"""A small dataset with the trial's faults and its exact truth."""

import shutil
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path

import pytest

from onmodel.core.files import file_hash
from onmodel.dataset.folder import Dataset, load_dataset
from onmodel.toybox.character import HELD_OUT
from onmodel.toybox.dataset import Shares, make_dataset, read_truth
from onmodel.toybox.render import Truth

from .world import Exact, Services


@dataclass(frozen=True)
class Trial:
    path: Path
    truth: dict[str, Truth]
    """By file name."""
    contents: dict[str, Truth]
    """By content hash."""

    @property
    def dataset(self) -> Dataset:
        return load_dataset(self.path)

    def services(self) -> Services:
        return Services(Exact(self.contents))


@pytest.fixture(scope="session")
def made(tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("dataset") / "zibo"
    shares = Shares(close_up=0.4, full_body=0.25, far=0.05, complex_background=0.1)
    make_dataset(folder, HELD_OUT["zibo"], 20, shares, 11, size=160, trigger="zibo")
    return folder


@pytest.fixture
def trial(made: Path, tmp_path: Path) -> Trial:
    """Twenty pictures of 160 px: close-ups, some full bodies, one far, many of no shot type. A fresh copy."""
    folder = tmp_path / "zibo"
    shutil.copytree(made, folder)
    truth = read_truth(folder)
    (folder / "toybox_truth.jsonl").unlink()
    return Trial(folder, truth, {file_hash(folder / name): each for name, each in truth.items()})


@pytest.fixture
def picture() -> Callable[[Path], Path]:
    """Writes a small valid png to a path."""

    def write(path: Path) -> Path:
        from onmodel.core.images import encode_png

        from .world import noise

        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_bytes(encode_png(noise(32, seed=len(str(path)))))
        return path

    return write
