"""Jobs over Ray's job API, which does the work: it queues, starts, logs and stops. Knows nothing of Serve."""

import asyncio
import contextlib
import logging
import os
import queue
import socket
import tempfile
import threading
import time
from collections.abc import AsyncGenerator, Callable, Generator, Iterator
from pathlib import Path
from typing import Any, TypeVar
from urllib.parse import urlsplit

from anyio.from_thread import start_blocking_portal

from onmodel.core.errors import ConflictError, InternalError, NotFoundError, OnModelError, ServiceError, UserError
from onmodel.core.progress import JOB_VARIABLE, read_line
from onmodel.jobs.bundle import code_hash
from onmodel.jobs.request import Event, Job, JobRequest, State, check_id

Result = TypeVar("Result")

SPEC = "job.json"
"""The request, in the job's working directory."""
ENTRYPOINT = f"python -m onmodel.jobs.entry {SPEC}"
COMMAND_KEY = "onmodel_command"
REQUEST_KEY = "onmodel_request"
CONNECT_S = 10.0
RECONNECTS = 5
"""How often following takes a broken connection up again before it gives up, counted from the last line that came."""
PAUSE_S = 1.0

_ENVIRONMENT = threading.Lock()


class Jobs:
    """Ray's job API at one address. Methods block; they may be called from several threads."""

    def __init__(self, address: str | None) -> None:
        """`address`: http(s)://HOST:PORT of a Ray dashboard; None: that of the cluster this process is part of.

        Raises:
            ServiceError: no job API answers there.
            UserError: it asks for a token that this process does not have.
        """
        self.address = address or "this cluster"
        if address is not None:
            _knock(address)
        self._client = self._call("", lambda: _connect(address or _own_cluster()))
        self.address = str(self._client.get_address())

    def submit(self, request: JobRequest, code: Path | None) -> tuple[Job, bool]:
        """See JobApi."""
        fingerprint = request.fingerprint(code_hash(code))
        known = self._known(request, fingerprint)
        if known is not None:
            return known, False
        with tempfile.TemporaryDirectory(prefix="onmodel-job-") as folder:
            (Path(folder) / SPEC).write_text(request.model_dump_json(), encoding="utf-8")
            # It names the job, so that no two jobs share a working directory.
            environment: dict[str, Any] = {
                "working_dir": folder,
                "env_vars": {JOB_VARIABLE: request.job_id},
                "excludes": ["__pycache__", "*.pyc"],
            }
            if code is not None:
                environment["py_modules"] = [str(code)]
            wanted = request.resources
            try:
                self._call(
                    request.job_id,
                    lambda: self._client.submit_job(
                        entrypoint=ENTRYPOINT,
                        submission_id=request.job_id,
                        runtime_env=environment,
                        metadata={COMMAND_KEY: request.command, REQUEST_KEY: fingerprint},
                        entrypoint_num_cpus=wanted.num_cpus,
                        entrypoint_num_gpus=wanted.num_gpus,
                        entrypoint_memory=wanted.memory_bytes,
                    ),
                )
            except OnModelError:
                # Somebody may have given the same job at the same moment, or an answer of Ray's was lost.
                known = self._known(request, fingerprint)
                if known is None:
                    raise
                return known, False
        return self.get(request.job_id), True

    def _known(self, request: JobRequest, fingerprint: str) -> Job | None:
        try:
            details = self._details(request.job_id)
        except NotFoundError:
            return None
        if (details.metadata or {}).get(REQUEST_KEY) != fingerprint:
            raise ConflictError(
                f"{request.job_id}: a job of this id was given with another request; choose another --job-id, or look "
                f"at it with `onmodel jobs get {request.job_id}`"
            )
        return _job(details)

    def get(self, job_id: str) -> Job:
        """See JobApi."""
        return _job(self._details(job_id))

    def _details(self, job_id: str) -> Any:
        return self._call(job_id, lambda: self._client.get_job_info(check_id(job_id)))

    def list(self, limit: int = 0) -> list[Job]:
        """See JobApi."""
        details = self._call("", self._client.list_jobs)
        # Drivers that joined the cluster by themselves have no id of ours and no log to show.
        jobs = [_job(each) for each in details if each.submission_id]
        jobs.sort(key=lambda job: job.start_time_ms or 0, reverse=True)
        return jobs[:limit] if limit else jobs

    def stop(self, job_id: str) -> bool:
        """See JobApi."""
        if self.get(job_id).state.ended:
            return False
        return bool(self._call(job_id, lambda: self._client.stop_job(job_id)))

    def follow(self, job_id: str, *, skip_lines: int = 0, wait: bool = True) -> Iterator[Event]:
        """See JobApi."""
        # One task in a thread of its own, from the first event to the last: Ctrl-C then always lands here, and the
        # connection is closed by what opened it. A loop that this thread entered anew for each event would be left
        # with open generators where Ctrl-C came between two of them, and closing it could hang.
        came: queue.SimpleQueue[Event | None] = queue.SimpleQueue()

        async def pump() -> None:
            try:
                async with contextlib.aclosing(self.stream(job_id, skip_lines=skip_lines, wait=wait)) as events:
                    async for event in events:
                        came.put(event)
            finally:
                came.put(None)

        with start_blocking_portal() as portal:
            pumping = portal.start_task_soon(pump)
            yield from iter(came.get, None)
            pumping.result()

    async def stream(self, job_id: str, *, skip_lines: int = 0, wait: bool = True) -> AsyncGenerator[Event]:
        """`follow` for a running event loop."""
        import aiohttp

        job = await asyncio.to_thread(self.get, job_id)
        if not wait:
            text = await asyncio.to_thread(self._call, job_id, lambda: self._client.get_job_logs(job_id))
            for line in _split(text)[skip_lines:]:
                yield read_line(line) or line
            yield job
            return
        came, failures = 0, 0
        while True:
            try:
                seen = 0
                async with contextlib.aclosing(_lines(self._client, job_id)) as lines:
                    async for line in lines:
                        seen += 1
                        if seen <= max(came, skip_lines):
                            continue
                        came, failures = seen, 0
                        yield read_line(line) or line
                job = await asyncio.to_thread(self.get, job_id)
                if job.state.ended:
                    break
            except (OSError, RuntimeError, aiohttp.ClientError, ServiceError, InternalError) as error:
                failures += 1
                if failures > RECONNECTS:
                    raise ServiceError(
                        f"{self.address}: the log of {job_id} broke off ({error}); the job itself goes on: see "
                        f"`onmodel jobs get {job_id}`"
                    ) from None
            await asyncio.sleep(PAUSE_S)
        yield job

    def _call(self, job_id: str, call: Callable[[], Result]) -> Result:
        """Run `call` and turn what Ray's client raises into sentences."""
        import requests
        from ray.exceptions import AuthenticationError

        try:
            return call()
        except OnModelError:
            raise
        except AuthenticationError:
            raise UserError(
                f"{self.address}: the cluster asks for a token, and there is none or another one here; set "
                "RAY_AUTH_MODE=token and RAY_AUTH_TOKEN (or RAY_AUTH_TOKEN_PATH)"
            ) from None
        except (requests.RequestException, OSError) as error:
            raise self._silent(error) from None
        except (RuntimeError, ValueError, KeyError) as error:
            text = str(error)
            if job_id and "status code 404" in text:
                raise NotFoundError(f"{job_id}: no such job at {self.address}; see `onmodel jobs list`") from None
            if "already exists" in text:
                raise ConflictError(f"{job_id}: a job of this id exists already; choose another --job-id") from None
            if "exceeds the maximum size" in text:
                raise UserError(f"{job_id}: what is sent is larger than Ray takes: {_last_line(text)}") from None
            if "No available agent" in text:
                raise ServiceError(
                    f"{self.address}: the head's agent, which starts jobs, does not answer yet; give the job again"
                ) from None
            if "status code" in text:
                raise InternalError(f"{self.address}: Ray's job API failed: {_last_line(text)}") from None
            raise self._silent(error) from None

    def _silent(self, error: Exception) -> ServiceError:
        return ServiceError(
            f"{self.address}: Ray's job API does not answer ({type(error).__name__}); it is part of the dashboard: "
            "start the cluster's head with --include-dashboard=true, forward its port 8265, and check the address"
        )


