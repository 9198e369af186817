"""One node of a local cluster: what it is started with. See `local_cluster`."""

import contextlib
import os
import re
import secrets
import shutil
import subprocess
import sys
import threading
import time
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from pydantic import Field, field_validator

from onmodel.core.config import Config
from onmodel.core.errors import ResourceError
from onmodel.core.files import write_text
from onmodel.serving.local_network import MARK, Network
from onmodel.serving.private_ray import PATIENCE_MS, WITHOUT_AGENT, free_port, lay_out_ports

HEAD = "head"
REDIS = "redis"
_START_S = 240.0
"""A node that is not up by then on a busy machine is not coming."""
_ROOM_MB = 100
"""Least object store that Ray accepts is 75 MB."""


class LocalConfig(Config):
    """What to start."""

    name: str = "local"
    """Network devices are called by it, and the kernel allows them 15 characters."""
    workers: int = Field(default=2, ge=0, le=99)
    cpus: int = Field(default=2, ge=1)
    """Of each worker, as Ray counts them; it is kept to as many of this machine's cores where there are more."""
    head_cpus: int = Field(default=0, ge=0)
    """0 keeps work off the head, as on a cluster whose head must not die of it."""
    object_store_mb: int = Field(default=200, ge=_ROOM_MB)
    """Of each node; taken from /dev/shm as it fills."""
    dashboard: bool = False
    """The dashboard and its job API; costs about 300 MB."""
    redis: bool = False
    """GCS fault tolerance: what the head knows is kept in a Redis of the cluster's own, on a node of its own."""
    isolate: bool | None = None
    """Network namespaces; None = where this process may make them."""

    @field_validator("name")
    @classmethod
    def _check_name(cls, name: str) -> str:
        if not re.fullmatch(r"[a-z][a-z0-9]{0,7}", name):
            raise ValueError("must be one to eight lower-case letters and digits, a letter first")
        return name

    @property
    def nodes(self) -> tuple[str, ...]:
        """Names of the nodes that run Ray, the head first."""
        return (HEAD, *(f"worker{number}" for number in range(1, self.workers + 1)))


class State(Config):
    """What is remembered of a cluster between commands."""

    config: LocalConfig
    folder: str
    addresses: dict[str, str]
    port: int
    """The GCS's, at the head's address."""
    dashboard_port: int
    redis_port: int
    isolated: bool
    ready: bool
    """False while it is being started."""

    @property
    def address(self) -> str:
        """HOST:PORT of the GCS."""
        return f"{self.addresses[HEAD]}:{self.port}"

    @property
    def dashboard(self) -> str | None:
        """URL of the job API."""
        return f"http://{self.addresses[HEAD]}:{self.dashboard_port}" if self.config.dashboard else None

    @property
    def token_file(self) -> Path:
        """For RAY_AUTH_TOKEN_PATH."""
        return Path(self.folder) / "token"

    @property
    def password(self) -> str:
        """Redis's."""
        return (Path(self.folder) / "password").read_text(encoding="utf-8")

    @property
    def redis(self) -> str:
        """HOST:PORT of Redis."""
        return f"{self.addresses[REDIS]}:{self.redis_port}"

    def environment(self) -> dict[str, str]:
        """The environment of a command that uses the cluster."""
        environment = {
            **os.environ,
            "RAY_ADDRESS": self.address,
            "RAY_AUTH_MODE": "token",
            "RAY_AUTH_TOKEN_PATH": str(self.token_file),
            "RAY_USAGE_STATS_ENABLED": "0",
            # Each is a process more beside every training run, for what one machine has no use for.
            "RAY_TRAIN_ENABLE_PREEMPTION_WATCHER": "0",
            "RAY_TRAIN_METRICS_ENABLED": "0",
        }
        environment.pop("RAY_AUTH_TOKEN", None)
        if self.dashboard is not None:
            environment["RAY_API_SERVER_ADDRESS"] = self.dashboard
        return environment


@dataclass(frozen=True)
class Starting:
    """A node that is being started."""

    node: str
    process: subprocess.Popen[bytes]
    log: Path


def begin(state: State, network: Network, node: str) -> Starting:
    """Start a node; `wait_for` says how that went. Raises ResourceError where Redis is not installed."""
    folder = Path(state.folder) / node
    folder.mkdir(exist_ok=True)
    # A head that was killed leaves its note, by which the next one would believe that it still runs.
    (folder / "ray_current_cluster").unlink(missing_ok=True)
    argv = _redis(state, folder) if node == REDIS else [*_cores(state.config, node), *_ray(state, node, folder)]
    log = folder.with_suffix(".log")
    with log.open("ab") as stream:
        process = subprocess.Popen(
            network.command(node, argv),
            env=_environment(state, node),
            stdin=subprocess.DEVNULL,
            stdout=stream,
            stderr=stream,
            start_new_session=True,
        )
    return Starting(node, process, log)


