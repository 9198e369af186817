"""What a job is asked for, and what is known of one."""

import re
import secrets
from collections.abc import Iterator
from dataclasses import dataclass
from enum import StrEnum
from pathlib import Path
from typing import Protocol, Self

from pydantic import Field, model_validator

from onmodel.core.config import Config
from onmodel.core.errors import UserError
from onmodel.core.files import content_hash
from onmodel.core.progress import Told

FILE = "onmodel-file:"
"""`onmodel-file:NAME` in an argument or a config stands for the file of that name that travels with the job."""
ID_PATTERN = r"^[A-Za-z0-9][A-Za-z0-9._-]{0,99}$"
LIMIT_BYTES = 512 << 20
"""Ray refuses more in one upload (`GCS_STORAGE_MAX_SIZE` of its `packaging.py`)."""
STOPPED_EXIT_CODE = 143
"""What a shell says of a command that was told to end (128 + SIGTERM)."""
LOST_EXIT_CODE = 4
"""The command did not end by itself: it could not be started, or its node was lost."""
STARTS_ON_THIS_MACHINE = ("serve", "submit", "jobs")
"""Verbs that are about the machine they are called on, and make no sense as a job."""


class State(StrEnum):
    """Of a job."""

    PENDING = "pending"
    RUNNING = "running"
    SUCCEEDED = "succeeded"
    FAILED = "failed"
    STOPPED = "stopped"

    @property
    def ended(self) -> bool:
        """Whether nothing changes any more."""
        return self not in (State.PENDING, State.RUNNING)


class Resources(Config):
    """What the command itself holds while it runs. Ray Train workers and tasks that it starts ask for their own."""

    num_cpus: float = Field(default=1.0, ge=0)
    """0 puts it on the cluster's head."""
    num_gpus: float = Field(default=0.0, ge=0)
    memory_bytes: int = Field(default=0, ge=0)

    def __str__(self) -> str:
        """For a person."""
        memory = f", {self.memory_bytes / (1 << 30):.3g} GiB" if self.memory_bytes else ""
        return f"{self.num_cpus:g} CPU, {self.num_gpus:g} GPU{memory}"


class JobRequest(Config):
    """A verb to be run on a cluster, without its code. It lies beside the job as `job.json`."""

    job_id: str = Field(pattern=ID_PATTERN)
    arguments: tuple[str, ...] = Field(min_length=1)
    """The verb and what follows it. A config that travels along is named `onmodel-file:NAME`."""
    files: dict[str, str] = Field(default_factory=dict[str, str])
    """Name -> text of the configs that travel along. They may name one another in the same way."""
    command: str = ""
    """The command line as it was typed."""
    workspace: str | None = None
    """Where relative paths hold: a folder that all nodes see, or s3://BUCKET/PREFIX; None: nowhere."""
    scratch: str | None = None
    """Folder that all nodes see, for what lies at s3://; None: each node's own cache, and the job stays on one node."""
    resources: Resources = Resources()
    roots: tuple[str, ...] | None = None
    """Places that the job may name; None: any. A service sets its own."""

    @model_validator(mode="after")
    def _fits(self) -> Self:
        if self.arguments[0] in STARTS_ON_THIS_MACHINE or self.arguments[0].startswith("-"):
            raise ValueError(f"`{self.arguments[0]}` cannot be run as a job; give a verb such as `train`")
        for name in self.files:
            if Path(name).name != name or name in ("", ".", ".."):
                raise ValueError(f"`{name}` is not a plain file name")
        for place, what in ((self.workspace, "workspace"), (self.scratch, "scratch")):
            allowed = ("/", "s3://") if what == "workspace" else ("/",)
            if place is not None and not place.startswith(allowed):
                raise ValueError(f"{what} `{place}` must be an absolute path that every node of the cluster sees")
        return self

    def fingerprint(self, code_hash: str) -> str:
        """SHA-256 of all that decides what the job does; the same id with another one is another request."""
        return content_hash(self.model_dump_json(exclude={"command", "roots"}).encode() + code_hash.encode())


@dataclass(frozen=True)
class Job:
    """What the cluster knows of a job."""

    id: str
    state: State
    command: str
    message: str = ""
    """One sentence of why it is in this state; may be empty."""
    exit_code: int | None = None
    """Of the command, once it has ended by itself."""
    start_time_ms: int | None = None
    """Since 1970-01-01 UTC."""
    end_time_ms: int | None = None

    @property
    def shell_code(self) -> int:
        """What a shell would say of the command."""
        if self.state is State.SUCCEEDED:
            return 0
        if self.state is State.STOPPED:
            return STOPPED_EXIT_CODE
        if self.exit_code is None:
            return LOST_EXIT_CODE
        # A negative one is the signal that ended it.
        return self.exit_code if self.exit_code >= 0 else 128 - self.exit_code


Event = str | Told | Job
"""What following a job brings: a line, progress, and last the job as it ended."""


class JobApi(Protocol):
    """Where jobs are given: Ray's job API, or the service over it. All methods raise OnModelErrors."""

    address: str

    def submit(self, request: JobRequest, code: Path | None) -> tuple[Job, bool]:
        """Give a job; False where the same request under the same id was there already.

        `code` is the folder of the `onmodel` package that runs; None: what the nodes have installed.
        Raises ConflictError: the id stands for another request.
        """
        ...

    def get(self, job_id: str) -> Job:
        """One job. Raises NotFoundError."""
        ...

    def list(self, limit: int = 0) -> list[Job]:
        """Jobs, newest first; at most `limit` unless that is 0."""
        ...

    def stop(self, job_id: str) -> bool:
        """Ask a job to end; False where it has ended. Raises NotFoundError."""
        ...

    def follow(self, job_id: str, *, skip_lines: int = 0, wait: bool = True) -> Iterator[Event]:
        """What the job prints until it ends (or, without `wait`, until now), without the first `skip_lines`.

        Raises NotFoundError.
        """
        ...


def new_id(verb: str) -> str:
    """An id for a job of `verb`, hard to guess and easy to read."""
    return f"{verb}-{secrets.token_hex(6)}"


def check_id(job_id: str) -> str:
    """`job_id` itself when it may be one. Raises UserError."""
    if not re.match(ID_PATTERN, job_id):
        raise UserError(f"{job_id!r}: not a job id; letters, digits, `.`, `_` and `-`, at most 100")
    return job_id
