"""The service and its client over a wire, with a Ray that fails as it can."""

import asyncio
from collections.abc import AsyncGenerator, Iterator
from concurrent import futures
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import grpc
import pytest

from onmodel.core.errors import (
    ConflictError,
    ForbiddenError,
    NotFoundError,
    OnModelError,
    ServiceError,
    UserError,
    status_code,
)
from onmodel.core.progress import MARK, Told, read_line
from onmodel.jobs import client, model
from onmodel.jobs.bundle import code_hash, pack
from onmodel.jobs.client import JobClient, open_jobs
from onmodel.jobs.model import COMMAND_KEY, REQUEST_KEY, Jobs
from onmodel.jobs.request import Event, Job, JobRequest, State
from onmodel.jobs.service import JobsArgs, JobService
from onmodel.jobs.v1 import jobs_pb2 as pb
from onmodel.jobs.v1.jobs_pb2_grpc import JobServiceServicer, add_JobServiceServicer_to_server

PROGRESS = MARK + '{"task": "t", "done": 3, "total": null, "note": "", "values": {"loss": 0.5}}'


class Ray:
    """Ray's client, in memory. A job's log is LOG; a broken connection ends it early."""

    LOG = ("one\n", "two", "\nbar 1\rbar 2\n", PROGRESS + "\n", "last")

    def __init__(self) -> None:
        self.jobs: dict[str, Any] = {}
        self.breaks: list[int] = []
        """After how many chunks the next connections break."""
        self.loses_answer = False

    def get_address(self) -> str:
        return "http://ray:8265"

    def submit_job(self, *, submission_id: str, metadata: dict[str, str], entrypoint: str, **more: Any) -> str:
        assert Path(more["runtime_env"]["working_dir"], "job.json").is_file()
        if submission_id in self.jobs:
            raise RuntimeError(f"Request failed with status code 500: Job with id {submission_id} already exists.")
        self.jobs[submission_id] = SimpleNamespace(
            submission_id=submission_id,
            status=SimpleNamespace(value="RUNNING"),
            metadata=metadata,
            entrypoint=entrypoint,
            message="",
            driver_exit_code=None,
            start_time=len(self.jobs),
            end_time=None,
        )
        if self.loses_answer:
            raise ConnectionError("reset by peer")
        return submission_id

    def get_job_info(self, job_id: str) -> Any:
        if job_id not in self.jobs:
            raise RuntimeError(f"Request failed with status code 404: Job {job_id} does not exist.")
        return self.jobs[job_id]

    def list_jobs(self) -> list[Any]:
        return [*self.jobs.values(), SimpleNamespace(submission_id=None)]

    def stop_job(self, job_id: str) -> bool:
        self.jobs[job_id].status.value = "STOPPED"
        return True

    def get_job_logs(self, job_id: str) -> str:
        return "".join(self.LOG)

    async def tail_job_logs(self, job_id: str) -> AsyncGenerator[str]:
        until = self.breaks.pop(0) if self.breaks else None
        for number, chunk in enumerate(self.LOG):
            if number == until:
                raise RuntimeError("WebSocket connection closed unexpectedly with close code 1006")
            yield chunk
        self.jobs[job_id].status.value = "FAILED"
        self.jobs[job_id].driver_exit_code = 7
        self.jobs[job_id].message = "failed with exit code 7, last available logs:\nTraceback\nonmodel: x: missing\n"


@pytest.fixture
def ray(monkeypatch: pytest.MonkeyPatch) -> Ray:
    made = Ray()
    monkeypatch.setattr(model, "_connect", lambda _: made)
    monkeypatch.setattr(model, "_own_cluster", lambda: "")
    monkeypatch.setattr(model, "PAUSE_S", 0.0)
    return made


