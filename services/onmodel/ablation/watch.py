"""The driver's view of all variants: a bar each, fed from their files, and who of them has been silent for too long."""

import time
from collections.abc import Callable, Sequence
from dataclasses import dataclass, field
from types import TracebackType
from typing import Any, Self

from rich.progress import Progress, TaskID

from onmodel.ablation.record import Record, Status, write_record
from onmodel.ablation.variant import Task
from onmodel.core.progress import Teller, Told, columns, console
from onmodel.training.follow import last_step, read_phase
from onmodel.training.job import METRICS, PROGRESS, SAMPLES, VALIDATION

End = Callable[[Record], None]
"""Ends the process of a variant."""


@dataclass
class _Seen:
    """What the watch knows of one variant."""

    bar: TaskID
    record: Record
    sign: tuple[object, ...] = ()
    """Changes whenever the variant does anything."""
    since: float = field(default_factory=time.monotonic)
    """When that last changed."""
    started: float | None = None
    """When its process was first seen."""


class Watch:
    """Shows the variants while the block runs, says what becomes of each, and ends those that hang."""

    def __init__(self, tasks: Sequence[Task], *, stalled_after_s: float, timeout_s: float | None, end: End) -> None:
        self._tasks = {task.name: task for task in tasks}
        self._stalled_after_s, self._timeout_s, self._end = stalled_after_s, timeout_s, end
        self._teller = Teller()
        self._progress = Progress(*columns(20), console=console, disable=self._teller.on)
        self._seen = {
            task.name: _Seen(
                self._progress.add_task(f"{task.name}: waiting", total=None, start=False, note=""), task.waiting
            )
            for task in tasks
        }

    def __enter__(self) -> Self:
        self._progress.start()
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self.poll()
        self._progress.stop()

    def poll(self) -> None:
        """Look at every variant once."""
        for name, seen in self._seen.items():
            before, seen.record = seen.record, self._tasks[name].read()
            if before.status not in (Status.FINISHED, Status.STOPPED, Status.FAILED):
                self._look(self._tasks[name], seen, before)

    def _look(self, task: Task, seen: _Seen, before: Record) -> None:
        record = seen.record
        folder = task.config.trial_dir
        if before.status is Status.RUNNING and record.status is Status.WAITING:
            self._say(f"{task.name}: its process died; it starts again from its last state")
            self._progress.update(seen.bar, description=f"{task.name}: starting again")
        if record.status is Status.RUNNING:
            if seen.started is None:
                seen.started = seen.since = time.monotonic()
                self._progress.start_task(seen.bar)
            phase, step = read_phase(folder / PROGRESS), last_step(folder / METRICS)
            self._show(task, seen, phase, step)
            self._judge(task, seen, (phase, step, _left(task), record.starts, record.rungs))
        elif record.status is not Status.WAITING:
            step = last_step(folder / METRICS)
            if step is not None:
                self._progress.update(seen.bar, completed=step["step"], total=step["total_steps"])
            self._progress.update(seen.bar, description=f"{task.name}: {record.status.value}", note="")
            self._progress.stop_task(seen.bar)
            if record.status is not Status.FINISHED:
                self._say(f"{task.name}: {record.status.value}: {record.reason}")

    def _show(self, task: Task, seen: _Seen, phase: dict[str, Any], step: dict[str, Any] | None) -> None:
        if phase.get("what") == "training" and step is not None:
            note = f"epoch {step['epoch']}  loss {step['loss']:.4f}"
            done, total = step["step"], step["total_steps"]
            values = {"epoch": step["epoch"], "loss": step["loss"]}
            self._teller.tell(Told(f"{task.name}: training", done, total, values=values))
            self._progress.update(
                seen.bar, description=f"{task.name}: training", completed=done, total=total, note=note
            )
        elif phase:
            total = phase["total"] or None
            self._progress.update(
                seen.bar, description=f"{task.name}: {phase['what']}", completed=phase["done"], total=total
            )
        else:
            self._progress.update(seen.bar, description=f"{task.name}: starting")

    def _judge(self, task: Task, seen: _Seen, sign: tuple[object, ...]) -> None:
        now = time.monotonic()
        if sign != seen.sign:
            seen.sign, seen.since = sign, now
        assert seen.started is not None
        reason = None
        if now - seen.since > self._stalled_after_s:
            reason = (
                f"no step and no other progress for {self._stalled_after_s:g} s, so it was ended; look at what its "
                "machine was doing, or raise `stalled_after_s`"
            )
        elif self._timeout_s is not None and now - seen.started > self._timeout_s:
            reason = f"not done after {self._timeout_s:g} s (`timeout_s`), so it was ended"
        if reason is None:
            return
        # Written first: a process that is started in its place sees it and does nothing.
        write_record(task.record, seen.record.changed(status=Status.FAILED, reason=reason))
        self._end(seen.record)

    def _say(self, text: str) -> None:
        self._progress.console.print(text, highlight=False, soft_wrap=True, markup=False)


def _left(task: Task) -> tuple[int, int]:
    """Bytes of the validation losses and number of pictures: both come between steps."""
    folder, name = task.config.trial_dir, task.config.training.output_name
    losses = folder / VALIDATION
    pictures = sum(1 for _ in (folder / SAMPLES).glob("*.png"))
    if task.measuring is not None:
        # The base model's too: whoever comes first draws them, and the others wait for it.
        found = (task.measuring.folder.glob(f"{start}*/*.png") for start in (f"{name}-", "base-"))
        pictures += sum(1 for files in found for _ in files)
    return (losses.stat().st_size if losses.is_file() else 0, pictures)
