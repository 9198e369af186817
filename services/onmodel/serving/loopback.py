"""Runs inside Serve's proxy before it listens: keeps its gRPC port on one interface.

Serve has no setting for the interface of its gRPC port and takes all of them. The proxy calls the
function named by RAY_SERVE_HTTP_PROXY_CALLBACK_IMPORT_PATH as it starts; it is meant to give HTTP
middlewares, and gives none here.
"""

import os
from typing import Any

HOST_VARIABLE = "ONMODEL_GRPC_HOST"
"""Interface of the gRPC port; unset = 127.0.0.1."""


def bind_grpc_host() -> list[Any]:
    """Make the proxy listen for gRPC on HOST_VARIABLE's interface alone. Gives no HTTP middlewares."""
    from ray.serve._private import default_impl

    original = default_impl.add_grpc_address
    host = os.environ.get(HOST_VARIABLE, "127.0.0.1")

    def add_address(server: Any, address: str) -> None:
        original(server, f"{host}:{address.rsplit(':', 1)[1]}")

    default_impl.add_grpc_address = add_address
    return []
