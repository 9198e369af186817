"""A Ray cluster with a dashboard on this machine, as somebody who gives jobs to one has it."""

import contextlib
import os
import secrets
import shutil
import socket
import subprocess
import sys
import time
from collections.abc import Generator
from dataclasses import dataclass
from pathlib import Path

import psutil

from onmodel.serving.private_ray import free_port, lay_out_ports, private_folder

SOURCE = Path(__file__).parents[2] / "services"
STARTED_S = 180
AGENT_PORTS = {
    "metrics_export_port": "metrics-export-port",
    "dashboard_agent_listen_port": "dashboard-agent-listen-port",
    "metrics_agent_port": "dashboard-agent-grpc-port",
    "runtime_env_agent_port": "runtime-env-agent-port",
}
"""The file by which an agent tells its port -> the option of `ray start` that sets it."""


@dataclass(frozen=True)
class Cluster:
    """Where it answers."""

    dashboard: str
    """http://127.0.0.1:PORT"""
    gcs: str
    """HOST:PORT, for RAY_ADDRESS."""
    environment: dict[str, str]
    """For processes that talk to it: its token is in there."""


@contextlib.contextmanager
def dashboard_cluster(num_cpus: int) -> Generator[Cluster]:
    """A head of `num_cpus` CPUs that asks for a token. All of its processes end with the block."""
    folder = private_folder()
    gcs, dashboard = free_port(), free_port()
    environment = {key: value for key, value in os.environ.items() if not key.startswith("RAY_")} | {
        "RAY_AUTH_MODE": "token",
        "RAY_AUTH_TOKEN": secrets.token_hex(32),
        "RAY_USAGE_STATS_ENABLED": "0",
        "PYTHONUNBUFFERED": "1",
        # Ray's workers step back behind everything else (nice 15), and on a busy machine its own deadlines pass.
        "RAY_worker_niceness": "0",
        "RAY_SERVE_PROXY_READY_CHECK_TIMEOUT_S": str(STARTED_S),
        "RAY_SERVE_PROXY_HEALTH_CHECK_TIMEOUT_S": str(STARTED_S),
        "RAY_DASHBOARD_STARTUP_TIMEOUT_S": str(STARTED_S),
        "RAY_DASHBOARD_SUBPROCESS_MODULE_WAIT_READY_TIMEOUT": str(STARTED_S),
        "RAY_agent_register_timeout_ms": str(STARTED_S * 1000),
        "RAY_raylet_start_wait_time_s": str(STARTED_S),
        # The job's command is found as on an image whose Python is the only one.
        # The installed OnModel, for the job service and for jobs that bring no code.
        "PYTHONPATH": str(SOURCE),
        "PATH": f"{Path(sys.executable).parent}{os.pathsep}{os.environ['PATH']}",
    }
    command = [sys.executable, str(Path(__file__).with_name("head.py")), "start", "--head", "--include-dashboard=true"]
    command += [f"--temp-dir={folder}", "--node-ip-address=127.0.0.1", f"--port={gcs}", f"--dashboard-port={dashboard}"]
    command += ["--dashboard-host=127.0.0.1", "--block", f"--num-cpus={num_cpus}", f"--object-store-memory={128 << 20}"]
    ports = {name: free_port() for name in AGENT_PORTS}
    command += [f"--{AGENT_PORTS[name]}={port}" for name, port in ports.items()]
    log = (folder / "start.log").open("wb")
    head = psutil.Popen(command, env=environment, stdout=log, stderr=log, start_new_session=True)
    try:
        _wait_until_up(head, folder, ports)
        yield Cluster(f"http://127.0.0.1:{dashboard}", f"127.0.0.1:{gcs}", environment)
    finally:
        with contextlib.suppress(psutil.NoSuchProcess):
            every = [*head.children(recursive=True), head]
            head.terminate()
            _, alive = psutil.wait_procs(every, timeout=3)
            for process in alive:
                with contextlib.suppress(psutil.NoSuchProcess):
                    process.kill()
            psutil.wait_procs(alive, timeout=10)
        log.close()
        shutil.rmtree(folder, ignore_errors=True)


def _wait_until_up(head: psutil.Popen, folder: Path, ports: dict[str, int]) -> None:
    deadline = time.monotonic() + STARTED_S
    log = folder / "start.log"
    told = False
    while "Ray runtime started" not in log.read_text() or not _listens(ports["dashboard_agent_listen_port"]):
        if head.poll() is not None or time.monotonic() > deadline:
            raise RuntimeError(f"the cluster's head did not start:\n{log.read_text()[-4000:]}")
        # A raylet ends where its agents take 15 seconds to tell it their ports, as they do on a busy machine.
        for found in folder.glob("session_2*/gcs_server_port_*") if not told else ():
            lay_out_ports(found.parent, found.name.removeprefix("gcs_server_port_"), ports)
            told = True
        time.sleep(0.1)


def _listens(port: int) -> bool:
    try:
        socket.create_connection(("127.0.0.1", port), timeout=5).close()
    except OSError:
        return False
    return True


def onmodel(*arguments: str, cluster: Cluster, **more: str) -> subprocess.CompletedProcess[str]:
    """The command, as its user has it beside this cluster."""
    environment = {**cluster.environment, "RAY_API_SERVER_ADDRESS": cluster.dashboard, **more}
    return subprocess.run(
        [sys.executable, "-m", "onmodel", *arguments],
        env=environment,
        capture_output=True,
        text=True,
        check=False,
        timeout=280,
    )
