"""The full state of a run, for resuming it exactly: written whole or not at all."""

import json
import shutil
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

from onmodel.core.errors import NotFoundError, UserError, first_line
from onmodel.core.files import folder_aside
from onmodel.training.config import TrainConfig

TENSORS = "state.pt"
FACTS = "state.json"


@dataclass(frozen=True)
class StateFacts:
    """What a state belongs to, readable without loading it."""

    step: int
    total_steps: int
    """Of the whole run as it was configured then."""
    stage: int
    """Place of the stage that it stands in."""
    stage_end: int
    """Step at which that stage ends."""
    identity: str
    """`TrainConfig.identity` of the run up to and with that stage: what comes after decides nothing of it."""
    dataset_hash: str
    batch: int
    """Pictures of a forward pass over all workers."""

    @property
    def stage_finished(self) -> bool:
        """Whether the stage took its last step."""
        return self.step >= self.stage_end

    @property
    def finished(self) -> bool:
        """Whether the run took its last step."""
        return self.step >= self.total_steps

    def belongs_to(self, config: TrainConfig, dataset_hash: str) -> bool:
        """Whether a run of `config` on the dataset comes by here."""
        return self.identity == config.through(self.stage).identity and self.dataset_hash == dataset_hash


def save_state(folder: Path, facts: StateFacts, state: dict[str, Any]) -> None:
    """Write `folder`, replacing an older one. Raises ResourceError when the disk is full."""
    import torch

    with folder_aside(folder) as aside:
        torch.save(state, aside / TENSORS)
        (aside / FACTS).write_text(json.dumps(asdict(facts), indent=1), encoding="utf-8")


def copy_state(source: Path, folder: Path) -> None:
    """Make `folder` a copy of the state in `source`. Raises ResourceError when the disk is full."""
    with folder_aside(folder) as aside:
        for name in (TENSORS, FACTS):
            shutil.copyfile(source / name, aside / name)


def read_facts(folder: Path) -> StateFacts | None:
    """Facts of the state in `folder`, or None when there is none. Raises UserError for a damaged one."""
    file = folder / FACTS
    if not file.is_file():
        return None
    try:
        return StateFacts(**json.loads(file.read_text(encoding="utf-8")))
    except (OSError, ValueError, TypeError) as error:
        raise UserError(f"{file}: not the state of a training run ({error}); remove the folder") from None


def load_state(folder: Path) -> dict[str, Any]:
    """The state in `folder`, tensors on the CPU. Raises UserError for a damaged one."""
    import torch

    file = folder / TENSORS
    try:
        return torch.load(file, map_location="cpu", weights_only=True)
    except FileNotFoundError:
        raise NotFoundError(f"{file}: no such file; the folder holds no training state") from None
    except Exception as error:  # the unpickler raises whatever broken bytes lead it to
        reason = first_line(error)
        raise UserError(f"{file}: cannot be read ({reason}); the state is damaged, remove its folder") from None
