"""A trial as evaluation needs it: a checkpoint, its base model, its trigger word and what it was trained on."""

import json
from collections import Counter
from dataclasses import dataclass
from enum import StrEnum
from pathlib import Path
from typing import Any

from safetensors import SafetensorError, safe_open

from onmodel.core.config import read_mapping
from onmodel.core.errors import NotFoundError, UserError

CONFIG_FILE = "config.toml"
DATASET_FILE = "dataset.json"
EVALUATION_FOLDER = "evaluation"


@dataclass(frozen=True, slots=True)
class Trial:
    """One checkpoint of a trial."""

    name: str
    """The trial folder's name, or the file's stem where it lies in no trial folder."""
    checkpoint: Path
    base: str
    trigger: str | None
    training_pictures: tuple[Path, ...]
    """Those that still exist; empty where the checkpoint does not say."""
    dataset: Path | None
    """The dataset folder, where the trial names one that still exists."""
    vae: str | None = None
    """The autoencoder that it was trained with, where that is not the base model's own."""
    clip_skip: int = 1
    """Layer of the text encoder, from its end, that it was trained with."""
    epoch: int | None = None
    """Of the checkpoint, from 1; None where its metadata does not say."""
    step: int | None = None
    """Optimizer steps up to the checkpoint."""
    stage: str | None = None
    """Name of the training stage that it belongs to."""

    @property
    def evaluation_folder(self) -> Path:
        """Where its pictures and figures lie unless told otherwise."""
        return self.checkpoint.parent / EVALUATION_FOLDER


def open_trial(path: Path, *, base: str | None = None, trigger: str | None = None) -> Trial:
    """Find a trial by its folder (then its last checkpoint) or by a LoRA file.

    Args:
        base: base model, where the trial's config names none or another is wanted.
        trigger: trigger word, where the checkpoint's captions do not show it.

    Raises:
        NotFoundError: no such file or folder.
        UserError: a folder without a checkpoint, a file that is no LoRA, or no base model known.
    """
    checkpoint = checkpoints_of(path, Which.LAST)[0] if path.is_dir() else path
    if not checkpoint.is_file():
        raise NotFoundError(f"{path}: no such checkpoint or trial folder; check the path")
    metadata = metadata_of(checkpoint)
    folder = checkpoint.parent
    config = read_mapping(folder / CONFIG_FILE) if (folder / CONFIG_FILE).is_file() else {}
    model: dict[str, Any] = config.get("model", {})
    named: Any = model.get("pretrained_model_name_or_path")
    skipped = metadata.get("ss_clip_skip", "")
    found = base or named or metadata.get("ss_sd_model_name")
    if not found:
        raise UserError(f"{checkpoint}: does not say which base model it belongs to; pass --base")
    dataset, pictures = _training_set(folder / DATASET_FILE)
    return Trial(
        name=folder.name if config else checkpoint.stem,
        checkpoint=checkpoint,
        base=str(found),
        trigger=trigger or metadata.get("modelspec.trigger_phrase") or guess_trigger(metadata.get("ss_tag_frequency")),
        training_pictures=pictures,
        dataset=dataset if dataset and dataset.is_dir() else None,
        vae=None if base else model.get("vae"),
        clip_skip=int(skipped) if skipped.isdigit() else 1,
        epoch=_number(metadata.get("ss_epoch")),
        step=_number(metadata.get("ss_steps")),
        stage=metadata.get("ss_onmodel_stage") or None,
    )


class Which(StrEnum):
    """Which checkpoints of a trial folder."""

    LAST = "last"
    ALL = "all"
    BEST = "best"
    """The one that the last choice among them recommends."""


def checkpoints_of(folder: Path, which: Which) -> list[Path]:
    """Checkpoint files of a trial folder, the earliest first.

    Raises:
        UserError: the folder holds none, or nothing was chosen among them yet.
    """
    files = sorted(f for f in folder.glob("*.safetensors") if f.stem.startswith(folder.name))
    files = files or sorted(folder.glob("*.safetensors"))
    if not files:
        raise UserError(f"{folder}: holds no .safetensors checkpoint; train it first or give a checkpoint file")
    if which is Which.ALL:
        return files
    return [_best_of(folder)] if which is Which.BEST else files[-1:]


def _best_of(folder: Path) -> Path:
    from onmodel.evaluation.choice import CHOICE_FILE, read_choice

    path = folder / EVALUATION_FOLDER / CHOICE_FILE
    if not path.is_file():
        raise UserError(
            f"{folder}: nothing was chosen among its checkpoints yet; run `onmodel evaluate {folder} --checkpoints "
            "all` first"
        )
    return folder / read_choice(path).best.checkpoint


def open_trials(path: Path, which: Which, *, base: str | None = None, trigger: str | None = None) -> list[Trial]:
    """The checkpoints of a trial folder, or one LoRA file. Raises as `open_trial` and `checkpoints_of`."""
    files = checkpoints_of(path, which) if path.is_dir() else [path]
    return [open_trial(file, base=base, trigger=trigger) for file in files]


def metadata_of(checkpoint: Path) -> dict[str, str]:
    """The metadata of a LoRA file. Raises UserError where it cannot be read or holds no LoRA."""
    try:
        with safe_open(checkpoint, framework="numpy") as file:
            keys = list(file.keys())
            metadata = file.metadata() or {}
    except (OSError, SafetensorError) as error:
        raise UserError(f"{checkpoint}: cannot be read as a safetensors file ({error}); give a LoRA file") from None
    if not any("lora" in key.lower() for key in keys):
        raise UserError(f"{checkpoint}: holds no LoRA weights; give a checkpoint of `onmodel train` or another LoRA")
    return dict(metadata)


def _number(text: str | None) -> int | None:
    return int(text) if text is not None and text.isascii() and text.isdigit() else None


def guess_trigger(tag_frequency: str | None) -> str | None:
    """The one-word tag that the most captions hold, where half of them do: trainers put the trigger into each."""
    try:
        folders = json.loads(tag_frequency or "{}")
        counts: Counter[str] = Counter()
        for tags in folders.values():
            counts.update({str(tag).strip(): int(count) for tag, count in tags.items()})
    except (ValueError, AttributeError, TypeError):
        return None
    words = [(count, tag) for tag, count in counts.items() if tag and " " not in tag]
    if not words:
        return None
    count, word = max(words)
    return word if count * 2 >= max(counts.values()) else None


def _training_set(path: Path) -> tuple[Path | None, tuple[Path, ...]]:
    """The dataset folder and the pictures that `onmodel train` wrote down, those that still exist."""
    if not path.is_file():
        return None, ()
    value = read_mapping(path)
    try:
        folder = Path(value["path"]) if "path" in value else None
        files = [path.parent / row["path"] for row in value["pictures"]]
    except (KeyError, TypeError):
        raise UserError(f"{path}: not a list of training pictures; mend or remove it") from None
    return folder, tuple(f for f in files if f.is_file())