def _knock(address: str) -> None:
    """Raise ServiceError where nothing listens: Ray's client itself knows no deadline."""
    parts = urlsplit(address)
    if parts.scheme not in ("http", "https") or not parts.hostname:
        raise UserError(f"{address}: not the address of a Ray dashboard; for example http://127.0.0.1:8265")
    port = parts.port or (443 if parts.scheme == "https" else 80)
    try:
        socket.create_connection((parts.hostname, port), timeout=CONNECT_S).close()
    except OSError as error:
        raise ServiceError(
            f"{address}: nothing answers there ({error.strerror or error}); start the cluster's head with "
            "--include-dashboard=true, forward its port 8265, and check the address"
        ) from None


def _own_cluster() -> str:
    """HOST:PORT of this process's cluster, from which Ray's client learns where the dashboard is.

    Left to itself the client would look for any cluster on this machine.
    """
    import ray

    return ray.get_runtime_context().gcs_address


def _connect(address: str) -> Any:
    from ray.job_submission import JobSubmissionClient

    # Ray tells of every upload and default on its loggers.
    uploads = (
        "ray.dashboard.modules.job.sdk",
        "ray.dashboard.modules.dashboard_sdk",
        "ray._private.runtime_env.packaging",
    )
    for name in uploads:
        logging.getLogger(name).setLevel(logging.ERROR)
    with _ENVIRONMENT, _api_server(address):
        return JobSubmissionClient(address)


