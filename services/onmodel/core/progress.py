"""Progress bars: on standard error, so that standard output stays a machine's answer.

In a job of a cluster nobody sees a bar, and a log has only lines: progress is then told in lines of their own kind,
which those who follow the job read back (`read_line`).
"""

import json
import os
import time
from collections.abc import Generator
from contextlib import contextmanager
from dataclasses import dataclass, field
from typing import Any, Protocol

from rich.console import Console
from rich.progress import (
    BarColumn,
    MofNCompleteColumn,
    Progress,
    ProgressColumn,
    TaskID,
    TextColumn,
    TimeElapsedColumn,
    TimeRemainingColumn,
)

console = Console(stderr=True)

JOB_VARIABLE = "ONMODEL_JOB_ID"
"""Set in a job: its id."""
MARK = "onmodel-progress "
"""What a line of progress begins with; JSON follows."""
EVERY_S = 2.0
"""A job tells of one task's progress no more often."""


@dataclass(frozen=True)
class Told:
    """How far one piece of work is, from a line of a job's log."""

    task: str
    done: int
    total: int | None
    """None: not known."""
    note: str = ""
    values: dict[str, float] = field(default_factory=dict[str, float])
    """Figures by name: loss, epoch, …."""

    def __str__(self) -> str:
        """For a person."""
        figures = "".join(f"  {name} {value:.4g}" for name, value in self.values.items())
        return f"{self.task} {self.done}{f'/{self.total}' if self.total else ''}{figures}" + (
            f"  {self.note}" if self.note else ""
        )


class Teller:
    """Tells of progress in lines where this process is a job's; elsewhere it does nothing."""

    def __init__(self) -> None:
        self.on = JOB_VARIABLE in os.environ
        """Whether this process is a job's."""
        self._last: dict[str, tuple[float, Told]] = {}

    def tell(self, told: Told) -> None:
        """Write a line on standard error, unless the same task's last is younger than EVERY_S or says the same."""
        if not self.on:
            return
        now = time.monotonic()
        at, before = self._last.get(told.task, (-EVERY_S, None))
        ended = told.total is not None and told.done >= told.total
        if told == before or (now - at < EVERY_S and not ended):
            return
        self._last[told.task] = now, told
        fields = {"task": told.task, "done": told.done, "total": told.total, "note": told.note, "values": told.values}
        console.file.write(MARK + json.dumps(fields, ensure_ascii=False) + "\n")
        console.file.flush()


def read_line(line: str) -> Told | None:
    """The progress that a line of a log tells, or None: it is an ordinary line."""
    if not line.startswith(MARK):
        return None
    try:
        fields: dict[str, Any] = json.loads(line.removeprefix(MARK))
        total = None if fields["total"] is None else int(fields["total"])
        values = {str(name): float(value) for name, value in fields["values"].items()}
        return Told(str(fields["task"]), int(fields["done"]), total, str(fields["note"]), values)
    except (ValueError, KeyError, TypeError, AttributeError):
        return None


class Bar(Protocol):
    """One running bar."""

    def advance(self, count: int = 1, note: str = "") -> None:
        """Add `count` done items; `note` is shown behind the bar."""
        ...


class _RichBar:
    def __init__(self, progress: Progress, task: TaskID) -> None:
        self._progress = progress
        self._task = task

    def advance(self, count: int = 1, note: str = "") -> None:
        self._progress.update(self._task, advance=count, note=note)


def columns(width: int | None = 40) -> tuple[ProgressColumn, ...]:
    """What a line of progress shows; tasks have a field `note`. `width` is the bar's, in characters."""
    return (
        TextColumn("{task.description}"),
        BarColumn(bar_width=width),
        MofNCompleteColumn(),
        TimeElapsedColumn(),
        TimeRemainingColumn(),
        TextColumn("{task.fields[note]}"),
    )


class _TellingBar:
    def __init__(self, label: str, total: int | None) -> None:
        self._teller, self._label, self._total, self._done = Teller(), label, total, 0
        self.advance(0)

    def advance(self, count: int = 1, note: str = "") -> None:
        self._done += count
        self._teller.tell(Told(self._label, self._done, self._total, note))


@contextmanager
def bar(label: str, total: int | None) -> Generator[Bar]:
    """Show a bar for `total` items while the block runs; plain lines where there is no terminal."""
    if JOB_VARIABLE in os.environ:
        yield _TellingBar(label, total)
        return
    with Progress(*columns(), console=console, transient=False) as progress:
        yield _RichBar(progress, progress.add_task(label, total=total, note=""))
