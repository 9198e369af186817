"""A Ray cluster of several nodes on one machine, each its own `ray start`: to try what a cluster does, and its faults.

A node is a raylet with its agents and workers, below a folder of its own; in a network namespace of its own where that
can be had (see `local_network`), so that it can be killed, cut off and brought back without the others. Ray's token
authentication is on. What is started outlives the process that starts it: `find` takes it up again by its name.
"""

import contextlib
import json
import os
import re
import secrets
import shutil
import subprocess
import sys
import threading
import time
from collections.abc import Sequence
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

import psutil
from pydantic import Field, field_validator

from onmodel.core.config import Config, load_whole
from onmodel.core.errors import NotFoundError, ResourceError, UserError
from onmodel.core.files import write_text
from onmodel.serving.local_network import MARK, Loopback, Namespaces, Network, can_isolate, kill_all
from onmodel.serving.private_ray import PATIENCE_MS, free_port, lay_out_ports, private_folder
from onmodel.serving.state import state_folder

HEAD = "head"
REDIS = "redis"
_REDIS_PORT = 6379
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


class _State(Config):
    """What is remembered of a cluster between commands."""

    config: LocalConfig
    folder: str
    addresses: dict[str, str]
    port: int
    """The GCS's, at the head's address."""
    dashboard_port: int
    isolated: bool
    ready: bool
    """False while it is being started."""


@dataclass(frozen=True)
class NodeStatus:
    """One node now."""

    name: str
    address: str
    state: str
    """`up`, `cut off`, or `down`: its processes are gone."""
    processes: int
    memory_mb: float
    """Resident, pages shared by processes counted once for each."""