def wait_for(starting: Starting) -> None:
    """Wait until a node is up. Raises ResourceError where it does not come."""
    try:
        code = starting.process.wait(_START_S)
    except subprocess.TimeoutExpired:
        starting.process.kill()
        code = -1
    if code:
        lines = starting.log.read_text(encoding="utf-8", errors="replace").strip().splitlines()
        reason = f"not up after {_START_S:g} s" if code == -1 else (lines or [f"exit code {code}"])[-1].strip()
        raise ResourceError(f"{starting.node} did not start ({reason}); close other programs and try again")


def _cores(config: LocalConfig, node: str) -> list[str]:
    """Keeps a worker to as many of this machine's cores as it has CPUs, so that its threads are as many too."""
    cores, cpus = sorted(os.sched_getaffinity(0)), config.cpus
    if node == HEAD or cpus >= len(cores) or shutil.which("taskset") is None:
        return []
    start = (config.nodes.index(node) - 1) * cpus
    own = sorted(cores[(start + step) % len(cores)] for step in range(cpus))
    return ["taskset", "-c", ",".join(map(str, own))]


def _redis(state: State, folder: Path) -> list[str]:
    program = shutil.which("redis-server")
    if program is None:
        raise ResourceError("redis-server is not installed; apt-get install redis-server, or leave --redis out")
    settings = folder / "redis.conf"
    host, _, port = state.redis.rpartition(":")
    write_text(
        settings,
        f"bind {host}\nport {port}\nrequirepass {state.password}\n"
        f'daemonize yes\nset-proc-title no\nsave ""\nappendonly no\ndir {folder}\nlogfile {folder / "redis.log"}\n',
    )
    return [program, str(settings)]


def _ray(state: State, node: str, folder: Path) -> list[str]:
    config, address = state.config, state.addresses[node]
    argv = [sys.executable, "-m", "ray.scripts.scripts", "start", "--disable-usage-stats", "--log-color=false"]
    argv += [f"--node-ip-address={address}", f"--temp-dir={folder}"]
    argv += [f"--object-store-memory={config.object_store_mb * 2**20}"]
    if not state.isolated:
        # The one fixed port of a node, which on one interface the first would take from the others.
        argv += [f"--dashboard-agent-listen-port={free_port()}"]
    if node != HEAD:
        return [*argv, f"--address={state.address}", f"--num-cpus={config.cpus}"]
    argv += ["--head", f"--port={state.port}", f"--num-cpus={config.head_cpus}"]
    argv += [f"--include-dashboard={str(config.dashboard).lower()}"]
    if config.dashboard:
        argv += [f"--dashboard-host={address}", f"--dashboard-port={state.dashboard_port}"]
    return [*argv, f"--redis-password={state.password}"] if config.redis else argv


def _environment(state: State, node: str) -> dict[str, str]:
    environment = state.environment()
    del environment["RAY_ADDRESS"]
    environment |= {
        MARK: f"{state.config.name}/{node}",
        "RAY_START_HOOK": f"{__name__}.trim",
        # Ray's own workers step back behind everything else (nice 15); here they are what one waits for.
        "RAY_worker_niceness": "0",
        "RAY_agent_register_timeout_ms": str(PATIENCE_MS),
        "RAY_raylet_start_wait_time_s": str(PATIENCE_MS // 1000),
    }
    if state.config.redis:
        # How long a node waits for a head that died before it ends itself; as long as KubeRay's nodes do.
        environment["RAY_gcs_rpc_server_reconnect_timeout_s"] = "600"
        environment["RAY_REDIS_ADDRESS"] = state.redis
    return environment


def trim(params: Any, head: bool) -> None:
    """Ray calls it in `ray start` (RAY_START_HOOK): leaves out what nobody here uses and no option leaves out.

    As in `private_ray`, the agent runs in its minimal form, and the files that the raylet waits for, and dies after 15
    seconds of waiting, are laid out beforehand; not where the job API needs the whole agent.
    """
    from ray._private import utils

    params.ray_client_server_port = None
    params.no_monitor = True
    # Drivers read a job's own output; a monitor a node would send each line to all of them.
    params.include_log_monitor = False
    if head and params.include_dashboard:
        return
    utils.get_dashboard_dependency_error = lambda: ImportError("the dashboard is not wanted here")
    node_id = secrets.token_hex(28)
    params.env_vars = {**(params.env_vars or {}), "RAY_OVERRIDE_NODE_ID_FOR_TESTING": node_id}
    params.runtime_env_agent_port = free_port()
    ports = WITHOUT_AGENT | {"runtime_env_agent_port": params.runtime_env_agent_port}

    def lay_out() -> None:
        # Which session it is, the node learns from the head. A node that is started again finds its old folders.
        while True:
            for session in Path(params.temp_dir).glob("session_2*"):
                if not (session / f"runtime_env_agent_port_{node_id}").exists():
                    with contextlib.suppress(OSError):
                        lay_out_ports(session, node_id, ports)
            time.sleep(0.05)

    threading.Thread(target=lay_out, daemon=True).start()
