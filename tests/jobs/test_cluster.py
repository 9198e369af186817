"""Jobs on a real cluster with a dashboard, given by the command, over Ray's job API and over the service."""

import json
import signal
import subprocess
import sys
import time
from collections.abc import Callable, Iterator, Sequence
from pathlib import Path
from typing import Any

import grpc
import pytest

from onmodel.jobs.bundle import package_files, package_folder
from onmodel.jobs.client import problem_at
from onmodel.jobs.v1 import jobs_pb2
from onmodel.serving.private_ray import free_port
from onmodel.toybox.dataset import TRIAL_SHARES, make_dataset

from .cluster import STARTED_S, Cluster, dashboard_cluster, onmodel

# A busy machine takes minutes to start a cluster.
pytestmark = [pytest.mark.ray, pytest.mark.timeout(600)]


@pytest.fixture(scope="module")
def cluster() -> Iterator[Cluster]:
    with dashboard_cluster(2) as made:
        yield made


@pytest.fixture(scope="module")
def other_code(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The package without its models, with another `merge`, which ends with a code of its own."""
    folder = tmp_path_factory.mktemp("code") / "onmodel"
    for file in package_files(package_folder()):
        if file.suffix in (".py", ".yaml"):
            target = folder / file.relative_to(package_folder())
            target.parent.mkdir(parents=True, exist_ok=True)
            target.write_bytes(file.read_bytes())
    (folder / "cli" / "merge.py").write_text(
        "import time, typer\n"
        "def command(dataset: str, wait: float = 0) -> None:\n"
        "    print('sent along,', dataset, flush=True)\n"
        "    time.sleep(wait)\n"
        "    raise typer.Exit(7)\n"
    )
    return folder


@pytest.fixture
def sender(other_code: Path) -> dict[str, str]:
    """The environment of somebody whose installation that package is."""
    # Ray's client would put RAY_ADDRESS before the address that it is given.
    return {"PYTHONPATH": str(other_code.parent), "RAY_ADDRESS": "127.0.0.1:9"}


SUBMIT = ("submit", "--num-cpus", "0.5", "--job-id")


def test_the_code_that_is_sent_runs_and_its_exit_code_comes_back(
    sender: dict[str, str], cluster: Cluster, tmp_path: Path
) -> None:
    command = (*SUBMIT, "sent", "--json", "--", "merge", str(tmp_path))
    ran = onmodel(*command, cluster=cluster, **sender)
    assert ran.returncode == 7, ran.stderr
    assert f"sent along, {tmp_path}" in ran.stderr
    job = json.loads(ran.stdout)
    assert (job["state"], job["exit_code"], job["command"]) == ("failed", 7, f"onmodel merge {tmp_path}")
    again = onmodel(*command, cluster=cluster, **sender)
    assert (again.returncode, json.loads(again.stdout)) == (7, job)
    conflict = onmodel(*SUBMIT, "sent", "--", "merge", str(tmp_path), "--wait", "1", cluster=cluster, **sender)
    assert conflict.returncode == 2 and "with another request" in conflict.stderr


def test_a_place_that_the_cluster_does_not_see_ends_the_job_before_its_verb(
    sender: dict[str, str], cluster: Cluster
) -> None:
    ran = onmodel(*SUBMIT, "blind", "--", "merge", "/mnt/nothing/here", cluster=cluster, **sender)
    assert ran.returncode == 2
    assert "/mnt/nothing/here: the cluster does not see it" in ran.stdout
    assert "sent along" not in ran.stdout


def test_a_job_is_stopped_and_an_interrupted_follower_leaves_it(
    sender: dict[str, str], cluster: Cluster, tmp_path: Path
) -> None:
    command = (*SUBMIT, "long", "--address", cluster.dashboard, "--", "merge", str(tmp_path), "--wait", "500")
    follower = subprocess.Popen(
        [sys.executable, "-m", "onmodel", *command],
        env={**cluster.environment, **sender},
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
        text=True,
    )
    assert follower.stdout is not None and follower.stderr is not None
    while "sent along" not in (line := follower.stdout.readline()):
        assert line, follower.stderr.read()
    follower.send_signal(signal.SIGINT)
    assert follower.wait(200) == 130
    assert "onmodel jobs stop long" in follower.stderr.read()
    _interrupted_between_two_lines(cluster)
    assert json.loads(onmodel("jobs", "get", "long", "--json", cluster=cluster).stdout)["state"] == "running"
    assert "asked to stop" in onmodel("jobs", "stop", "long", cluster=cluster).stdout
    assert onmodel("jobs", "logs", "long", "--follow", cluster=cluster).returncode == 143
    assert "had ended already" in onmodel("jobs", "stop", "long", cluster=cluster).stdout
    listed = [line.split()[:2] for line in onmodel("jobs", "list", cluster=cluster).stdout.splitlines()]
    assert listed == [["long", "stopped"], ["blind", "failed"], ["sent", "failed"]]


def _interrupted_between_two_lines(cluster: Cluster) -> None:
    """Ctrl-C may come while nothing is awaited: what follows is closed all the same, and at once."""
    program = (
        "from onmodel.jobs.model import Jobs\n"
        f"for line in Jobs({cluster.dashboard!r}).follow('long'):\n"
        "    raise KeyboardInterrupt\n"
    )
    command = [sys.executable, "-c", program]
    ended = subprocess.run(command, env=cluster.environment, capture_output=True, text=True, timeout=200, check=False)
    last = ended.stderr.splitlines()[-1]
    assert ended.returncode and last == "KeyboardInterrupt" and "GeneratorExit" not in ended.stderr, ended.stderr


def test_without_the_token_nothing_is_told(cluster: Cluster) -> None:
    for token in ("", "0" * 64):
        asked = onmodel("jobs", "list", cluster=cluster, RAY_AUTH_TOKEN=token, RAY_AUTH_TOKEN_PATH="/dev/null")
        assert asked.returncode == 2 and "the cluster asks for a token" in asked.stderr


@pytest.fixture(scope="module")
def service(cluster: Cluster, tmp_path_factory: pytest.TempPathFactory) -> Iterator[tuple[str, Path]]:
    """Where the job service answers, and the folder below which jobs may name places."""
    folder, port = tmp_path_factory.mktemp("shared"), free_port()
    command = [sys.executable, str(Path(__file__).with_name("serving.py")), str(port), str(free_port()), str(folder)]
    environment = {**cluster.environment, "RAY_ADDRESS": cluster.gcs}
    process = subprocess.Popen(
        command, env=environment, stdin=subprocess.PIPE, stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True
    )
    assert process.stdin is not None and process.stdout is not None and process.stderr is not None
    if "ready" not in process.stdout.readline():
        raise AssertionError(process.stderr.read())
    address, deadline = f"grpc://127.0.0.1:{port}", time.monotonic() + STARTED_S
    # The proxy takes the application up a moment after Serve calls it ready.
    while (asked := onmodel("jobs", "list", "--address", address, cluster=cluster)).returncode:
        assert time.monotonic() < deadline, asked.stderr
    yield address, folder
    process.stdin.close()
    process.terminate()
    process.wait(60)


def test_a_verb_runs_as_a_job_and_its_outputs_are_there(cluster: Cluster, service: tuple[str, Path]) -> None:
    """Over the service, whose streams are cut shorter than the job: following goes on in the next."""
    address, folder = service
    assert problem_at(address.removeprefix("grpc://"), timeout_s=60) is None
    make_dataset(folder / "set", None, 3, TRIAL_SHARES, 1, size=48)
    command = ("analyze", str(folder / "set"), "--output-json", str(folder / "analysis.json"))
    ran = onmodel("submit", "--address", address, "--no-code", "--job-id", "look", "--", *command, cluster=cluster)
    assert ran.returncode == 0, ran.stdout + ran.stderr
    assert json.loads((folder / "analysis.json").read_text())["pictures"] == 3
    assert "analysing 3/3" in ran.stdout and "recommended" in ran.stdout
    again = onmodel("jobs", "logs", "look", "--address", address, cluster=cluster)
    assert again.stdout == ran.stdout
    outside = onmodel("submit", "--address", address, "--no-code", "--", "analyze", "/etc", cluster=cluster)
    assert outside.returncode == 2 and "/etc: not below a folder" in outside.stderr


def test_node_calls_every_method(
    service: tuple[str, Path], call_from_node: Callable[[str, Sequence[dict[str, Any]]], list[Any]]
) -> None:
    address, folder = service
    (folder / "empty").mkdir()
    arguments = ["analyze", str(folder / "empty")]
    requests: list[tuple[str, dict[str, Any]]] = [
        ("Submit", {"job_id": "from-node", "arguments": arguments, "resources": {"num_cpus": 0.5}}),
        ("Submit", {"job_id": "from-node", "arguments": [*arguments, "--json"], "resources": {"num_cpus": 0.5}}),
        ("Follow", {"job_id": "from-node", "until_now": True}),
        ("Get", {"job_id": "from-node"}),
        ("List", {"limit": 1}),
        ("Stop", {"job_id": "from-node"}),
        ("Get", {"job_id": "nobody"}),
    ]
    assert {method for method, _ in requests} == {
        method.name for method in jobs_pb2.DESCRIPTOR.services_by_name["JobService"].methods
    }
    calls = [
        {"service": "onmodel.jobs.v1.JobService", "method": method, "application": "jobs", "request": request}
        for method, request in requests
    ]
    made, other, events, found, listed, stopped, unknown = call_from_node(address.removeprefix("grpc://"), calls)
    assert made["created"] and made["job"]["job_id"] == "from-node"
    assert other["code"] == grpc.StatusCode.ALREADY_EXISTS.value[0]
    assert events[-1]["event"] == "job" and events[-1]["job"]["job_id"] == "from-node"
    assert all(event["event"] in ("line", "progress") for event in events[:-1])
    assert found["job"]["command"] == f"onmodel analyze {folder / 'empty'}"
    assert [job["job_id"] for job in listed["jobs"]] == ["from-node"]
    assert isinstance(stopped["stopped"], bool)
    assert unknown["code"] == grpc.StatusCode.NOT_FOUND.value[0]
