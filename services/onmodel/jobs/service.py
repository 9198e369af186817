"""The job service's answers, made of Jobs. Knows messages; knows nothing of Serve."""

import asyncio
import tempfile
from collections.abc import AsyncIterator, Callable
from pathlib import Path

from pydantic import ValidationError

from onmodel.core.config import Config
from onmodel.core.errors import ForbiddenError, UserError
from onmodel.jobs.bundle import unpack
from onmodel.jobs.convert import event_to_wire, job_to_wire, request_from_wire
from onmodel.jobs.entry import check_roots
from onmodel.jobs.model import Jobs
from onmodel.jobs.request import Job, JobRequest
from onmodel.jobs.v1 import jobs_pb2 as pb


class JobsArgs(Config):
    """The application's `args` in a Serve config."""

    address: str | None = None
    """http(s)://HOST:PORT of Ray's dashboard; None: that of the cluster the service runs on."""
    allowed_roots: tuple[str, ...] = ()
    """Folders and s3:// prefixes that jobs may name; none by default."""
    accept_code: bool = False
    """Run code that a caller sends. Whoever reaches the port then runs anything on the cluster; else only the verbs of
    the installed package run, on places below the roots."""


class JobService:
    """One method per RPC, named in snake case."""

    def __init__(self, args: JobsArgs, connect: Callable[[str | None], Jobs] = Jobs) -> None:
        self._args = args
        self._connect = connect
        self._jobs: Jobs | None = None

    def _api(self) -> Jobs:
        # At the first call and not at the start: a head without a dashboard is told of in an answer.
        if self._jobs is None:
            self._jobs = self._connect(self._args.address)
        return self._jobs

    async def submit(self, message: pb.SubmitRequest) -> pb.SubmitResponse:
        """Give a job, or the one that is there."""
        job, created = await asyncio.to_thread(self._submit, message)
        return pb.SubmitResponse(job=job_to_wire(job), created=created)

    def _submit(self, message: pb.SubmitRequest) -> tuple[Job, bool]:
        request = self._request(message)
        if not message.code:
            return self._api().submit(request, None)
        if not self._args.accept_code:
            raise ForbiddenError(
                "code: this service runs the package that its nodes have installed; submit with --no-code, or set "
                "accept_code in the service's args"
            )
        with tempfile.TemporaryDirectory(prefix="onmodel-code-") as folder:
            return self._api().submit(request, unpack(message.code, Path(folder)))

    def _request(self, message: pb.SubmitRequest) -> JobRequest:
        """The request, checked. Raises UserError and ForbiddenError."""
        try:
            request = request_from_wire(message, self._args.allowed_roots)
        except ValidationError as error:
            first = error.errors()[0]
            key = ".".join(str(part) for part in first["loc"])
            raise UserError(f"{key or 'job'}: {str(first['msg']).removeprefix('Value error, ')}") from None
        check_roots(request)
        return request.model_copy(update={"command": " ".join(("onmodel", *request.arguments))})

    async def get(self, message: pb.GetRequest) -> pb.GetResponse:
        """One job."""
        job = await asyncio.to_thread(lambda: self._api().get(message.job_id))
        return pb.GetResponse(job=job_to_wire(job))

    async def list(self, message: pb.ListRequest) -> pb.ListResponse:
        """Jobs, newest first."""
        if message.limit < 0:
            raise UserError(f"limit: {message.limit} is below 0; give 0 for all")
        jobs = await asyncio.to_thread(lambda: self._api().list(message.limit))
        return pb.ListResponse(jobs=map(job_to_wire, jobs))

    async def stop(self, message: pb.StopRequest) -> pb.StopResponse:
        """Ask a job to end."""
        return pb.StopResponse(stopped=await asyncio.to_thread(lambda: self._api().stop(message.job_id)))

    async def follow(self, message: pb.FollowRequest) -> AsyncIterator[pb.FollowResponse]:
        """Lines, progress, and the job as it ended."""
        if message.skip_lines < 0:
            raise UserError(f"skip_lines: {message.skip_lines} is below 0; give the number of lines you have")
        api = await asyncio.to_thread(self._api)
        async for event in api.stream(message.job_id, skip_lines=message.skip_lines, wait=not message.until_now):
            yield event_to_wire(event)
