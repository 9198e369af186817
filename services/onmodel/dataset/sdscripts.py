"""Sets in the form that sd-scripts and Hugging Face's image folders read, so that other trainers take them unchanged.

D/<repeats>_<class tokens>/<name>.png, .txt    sd-scripts' repeat folders (`--train_data_dir D`)
D/dataset.toml                                 the same as its dataset config (`--dataset_config D/dataset.toml`)
D/metadata.jsonl                               `file_name` and `text` of every picture (an image folder)
"""

import json
from collections import Counter
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from onmodel.dataset.folder import METADATA, Picture

CONFIG = "dataset.toml"
BUCKET_STEP = 64
"""Sides of sd-scripts' buckets are multiples of it, in pixels."""


@dataclass(frozen=True, slots=True)
class Subset:
    """One repeat folder."""

    repeats: int
    """How many times an epoch shows each of its pictures."""
    class_tokens: str

    @property
    def folder(self) -> str:
        """Its name: the number before the first `_` is the repeats, the rest are the class tokens."""
        return f"{self.repeats}_{self.class_tokens}"


@dataclass(frozen=True, slots=True)
class Written:
    """One picture as it lies in the set."""

    file: str
    """Path below the set, with forward slashes."""
    subset: Subset
    lines: tuple[str, ...]
    """Its captions, each whole in itself; empty where nobody wrote one."""


def write_caption(image: Path, lines: Sequence[str]) -> None:
    """Write the captions beside a picture, one a line.

    Without any, no file is written: sd-scripts refuses an empty one, and takes the class tokens where there is none.
    """
    if lines:
        image.with_suffix(".txt").write_text("\n".join(lines) + "\n", encoding="utf-8")


def lines_of(picture: Picture) -> tuple[str, ...]:
    """The captions of a picture of a dataset."""
    return tuple(line for line in (picture.caption, *picture.variants) if line)


def default_resolution(sides: Sequence[int]) -> int:
    """Training resolution for pictures with these shorter sides: their middle one, at most 512, in steps of 64."""
    middle = sorted(sides)[len(sides) // 2] if sides else 512
    return max(BUCKET_STEP, min(512, middle) // BUCKET_STEP * BUCKET_STEP)


def write_config(folder: Path, home: Path, pictures: Sequence[Written], resolution: int) -> None:
    """Write `dataset.toml` into a set that is being made.

    Args:
        folder: where the set is being made.
        home: where it will lie. Its folders are named from the root: sd-scripts takes relative ones from where it is
            started, not from where the file lies.
        pictures: of the set.
        resolution: of training, in pixels.
    """
    general: dict[str, Any] = {
        "caption_extension": ".txt",
        "enable_bucket": True,
        "bucket_reso_steps": BUCKET_STEP,
        # Buckets smaller than the resolution must be allowed, or sd-scripts refuses one below its least of 256.
        "min_bucket_reso": max(BUCKET_STEP, resolution // 2 // BUCKET_STEP * BUCKET_STEP),
        "max_bucket_reso": 2 * resolution,
    }
    if any(len(picture.lines) > 1 for picture in pictures):
        # With it sd-scripts draws one line of a caption of several; without, it reads the first alone.
        general["enable_wildcard"] = True
    text = [
        "# Written by `onmodel merge`. After moving the folder, change each image_dir, or train on the folder itself",
        "# with --train_data_dir and --caption_extension .txt.",
        *_table("[general]", general),
        *_table("[[datasets]]", {"resolution": resolution}),
    ]
    for subset in sorted(Counter(picture.subset for picture in pictures), key=lambda subset: subset.repeats):
        options = {"num_repeats": subset.repeats, "class_tokens": subset.class_tokens}
        text += _table("[[datasets.subsets]]", {"image_dir": str(home.resolve() / subset.folder), **options})
    (folder / CONFIG).write_text("\n".join(text) + "\n", encoding="utf-8")


def _table(head: str, options: dict[str, Any]) -> list[str]:
    # JSON's way to write strings, whole numbers and truth values is TOML's too.
    return ["", head, *(f"{key} = {json.dumps(value, ensure_ascii=False)}" for key, value in options.items())]


def write_metadata(folder: Path, pictures: Sequence[Written], extra: Sequence[dict[str, Any]]) -> None:
    """Write `metadata.jsonl` into a set that is being made: `file_name`, `text` (the first caption), and `extra`."""
    rows = [
        {"file_name": picture.file, "text": picture.lines[0] if picture.lines else "", **more}
        for picture, more in zip(pictures, extra, strict=True)
    ]
    text = "".join(json.dumps(row, ensure_ascii=False) + "\n" for row in rows)
    (folder / METADATA).write_text(text, encoding="utf-8")
