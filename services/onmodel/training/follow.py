"""The driver's view of a run: a bar fed from the files that the first worker writes."""

import json
import threading
from collections.abc import Generator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

from rich.progress import BarColumn, MofNCompleteColumn, Progress, TextColumn, TimeElapsedColumn, TimeRemainingColumn

from onmodel.core.progress import Teller, Told, console
from onmodel.training.job import METRICS, PROGRESS

INTERVAL_S = 0.25


@contextmanager
def following(trial_dir: Path, name: str) -> Generator[None, None, None]:
    """Show phase, epoch, step and loss of the run in `trial_dir` while the block runs."""
    stop = threading.Event()
    columns = (
        TextColumn("{task.description}"),
        BarColumn(),
        MofNCompleteColumn(),
        TimeElapsedColumn(),
        TimeRemainingColumn(),
        TextColumn("{task.fields[note]}"),
    )
    teller = Teller()
    # A job's log has no use for a bar that is drawn once, at the end.
    with Progress(*columns, console=console, disable=teller.on) as progress:
        task = progress.add_task(f"{name}: starting", total=None, note="")

        def refresh() -> None:
            phase, step = read_phase(trial_dir / PROGRESS), last_step(trial_dir / METRICS)
            if phase.get("what") == "training" and step is not None:
                note = f"epoch {step['epoch']}  loss {step['loss']:.4f}"
                total = step["total_steps"]
                progress.update(task, description=f"{name}: training", completed=step["step"], total=total, note=note)
                values = {"epoch": step["epoch"], "loss": step["loss"]}
                teller.tell(Told(f"{name}: training", step["step"], total, values=values))
            elif phase:
                total = phase["total"] or None
                progress.update(task, description=f"{name}: {phase['what']}", completed=phase["done"], total=total)
                teller.tell(Told(f"{name}: {phase['what']}", phase["done"], total))

        def watch() -> None:
            while not stop.wait(INTERVAL_S):
                refresh()

        watcher = threading.Thread(target=watch, name="follow-training", daemon=True)
        watcher.start()
        try:
            yield
        finally:
            stop.set()
            watcher.join()
            refresh()


def read_phase(file: Path) -> dict[str, Any]:
    """What a run does now, as its first worker wrote it down: `what`, `done` and `total`; empty where none is on."""
    try:
        return json.loads(file.read_text(encoding="utf-8"))
    except (OSError, ValueError):
        return {}


def last_step(file: Path) -> dict[str, Any] | None:
    """The last whole line of a `metrics.jsonl`, read from the file's end: runs have many thousand steps."""
    try:
        with file.open("rb") as stream:
            stream.seek(0, 2)
            stream.seek(max(0, stream.tell() - 4096))
            lines = stream.read().decode("utf-8", "replace").split("\n")
    except OSError:
        return None
    for line in reversed(lines[:-1]):
        try:
            return json.loads(line)
        except ValueError:
            continue
    return None
