"""One trial as every worker gets it, and the names of the files it leaves. Imports nothing heavy.

The driver and Ray's controller import this and not torch or diffusers: these take seconds, and only the workers
need them.
"""

import json
import os
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Protocol

from onmodel.core.errors import UserError
from onmodel.core.files import content_hash
from onmodel.training.config import DataSection, TrainConfig
from onmodel.training.wildcards import choose

CONFIG = "config.toml"
"""The resolved config."""
DATASET = "dataset.json"
"""What was trained on: paths, hashes, captions and repeats."""
METRICS = "metrics.jsonl"
"""One line an optimizer step."""
LOSS_CHART = "loss.svg"
PROBLEMS = "problems.json"
"""Pictures that were left out, a sentence each; only where there are some."""
VALIDATION = "validation.jsonl"
"""One line each time that held-back pictures are looked at; only where there are some."""
EVERY_PICTURE = "all"
"""In its lines, the name of the mean over all held-back pictures, beside those of the categories."""
STATE = "state"
"""Folder of the newest full state."""
STAGES = "stages"
"""Folder of the state that each finished stage ended with, by its name; only where the config has stages."""
PEFT = "peft"
"""Folder of each checkpoint's copy in PEFT's format."""
SAMPLES = "samples"
"""Folder of pictures drawn on the way."""
PROGRESS = ".progress.json"
"""What is going on before the first step; there while a run is under way."""
OWNER = ".owner"
"""Names the process that writes the trial's files: the one that began last. There while a run is under way."""


class TakenOverError(UserError):
    """Another process trains the trial now: its files are no longer this one's to write."""


@dataclass(frozen=True)
class CaptionRules:
    """How the captions of some pictures vary; the keys are sd-scripts'."""

    shuffle_caption: bool = False
    keep_tokens: int = 0
    keep_tokens_separator: str | None = None
    caption_separator: str = ","
    caption_tag_dropout_rate: float | None = None
    """None: as the config says at the time, which a stage may change."""
    caption_dropout_rate: float | None = None
    """The same."""
    caption_dropout_every_n_epochs: int = 0
    enable_wildcard: bool = False

    @classmethod
    def of(cls, data: DataSection) -> "CaptionRules":
        """The rules of a whole config."""
        keys = ("shuffle_caption", "keep_tokens", "keep_tokens_separator", "caption_separator", "enable_wildcard")
        return cls(
            **{key: getattr(data, key) for key in keys},
            caption_dropout_every_n_epochs=data.caption_dropout_every_n_epochs,
        )

    def plain(self, line: str) -> str:
        """The line with the first of its alternatives, and without marks."""
        return self.unmarked(choose(line, lambda count: 0) if self.enable_wildcard else line)

    def unmarked(self, line: str) -> str:
        """The line with its separators taken out: they are marks for us and no words."""
        mark = self.keep_tokens_separator
        return " ".join(line.replace(mark, " ").split()) if mark and mark in line else line


@dataclass(frozen=True)
class TrainingPicture:
    """One picture of the training set, as the loop needs it."""

    path: Path
    caption: str
    repeats: int
    hash: str
    """SHA-256 of the file's bytes; empty for a file that cannot be read."""
    class_tokens: str | None = None
    """What the folder's name calls the character, in a `10_name class` folder."""
    variants: tuple[str, ...] = ()
    """Further captions; each showing draws one of all."""
    categories: tuple[str, ...] = ()
    """Those that the picture counts in, sorted; empty where nobody looked, or where it is of no known kind."""
    held_back: bool = False
    """Kept from training, for the validation loss; such a picture repeats 0 times."""

    rules: CaptionRules = CaptionRules()
    weight: float = 1.0
    """How much its loss counts."""
    is_reg: bool = False
    """A regularisation picture: of the class, without the character."""
    flip_aug: bool = False
    """Shown mirrored in half of its showings."""
    alpha_mask: bool = False
    """The loss counts where its alpha channel is opaque."""
    mask: str = ""
    """Hash of what its mask is made from, with `masked_loss`; empty where it has none or the alpha channel is it."""
    mirrored: bool = False
    """Left and right are changed over."""
    pool: tuple[str, ...] = ()
    """What `captions.pool` made of the captions: all that a showing may say; empty: the captions themselves."""

    @property
    def plain_caption(self) -> str:
        """The first caption, nothing shuffled and nothing left out."""
        return self.rules.plain(self.caption)

    @property
    def captions(self) -> tuple[str, ...]:
        """Everything that a showing may say."""
        return self.pool or (self.caption, *self.variants)

    @property
    def view(self) -> str:
        """Hash of what is encoded: the file's bytes, and whether it is mirrored."""
        return content_hash(f"{self.hash} mirrored".encode()) if self.mirrored else self.hash


class Samples(Protocol):
    """What `sample_prompts` names, ready to be drawn; goes to the workers by pickle."""

    def draw(self, pipeline: Any, folder: Path, name: str, clip_skip: int = 1) -> list[Path]:
        """Draw each prompt with a diffusers pipeline into `folder`; file names begin with `name`.

        Args:
            clip_skip: layer of an SD text encoder, from its end, that prompts are read by.
        """
        ...


@dataclass(frozen=True)
class Job:
    """One trial; where its folder holds a state, the run goes on from that."""

    config: TrainConfig
    trial_dir: Path
    pictures: tuple[TrainingPicture, ...]
    dataset_hash: str
    cache_dir: Path | None
    started: float
    """Seconds since 1970."""
    batch: int
    """Pictures of a forward pass over all workers, however many these are; what a state is gone on with."""
    first_stage: int = 0
    """Where a run begins that has no state yet."""
    last_stage: int | None = None
    """The run ends with this stage; None: with the last one."""
    samples: Samples | None = None


def read_metrics(file: Path) -> list[dict[str, Any]]:
    """The steps in a `metrics.jsonl`; a last line cut off by a kill is left out. Empty when there is no file."""
    if not file.is_file():
        return []
    steps: list[dict[str, Any]] = []
    for line in file.read_text(encoding="utf-8").splitlines():
        try:
            steps.append(json.loads(line))
        except ValueError:
            break
    return steps


def threads_per_worker(workers_on_machine: int) -> int:
    """All cores of this machine shared out among the workers on it."""
    cores = len(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else os.cpu_count() or 1
    return max(1, cores // max(1, workers_on_machine))
