"""The Ray cluster that RAY_ADDRESS names, joined by this process, and what its machines have."""

import logging
import os
import socket
import time
from collections.abc import Generator
from contextlib import contextmanager

from onmodel.core.errors import ServiceError


def join_cluster() -> None:
    """Join the cluster that RAY_ADDRESS names, unless this process is part of one already.

    Raises:
        ServiceError: no cluster answers there.
    """
    import ray

    if ray.is_initialized():
        return
    address = os.environ.get("RAY_ADDRESS", "")
    try:
        knock(address)
        ray.init(log_to_driver=False)
    except (OSError, RuntimeError, ValueError) as error:
        raise ServiceError(
            f"RAY_ADDRESS={address}: no Ray cluster answers there ({type(error).__name__}); start it, or unset it to"
            " work on this machine alone"
        ) from None


@contextmanager
def joined_or_private(object_store_bytes: int) -> Generator[None]:
    """The cluster that this process is part of or RAY_ADDRESS names, else a Ray of our own for as long as it takes.

    Raises as `join_cluster`.
    """
    import ray

    if ray.is_initialized() or os.environ.get("RAY_ADDRESS"):
        join_cluster()
        yield
        return
    from onmodel.serving.private_ray import private_ray

    logging.getLogger("ray").setLevel(logging.ERROR)
    with private_ray(object_store_bytes=object_store_bytes):
        yield


def workers_that_fit(cpus: int) -> tuple[int, int]:
    """How many workers of `cpus` CPUs the joined cluster's living machines hold, and the CPUs that each then gets.

    A worker has to fit on one machine: where none is as large, it gets what the largest has.
    """
    import ray

    machines = [int(node["Resources"].get("CPU", 0)) for node in ray.nodes() if node["Alive"]]
    each = min(cpus, max(machines, default=0)) or 1
    return max(1, sum(machine // each for machine in machines)), each


def wait_for_the_dead(patience_s: float = 120.0) -> None:
    """Wait until every machine that the joined cluster counts answers, `patience_s` at most.

    A connection to a machine that died breaks at once, and Ray counts it for another quarter of a minute, for a whole
    one where it is cut off (`health_check_*` in Ray's configuration); what is asked of it until then is waited for.
    """
    import ray

    deadline = time.monotonic() + patience_s
    while time.monotonic() < deadline:
        silent = False
        for node in (node for node in ray.nodes() if node["Alive"]):
            try:
                knock(f"{node['NodeManagerAddress']}:{node['NodeManagerPort']}", timeout_s=5)
            except OSError:
                silent = True
        if not silent:
            return
        time.sleep(1.0)


def knock(address: str, timeout_s: float = 10.0) -> None:
    """Raise OSError where nothing listens at HOST:PORT: Ray itself waits for minutes. Any other form passes."""
    host, _, port = address.rpartition("://")[2].rpartition(":")
    if host and port.isdigit():
        socket.create_connection((host.strip("[]"), int(port)), timeout=timeout_s).close()
