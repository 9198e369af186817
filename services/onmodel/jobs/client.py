"""Client of the job service, and the choice between it and Ray's own job API."""

from collections.abc import Iterator
from pathlib import Path
from typing import Any

import grpc

from onmodel.common.channel import MAX_MESSAGE_BYTES, ServiceClient
from onmodel.core.errors import NotFoundError, OnModelError, ServiceError, UserError
from onmodel.jobs.bundle import pack
from onmodel.jobs.convert import event_from_wire, job_from_wire, request_to_wire
from onmodel.jobs.request import Event, Job, JobApi, JobRequest
from onmodel.jobs.v1 import jobs_pb2 as pb
from onmodel.jobs.v1.jobs_pb2_grpc import JobServiceStub

FOLLOW_S = 240.0
"""One stream lasts so long at most, less than a proxy allows; following goes on in the next where it was."""
RECONNECTS = 5


class JobClient(ServiceClient):
    """Jobs given to a running service. A JobApi; every method raises ServiceError when the service does not answer."""

    def __init__(self, address: str, *, timeout_s: float = 120.0) -> None:
        super().__init__(address, "jobs", timeout_s=timeout_s)
        self._stub = JobServiceStub(self._channel)

    def submit(self, request: JobRequest, code: Path | None) -> tuple[Job, bool]:
        """See JobApi."""
        message = request_to_wire(request, b"" if code is None else pack(code))
        if message.ByteSize() > MAX_MESSAGE_BYTES:
            raise UserError(
                f"{request.job_id}: {message.ByteSize() >> 20} MiB are more than a message holds "
                f"({MAX_MESSAGE_BYTES >> 20} MiB); give the job to Ray's own job API (http://HOST:8265)"
            )
        response = self.call(self._stub.Submit, message)
        return job_from_wire(response.job), response.created

    def get(self, job_id: str) -> Job:
        """See JobApi."""
        return job_from_wire(self.call(self._stub.Get, pb.GetRequest(job_id=job_id)).job)

    def list(self, limit: int = 0) -> list[Job]:
        """See JobApi."""
        return [job_from_wire(job) for job in self.call(self._stub.List, pb.ListRequest(limit=limit)).jobs]

    def stop(self, job_id: str) -> bool:
        """See JobApi."""
        return self.call(self._stub.Stop, pb.StopRequest(job_id=job_id)).stopped

    def follow(self, job_id: str, *, skip_lines: int = 0, wait: bool = True) -> Iterator[Event]:
        """See JobApi. A stream that breaks off is taken up again after the last line that came."""
        came, failures = skip_lines, 0
        while True:
            request = pb.FollowRequest(job_id=job_id, skip_lines=came, until_now=not wait)
            stream: Any = self._stub.Follow(request, timeout=FOLLOW_S)
            try:
                with self._errors():
                    for message in stream:
                        failures = 0
                        event = event_from_wire(message)
                        yield event
                        if isinstance(event, Job):
                            return
                        came += 1
                failures += 1
            except ServiceError:
                # Its own deadline is no failure; a job may be silent for as long.
                if stream.code() is not grpc.StatusCode.DEADLINE_EXCEEDED:
                    failures += 1
                if failures > RECONNECTS:
                    raise
            finally:
                stream.cancel()


def problem_at(address: str, *, timeout_s: float) -> str | None:
    """What keeps the job service at a services' address from working; None where it answers.

    Raises:
        NotFoundError: no job service is deployed there, which is nothing wrong.
        UserError: a malformed address.
    """
    with JobClient(address, timeout_s=timeout_s) as client:
        try:
            client.list(limit=1)
        except (NotFoundError, UserError):
            raise
        except OnModelError as error:
            return str(error)
    return None


def open_jobs(address: str) -> JobApi:
    """The job API at `address`: http(s)://HOST:PORT is Ray's own, grpc://HOST:PORT, HOST:PORT or (TLS) grpcs://HOST:PORT
    the service's.

    Raises:
        ServiceError: Ray's job API does not answer (the service is asked at the first call).
        UserError: neither form of address, or a token is missing.
    """
    if address.startswith(("http://", "https://")):
        from onmodel.jobs.model import Jobs

        return Jobs(address.rstrip("/"))
    return JobClient(address.removeprefix("grpc://"))
