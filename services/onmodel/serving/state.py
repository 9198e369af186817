"""Where OnModel remembers what `onmodel serve up` started for this user."""

import contextlib
import json
import os
from dataclasses import asdict, dataclass
from pathlib import Path

import psutil

from onmodel.core.files import write_text


def state_folder() -> Path:
    """$XDG_STATE_HOME/onmodel, or ~/.local/state/onmodel."""
    base = os.environ.get("XDG_STATE_HOME")
    return (Path(base) if base else Path.home() / ".local" / "state") / "onmodel"


def log_folder() -> Path:
    """Logs of services that verbs start."""
    return state_folder() / "logs"


@dataclass(frozen=True)
class Running:
    """Services that `up` started."""

    pid: int
    created: float
    """The process's start time: a pid alone may have gone to another process since."""
    address: str
    log: str
    folder: str
    """Ray's session folder."""

    def alive(self) -> bool:
        """Whether that very process still runs."""
        with contextlib.suppress(psutil.NoSuchProcess):
            process = psutil.Process(self.pid)
            return process.create_time() == self.created and process.status() != psutil.STATUS_ZOMBIE
        return False


def state_file() -> Path:
    """What `up` writes and `down` removes."""
    return state_folder() / "serve.json"


def remember(pid: int, address: str, log: Path, folder: str) -> Running:
    """Write down that `pid` serves at `address`."""
    running = Running(pid, psutil.Process(pid).create_time(), address, str(log), folder)
    write_text(state_file(), json.dumps(asdict(running)))
    return running


def recall() -> Running | None:
    """What `up` started, if it still runs; a file left by a dead process is removed."""
    try:
        running = Running(**json.loads(state_file().read_text(encoding="utf-8")))
    except (OSError, ValueError, TypeError):
        return None
    if running.alive():
        return running
    forget()
    return None


def forget() -> None:
    """Remove the note."""
    state_file().unlink(missing_ok=True)
