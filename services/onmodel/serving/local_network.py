"""Where the nodes of a local cluster live: network namespaces on a bridge, or else this machine's loopback addresses.

As root (CAP_NET_ADMIN) and with Debian's iproute2 each node gets a network namespace, one end of a pair of virtual
Ethernet devices in it, the other on a bridge of the cluster: an address of its own, ports that collide with no one's,
and a cable that can be pulled. See ip-netns(8) and veth(4). All names begin with `om-CLUSTER`, so that what a crashed
cluster left is found by its name. Without root all nodes share the loopback interface, at 127.0.0.2, .3, …
"""

import contextlib
import json
import os
import shutil
import subprocess
import time
import zlib
from collections.abc import Sequence
from typing import Any, Protocol

import psutil

from onmodel.core.errors import ResourceError, UserError

MARK = "ONMODEL_LOCAL_NODE"
"""Environment variable of every process of a node: CLUSTER/NODE."""
FIRST_PART = "10.214"
"""Namespaces' addresses are FIRST_PART.N.1 up to .254, with an N that no interface of this machine has."""
_END_S = 10.0


class Network(Protocol):
    """The machines of one cluster."""

    isolated: bool
    """Whether a node can be cut off."""

    def create(self, nodes: Sequence[str]) -> dict[str, str]:
        """Make a place for each node; their addresses. Raises ResourceError where the kernel refuses."""
        ...

    def command(self, node: str, argv: Sequence[str]) -> list[str]:
        """`argv` as it is run on a node."""
        ...

    def processes(self, node: str) -> list[psutil.Process]:
        """What runs on a node."""
        ...

    def cut(self, node: str, *, off: bool) -> None:
        """Pull the node's cable, or plug it in again. Raises UserError where there is none."""
        ...

    def is_cut(self, node: str) -> bool:
        """Whether its cable is out."""
        ...

    def remove(self) -> None:
        """Take all places away, whoever made them; their processes must be gone."""
        ...

    def nodes(self) -> list[str]:
        """Names of the places that exist, also of a cluster that crashed."""
        ...


def can_isolate() -> bool:
    """Whether this process may make network namespaces: tried with one that is removed at once."""
    if os.geteuid() != 0 or shutil.which("ip") is None:
        return False
    probe = f"om-probe-{os.getpid()}"
    if subprocess.run(["ip", "netns", "add", probe], capture_output=True, check=False).returncode:
        return False
    subprocess.run(["ip", "netns", "del", probe], capture_output=True, check=False)
    return True


def kill_all(network: Network, node: str) -> int:
    """SIGKILL every process of a node, as a power cut would; how many there were. They are gone on return."""
    killed: set[int] = set()
    deadline = time.monotonic() + _END_S
    while (found := network.processes(node)) and time.monotonic() < deadline:
        for process in found:
            with contextlib.suppress(psutil.Error):
                process.kill()
                killed.add(process.pid)
        psutil.wait_procs(found, timeout=0.5)
    return len(killed)


def _ip(*arguments: str) -> str:
    done = subprocess.run(["ip", *arguments], capture_output=True, text=True, check=False)
    if done.returncode:
        reason = done.stderr.strip().splitlines()[-1:] or ["no reason given"]
        raise ResourceError(
            f"`ip {' '.join(arguments)}` failed ({reason[0]}); run as root where namespaces are allowed, or pass"
            " --no-isolate"
        )
    return done.stdout


