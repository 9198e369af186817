"""The tutorial's commands run as they stand there, in their order, with less of everything."""

import json
from collections.abc import Callable
from pathlib import Path

import pytest

from onmodel.dataset.folder import load_dataset

PAGE = Path(__file__).parents[1] / "docs" / "tutorial.md"
SMALLER = {
    "zibo, 80, ": "zibo, 12, ",
    "zibo, 24, ": "zibo, 4, ",
    "seconds=150": "seconds=16",
    "size=192": "size=96",
    "max_train_steps = 300": "max_train_steps = 2",
    '"seeds": [1, 2, 3], "steps": 20': '"seeds": [1, 2], "steps": 2',
}
"""What the page shows, and what is run instead."""


@pytest.mark.ray
@pytest.mark.timeout(1500)
def test_every_command_runs(tmp_path: Path, run_page: Callable[..., None]) -> None:
    run_page(PAGE, SMALLER, ("onmodel", "python", "sed"))
    assert list((tmp_path / "frames").glob("*.png"))
    assert load_dataset(tmp_path / "merged").pictures
    for trial in ("trial_1", "trial_2"):
        assert list((tmp_path / "runs" / trial).glob("*.safetensors"))
    assert (tmp_path / "comparison.html").stat().st_size > 10_000
    diagnosis = json.loads((tmp_path / "runs" / "trial_2" / "diagnosis" / "diagnosis.json").read_text())
    assert diagnosis["trial"]
