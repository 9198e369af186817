"""A trial as evaluation needs it: a checkpoint, its base model, its trigger word and what it was trained on."""

import json
from collections import Counter
from dataclasses import dataclass
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
    checkpoint = _last_checkpoint(path) if path.is_dir() else path
    if not checkpoint.is_file():
        raise NotFoundError(f"{path}: no such checkpoint or trial folder; check the path")
    metadata = _metadata(checkpoint)
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
    )


def _last_checkpoint(folder: Path) -> Path:
    files = sorted(f for f in folder.glob("*.safetensors") if f.stem.startswith(folder.name))
    files = files or sorted(folder.glob("*.safetensors"))
    if not files:
        raise UserError(f"{folder}: holds no .safetensors checkpoint; train it first or give a checkpoint file")
    return files[-1]


def _metadata(checkpoint: Path) -> dict[str, str]:
    try:
        with safe_open(checkpoint, framework="numpy") as file:
            keys = list(file.keys())
            metadata = file.metadata() or {}
    except (OSError, SafetensorError) as error:
        raise UserError(f"{checkpoint}: cannot be read as a safetensors file ({error}); give a LoRA file") from None
    if not any("lora" in key.lower() for key in keys):
        raise UserError(f"{checkpoint}: holds no LoRA weights; give a checkpoint of `onmodel train` or another LoRA")
    return dict(metadata)


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
