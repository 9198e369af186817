"""The Ray cluster that RAY_ADDRESS names, joined by this process."""

import os
import socket

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


def knock(address: str, timeout_s: float = 10.0) -> None:
    """Raise OSError where nothing listens at HOST:PORT: Ray itself waits for minutes. Any other form passes."""
    host, _, port = address.rpartition("://")[2].rpartition(":")
    if host and port.isdigit():
        socket.create_connection((host.strip("[]"), int(port)), timeout=timeout_s).close()
