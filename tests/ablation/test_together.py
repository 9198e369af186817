"""Variants at once: the weights of each alone, and what crashes, hangs or is killed costs nobody else anything."""

import os
import signal
import subprocess
import sys
import threading
import time
from collections.abc import Callable, Iterator
from pathlib import Path

import psutil
import pytest
import safetensors.torch
import torch

from onmodel.ablation.config import load_ablation
from onmodel.ablation.record import Record, Status
from onmodel.ablation.run import RECORDS, run_ablation
from onmodel.ablation.variants import Ablation, make_ablation
from onmodel.core.config import load
from onmodel.training import run
from onmodel.training.job import METRICS, read_metrics
from onmodel.training.ray_cluster import cluster
from training.tiny import save_pipeline

from .conftest import Make, Write

ABLATION = """
include_base = true
threads = 1
stalled_after_s = 20
[[variant]]
name = "killed"
network = {network_dim = 8}
training = {max_train_epochs = 40, save_every_n_epochs = 10}
[[variant]]
name = "bad"
optimizer = {learning_rate = 1e30}
[[variant]]
name = "hangs"
training = {max_train_epochs = 9999}
[[variant]]
name = "rate"
optimizer = {learning_rate = 1e-4}
"""


@pytest.fixture(scope="module")
def ray_cluster() -> Iterator[None]:
    """One for all tests of the module that need one in this process."""
    with cluster():
        yield


def record_of(ablation: Ablation, name: str) -> Record | None:
    file = ablation.folder / RECORDS / f"{name}.json"
    return load(Record, file) if file.is_file() else None


def steps_of(ablation: Ablation, name: str) -> int:
    variant = next(each for each in ablation.variants if each.name == name)
    return len(read_metrics(variant.config.trial_dir / METRICS))


def wait_for(condition: Callable[[], bool], seconds: float = 600) -> bool:
    deadline = time.monotonic() + seconds
    while time.monotonic() < deadline:
        if condition():
            return True
        time.sleep(0.05)
    return False


def is_gone(pid: int) -> bool:
    try:
        return psutil.Process(pid).status() == psutil.STATUS_ZOMBIE
    except psutil.NoSuchProcess:
        return True


def signal_when_it_trains(ablation: Ablation, name: str, number: signal.Signals, steps: int) -> threading.Thread:
    """Send a signal to a variant's process once it has taken so many steps.

    Called before the run: a record that a killed driver left still says that its process, dead by now, is running.
    """
    left = record_of(ablation, name)
    dead = left.pid if left is not None else None

    def pid() -> int | None:
        record = record_of(ablation, name)
        running = record is not None and record.status is Status.RUNNING and record.pid != dead
        return record.pid if record is not None and running else None

    def work() -> None:
        if wait_for(lambda: pid() is not None and steps_of(ablation, name) > steps):
            found = pid()
            if found is not None:
                os.kill(found, number)

    thread = threading.Thread(target=work, daemon=True)
    thread.start()
    return thread


def weights(file: Path) -> dict[str, torch.Tensor]:
    return safetensors.torch.load_file(file)


@pytest.mark.ray
@pytest.mark.timeout(1500)
def test_a_killed_driver_and_ill_variants_cost_the_others_nothing(
    write: Write, tmp_path: Path, request: pytest.FixtureRequest
) -> None:
    file, base = write(ABLATION), tmp_path / "base.toml"
    # Steps of a small model cost little beside what starts a process, which is what this test is about.
    base.write_text(base.read_text().replace('"toybox"', f'"{save_pipeline(tmp_path / "model")}"'))
    ablation = make_ablation(file, load_ablation(file))
    command = [sys.executable, "-m", "onmodel", "ablate", str(file)]
    with (tmp_path / "log.txt").open("w") as log:
        driver = subprocess.Popen(command, stdout=log, stderr=log, start_new_session=True)

    def first_is_done() -> bool:
        base = record_of(ablation, "base")
        return driver.poll() is not None or (base is not None and base.status is Status.FINISHED)

    assert wait_for(first_is_done)
    before, cut_off = record_of(ablation, "base"), record_of(ablation, "killed")
    assert cut_off is not None
    assert cut_off.pid is not None
    driver.kill()
    driver.wait()
    assert wait_for(lambda: is_gone(cut_off.pid or 0), 60), "a variant outlives its driver"
    # Not before: the driver's cluster is gone only now.
    request.getfixturevalue("ray_cluster")
    threads = [
        signal_when_it_trains(ablation, "hangs", signal.SIGSTOP, 3),
        signal_when_it_trains(ablation, "killed", signal.SIGKILL, 40),
    ]
    outcome = run_ablation(ablation)
    for thread in threads:
        thread.join()
    assert record_of(ablation, "base") == before, "what was finished is not run again"
    found = {each.name: each for each in outcome.variants}
    assert {name: each.status for name, each in found.items()} == {
        "base": Status.FINISHED,
        "killed": Status.FINISHED,
        "bad": Status.FAILED,
        "hangs": Status.FAILED,
        "rate": Status.FINISHED,
    }
    assert "Lower learning_rate" in (found["bad"].reason or "")
    assert "no step and no other progress for 20 s" in (found["hangs"].reason or "")
    killed = record_of(ablation, "killed")
    assert killed is not None
    assert killed.starts == 2
    assert (ablation.folder / "ablation.json").is_file()
    torch.set_num_threads(1)
    for variant in ablation.variants:
        if found[variant.name].status is not Status.FINISHED:
            continue
        alone = variant.config.with_changes(training={"output_dir": str(tmp_path / "alone")})
        theirs = weights(run.train(alone, num_workers=0).checkpoints[-1])
        mine = weights(Path(found[variant.name].checkpoint or ""))
        assert mine.keys() == theirs.keys()
        assert all(torch.equal(mine[key], theirs[key]) for key in mine), variant.name


SEARCH = """
max_concurrent = 1
[search]
metric = "val_loss"
samples = 3
reduction = 2
seed = 11
[search.parameters]
optimizer.learning_rate = [3e-3, 1e-9, 2e-9]
"""


@pytest.mark.ray
@pytest.mark.timeout(900)
@pytest.mark.usefixtures("ray_cluster")
def test_a_sample_that_is_stopped_makes_room_for_the_next(make: Make) -> None:
    ablation = make(SEARCH)
    outcome = run_ablation(ablation)
    assert [each.overrides["optimizer.learning_rate"] for each in ablation.variants] == [3e-3, 2e-9, 1e-9]
    found = {each.name: each for each in outcome.variants}
    assert found["s001"].status is Status.FINISHED
    assert [rung.epoch for rung in found["s001"].rungs] == [1, 2]
    assert found["s002"].status is Status.STOPPED
    assert "after epoch 1 others were better" in (found["s002"].reason or "")
    assert found["s003"].status in (Status.STOPPED, Status.FINISHED)
    assert found["s003"].rungs
    assert outcome.first == "s001"
