"""What is kept of each variant while it runs and afterwards: one small file each, so that a restart knows."""

from enum import StrEnum
from pathlib import Path

from onmodel.core.config import Config, load_whole
from onmodel.core.files import write_text

SCHEMA_VERSION = 1


class Status(StrEnum):
    """Where a variant stands."""

    WAITING = "waiting"
    RUNNING = "running"
    FINISHED = "finished"
    STOPPED = "stopped early"
    """By a search, which had better samples."""
    FAILED = "failed"


class Rung(Config):
    """A sample's metric after an epoch."""

    epoch: int
    value: float | None
    """None where the pictures show nothing to measure."""


class Record(Config):
    """A variant's state, as `variants/<name>.json` holds it."""

    schema_version: int = SCHEMA_VERSION
    name: str
    key: str
    """Of config and data; a record of other ones counts for nothing."""
    status: Status = Status.WAITING
    reason: str | None = None
    """Why it failed, or was stopped."""
    threads: int = 1
    """Processor threads that it computes with."""
    starts: int = 0
    """How often its process was started."""
    node: str | None = None
    """Ray's id of the machine that it runs on."""
    pid: int | None = None
    rungs: tuple[Rung, ...] = ()
    """Of a search."""

    def changed(self, **values: object) -> "Record":
        """A copy with some values replaced."""
        return self.model_copy(update=values)


def write_record(file: Path, record: Record) -> None:
    """Write it whole. Raises as `write_text`."""
    write_text(file, record.model_dump_json(indent=1) + "\n")


def read_record(file: Path, fallback: Record) -> Record:
    """What `file` holds; `fallback` where there is none, it is damaged, or its key is another."""
    found = load_whole(Record, file)
    return found if found is not None and found.key == fallback.key else fallback