class Wire(JobServiceServicer):
    """The service behind a plain gRPC server, with the status codes of the one table."""

    def __init__(self, service: JobService) -> None:
        self._service = service
        self.cuts: list[int] = []
        """After how many messages the next streams end as a replica's that is replaced."""

    def _answer(self, answer: Any, context: Any) -> Any:
        try:
            return asyncio.run(answer)
        except OnModelError as error:
            context.abort(status_code(error), str(error))

    def Submit(self, request: Any, context: Any) -> Any:
        return self._answer(self._service.submit(request), context)

    def Get(self, request: Any, context: Any) -> Any:
        return self._answer(self._service.get(request), context)

    def List(self, request: Any, context: Any) -> Any:
        return self._answer(self._service.list(request), context)

    def Stop(self, request: Any, context: Any) -> Any:
        return self._answer(self._service.stop(request), context)

    def Follow(self, request: Any, context: Any) -> Iterator[Any]:
        cut = self.cuts.pop(0) if self.cuts else None

        async def every() -> list[Any]:
            return [message async for message in self._service.follow(request)]

        messages: list[Any] = self._answer(every(), context)
        for number, message in enumerate(messages):
            if number == cut:
                context.abort(grpc.StatusCode.UNAVAILABLE, "the replica is being replaced")
            yield message


@pytest.fixture
def wire(ray: Ray, tmp_path: Path) -> Iterator[tuple[JobClient, Wire]]:
    server = grpc.server(futures.ThreadPoolExecutor(4), options=[("grpc.max_receive_message_length", 64 << 20)])
    servicer = Wire(JobService(JobsArgs(allowed_roots=(str(tmp_path),), accept_code=False)))
    add_JobServiceServicer_to_server(servicer, server)
    port = server.add_insecure_port("127.0.0.1:0")
    server.start()
    with JobClient(f"127.0.0.1:{port}", timeout_s=20) as made:
        yield made, servicer
    server.stop(None)


EVENTS: list[Event] = ["one", "two", "bar 2", Told("t", 3, None, "", {"loss": 0.5}), "last"]


def request(tmp_path: Path, **changes: Any) -> JobRequest:
    return JobRequest.model_validate({"job_id": "a", "arguments": ("analyze", str(tmp_path)), **changes})


def test_a_job_goes_there_and_comes_back(wire: tuple[JobClient, Wire], tmp_path: Path) -> None:
    jobs, _ = wire
    job, created = jobs.submit(request(tmp_path), None)
    assert created and job == jobs.get("a") == jobs.list()[0]
    assert (job.state, job.command) == (State.RUNNING, f"onmodel analyze {tmp_path}")
    *events, ended = jobs.follow("a")
    assert events == EVENTS
    assert isinstance(ended, Job)
    assert (ended.state, ended.exit_code, ended.shell_code) == (State.FAILED, 7, 7)
    assert ended.message == "the command ended with exit code 7: onmodel: x: missing"
    assert jobs.stop("a") is False
    assert list(jobs.follow("a", skip_lines=3, wait=False))[:-1] == EVENTS[3:]


def test_the_same_request_is_the_same_job_and_another_is_refused(wire: tuple[JobClient, Wire], tmp_path: Path) -> None:
    jobs, _ = wire
    jobs.submit(request(tmp_path), None)
    assert jobs.submit(request(tmp_path, command="typed otherwise"), None)[1] is False
    with pytest.raises(ConflictError, match="another request"):
        jobs.submit(request(tmp_path, arguments=("analyze", f"{tmp_path}/b")), None)
    assert len(jobs.list()) == 1


def test_a_lost_answer_and_a_race_give_the_job_that_is_there(ray: Ray, tmp_path: Path) -> None:
    jobs = Jobs(None)
    ray.loses_answer = True
    job, created = jobs.submit(request(tmp_path), None)
    assert (job.id, created) == ("a", False)
    raced = request(tmp_path, job_id="b")
    original, asked = ray.get_job_info, 0

    def not_yet(job_id: str) -> Any:
        nonlocal asked
        asked += 1
        if asked == 1:
            # Between the first look and the submission, somebody else gives the same job.
            metadata = {REQUEST_KEY: raced.fingerprint(code_hash(None)), COMMAND_KEY: ""}
            ray.jobs[job_id] = SimpleNamespace(**{**vars(original("a")), "submission_id": "b", "metadata": metadata})
            raise RuntimeError("Request failed with status code 404: no such job.")
        return original(job_id)

    ray.get_job_info = not_yet
    assert jobs.submit(raced, None)[1] is False


