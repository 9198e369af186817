"""Local services start only when needed, and nothing of them outlives the verb."""

import os
import signal
import subprocess
import sys
import time
from pathlib import Path
from typing import Any

import psutil
import pytest
import ray
from typer.testing import CliRunner

from onmodel.cli.serve import app
from onmodel.core.errors import NotFoundError, ServiceError, UserError
from onmodel.detection.config import DetectorConfig
from onmodel.scoring.config import ScorerConfig
from onmodel.serving.local import open_services, plan_apps
from onmodel.serving.private_ray import free_port, private_ray
from onmodel.serving.state import Running, forget, recall, remember, state_file


@pytest.fixture
def state(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    monkeypatch.setenv("XDG_STATE_HOME", str(tmp_path))
    return tmp_path


def test_nothing_starts_that_nobody_asks_for() -> None:
    before = {child.pid for child in psutil.Process().children()}
    with open_services(None) as services:
        assert services.address is None
    assert {child.pid for child in psutil.Process().children()} == before


def test_an_address_starts_nothing_and_says_when_nobody_is_there() -> None:
    address = f"127.0.0.1:{free_port()}"
    with open_services(address, timeout_s=10) as services:
        services.start("detection", "scoring")
        assert services.address == address
        with pytest.raises(ServiceError, match="onmodel serve up"):
            services.scoring.model_info()


def test_cores_are_shared_among_replicas() -> None:
    plan = plan_apps(DetectorConfig.preset("toybox"), ScorerConfig(), detection_replicas=2)
    assert plan["detection"].replicas == 2
    threads = plan["detection"].args["intake"]["model_threads"]
    assert threads * 2 <= max(2, os.cpu_count() or 1)


def test_state_of_a_dead_process_is_forgotten(state: Path) -> None:
    assert recall() is None
    running = remember(os.getpid(), "127.0.0.1:9000", state / "log", "/nowhere")
    assert recall() == running
    process = subprocess.Popen([sys.executable, "-c", ""])
    remember(process.pid, "127.0.0.1:9000", state / "log", "/nowhere")
    process.wait()
    assert recall() is None and not state_file().exists()
    # A pid that another process has got since is not ours to stop.
    assert not Running(os.getpid(), 0.0, "127.0.0.1:9000", "", "").alive()
    state_file().write_text("{")
    assert recall() is None
    forget()


BLOCK = """
import sys
from onmodel.serving.local import open_services
from onmodel.scoring.config import ScorerConfig
with open_services(None, scorer=ScorerConfig(model=sys.argv[1])) as services:
    print("begin", flush=True)
    services.scoring
    print("ready", flush=True)
    services.scoring.embed_texts(["x"])
    import time
    time.sleep(600)
"""


def begin(clip_folder: Path) -> tuple[subprocess.Popen[str], list[psutil.Process]]:
    """A process that is starting its services, and the processes it has started by then."""
    parent = subprocess.Popen([sys.executable, "-c", BLOCK, str(clip_folder)], stdout=subprocess.PIPE, text=True)
    assert parent.stdout is not None and parent.stdout.readline() == "begin\n"
    deadline = time.monotonic() + 100
    below: list[psutil.Process] = []
    # Wait for the host and some of Ray below it: the worst moment to be broken off.
    while len(below) < 3 and time.monotonic() < deadline:
        time.sleep(0.2)
        below = psutil.Process(parent.pid).children(recursive=True)
    assert len(below) >= 3
    return parent, below


def assert_all_end(processes: list[psutil.Process]) -> None:
    _, alive = psutil.wait_procs(processes, timeout=60)
    for process in alive:
        process.kill()
    assert alive == []


@pytest.mark.ray
def test_a_private_ray_has_no_agent_and_leaves_nothing() -> None:
    with private_ray(object_store_bytes=2**27):
        # One with an environment of its own asks an agent, another one, for it.
        told: Any = ray.remote(lambda: os.environ["TOLD"]).options(runtime_env={"env_vars": {"TOLD": "yes"}})
        assert ray.get(told.remote()) == "yes"
        (raylet,) = (child for child in psutil.Process().children() if child.name() == "raylet")
        below = raylet.children(recursive=True)
        begins = [" ".join(process.cmdline()[:3]) for process in below]
        assert any("ray::" in begin for begin in begins)
        assert not any("DashboardAgent" in begin or "dashboard/agent.py" in begin for begin in begins)
    assert_all_end([raylet, *below])


@pytest.mark.ray
@pytest.mark.timeout(900)
def test_ctrl_c_while_starting_leaves_nothing(clip_folder: Path, state: Path) -> None:
    parent, below = begin(clip_folder)
    parent.send_signal(signal.SIGINT)
    parent.wait(60)
    assert_all_end(below)


@pytest.mark.ray
@pytest.mark.timeout(900)
def test_a_killed_verb_takes_its_services_with_it(clip_folder: Path, state: Path) -> None:
    parent, below = begin(clip_folder)
    parent.kill()
    parent.wait(60)
    assert_all_end(below)


@pytest.mark.parametrize("options", [["--port", "9001"], ["--block"], ["--metrics-port", "9100"]])
def test_running_services_keep_their_ports(state: Path, options: list[str]) -> None:
    remember(os.getpid(), "127.0.0.1:9000", state / "log", "/nowhere")
    done = CliRunner().invoke(app, ["up", *options])
    assert isinstance(done.exception, UserError) and "onmodel serve down" in str(done.exception)
    assert recall() is not None
    forget()


def test_a_missing_model_is_named_before_anything_starts() -> None:
    # Other tests of this process may have services of their own running.
    before = {child.pid for child in psutil.Process().children()}
    with (
        pytest.raises(NotFoundError, match="no such folder"),
        open_services(None, scorer=ScorerConfig(model="./no/such/model")) as services,
    ):
        services.start("scoring")
    assert {child.pid for child in psutil.Process().children()} <= before