class Namespaces:
    """A network namespace for each node."""

    isolated = True

    def __init__(self, cluster: str) -> None:
        self._prefix = f"om-{cluster}-"
        self._bridge = f"om-{cluster}"

    def create(self, nodes: Sequence[str]) -> dict[str, str]:
        net = f"{FIRST_PART}.{self._free_third()}"
        _ip("link", "add", self._bridge, "type", "bridge")
        _ip("addr", "add", f"{net}.254/24", "dev", self._bridge)
        _ip("link", "set", self._bridge, "up")
        addresses: dict[str, str] = {}
        for number, node in enumerate(nodes, 1):
            space, cable = self._prefix + node, self._cable(node)
            _ip("netns", "add", space)
            _ip("link", "add", cable, "type", "veth", "peer", "name", "eth0", "netns", space)
            _ip("link", "set", cable, "master", self._bridge, "up")
            _ip("-n", space, "addr", "add", f"{net}.{number}/24", "dev", "eth0")
            _ip("-n", space, "link", "set", "lo", "up")
            _ip("-n", space, "link", "set", "eth0", "up")
            # Leads nowhere: Ray finds its own address by the route to a public one, and nothing is sent.
            _ip("-n", space, "route", "add", "default", "via", f"{net}.254")
            addresses[node] = f"{net}.{number}"
        return addresses

    def _free_third(self) -> int:
        links: list[dict[str, Any]] = json.loads(_ip("-j", "-4", "addr"))
        taken = {address["local"].rpartition(".")[0] for link in links for address in link["addr_info"]}
        start = zlib.crc32(self._bridge.encode())
        for step in range(256):
            if f"{FIRST_PART}.{(start + step) % 256}" not in taken:
                return (start + step) % 256
        raise ResourceError(f"all of {FIRST_PART}.0.0/16 is taken by this machine's interfaces; remove some of them")

    def command(self, node: str, argv: Sequence[str]) -> list[str]:
        return ["ip", "netns", "exec", self._prefix + node, *argv]

    def processes(self, node: str) -> list[psutil.Process]:
        done = subprocess.run(["ip", "netns", "pids", self._prefix + node], capture_output=True, text=True, check=False)
        return _living(int(pid) for pid in done.stdout.split())

    def cut(self, node: str, *, off: bool) -> None:
        # The bridge's end: the node keeps address and routes and hears nothing more, as with a pulled cable.
        _ip("link", "set", self._cable(node), "down" if off else "up")

    def is_cut(self, node: str) -> bool:
        links: list[dict[str, Any]] = json.loads(_ip("-j", "link", "show", "dev", self._cable(node)))
        return "UP" not in links[0]["flags"]

    def remove(self) -> None:
        for node in self.nodes():
            _ip("netns", "del", self._prefix + node)
        names = [link["ifname"] for link in json.loads(_ip("-j", "link"))]
        # A namespace takes its end of the cable along some time after it was removed, and the other end with it.
        for name in names:
            if name == self._bridge or name.startswith(self._prefix):
                with contextlib.suppress(ResourceError):
                    _ip("link", "del", name)

    def nodes(self) -> list[str]:
        names = [line.split()[0] for line in _ip("netns", "list").splitlines() if line.strip()]
        return [name.removeprefix(self._prefix) for name in names if name.startswith(self._prefix)]

    def _cable(self, node: str) -> str:
        """At most 15 characters, the kernel's limit."""
        return f"{self._prefix}{node[:1]}{''.join(c for c in node if c.isdigit())}"


class Loopback:
    """All nodes on this machine's loopback interface."""

    isolated = False

    def __init__(self, cluster: str) -> None:
        self._cluster = cluster

    def create(self, nodes: Sequence[str]) -> dict[str, str]:
        # Not .1, for which Ray puts the machine's address in its network.
        return {node: f"127.0.0.{number}" for number, node in enumerate(nodes, 2)}

    def command(self, node: str, argv: Sequence[str]) -> list[str]:
        return ["env", f"{MARK}={self._cluster}/{node}", *argv]

    def processes(self, node: str) -> list[psutil.Process]:
        return self._marked(f"{self._cluster}/{node}")

    def _marked(self, mark: str) -> list[psutil.Process]:
        found: set[psutil.Process] = set()
        for process in psutil.process_iter():
            # Ray's workers write their titles over their environment; they are below a raylet that has it.
            with contextlib.suppress(psutil.Error):
                if process.environ().get(MARK) == mark:
                    found |= {process, *process.children(recursive=True)}
        return _living(process.pid for process in found)

    def cut(self, node: str, *, off: bool) -> None:
        raise UserError(
            f"{node} shares this machine's loopback interface and cannot be cut off; start the cluster as root, with"
            " Debian's iproute2, for namespaces of its own"
        )

    def is_cut(self, node: str) -> bool:
        return False

    def remove(self) -> None:
        return

    def nodes(self) -> list[str]:
        found: set[str] = set()
        for process in psutil.process_iter():
            with contextlib.suppress(psutil.Error):
                cluster, _, node = process.environ().get(MARK, "").partition("/")
                if cluster == self._cluster:
                    found.add(node)
        return sorted(found)


def _living(pids: Any) -> list[psutil.Process]:
    living: list[psutil.Process] = []
    for pid in pids:
        with contextlib.suppress(psutil.Error):
            process = psutil.Process(pid)
            if process.status() != psutil.STATUS_ZOMBIE:
                living.append(process)
    return living
