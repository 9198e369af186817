"""A training job whose files lie in a store is killed with its node, and given again on another."""

import json
import os
import shutil
import signal
import subprocess
import sys
import time
from collections.abc import Callable
from pathlib import Path

import pytest
import safetensors.torch
import torch

from onmodel.jobs.request import FILE, JobRequest
from training.tiny import save_dataset, save_pipeline

CONFIG = """
[model]
pretrained_model_name_or_path = "s3://bucket/base"
[network]
network_dim = 4
network_alpha = 2
[optimizer]
learning_rate = 1e-3
[training]
output_dir = "s3://bucket/runs"
output_name = "zork"
max_train_epochs = 20
save_every_n_epochs = 10
save_every_n_steps = 2
train_batch_size = 4
log_with = "none"
[data]
train_data_dir = "s3://bucket/set"
resolution = 64
min_bucket_reso = 32
max_bucket_reso = 128
bucket_reso_steps = 16
"""
PATIENCE_S = 240.0


@pytest.fixture
def start(tmp_path: Path) -> Callable[[str, Path], subprocess.Popen[bytes]]:
    """Start the job, under a name and on a store; all nodes have their cache at the same place."""

    def started(name: str, store: Path) -> subprocess.Popen[bytes]:
        home = tmp_path / name
        home.mkdir()
        request = JobRequest(job_id=name, arguments=("train", f"{FILE}c.toml"), files={"c.toml": CONFIG})
        (home / "job.json").write_text(request.model_dump_json())
        return subprocess.Popen(
            [sys.executable, str(Path(__file__).with_name("storing.py")), str(home / "job.json"), str(store)],
            cwd=home,
            env={**os.environ, "ONMODEL_CACHE": str(store / "cache")},
            start_new_session=True,
        )

    return started


def make_store(folder: Path) -> Path:
    save_pipeline(folder / "bucket" / "base")
    save_dataset(folder / "bucket" / "set")
    return folder


def steps_of(store: Path) -> list[int]:
    """Steps that the store knows of."""
    files = list((store / "bucket").rglob("metrics.jsonl"))
    return [json.loads(line)["step"] for file in files for line in file.read_text().splitlines() if line.endswith("}")]


def test_a_training_cut_off_with_its_node_goes_on_from_the_store(
    tmp_path: Path, start: Callable[[str, Path], subprocess.Popen[bytes]]
) -> None:
    stores = [make_store(tmp_path / name) for name in ("undisturbed_store", "store")]
    whole = start("undisturbed", stores[0])
    cut = start("first", stores[1])
    deadline = time.monotonic() + PATIENCE_S
    while cut.poll() is None and max(steps_of(stores[1]), default=0) < 20:
        assert time.monotonic() < deadline, "no state came to the store"
        time.sleep(0.02)
    assert cut.poll() is None, "it ended before its states came to the store"
    os.killpg(cut.pid, signal.SIGKILL)
    cut.wait()
    assert not list((stores[1] / "bucket").rglob("*-000020.safetensors"))
    # The other node has nothing of what lay on the first one's disk.
    shutil.rmtree(stores[1] / "cache")
    again = start("second", stores[1])
    assert again.wait(PATIENCE_S) == 0
    assert whole.wait(PATIENCE_S) == 0
    files = [sorted((store / "bucket").rglob("zork-*.safetensors")) for store in stores]
    assert [file.name for file in files[0]] == [file.name for file in files[1]] != []
    for mine, theirs in zip(*files, strict=True):
        ours, other = safetensors.torch.load_file(mine), safetensors.torch.load_file(theirs)
        assert all(torch.equal(ours[key], other[key]) for key in ours | other), mine.name
    assert steps_of(stores[1]) == steps_of(stores[0]) == list(range(1, 81))
