"""A Ray cluster of several nodes on one machine, each its own `ray start`: to try what a cluster does, and its faults.

A node is a raylet with its agents and workers, below a folder of its own; in a network namespace of its own where that
can be had (see `local_network`), so that it can be killed, cut off and brought back without the others. Ray's token
authentication is on. What is started outlives the process that starts it: `find` takes it up again by its name.
"""

import contextlib
import json
import secrets
import shutil
from collections.abc import Sequence
from dataclasses import asdict, dataclass
from pathlib import Path

import psutil

from onmodel.core.config import load_whole
from onmodel.core.errors import NotFoundError, UserError
from onmodel.core.files import write_text
from onmodel.serving.local_network import Loopback, Namespaces, Network, can_isolate, kill_all
from onmodel.serving.local_node import HEAD, REDIS, LocalConfig, State, begin, wait_for
from onmodel.serving.private_ray import free_port, private_folder
from onmodel.serving.state import state_folder


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

    def __init__(self, state: State) -> None:
        self._state = state
        self.config = state.config
        self._network: Network = _network(state.config.name, state.isolated)

    @property
    def address(self) -> str:
        """HOST:PORT for RAY_ADDRESS, within the cluster."""
        return self._state.address

    @property
    def dashboard(self) -> str | None:
        """URL of the job API; reachable from this machine too."""
        return self._state.dashboard

    @property
    def isolated(self) -> bool:
        """Whether its nodes can be cut off."""
        return self._state.isolated

    @property
    def token_file(self) -> Path:
        """For RAY_AUTH_TOKEN_PATH."""
        return self._state.token_file

    def address_of(self, node: str) -> str:
        """IP address of a node. Raises NotFoundError for an unknown one."""
        return self._state.addresses[self._known(node)]

    def environment(self) -> dict[str, str]:
        """The environment of a command that uses the cluster."""
        return self._state.environment()

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
        wait_for(begin(self._state, self._network, node))

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
            wait_for(begin(self._state, self._network, REDIS))
        wait_for(begin(self._state, self._network, HEAD))
        # Most of a node's start is waiting, so they wait together.
        starting = [begin(self._state, self._network, node) for node in self.config.nodes[1:]]
        try:
            for node in starting:
                wait_for(node)
        finally:
            for node in starting:
                node.process.kill()


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
    state = State(
        config=config,
        folder=str(folder),
        addresses={},
        port=6379 if isolated else free_port(),
        dashboard_port=8265 if isolated else free_port(),
        redis_port=6380 if isolated else free_port(),
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


def _read(name: str) -> State | None:
    return load_whole(State, _file(name))


def _write(state: State) -> None:
    write_text(_file(state.config.name), state.model_dump_json())
