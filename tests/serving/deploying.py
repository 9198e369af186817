"""Deploys the services on the joined cluster, a proxy on every node, and waits until each answers: WHAT PORT ADDRESS…

WHAT: `deploy`, or `check`, which prints what Serve says of the applications.
"""

import contextlib
import logging
import sys
import time
from typing import Any

import ray
from ray import serve
from ray.serve.schema import ServeDeploySchema

from onmodel.core.errors import OnModelError
from onmodel.scoring.client import ScoringClient
from onmodel.serving.config import SERVICERS
from onmodel.serving.serve_config import DEFAULT_CONFIG, read_serve_config

PATIENCE_S = 400.0


def deploy(port: int, addresses: list[str]) -> None:
    """Scoring alone, two replicas; on return every proxy has answered."""
    from ray.serve.context import _get_global_client  # pyright: ignore[reportPrivateUsage]

    serve.start(
        proxy_location="EveryNode",
        http_options={"host": "127.0.0.1"},
        grpc_options={"port": port, "grpc_servicer_functions": list(SERVICERS), "enable_reflection": False},
    )
    config = read_serve_config(DEFAULT_CONFIG)
    scoring = next(app for app in config["applications"] if app["name"] == "scoring")
    scoring["deployments"][0] |= {"num_replicas": 2}
    client: Any = _get_global_client()
    client.deploy_apps(ServeDeploySchema.model_validate({"applications": [scoring]}))
    deadline = time.monotonic() + PATIENCE_S
    waiting = list(addresses)
    while waiting and time.monotonic() < deadline:
        with contextlib.suppress(OnModelError), ScoringClient(f"{waiting[0]}:{port}", timeout_s=10) as client:
            client.embed_texts(["a boy"])
            waiting.pop(0)
        time.sleep(0.5)
    print("waiting for " + ", ".join(waiting) if waiting else "all answer", flush=True)


def main() -> None:
    what, port, *addresses = sys.argv[1:]
    ray.init(log_to_driver=False, logging_level=logging.ERROR)
    if what == "deploy":
        deploy(int(port), addresses)
    else:
        print({name: app.status.value for name, app in serve.status().applications.items()}, flush=True)


if __name__ == "__main__":
    main()
