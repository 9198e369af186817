"""A cluster of nodes on this machine: they come, die, are cut off, and leave nothing; work outlives a node."""

import os
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path

import pytest
import torch

from onmodel.serving import local_cluster
from onmodel.serving.local_cluster import LocalCluster, LocalConfig
from onmodel.serving.local_network import can_isolate

from .breaking import World, mend, run

COMMAND = Path(__file__).parents[2] / "cluster" / "local" / "nodes.py"
NAME = f"t{os.getpid() % 10**7}"
namespaces = pytest.mark.skipif(not can_isolate(), reason="network namespaces need root and Debian's iproute2")


@pytest.fixture(scope="module")
def cluster() -> Iterator[LocalCluster]:
    """A head without CPUs and two workers of one."""
    started = local_cluster.up(LocalConfig(name=NAME, workers=2, cpus=1, object_store_mb=100))
    yield started
    started.down()


@pytest.fixture(scope="module")
def world(tmp_path_factory: pytest.TempPathFactory) -> World:
    return World(tmp_path_factory.mktemp("world"))


def call(*arguments: str) -> subprocess.CompletedProcess[str]:
    return subprocess.run([sys.executable, str(COMMAND), *arguments], capture_output=True, text=True, check=False)


def states(cluster: LocalCluster) -> dict[str, str]:
    return {node.name: node.state for node in cluster.status()}


@pytest.mark.ray
@pytest.mark.timeout(1200)
def test_training_outlives_the_node_it_runs_on(cluster: LocalCluster, world: World, tmp_path: Path) -> None:
    work = world.training(1, epochs=20, every=20)
    torch.set_num_threads(os.cpu_count() or 1)
    alone = tmp_path / "alone"
    alone.mkdir()
    _train_here(work.arguments(alone)[1])
    ended = run(cluster, work, tmp_path / "killed", "kill")
    assert ended.code == 0, ended.output
    assert ended.victim is not None
    assert "a training worker died; 1 start again from the last state" in ended.output
    assert states(cluster)[ended.victim] == "down"
    assert work.same(tmp_path / "killed", alone), "every weight, bit for bit"
    mend(cluster, ended.victim)
    assert set(states(cluster).values()) == {"up"}


def _train_here(file: str) -> None:
    from onmodel.training.config import load_train_config
    from onmodel.training.run import train

    train(load_train_config(Path(file)), num_workers=0)
