"""Every command of the README runs as it stands there, in the order it stands there."""

import re
import socket
from collections.abc import Callable
from pathlib import Path

import pytest
from PIL import Image

from onmodel.dataset.folder import load_dataset
from onmodel.toybox.character import HELD_OUT
from onmodel.toybox.dataset import TRIAL_SHARES, make_dataset, reference_pictures
from onmodel.toybox.film import make_film
from pages import blocks

ROOT = Path(__file__).parents[1]
README = (ROOT / "README.md").read_text()

TRIAL = """
[model]
pretrained_model_name_or_path = "toybox"
[network]
network_dim = 4
[optimizer]
learning_rate = 1e-3
[training]
output_dir = "runs"
output_name = "{name}"
max_train_steps = 4
train_batch_size = 4
[data]
train_data_dir = "{data}"
resolution = 64
min_bucket_reso = 64
max_bucket_reso = 64
bucket_reso_steps = 16
"""
SUITE = """
{"name": "small", "trigger": "zibo", "class": "teenage boy", "seeds": [1, 2], "steps": 2,
 "scenarios": {"close_up": ["{trigger}, a {class}, close-up, plain background"],
               "full_body": ["{trigger}, a {class}, full body shot, standing"]}}
"""
ABLATION = """
base = "trial_1.toml"
[ablation]
name = "ablation"
include_base = true
[[variant]]
name = "higher_rank"
[variant.network]
network_dim = 8
[evaluation]
test_suite = "suite.json"
references = "references"
"""


def commands() -> list[str]:
    """The lines of the bash blocks, without their comments."""
    lines = [line for block in blocks(README, "bash") for line in block.text.splitlines()]
    return [line.split("#")[0].strip() for line in lines if line.strip()]


def test_the_two_make_commands_exist() -> None:
    makefile = (ROOT / "Makefile").read_text()
    targets = [line.split()[1] for line in commands() if line.startswith("make ")]
    assert targets == ["demo", "test"]
    for target in targets:
        assert re.search(rf"^{target}:", makefile, re.MULTILINE)


def test_every_file_that_is_linked_exists() -> None:
    for target in re.findall(r"\]\(([^)#]+)\)", README):
        assert (ROOT / target).exists(), target


@pytest.fixture
def workspace(tmp_path: Path) -> Path:
    """A folder as a user of the README has it."""
    make_dataset(tmp_path / "my_character", HELD_OUT["zibo"], 16, TRIAL_SHARES, seed=3, size=128, trigger="zibo")
    make_film(tmp_path / "film.mp4", tuple(HELD_OUT.values()), seconds=24, seed=5)
    (tmp_path / "references").mkdir()
    for number, picture in enumerate(reference_pictures(HELD_OUT["zibo"], 6, seed=11)):
        Image.fromarray(picture.image).save(tmp_path / "references" / f"{number}.png")
    for name, data in (("trial_1", "my_character"), ("trial_2", "my_character_filled")):
        (tmp_path / f"{name}.toml").write_text(TRIAL.format(name=name, data=data))
    (tmp_path / "suite.json").write_text(SUITE)
    (tmp_path / "ablation.toml").write_text(ABLATION)
    return tmp_path


@pytest.mark.ray
@pytest.mark.timeout(1500)
def test_every_command_runs(workspace: Path, run_page: Callable[..., None]) -> None:
    with socket.socket() as free:
        free.bind(("127.0.0.1", 0))
        port = str(free.getsockname()[1])
    run_page(ROOT / "README.md", {"9000": port})
    assert (workspace / "analysis.html").stat().st_size > 10_000
    assert (workspace / "comparison.html").stat().st_size > 10_000
    assert list((workspace / "runs" / "trial_1").glob("*.safetensors"))
    assert (workspace / "runs" / "ablation" / "report.html").stat().st_size > 10_000
    assert list((workspace / "frames").glob("*.png"))
    assert load_dataset(workspace / "merged").pictures