class LocalCluster:
    """A started cluster; see `up` and `find`."""

    def __init__(self, state: _State) -> None:
        self._state = state
        self.config = state.config
        self._network: Network = _network(state.config.name, state.isolated)

    @property
    def address(self) -> str:
        """HOST:PORT for RAY_ADDRESS, within the cluster."""
        return f"{self._state.addresses[HEAD]}:{self._state.port}"

    @property
    def dashboard(self) -> str | None:
        """URL of the job API; reachable from this machine too."""
        if not self.config.dashboard:
            return None
        return f"http://{self._state.addresses[HEAD]}:{self._state.dashboard_port}"

    @property
    def isolated(self) -> bool:
        """Whether its nodes can be cut off."""
        return self._state.isolated

    @property
    def token_file(self) -> Path:
        """For RAY_AUTH_TOKEN_PATH."""
        return Path(self._state.folder) / "token"

    def address_of(self, node: str) -> str:
        """IP address of a node. Raises NotFoundError for an unknown one."""
        return self._state.addresses[self._known(node)]

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

    def command(self, argv: Sequence[str], node: str = HEAD) -> list[str]:
        """`argv` as it is run on a node, with `environment()`; it dies with the node."""
        return self._network.command(self._known(node), argv)

    def status(self) -> list[NodeStatus]:
        """Every node, the head first."""
        found: list[NodeStatus] = []
        for node, address in self._state.addresses.items():
            running = self._network.processes(node)
            memory = 0
            for process in running:
                with contextlib.suppress(psutil.Error):
                    memory += process.memory_info().rss
            alive = any(_is_core(process) for process in running)
            state = "down" if not alive else "cut off" if self._network.is_cut(node) else "up"
            found.append(NodeStatus(node, address, state, len(running), memory / 2**20))
        return found

    def processes(self, node: str) -> list[psutil.Process]:
        """What runs on a node."""
        return self._network.processes(self._known(node))

    def kill(self, node: str) -> int:
        """End a node as a power cut would: every process at once, nothing in order. How many there were."""
        return kill_all(self._network, self._known(node))

    def start(self, node: str) -> None:
        """Start a node that was killed, at its old address.

        Raises:
            UserError: it runs.
            ResourceError: it does not start.
        """
        if self.processes(node):
            raise UserError(f"{node} has running processes; kill it first")
        _wait(self._begin(node))

    def cut(self, node: str) -> None:
        """Pull the node's network cable: its processes live and hear nobody. Raises UserError without namespaces."""
        self._network.cut(self._known(node), off=True)

    def heal(self, node: str) -> None:
        """Plug the cable in again."""
        self._network.cut(self._known(node), off=False)

    def down(self) -> None:
        """End every process of the cluster and remove its network, folder and note."""
        for node in {*self._state.addresses, *self._network.nodes()}:
            kill_all(self._network, node)
        self._network.remove()
        shutil.rmtree(self._state.folder, ignore_errors=True)
        _file(self.config.name).unlink(missing_ok=True)

    def _known(self, node: str) -> str:
        if node not in self._state.addresses:
            raise NotFoundError(f"{node}: no such node; nodes here: {', '.join(self._state.addresses)}")
        return node

    def bring_up(self) -> None:
        """Start every node; `up` calls it. Raises ResourceError where one does not come up."""
        if self.config.redis:
            _wait(self._begin(REDIS))
        _wait(self._begin(HEAD))
        # Most of a node's start is waiting, so they wait together.
        starting = [self._begin(node) for node in self.config.nodes[1:]]
        try:
            for node in starting:
                _wait(node)
        finally:
            for node in starting:
                node.process.kill()

    def _begin(self, node: str) -> "_Starting":
        folder = Path(self._state.folder) / node
        folder.mkdir(exist_ok=True)
        argv = self._redis(folder) if node == REDIS else [*self._cores(node), *self._ray(node, folder)]
        log = folder.with_suffix(".log")
        with log.open("ab") as stream:
            process = subprocess.Popen(
                self._network.command(node, argv),
                env=self._node_environment(node),
                stdin=subprocess.DEVNULL,
                stdout=stream,
                stderr=stream,
                start_new_session=True,
            )
        return _Starting(node, process, log)

    def _cores(self, node: str) -> list[str]:
        """Keeps a worker to as many of this machine's cores as it has CPUs, so that its threads are as many too."""
        cores, cpus = sorted(os.sched_getaffinity(0)), self.config.cpus
        if node == HEAD or cpus >= len(cores) or shutil.which("taskset") is None:
            return []
        start = (self.config.nodes.index(node) - 1) * cpus
        own = sorted(cores[(start + step) % len(cores)] for step in range(cpus))
        return ["taskset", "-c", ",".join(map(str, own))]

    def _redis(self, folder: Path) -> list[str]:
        program = shutil.which("redis-server")
        if program is None:
            raise ResourceError("redis-server is not installed; apt-get install redis-server, or leave --redis out")
        settings = folder / "redis.conf"
        write_text(
            settings,
            f"bind {self._state.addresses[REDIS]}\nport {self._redis_port}\nrequirepass {self._password}\n"
            f'daemonize yes\nset-proc-title no\nsave ""\nappendonly no\ndir {folder}\nlogfile {folder / "redis.log"}\n',
        )
        return [program, str(settings)]

    @property
    def _redis_port(self) -> int:
        return _REDIS_PORT if self.isolated else self._state.port + 1

    @property
    def _password(self) -> str:
        return (Path(self._state.folder) / "password").read_text(encoding="utf-8")

    def _ray(self, node: str, folder: Path) -> list[str]:
        config, address = self.config, self._state.addresses[node]
        argv = [sys.executable, "-m", "ray.scripts.scripts", "start", "--disable-usage-stats", "--log-color=false"]
        argv += [f"--node-ip-address={address}", f"--temp-dir={folder}"]
        argv += [f"--object-store-memory={config.object_store_mb * 2**20}"]
        if not self.isolated:
            # The one fixed port of a node, which on one interface the first would take from the others.
            argv += [f"--dashboard-agent-listen-port={free_port()}"]
        if node != HEAD:
            return [*argv, f"--address={self.address}", f"--num-cpus={config.cpus}"]
        argv += ["--head", f"--port={self._state.port}", f"--num-cpus={config.head_cpus}"]
        argv += [f"--include-dashboard={str(config.dashboard).lower()}"]
        if config.dashboard:
            argv += [f"--dashboard-host={address}", f"--dashboard-port={self._state.dashboard_port}"]
        return [*argv, f"--redis-password={self._password}"] if config.redis else argv

    def _node_environment(self, node: str) -> dict[str, str]:
        environment = self.environment()
        del environment["RAY_ADDRESS"]
        environment |= {
            MARK: f"{self.config.name}/{node}",
            "RAY_START_HOOK": f"{__name__}.trim",
            # Ray's own workers step back behind everything else (nice 15); here they are what one waits for.
            "RAY_worker_niceness": "0",
            "RAY_agent_register_timeout_ms": str(PATIENCE_MS),
            "RAY_raylet_start_wait_time_s": str(PATIENCE_MS // 1000),
        }
        if self.config.redis:
            # How long a node waits for a head that died before it ends itself; as long as KubeRay's nodes do.
            environment["RAY_gcs_rpc_server_reconnect_timeout_s"] = "600"
            environment["RAY_REDIS_ADDRESS"] = f"{self._state.addresses[REDIS]}:{self._redis_port}"
        return environment


@dataclass(frozen=True)
class _Starting:
    node: str
    process: subprocess.Popen[bytes]
    log: Path


def _wait(starting: _Starting) -> None:
    try:
        code = starting.process.wait(_START_S)
    except subprocess.TimeoutExpired:
        starting.process.kill()
        code = -1
    if code:
        lines = starting.log.read_text(encoding="utf-8", errors="replace").strip().splitlines()
        reason = f"not up after {_START_S:g} s" if code == -1 else (lines or [f"exit code {code}"])[-1].strip()
        raise ResourceError(f"{starting.node} did not start ({reason}); close other programs and try again")


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

    def lay_out() -> None:
        # Which session it is, the node learns from the head. A node that is started again finds its old folders.
        while True:
            for session in Path(params.temp_dir).glob("session_2*"):
                if not (session / f"runtime_env_agent_port_{node_id}").exists():
                    with contextlib.suppress(OSError):
                        lay_out_ports(session, node_id, params.runtime_env_agent_port)
            time.sleep(0.05)

    threading.Thread(target=lay_out, daemon=True).start()


def up(config: LocalConfig) -> LocalCluster:
    """Start a cluster; what a crashed one of that name left is removed first. Nothing is left where it fails.

    Raises:
        UserError: one of that name runs, or namespaces are asked for and cannot be had.
        ResourceError: a node does not start.
    """
    running = _read(config.name)
    if running is not None and running.ready and LocalCluster(running).status()[0].state != "down":
        raise UserError(f"a local cluster `{config.name}` is up; take it down first, or give another --name")
    remove(config.name)
    able = can_isolate()
    if config.isolate and not able:
        raise UserError("network namespaces need root and Debian's iproute2; run as root, or leave --isolate out")
    isolated = able if config.isolate is None else config.isolate
    network = _network(config.name, isolated)
    folder = private_folder()
    for name in ("token", "password"):
        secret = folder / name
        secret.touch(mode=0o600)
        secret.write_text(secrets.token_hex(32), encoding="utf-8")
    names = (*config.nodes, *((REDIS,) if config.redis else ()))
    state = _State(
        config=config,
        folder=str(folder),
        addresses={},
        port=6379 if isolated else free_port(),
        dashboard_port=8265 if isolated else free_port(),
        isolated=isolated,
        ready=False,
    )
    try:
        _write(state)
        state = state.model_copy(update={"addresses": network.create(names)})
        _write(state)
        LocalCluster(state).bring_up()
        state = state.model_copy(update={"ready": True})
        _write(state)
    except BaseException:
        LocalCluster(state).down()
        raise
    return LocalCluster(state)


def find(name: str) -> LocalCluster:
    """A cluster that was started. Raises NotFoundError where there is none of that name."""
    state = _read(name)
    if state is None or not state.ready:
        raise NotFoundError(f"no local cluster `{name}` is up; start it, or give its --name")
    return LocalCluster(state)


def remove(name: str) -> bool:
    """Take a cluster down, whole or crashed; whether anything was there."""
    state = _read(name)
    if state is not None:
        LocalCluster(state).down()
        return True
    # Its note is gone (another user's home, a removed state folder): namespaces are found by their names.
    found = False
    for isolated in (True, False) if can_isolate() else (False,):
        network = _network(name, isolated)
        for node in network.nodes():
            found = True
            kill_all(network, node)
        network.remove()
    return found


def as_json(cluster: LocalCluster) -> str:
    """The cluster for a machine, without its secrets."""
    return json.dumps(
        {
            "name": cluster.config.name,
            "address": cluster.address,
            "dashboard": cluster.dashboard,
            "isolated": cluster.isolated,
            "token_file": str(cluster.token_file),
            "nodes": [asdict(node) for node in cluster.status()],
        }
    )


def _is_core(process: psutil.Process) -> bool:
    """Whether a node stands and falls with it."""
    try:
        return process.name() in ("raylet", "redis-server")
    except psutil.Error:
        return False


def _network(name: str, isolated: bool) -> Network:
    return Namespaces(name) if isolated else Loopback(name)


def _file(name: str) -> Path:
    return state_folder() / "clusters" / f"{name}.json"


def _read(name: str) -> _State | None:
    return load_whole(_State, _file(name))


def _write(state: _State) -> None:
    write_text(_file(state.config.name), state.model_dump_json())