@contextlib.contextmanager
def _api_server(address: str) -> Generator[None]:
    """Ray puts RAY_ADDRESS before the address that it is given; this variable goes before both."""
    before = os.environ.get("RAY_API_SERVER_ADDRESS")
    os.environ["RAY_API_SERVER_ADDRESS"] = address
    try:
        yield
    finally:
        if before is None:
            del os.environ["RAY_API_SERVER_ADDRESS"]
        else:
            os.environ["RAY_API_SERVER_ADDRESS"] = before


async def _lines(client: Any, job_id: str) -> AsyncGenerator[str]:
    """Whole lines of a job's log from its start, as they come."""
    rest = ""
    async with contextlib.aclosing(client.tail_job_logs(job_id)) as chunks:
        async for chunk in chunks:
            whole, end, rest = (rest + chunk).rpartition("\n")
            for line in _split(whole + end):
                yield line
    for line in _split(rest):
        yield line


def _split(text: str) -> list[str]:
    """Lines without their ends; of one that was drawn over itself (a bar), what it said last."""
    lines = text.removesuffix("\n").split("\n") if text else []
    return [line.rstrip("\r").rpartition("\r")[2] for line in lines]


def _job(details: Any) -> Job:
    state = State(str(details.status.value).lower())
    code = details.driver_exit_code
    message = str(details.message or "").strip()
    if state is State.FAILED and code is not None:
        message = f"the command ended with exit code {code}: {_last_line(message)}"
    elif state is State.FAILED:
        message = _last_line(message)
    else:
        message = message.split("\n")[0]
    command = (details.metadata or {}).get(COMMAND_KEY) or details.entrypoint
    return Job(details.submission_id, state, command, message, code, details.start_time, details.end_time)


def _last_line(text: str) -> str:
    """Of a traceback, what was raised."""
    lines = [line.strip() for line in text.strip().splitlines() if line.strip(" .")]
    return (lines[-1] if lines else text)[:500]


def wait(api: Jobs, job_id: str, timeout_s: float) -> Job:
    """The job once it has ended, or as it is after `timeout_s`."""
    deadline = time.monotonic() + timeout_s
    while True:
        job = api.get(job_id)
        if job.state.ended or time.monotonic() > deadline:
            return job
        time.sleep(PAUSE_S)
