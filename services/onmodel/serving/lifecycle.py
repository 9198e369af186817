"""`onmodel serve`: services that outlive the command, their state and their end. Imports no Ray."""

import contextlib
import shutil
import socket
from dataclasses import dataclass
from typing import Any

from onmodel.common.convert import ModelInfo
from onmodel.core.errors import OnModelError, UserError
from onmodel.detection.client import DetectionClient
from onmodel.detection.config import DetectorConfig
from onmodel.scoring.client import ScoringClient
from onmodel.scoring.config import ScorerConfig
from onmodel.serving.config import APP_NAMES, StartOptions
from onmodel.serving.private_ray import free_port, private_folder
from onmodel.serving.process import HostProcess, stop_tree
from onmodel.serving.serve_config import check_serve_config
from onmodel.serving.state import Running, forget, log_folder, recall, remember

PING_TIMEOUT_S = 10.0


def with_models(config: dict[str, Any], detector: DetectorConfig | None, scorer: ScorerConfig | None) -> dict[str, Any]:
    """A Serve config with other models in its applications' `args`."""
    replaced: dict[str, dict[str, Any]] = {}
    if detector is not None:
        replaced["detection"] = {"detector": detector.model_dump(mode="json")}
    if scorer is not None:
        replaced["scoring"] = {"scorer": scorer.model_dump(mode="json")}
    apps = [
        {**app, "args": {**(app.get("args") or {}), **replaced.get(app["name"], {})}} for app in config["applications"]
    ]
    return {**config, "applications": apps}


def start(config: dict[str, Any], *, host: str, port: int, detached: bool) -> HostProcess:
    """Start a checked Serve config on this machine and wait until its applications answer.

    Raises UserError when the port is taken or `up` has run before, and what the applications die of.
    """
    running = recall()
    if running is not None:
        raise UserError(f"services already run at {running.address}; stop them with `onmodel serve down` first")
    _require_free(host, port)
    http_port = int(config.get("http_options", {}).get("port", 8000))
    options = StartOptions(
        folder=str(private_folder()),
        host=host,
        grpc_port=port,
        # HTTP has no use here but Serve's own health page; another program on its port is no reason to stop.
        http_port=http_port if _is_free("127.0.0.1", http_port) else free_port(),
        request_timeout_s=config.get("grpc_options", {}).get("request_timeout_s") or 300.0,
        detached=detached,
    )
    config = {**config, "http_options": {}, "grpc_options": {}}
    check_serve_config(config, "serve config")
    process = HostProcess(options, log_folder() / "serve.log")
    try:
        process.command({"serve_config": config})
        remember(process.pid, f"{options.connect_host}:{port}", process.log, options.folder)
    except BaseException:
        process.stop()
        raise
    return process


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


def status(address: str) -> dict[str, AppStatus]:
    """Ask each application at `address` which model it runs. Raises UserError for a malformed address."""
    clients = {"detection": DetectionClient, "scoring": ScoringClient}
    found: dict[str, AppStatus] = {}
    for name in APP_NAMES:
        with clients[name](address, timeout_s=PING_TIMEOUT_S) as client:
            try:
                found[name] = AppStatus(client.model_info(), None)
            except OnModelError as error:
                found[name] = AppStatus(None, str(error))
    return found


def _require_free(host: str, port: int) -> None:
    if not _is_free(host, port):
        raise UserError(f"{host}:{port} is in use by another program; choose another with --port")


def _is_free(host: str, port: int) -> bool:
    with socket.socket() as probe, contextlib.suppress(OSError):
        probe.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
        probe.bind((host, port))
        return True
    return False
