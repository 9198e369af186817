"""`onmodel serve`: services that outlive the command, their state and their end. Imports no Ray."""

import contextlib
import shutil
import socket
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from onmodel.common.convert import ModelInfo
from onmodel.core.errors import OnModelError, ServiceError, UserError
from onmodel.detection.client import DetectionClient
from onmodel.detection.config import DetectorConfig
from onmodel.scoring.client import ScoringClient
from onmodel.scoring.config import ScorerConfig
from onmodel.serving.config import APP_NAMES, StartOptions
from onmodel.serving.private_ray import free_port, private_folder
from onmodel.serving.process import HostProcess, command_detached, stop_tree
from onmodel.serving.serve_config import check_serve_config
from onmodel.serving.state import Running, forget, log_folder, recall, remember

PING_TIMEOUT_S = 10.0


def with_models(config: dict[str, Any], detector: DetectorConfig | None, scorer: ScorerConfig | None) -> dict[str, Any]:
    """A Serve config with other models in its deployments' `user_config`."""
    models: dict[str, dict[str, Any]] = {}
    if detector is not None:
        models["detection"] = {"detector": detector.model_dump(mode="json")}
    if scorer is not None:
        models["scoring"] = {"scorer": scorer.model_dump(mode="json")}
    apps = [
        {**app, "deployments": _deployments(app, models[app["name"]])} if app["name"] in models else app
        for app in config["applications"]
    ]
    return {**config, "applications": apps}


def _deployments(app: dict[str, Any], user_config: dict[str, Any]) -> list[dict[str, Any]]:
    # Each of our applications is one deployment, called as it is.
    listed = app.get("deployments") or [{"name": app["name"].capitalize()}]
    return [{**deployment, "user_config": user_config} for deployment in listed]


def start(
    config: dict[str, Any], *, host: str, port: int, detached: bool, metrics_port: int | None = None
) -> HostProcess:
    """Start a checked Serve config on this machine and wait until its applications answer.

    Raises UserError when a port is taken or `up` has run before, and what the applications die of.
    """
    running = recall()
    if running is not None:
        raise UserError(f"services already run at {running.address}; stop them with `onmodel serve down` first")
    _require_free(host, port, "--port")
    if metrics_port is not None:
        _require_free("127.0.0.1", metrics_port, "--metrics-port")
    http_port = int(config.get("http_options", {}).get("port", 8000))
    options = StartOptions(
        folder=str(private_folder()),
        host=host,
        grpc_port=port,
        # HTTP has no use here but Serve's own health page; another program on its port is no reason to stop.
        http_port=http_port if _is_free("127.0.0.1", http_port) else free_port(),
        metrics_port=metrics_port,
        request_timeout_s=config.get("grpc_options", {}).get("request_timeout_s") or 300.0,
        detached=detached,
    )
    process = HostProcess(options, log_folder() / "serve.log")
    try:
        process.command({"serve_config": _applications_alone(config)})
        remember(process.pid, f"{options.connect_host}:{port}", process.log, options.folder)
    except BaseException:
        process.stop()
        raise
    return process


def update(config: dict[str, Any], running: Running) -> None:
    """Give running services another checked Serve config and wait until it holds; no request fails meanwhile.

    A changed `user_config` (another model) is loaded while the former model answers; where anything else of an
    application changes, Serve replaces its replicas, and requests wait for the new ones.

    Raises:
        UserError: a model could not be loaded; the former one goes on answering.
        ServiceError: the services do not take the config.
    """
    command_detached(Path(running.folder), Path(running.log), {"serve_config": _applications_alone(config)})
    for name, app in status(running.address).items():
        if app.problem is not None:
            raise ServiceError(app.problem)
        if app.reload_error:
            raise UserError(f"{name} goes on with its former model: {app.reload_error}")


def _applications_alone(config: dict[str, Any]) -> dict[str, Any]:
    """Without what is fixed when Serve starts."""
    config = {**config, "http_options": {}, "grpc_options": {}}
    check_serve_config(config, "serve config")
    return config


def stop() -> Running | None:
    """End what `start` started, and nothing else; None when there is nothing."""
    running = recall()
    if running is not None:
        stop_tree(running.pid)
        shutil.rmtree(running.folder, ignore_errors=True)
        forget()
    return running


@dataclass(frozen=True)
class AppStatus:
    """One application's answer: its model, or why there is none."""

    model: ModelInfo | None
    problem: str | None
    reload_error: str = ""
    """Why the model asked for last is not the one that answers."""


def status(address: str) -> dict[str, AppStatus]:
    """Ask each application at `address` which model it runs. Raises UserError for a malformed address."""
    clients = {"detection": DetectionClient, "scoring": ScoringClient}
    found: dict[str, AppStatus] = {}
    for name in APP_NAMES:
        with clients[name](address, timeout_s=PING_TIMEOUT_S) as client:
            try:
                found[name] = AppStatus(client.model_info(), None, client.reload_error())
            except OnModelError as error:
                found[name] = AppStatus(None, str(error))
    return found


def _require_free(host: str, port: int, option: str) -> None:
    if not _is_free(host, port):
        raise UserError(f"{host}:{port} is in use by another program; choose another with {option}")


def _is_free(host: str, port: int) -> bool:
    with socket.socket() as probe, contextlib.suppress(OSError):
        probe.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
        probe.bind((host, port))
        return True
    return False
