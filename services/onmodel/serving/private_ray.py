"""A Ray of one's own on this machine, started with as little as Serve and Train need.

`ray.init` starts six processes, and on slow or busy cores most of the time goes into four of them that a
private Ray has no use for: the autoscaler's monitor, the log monitor and the server of the dashboard's API, which no
argument of `ray.init` leaves out, and the metrics agent, for whose port the raylet waits, and dies after 15 seconds of
waiting. Here the first three are not started, in the agent's place stands (unless metrics are wanted) a process that
does nothing until the raylet ends, and the port files for which the raylet waits are laid out beforehand.
Should a later Ray name any of this differently, the start is slower, not wrong.
"""

import contextlib
import logging
import os
import shutil
import socket
import sys
import tempfile
import threading
import time
from collections.abc import Generator
from pathlib import Path
from typing import Any

import psutil

ATTEMPTS = 3
"""A machine busy with something else can miss one of Ray's own deadlines; the next try finds warm caches."""
PATIENCE_MS = 120_000
WORKERS_END_S = 10.0
AGENT = "--dashboard_agent_command="
"""Begins the raylet's argument that names what it starts as the metrics agent."""
WITHOUT_AGENT = {"metrics_agent_port": -1, "metrics_export_port": -1, "dashboard_agent_listen_port": -1}
"""Ports, by the names of their files, of a node whose agent serves nothing."""


@contextlib.contextmanager
def private_ray(*, object_store_bytes: int) -> Generator[None]:
    """A Ray with this machine's cores for the block; no process of it outlives that. Raises what `ray.init` raises.

    What is printed meanwhile goes to standard error: Ray tells there of workers that died, whatever it is asked to
    keep to itself, and a verb's answer stands on standard output alone.
    """
    folder = private_folder()
    try:
        with contextlib.redirect_stdout(sys.stderr):
            start_private_ray(folder, num_cpus=os.cpu_count() or 1, object_store_bytes=object_store_bytes)
            yield
    finally:
        end_private_ray(WORKERS_END_S)
        shutil.rmtree(folder, ignore_errors=True)


def end_private_ray(patience_s: float) -> None:
    """`ray.shutdown` for a Ray that this process has started, and no process of it is left.

    A worker ends some time after its raylet, an agent that was just starting up to a minute later.

    Args:
        patience_s: what they are given, in seconds, before they are killed: workers may be writing.
    """
    import ray

    started = _workers()
    ray.shutdown()
    _, alive = psutil.wait_procs(started, timeout=patience_s)
    for worker in alive:
        with contextlib.suppress(psutil.Error):
            worker.kill()
    psutil.wait_procs(alive, timeout=WORKERS_END_S)


def _workers() -> list[psutil.Process]:
    """What this process's raylet has started."""
    found: list[psutil.Process] = []
    for child in psutil.Process().children():
        with contextlib.suppress(psutil.Error):
            if child.name() == "raylet":
                found += child.children(recursive=True)
    return found


def start_private_ray(folder: Path, *, num_cpus: int, object_store_bytes: int, metrics_port: int | None = None) -> None:
    """`ray.init` for this process, with Ray's session below `folder` (an empty folder with a short path).

    With a `metrics_port` Ray's metrics agent runs too, and exports there. Nothing is printed. Ends with
    `ray.shutdown()` or this process. Raises what `ray.init` raises.
    """
    os.environ.setdefault("RAY_USAGE_STATS_ENABLED", "0")
    os.environ.setdefault("RAY_agent_register_timeout_ms", str(PATIENCE_MS))
    os.environ.setdefault("RAY_raylet_start_wait_time_s", str(PATIENCE_MS // 1000))
    # Ray's workers step back behind everything else of the user's (nice 15); here they are what the user waits for.
    os.environ.setdefault("RAY_worker_niceness", "0")
    import ray

    for attempt in range(1, ATTEMPTS + 1):
        session = folder / str(attempt)
        session.mkdir()
        try:
            with _lean_start(session, metrics_port):
                ray.init(
                    address="local",
                    num_cpus=num_cpus,
                    include_dashboard=False,
                    log_to_driver=False,
                    logging_level=logging.ERROR,
                    object_store_memory=object_store_bytes,
                    _node_ip_address="127.0.0.1",
                    _temp_dir=str(session),
                )
        except Exception:
            ray.shutdown()
            if attempt == ATTEMPTS:
                raise
        else:
            return


@contextlib.contextmanager
def _lean_start(session: Path, metrics_port: int | None) -> Generator[None]:
    from ray._private import services, utils
    from ray._private.parameter import RayParams

    ports = {"runtime_env_agent_port": free_port()}
    if metrics_port is not None:
        # Known beforehand, so that the raylet does not wait for an agent that takes its time to be imported.
        ports |= {"metrics_agent_port": free_port(), "dashboard_agent_listen_port": free_port()}
        ports |= {"metrics_export_port": metrics_port}
    original_init, original_check = RayParams.__init__, utils.get_dashboard_dependency_error
    original_server, original_process = services.start_api_server, services.start_ray_process

    def lean_init(self: Any, *args: Any, **settings: Any) -> None:
        settings |= {"no_monitor": True, "include_log_monitor": False, **ports}
        original_init(self, *args, **settings)

    def lean_check() -> ImportError | None:
        # Asked for the agent, which exports the metrics.
        return None if metrics_port is not None else ImportError("the dashboard is not wanted here")

    def no_server(*args: Any, **settings: Any) -> tuple[None, None]:
        # What Ray answers itself where the server does not start.
        return None, None

    def without_agent(command: list[str], *args: Any, **settings: Any) -> Any:
        if metrics_port is None and os.name == "posix":
            # Ended by the end of its input, which the raylet holds. A raylet without any such command would not start.
            command = [f"{AGENT}sh -c 'exec cat'" if part.startswith(AGENT) else part for part in command]
        return original_process(command, *args, **settings)

    started = threading.Event()
    RayParams.__init__ = lean_init
    utils.get_dashboard_dependency_error = lean_check
    services.start_api_server = no_server
    services.start_ray_process = without_agent
    threading.Thread(target=_lay_out_when_known, args=(session, WITHOUT_AGENT | ports, started), daemon=True).start()
    try:
        yield
    finally:
        started.set()
        RayParams.__init__ = original_init
        utils.get_dashboard_dependency_error = original_check
        services.start_api_server = original_server
        services.start_ray_process = original_process


def _lay_out_when_known(session: Path, ports: dict[str, int], started: threading.Event) -> None:
    """Write the files that the agents would, -1 meaning "no such server", once the node's id is known."""
    while not started.is_set():
        for found in session.glob("session_2*/gcs_server_port_*"):
            node_id = found.name.removeprefix("gcs_server_port_")
            lay_out_ports(found.parent, node_id, ports)
            return
        time.sleep(0.02)


def lay_out_ports(session: Path, node_id: str, ports: dict[str, int]) -> None:
    """Write the files of a node that its raylet waits for: one a port, by its name."""
    for name, value in ports.items():
        (session / f"{name}_{node_id}").write_text(str(value))


def private_folder() -> Path:
    """A new folder for Ray's session. Its sockets' paths must stay below 107 characters."""
    base = tempfile.gettempdir()
    return Path(tempfile.mkdtemp(prefix="onmodel-", dir=base if len(base) < 30 else "/tmp"))


def free_port() -> int:
    """A TCP port of the loopback interface that nobody listens on now."""
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        return int(probe.getsockname()[1])
