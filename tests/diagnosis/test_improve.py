"""One round on a small toybox project, killed while it trains and gone on with; then nothing is made anew."""

import json
import os
import subprocess
import sys
import time
from pathlib import Path

import pytest

from onmodel.core.errors import NotFoundError
from onmodel.diagnosis.lineage import Lineage
from onmodel.evaluation.suite import load_suite
from onmodel.toybox.character import HELD_OUT
from onmodel.toybox.dataset import Shares, make_dataset
from onmodel.toybox.models import bundled

pytestmark = [pytest.mark.ray, pytest.mark.timeout(900)]

TRAINING = """[model]
pretrained_model_name_or_path = "toybox"
[network]
network_dim = 4
[training]
max_train_steps = 6
train_batch_size = 4
log_with = "none"
[data]
train_data_dir = "replaced"
resolution = 64
enable_bucket = false
"""
PROJECT = """name = "zibo"
dataset = "pictures"
references = "held_back"
training = "trial.toml"
test_suite = "suite.json"
output_dir = "work"
rounds = 1
target_size = 24
trigger = "zibo"
class = "boy"
age = "teenage boy"
scales = [1.0]
checkpoints = 1
num_workers = 0
"""


def start(folder: Path, services: str) -> subprocess.Popen[str]:
    command = [sys.executable, "-m", "onmodel", "improve", "project.toml", "--unattended", "--json"]
    environment = {**os.environ, "ONMODEL_CACHE": str(folder / "cache"), "ONMODEL_SERVICES": services}
    return subprocess.Popen(
        command, cwd=folder, env=environment, text=True, stdout=subprocess.PIPE, stderr=subprocess.PIPE
    )


def finish(folder: Path, services: str) -> dict[str, object]:
    process = start(folder, services)
    out, error = process.communicate(timeout=600)
    assert process.returncode == 0, error[-3000:]
    return json.loads(out)


def make(folder: Path) -> None:
    zibo = HELD_OUT["zibo"]
    make_dataset(folder / "pictures", zibo, 16, Shares(close_up=0.5, full_body=0.5), 1, size=96, trigger="zibo")
    make_dataset(folder / "held_back", zibo, 6, Shares(close_up=0.5, full_body=0.5), 2, size=64, trigger="zibo")
    suite = load_suite("toybox").model_dump(by_alias=True)
    suite["scenarios"] = {name: suite["scenarios"][name][:1] for name in ("close_up", "full_body")}
    suite |= {"seeds": [1, 2], "steps": 2, "name": "small"}
    (folder / "suite.json").write_text(json.dumps(suite))
    (folder / "trial.toml").write_text(TRAINING)
    (folder / "project.toml").write_text(PROJECT)


def test_a_killed_project_goes_on_where_it_was(tmp_path: Path, running_services: str) -> None:
    for name in ("diffusion", "clip", "detector"):
        try:
            bundled(name)
        except NotFoundError:
            pytest.skip(f"the bundled {name} model is not in this checkout")
    make(tmp_path)
    work = tmp_path / "work"
    metrics = work / "runs" / "zibo_r1" / "metrics.jsonl"
    killed = start(tmp_path, running_services)
    while not metrics.is_file():
        assert killed.poll() is None, killed.communicate()[1][-3000:]
        time.sleep(0.05)
    killed.kill()
    killed.communicate()
    assert not (work / "report.html").exists()
    decided = (work / "rounds" / "1" / "decision.json").read_bytes()
    filled = work / "rounds" / "1" / "augment" / "dataset"
    written = {file: file.stat().st_mtime_ns for file in filled.rglob("*.png")}

    answer = finish(tmp_path, running_services)
    assert answer["best"] == 1
    assert "as many as were asked for" in str(answer["stopped"])
    assert (work / "rounds" / "1" / "decision.json").read_bytes() == decided
    assert {file: file.stat().st_mtime_ns for file in filled.rglob("*.png")} == written
    assert len(metrics.read_text().splitlines()) == 6

    lineage = Lineage.model_validate_json((work / "lineage.json").read_text())
    assert lineage.ancestors("evaluation_1") == {
        "dataset", "dataset_1_augment", "config", "config_1", "trial_1", "references",
    }  # fmt: skip
    page = (work / "report.html").read_text()
    assert "http:" not in page and "https:" not in page
    assert "medium" in (work / "report.md").read_text()

    made = {f: f.stat().st_mtime_ns for f in work.rglob("*") if f.suffix in (".png", ".safetensors")}
    assert finish(tmp_path, running_services) == answer
    assert {f: f.stat().st_mtime_ns for f in work.rglob("*") if f.suffix in (".png", ".safetensors")} == made
