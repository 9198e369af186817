"""A cluster of nodes on this machine: they come, die, are cut off, and leave nothing; work outlives a node."""

import json
import os
import subprocess
import sys
import time
from collections.abc import Generator, Iterator
from pathlib import Path

import psutil
import pytest
import torch

from onmodel.core.config import load, validate
from onmodel.core.errors import ResourceError, UserError
from onmodel.evaluation.suite import TestSuite
from onmodel.serving import local_cluster
from onmodel.serving.local_cluster import LocalCluster
from onmodel.serving.local_network import Loopback, Namespaces, Network, can_isolate, kill_all
from onmodel.serving.local_node import LocalConfig
from onmodel.training.config import load_train_config
from onmodel.training.run import train

from .breaking import CHECKPOINTS, Work, World, mend, run
from .drawing import pictures

COMMAND = Path(__file__).parents[2] / "cluster" / "local" / "nodes.py"
NAME = f"t{os.getpid() % 10**7}"
LISTEN = (
    "import socket, sys\n"
    "with socket.create_server((sys.argv[1], 7000)) as server:\n"
    "    print('ready', flush=True)\n"
    "    while True: server.accept()[0].close()\n"
)
KNOCK = "import socket, sys; socket.create_connection((sys.argv[1], 7000), timeout=2)"
needs_namespaces = pytest.mark.skipif(not can_isolate(), reason="network namespaces need root and Debian's iproute2")


@pytest.fixture(scope="module", autouse=True)
def own_state(tmp_path_factory: pytest.TempPathFactory) -> Iterator[None]:
    """Notes of clusters do not land beside the user's."""
    with pytest.MonkeyPatch.context() as patch:
        patch.setenv("XDG_STATE_HOME", str(tmp_path_factory.mktemp("state")))
        yield


@pytest.fixture(scope="module")
def cluster() -> Iterator[LocalCluster]:
    """A head without CPUs and two workers of one."""
    with pytest.MonkeyPatch.context() as patch:
        # Five of these pass before a node whose port is closed counts as dead; Ray's own are three seconds each.
        patch.setenv("RAY_health_check_period_ms", "500")
        started = local_cluster.up(LocalConfig(name=NAME, workers=2, cpus=1, object_store_mb=100))
        yield started
    started.down()
    assert not any(started.processes(node) for node in started.config.nodes)


@pytest.fixture(scope="module")
def world(tmp_path_factory: pytest.TempPathFactory) -> World:
    return World(tmp_path_factory.mktemp("world"))


def states(cluster: LocalCluster) -> dict[str, str]:
    return {node.name: node.state for node in cluster.status()}


@pytest.fixture(scope="module")
def alone(world: World) -> Path:
    """A trial that this process trained undisturbed, on one thread as a node of one CPU has."""
    torch.set_num_threads(1)
    out = world.folder / "alone"
    out.mkdir()
    train(load_train_config(Path(training(world).arguments(out)[3])), num_workers=0)
    return out


def training(world: World) -> Work:
    return world.training(1, epochs=12, every=12)


@pytest.mark.ray
@pytest.mark.timeout(1500)
def test_training_outlives_its_node(cluster: LocalCluster, world: World, alone: Path, tmp_path: Path) -> None:
    work = training(world)
    ended = run(cluster, work, tmp_path / "killed", "kill")
    assert ended.code == 0, ended.output
    assert ended.victim is not None, "no node was caught training"
    assert "a training worker died; 1 start again from the last state" in ended.output
    assert states(cluster)[ended.victim] == "down"
    assert work.same(tmp_path / "killed", alone), "every weight, bit for bit"
    mend(cluster, ended.victim)
    assert set(states(cluster).values()) == {"up"}


@pytest.mark.ray
@pytest.mark.timeout(1500)
def test_drawing_outlives_its_node(cluster: LocalCluster, world: World, alone: Path, tmp_path: Path) -> None:
    lora = sorted(alone.rglob(CHECKPOINTS))[-1]
    work = world.drawing(lora)
    ended = run(cluster, work, tmp_path / "drawn", "kill")
    assert ended.code == 0, ended.output
    assert ended.victim is not None, "no node was caught drawing"
    pictures(lora, world.base, load(TestSuite, world.suite(2)), tmp_path / "here" / "e")
    assert work.same(tmp_path / "drawn", tmp_path / "here")
    mend(cluster, ended.victim)


