"""Where OnModel remembers what it started for this user."""

import os
from pathlib import Path


def state_folder() -> Path:
    """$XDG_STATE_HOME/onmodel, or ~/.local/state/onmodel."""
    base = os.environ.get("XDG_STATE_HOME")
    return (Path(base) if base else Path.home() / ".local" / "state") / "onmodel"


def log_folder() -> Path:
    """Logs of services that verbs start."""
    return state_folder() / "logs"
