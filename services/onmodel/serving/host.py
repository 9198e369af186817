"""The process that holds a private Ray with Serve: `python -m onmodel.serving.host`, started by serving.process.

It reads one JSON object a line from standard input and answers each with one on standard output:

    {"start": StartOptions}            Ray, Serve and the gRPC proxy       {"ok": true}
    {"applications": [LocalApp, …]}    deploy built-in applications        {"ok": true}
    {"serve_config": {…}}              deploy a Serve config               {"ok": true}

A failure is answered with {"error": sentence, "kind": exception's name}. It ends when standard input does or
when its parent is gone (unless detached), or on SIGTERM, and takes all of Ray with it. A detached one takes the last
of these commands also from later processes of the same user, one a connection, through a socket in its folder. A
process of its own keeps Ray's threads, signal handlers and output out of whoever needs an answer.
"""

import contextlib
import json
import os
import re
import shutil
import signal
import socket
import sys
import threading
import time
from collections.abc import Iterator
from pathlib import Path
from typing import Any

from onmodel.core.errors import OnModelError, ServiceError, first_line
from onmodel.serving.config import CONTROL_SOCKET, SERVICERS, LocalApp, StartOptions
from onmodel.serving.private_ray import end_private_ray, start_private_ray

START_TIMEOUT_S = 600.0
READY_TIMEOUT_S = 120.0


def main() -> None:
    """Serve the commands on standard input until it ends."""
    # Whatever Ray prints goes to the log (standard error); answers alone go to the real standard output.
    answers = os.fdopen(os.dup(1), "w", encoding="utf-8")
    os.dup2(2, 1)
    _take_signals()
    host = _Host()
    try:
        for command in _commands(host):
            answer = _answer(host, command)
            with contextlib.suppress(BrokenPipeError):
                answers.write(json.dumps(answer) + "\n")
                answers.flush()
        if host.detached:
            _answer_on_socket(host)
    finally:
        # A second signal must not stop the clearing away.
        signal.signal(signal.SIGTERM, signal.SIG_IGN)
        host.stop()


def _take_signals() -> None:
    signal.signal(signal.SIGTERM, lambda *_: sys.exit(0))
    signal.signal(signal.SIGINT, signal.SIG_IGN)


def _commands(host: "_Host") -> Iterator[dict[str, Any]]:
    """Lines of standard input. A thread watches for its end, so that a command under way is broken off."""
    lines: list[str] = []
    arrived = threading.Condition()

    def read() -> None:
        for line in sys.stdin:
            with arrived:
                lines.append(line)
                arrived.notify()
        with arrived:
            lines.append("")
            arrived.notify()
        if not host.detached:
            os.kill(os.getpid(), signal.SIGTERM)

    def watch(parent: int) -> None:
        # Standard input does not end while some fork of the parent still holds its other side.
        while host.detached or os.getppid() == parent:
            time.sleep(1.0)
        os.kill(os.getpid(), signal.SIGTERM)

    threading.Thread(target=read, daemon=True).start()
    threading.Thread(target=watch, args=(os.getppid(),), daemon=True).start()
    while True:
        with arrived:
            arrived.wait_for(lambda: bool(lines))
            line = lines.pop(0)
        if not line:
            return
        yield json.loads(line)


def _answer_on_socket(host: "_Host") -> None:
    """Take commands from whoever may open the socket: its folder is its user's alone."""
    with socket.socket(socket.AF_UNIX) as listener:
        listener.bind(str(host.folder / CONTROL_SOCKET))
        listener.listen()
        while True:
            connection, _ = listener.accept()
            with connection, connection.makefile("rwb") as stream, contextlib.suppress(OSError, ValueError):
                answer = _answer(host, json.loads(stream.readline()))
                stream.write(json.dumps(answer).encode() + b"\n")


def _answer(host: "_Host", command: dict[str, Any]) -> dict[str, Any]:
    try:
        if "start" in command:
            host.start(StartOptions.model_validate(command["start"]))
        elif "applications" in command:
            host.deploy([LocalApp.model_validate(app) for app in command["applications"]])
        else:
            host.deploy_config(command["serve_config"])
    except OnModelError as error:
        return {"error": str(error), "kind": type(error).__name__}
    except Exception as error:
        import traceback

        traceback.print_exc()
        return {"error": f"the services could not be started: {first_line(error)}", "kind": "ServiceError"}
    return {"ok": True}