@pytest.mark.ray
def test_the_command_shows_a_cluster_and_says_what_is_wrong(cluster: LocalCluster) -> None:
    def call(*arguments: str) -> subprocess.CompletedProcess[str]:
        argv = [sys.executable, str(COMMAND), *arguments, "--name", NAME]
        return subprocess.run(argv, capture_output=True, text=True, check=False)

    shown = json.loads(call("status", "--json").stdout)
    assert [node["name"] for node in shown["nodes"]] == ["head", "worker1", "worker2"]
    assert len({node["address"] for node in shown["nodes"]}) == 3
    assert shown["address"] == cluster.address
    assert Path(shown["token_file"]).stat().st_mode & 0o077 == 0, "nobody else reads the token"
    again = call("up")
    assert (again.returncode, again.stdout) == (2, "")
    assert "is up; take it down first" in again.stderr
    unknown = call("kill", "worker9")
    assert unknown.returncode == 2
    assert "no such node; nodes here: head, worker1, worker2" in unknown.stderr


@pytest.mark.ray
def test_a_command_runs_on_a_node_with_address_and_token(cluster: LocalCluster) -> None:
    script = "import os; print(os.environ['RAY_ADDRESS'], os.environ['RAY_AUTH_MODE'])"
    argv = [sys.executable, str(COMMAND), "exec", "--name", NAME, "--", sys.executable, "-c", script]
    done = subprocess.run(argv, capture_output=True, text=True, check=True)
    assert done.stdout.split() == [cluster.address, "token"]
    if cluster.isolated:
        argv = cluster.command(["ip", "-br", "addr", "show", "eth0"], "worker1")
        assert f" {cluster.address_of('worker1')}/24" in subprocess.check_output(argv, text=True)


def reaches(network: Network, address: str) -> bool:
    argv = network.command("b", [sys.executable, "-c", KNOCK, address])
    return subprocess.run(argv, capture_output=True, check=False).returncode == 0


@pytest.fixture
def two() -> Generator[tuple[Namespaces, str]]:
    """Two namespaces, `a` with a server in it; its address."""
    network = Namespaces(f"n{os.getpid() % 10**7}")
    addresses = network.create(["a", "b"])
    argv = network.command("a", [sys.executable, "-c", LISTEN, addresses["a"]])
    with subprocess.Popen(argv, stdout=subprocess.PIPE) as server:
        assert server.stdout is not None
        assert server.stdout.readline() == b"ready\n"
        yield network, addresses["a"]
        kill_all(network, "a")
    network.remove()


@needs_namespaces
def test_a_node_that_is_cut_off_hears_nobody_until_it_is_healed(two: tuple[Namespaces, str]) -> None:
    network, address = two
    assert reaches(network, address)
    network.cut("a", off=True)
    assert network.is_cut("a")
    assert not reaches(network, address)
    assert network.processes("a"), "its processes live"
    network.cut("a", off=False)
    assert not network.is_cut("a")
    assert reaches(network, address)


@needs_namespaces
def test_what_a_crashed_cluster_left_is_found_by_its_name(two: tuple[Namespaces, str]) -> None:
    network, _ = two
    name = f"n{os.getpid() % 10**7}"
    assert sorted(network.nodes()) == ["a", "b"]
    (server,) = network.processes("a")
    assert local_cluster.remove(name)
    assert not server.is_running() or server.status() == psutil.STATUS_ZOMBIE
    assert network.nodes() == []
    links = subprocess.check_output(["ip", "-br", "link"], text=True)
    assert f"om-{name}" not in links
    assert not local_cluster.remove(name)


def test_without_namespaces_a_node_is_what_bears_its_mark() -> None:
    network = Loopback("x")
    script = "import subprocess, sys; subprocess.run([sys.executable, '-c', 'import time; time.sleep(60)'], env={})"
    with subprocess.Popen(network.command("a", [sys.executable, "-c", script])) as process:
        deadline = time.monotonic() + 60
        while len(network.processes("a")) < 2 and time.monotonic() < deadline:
            time.sleep(0.05)
        assert network.nodes() == ["a"]
        assert network.processes("b") == []
        assert kill_all(network, "a") == 2, "and what it started, whatever mark that bears"
        process.wait()
    assert network.nodes() == []
    with pytest.raises(UserError, match="cannot be cut off; start the cluster as root"):
        network.cut("a", off=True)


@pytest.mark.parametrize("name", ["", "Cluster", "9th", "ninechars"])
def test_a_name_that_no_device_can_have_is_refused(name: str) -> None:
    with pytest.raises(UserError, match="`name`: must be one to eight lower-case letters and digits"):
        validate(LocalConfig, {"name": name}, "options")


@needs_namespaces
def test_a_start_that_fails_leaves_nothing(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("PATH", "/usr/sbin:/sbin", prepend=None)
    name = f"f{os.getpid() % 10**7}"
    with pytest.raises(ResourceError, match="redis-server is not installed"):
        local_cluster.up(LocalConfig(name=name, redis=True))
    assert Namespaces(name).nodes() == []
    with pytest.raises(UserError, match=f"no local cluster `{name}` is up"):
        local_cluster.find(name)
