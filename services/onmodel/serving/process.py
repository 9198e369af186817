"""Starting and ending the host process. Imports no Ray."""

import json
import os
import secrets
import shutil
import socket
import subprocess
import sys
from pathlib import Path
from typing import Any

import psutil

from onmodel.common.channel import MAX_MESSAGE_BYTES
from onmodel.common.trace import JOB_CONFIG
from onmodel.core import errors
from onmodel.core.errors import OnModelError, ServiceError
from onmodel.serving.config import CONTROL_SOCKET, StartOptions
from onmodel.serving.loopback import HOST_VARIABLE

STOP_TIMEOUT_S = 20.0


class HostProcess:
    """A running `onmodel.serving.host` and the pipe to it."""

    def __init__(self, options: StartOptions, log: Path) -> None:
        """Start the process and begin starting Ray; `command` waits for it."""
        self.options = options
        self.log = log
        log.parent.mkdir(parents=True, exist_ok=True)
        with log.open("wb") as stream:
            self._process = subprocess.Popen(
                [sys.executable, "-m", "onmodel.serving.host"],
                stdin=subprocess.PIPE,
                stdout=subprocess.PIPE,
                stderr=stream,
                env=_environment(options.host),
                # Ctrl-C on the terminal is for the verb, which then ends the host in order.
                start_new_session=True,
            )
        self._send({"start": options.model_dump()})
        self._started = False

    @property
    def pid(self) -> int:
        return self._process.pid

    def command(self, command: dict[str, Any]) -> None:
        """Send one command and wait until it is done. Raises the OnModelError that the host answers with."""
        self._send(command)
        if not self._started:
            self._receive()
            self._started = True
        self._receive()

    def _send(self, command: dict[str, Any]) -> None:
        assert self._process.stdin is not None
        try:
            self._process.stdin.write(json.dumps(command).encode() + b"\n")
            self._process.stdin.flush()
        except BrokenPipeError:
            raise self._died() from None

    def _receive(self) -> None:
        assert self._process.stdout is not None
        line = self._process.stdout.readline()
        if not line:
            raise self._died()
        _raise_error(json.loads(line), self.log)

    def _died(self) -> ServiceError:
        return ServiceError(f"the services' process ended before it was ready; its log is {self.log}")

    def wait(self) -> None:
        """Wait until the process ends by itself."""
        self._process.wait()

    def let_go(self) -> None:
        """Close the pipe; a detached host lives on."""
        assert self._process.stdin is not None and self._process.stdout is not None
        self._process.stdin.close()
        self._process.stdout.close()

    def stop(self) -> None:
        """End the host and all of Ray; returns when none of its processes is left."""
        stop_tree(self.pid)
        self._process.wait()
        self.let_go()
        # The host removes it itself, unless it had to be ended by force.
        shutil.rmtree(self.options.folder, ignore_errors=True)


def _raise_error(answer: dict[str, Any], log: Path) -> None:
    if "error" in answer:
        kind: type[OnModelError] = getattr(errors, answer["kind"], ServiceError)
        raise kind(f"{answer['error']} (log: {log})" if kind is ServiceError else answer["error"])


def command_detached(folder: Path, log: Path, command: dict[str, Any]) -> None:
    """Send one command to a detached host and wait until it is done. Raises the OnModelError that it answers with."""
    try:
        with socket.socket(socket.AF_UNIX) as connection:
            connection.connect(str(folder / CONTROL_SOCKET))
            with connection.makefile("rwb") as stream:
                stream.write(json.dumps(command).encode() + b"\n")
                stream.flush()
                line = stream.readline()
    except OSError as error:
        raise ServiceError(f"the running services take no commands ({error}); see their log {log}") from None
    if not line:
        raise ServiceError(f"the services' process ended before it was done; its log is {log}")
    _raise_error(json.loads(line), log)


def stop_tree(pid: int) -> None:
    """End a host process and every process below it: in order if it does so in time, by force if not."""
    try:
        host = psutil.Process(pid)
        tree = [host, *host.children(recursive=True)]
        host.terminate()
    except psutil.NoSuchProcess:
        return
    _, alive = psutil.wait_procs(tree, timeout=STOP_TIMEOUT_S)
    for process in alive:
        try:
            process.kill()
        except psutil.NoSuchProcess:
            continue
    psutil.wait_procs(alive, timeout=5.0)


def _environment(host: str) -> dict[str, str]:
    # In a job of a cluster, Ray's second variable would have the private one fetch code that only the other has.
    others = ("RAY_ADDRESS", JOB_CONFIG)
    environment = {key: value for key, value in os.environ.items() if key not in others}
    environment |= {
        HOST_VARIABLE: host,
        "RAY_SERVE_HTTP_PROXY_CALLBACK_IMPORT_PATH": "onmodel.serving.loopback.bind_grpc_host",
        # A private cluster gets a secret of its own, which no other user of this machine knows.
        "RAY_AUTH_MODE": "token",
        "RAY_AUTH_TOKEN": secrets.token_hex(32),
        # Serve kills and replaces a proxy that is not up in 5 seconds, which a busy machine never ends.
        "RAY_SERVE_PROXY_READY_CHECK_TIMEOUT_S": "60",
        "RAY_SERVE_PROXY_HEALTH_CHECK_TIMEOUT_S": "60",
        "RAY_SERVE_GRPC_MAX_MESSAGE_SIZE": str(MAX_MESSAGE_BYTES),
        "RAY_USAGE_STATS_ENABLED": "0",
    }
    return environment
