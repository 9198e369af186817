"""The Ray cluster that RAY_ADDRESS names, joined by this process, and what its machines have."""

import os
import socket
import time

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


def cpus_of_machines() -> list[int]:
    """CPUs of each living machine of the joined cluster that has some, the most first."""
    import ray

    found = [int(node["Resources"].get("CPU", 0)) for node in ray.nodes() if node["Alive"]]
    return sorted((cpus for cpus in found if cpus), reverse=True)


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
                socket.create_connection((node["NodeManagerAddress"], node["NodeManagerPort"]), timeout=5).close()
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