class _Host:
    detached = False
    _options: StartOptions | None = None

    @property
    def folder(self) -> Path:
        assert self._options is not None
        return Path(self._options.folder)

    def start(self, options: StartOptions) -> None:
        self._options = options
        from ray import serve
        from ray.exceptions import RayError

        start_private_ray(
            Path(options.folder),
            num_cpus=options.num_cpus or max(2, os.cpu_count() or 1),
            object_store_bytes=options.object_store_bytes,
            metrics_port=options.metrics_port,
        )
        # Ray puts handlers of its own in place.
        _take_signals()
        # It waits a minute for the proxy; ours goes on until the proxy routes (see _wait_until_routed).
        with contextlib.suppress(RayError, TimeoutError):
            serve.start(
                proxy_location="HeadOnly",
                http_options={"host": "127.0.0.1", "port": options.http_port},
                grpc_options={
                    "port": options.grpc_port,
                    "grpc_servicer_functions": list(SERVICERS),
                    "request_timeout_s": options.request_timeout_s,
                    "enable_reflection": False,
                },
            )

    def deploy(self, apps: list[LocalApp]) -> None:
        from ray import serve

        # Without a route prefix the proxy does not route gRPC to an application either.
        targets = [serve.RunTarget(_application(app), name=app.name, route_prefix=f"/{app.name}") for app in apps]
        try:
            serve.run_many(targets)
        except RuntimeError as error:
            raise _deploy_error([app.name for app in apps]) or error from None
        self._wait_until_routed([app.name for app in apps])

    def deploy_config(self, config: dict[str, Any]) -> None:
        from ray.serve.context import _get_global_client  # pyright: ignore[reportPrivateUsage]
        from ray.serve.schema import ServeDeploySchema

        names = [app["name"] for app in config["applications"]]
        client: Any = _get_global_client()
        client.deploy_apps(ServeDeploySchema.model_validate(config))
        self._wait_until_running(names)
        self._wait_until_routed(names)
        assert self._options is not None
        # Only now: who is killed while it starts services leaves none behind.
        self.detached = self._options.detached

    def _wait_until_running(self, names: list[str]) -> None:
        # Serve's own way of waiting gives up after 60 seconds, which a large model can take to load.
        from ray import serve
        from ray.serve.schema import ApplicationStatus

        deadline = time.monotonic() + START_TIMEOUT_S
        while time.monotonic() < deadline:
            found = serve.status().applications
            states = {found[name].status if name in found else None for name in names}
            if states == {ApplicationStatus.RUNNING}:
                return
            if ApplicationStatus.DEPLOY_FAILED in states:
                raise _deploy_error(names) or ServiceError("the services could not be started; see their log")
            time.sleep(0.1)
        raise _deploy_error(names) or ServiceError(f"the services are not running after {START_TIMEOUT_S:g} s")

    def _wait_until_routed(self, names: list[str]) -> None:
        # The proxy learns of an application a moment after Serve calls it ready.
        import grpc
        from ray.serve.generated import serve_pb2, serve_pb2_grpc

        messages: Any = serve_pb2
        assert self._options is not None
        deadline = time.monotonic() + READY_TIMEOUT_S
        with grpc.insecure_channel(f"{self._options.connect_host}:{self._options.grpc_port}") as channel:
            stub: Any = serve_pb2_grpc.RayServeAPIServiceStub(channel)
            while True:
                with contextlib.suppress(grpc.RpcError):
                    request: Any = messages.ListApplicationsRequest()
                    reply = stub.ListApplications(request, timeout=5)
                    if set(names) <= set(reply.application_names):
                        return
                if time.monotonic() > deadline:
                    raise ServiceError("the gRPC proxy did not take up the applications; see its log")
                time.sleep(0.05)

    def stop(self) -> None:
        if "ray" in sys.modules:
            # Ends Serve with it: nothing in a private cluster needs a graceful end.
            end_private_ray(0)
        if self._options is not None:
            shutil.rmtree(self._options.folder, ignore_errors=True)


def _application(app: LocalApp) -> Any:
    if app.name == "detection":
        from onmodel.detection.app import Detection, DetectionArgs

        deployment, args = Detection, DetectionArgs.model_validate(app.args)
    else:
        from onmodel.scoring.app import Scoring, ScoringArgs

        deployment, args = Scoring, ScoringArgs.model_validate(app.args)
    return deployment.options(num_replicas=app.replicas, user_config=app.user_config).bind(args)


def _deploy_error(names: list[str]) -> OnModelError | None:
    """The sentence that a replica died with, found in the traceback that Serve keeps of it."""
    from ray import serve

    import onmodel.core.errors as errors

    for name, app in serve.status().applications.items():
        if name not in names:
            continue
        texts = [app.message, *(deployment.message for deployment in app.deployments.values())]
        for text in texts:
            found = re.search(r"onmodel\.core\.errors\.(\w+): (.+)", text or "")
            if found:
                return getattr(errors, found[1], ServiceError)(found[2])
    return None


if __name__ == "__main__":
    main()