def test_following_goes_on_where_a_connection_broke(ray: Ray, tmp_path: Path) -> None:
    jobs = Jobs(None)
    jobs.submit(request(tmp_path), None)
    ray.breaks = [1, 0, 3]
    assert list(jobs.follow("a"))[:-1] == EVENTS
    ray.jobs["a"].status.value = "RUNNING"
    ray.breaks = [0] * 9
    with pytest.raises(ServiceError, match="the log of a broke off"):
        list(jobs.follow("a"))


def test_following_goes_on_where_a_replica_went(wire: tuple[JobClient, Wire], tmp_path: Path) -> None:
    jobs, servicer = wire
    jobs.submit(request(tmp_path), None)
    servicer.cuts = [2, 0, 1]
    assert list(jobs.follow("a"))[:-1] == EVENTS
    servicer.cuts = [0] * (client.RECONNECTS + 5 * 6)
    with pytest.raises(ServiceError):
        list(jobs.follow("a"))


def test_what_a_caller_may_not_is_refused(wire: tuple[JobClient, Wire], tmp_path: Path, ray: Ray) -> None:
    jobs, _ = wire
    (tmp_path / "onmodel").mkdir()
    (tmp_path / "onmodel" / "__init__.py").write_text("")
    refused: list[tuple[dict[str, Any], Path | None, type[OnModelError], str]] = [
        ({}, tmp_path / "onmodel", ForbiddenError, "--no-code"),
        ({"arguments": ("analyze", "/etc")}, None, ForbiddenError, "/etc: not below"),
        ({"workspace": "s3://bucket"}, None, ForbiddenError, "s3://bucket: not below"),
        ({"arguments": ("analyze", "file:///etc")}, None, UserError, "s3:// URIs alone"),
    ]
    for changes, code, kind, says in refused:
        with pytest.raises(kind, match=says):
            jobs.submit(request(tmp_path, **changes), code)
    assert not ray.jobs
    for job_id in ("nothing", "../api", ""):
        with pytest.raises((NotFoundError, UserError)):
            jobs.get(job_id)


def test_a_message_that_is_no_request_is_refused(ray: Ray) -> None:
    service = JobService(JobsArgs(allowed_roots=("/",)))
    for message in (
        pb.SubmitRequest(),
        pb.SubmitRequest(arguments=["jobs", "list"]),
        pb.SubmitRequest(job_id="a b", arguments=["train"]),
        pb.SubmitRequest(arguments=["train"], files=[pb.ConfigFile(name="../x", text="")]),
        pb.SubmitRequest(arguments=["train"], files=[pb.ConfigFile(name="x.toml", text="= 1")]),
        pb.SubmitRequest(arguments=["train"], resources=pb.Resources(num_cpus=-1)),
    ):
        with pytest.raises(UserError):
            asyncio.run(service.submit(message))
    assert not ray.jobs


def test_code_is_taken_where_it_is_allowed(ray: Ray, tmp_path: Path) -> None:
    (tmp_path / "onmodel").mkdir()
    (tmp_path / "onmodel" / "__init__.py").write_text("")
    service = JobService(JobsArgs(allowed_roots=("/",), accept_code=True))
    message = pb.SubmitRequest(arguments=["demo"], code=pack(tmp_path / "onmodel"))
    assert asyncio.run(service.submit(message)).job.job_id.startswith("demo-")


def test_where_nothing_answers_a_sentence_says_what_to_do() -> None:
    with pytest.raises(ServiceError, match="--include-dashboard=true"):
        open_jobs("http://127.0.0.1:9")
    with pytest.raises(UserError, match="not the address of a Ray dashboard"):
        open_jobs("http://")
    with pytest.raises(UserError, match="HOST:PORT"):
        open_jobs("ray://x")


@pytest.mark.parametrize("line", ["plain", MARK, MARK + "{}", MARK + '{"task": 1}', MARK + "[]", MARK + "null"])
def test_what_only_looks_like_progress_stays_a_line(line: str) -> None:
    assert read_line(line) is None


@pytest.mark.parametrize(("code", "shell"), [(0, 0), (3, 3), (-9, 137), (None, 4)])
def test_exit_codes_are_those_of_a_shell(code: int | None, shell: int) -> None:
    state = State.SUCCEEDED if code == 0 else State.FAILED
    assert Job("a", state, "", exit_code=code).shell_code == shell
    assert Job("a", State.STOPPED, "").shell_code == 143
