"""Progress bars: on standard error, so that standard output stays a machine's answer."""

from collections.abc import Generator
from contextlib import contextmanager
from typing import Protocol

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


@contextmanager
def bar(label: str, total: int | None) -> Generator[Bar]:
    """Show a bar for `total` items while the block runs; plain lines where there is no terminal."""
    with Progress(*columns(), console=console, transient=False) as progress:
        yield _RichBar(progress, progress.add_task(label, total=total, note=""))
