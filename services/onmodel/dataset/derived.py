"""Folders derived from datasets: where they may lie, how their files are named, and where each came from."""

import json
import re
from collections import Counter
from collections.abc import Iterable, Mapping, Sequence
from pathlib import Path
from typing import Any

from onmodel.core.errors import UserError
from onmodel.dataset.facts import FILE, Facts
from onmodel.dataset.folder import Dataset, Picture
from onmodel.dataset.labels import read_labels, write_labels

LINEAGE = "lineage.jsonl"
"""One JSON object a line for each picture of a derived set; its presence marks the folder as ours to replace."""


def check_place(
    sources: Iterable[Path],
    output_dir: Path,
    *,
    marker: str = LINEAGE,
    kind: str = "derived set",
    beside: str = "the dataset, which stays untouched; choose a folder beside it",
) -> None:
    """Refuse an output folder in or around a source, or one that holds something else.

    Args:
        sources: folders of the pictures given.
        output_dir: where the set is to lie.
        marker: name of the file that marks a folder as one to replace.
        kind: what such a folder is called.
        beside: the end of the sentence about a folder in or around a source.

    Raises:
        UserError: says which and what to choose instead.
    """
    target = output_dir.resolve()
    for source in (path.resolve() for path in sources):
        if target == source or target in source.parents or source in target.parents:
            raise UserError(f"{output_dir}: lies in or around {beside}")
    if output_dir.exists() and (
        not output_dir.is_dir() or (any(output_dir.iterdir()) and not (output_dir / marker).is_file())
    ):
        raise UserError(f"{output_dir}: exists and is no {kind} of ours; choose another --output-dir or remove it")


def class_tokens(dataset: Dataset) -> str:
    """The words behind the number in repeat folders' names: the dataset's own, or its folder's name."""
    given = Counter(picture.class_tokens for picture in dataset.pictures if picture.class_tokens)
    words = given.most_common(1)[0][0] if given else dataset.path.resolve().name
    return re.sub(r"[^\w .-]+", " ", str(words)).strip() or "character"


def folder_of(picture: Picture, tokens: str) -> str:
    """The folder below a derived set where a picture keeps its repeats; "" is the set's own folder."""
    if picture.repeats == 1 and picture.class_tokens is None:
        return ""
    return f"{picture.repeats}_{picture.class_tokens or tokens}"


class Names:
    """Stems that no other picture of a set has, over all its folders: files may be put together later."""

    def __init__(self) -> None:
        self._used: set[str] = set()

    def free(self, stem: str) -> str:
        """`stem`, or with a number behind it where it is taken. Case does not tell two names apart."""
        name, count = stem, 1
        while name.lower() in self._used:
            count += 1
            name = f"{stem}_{count}"
        self._used.add(name.lower())
        return name


def write_lineage(folder: Path, lines: Sequence[Mapping[str, Any]]) -> None:
    """Write `lineage.jsonl` into a folder that is being made."""
    (folder / LINEAGE).write_text("".join(json.dumps(line) + "\n" for line in lines), encoding="utf-8")


def read_lineage(folder: Path) -> dict[str, dict[str, Any]]:
    """File -> its line of `lineage.jsonl`. It is told on where it can be read; a damaged file is as good as none."""
    try:
        # Not splitlines: it also splits at characters that a name may hold.
        lines = (folder / LINEAGE).read_text(encoding="utf-8").split("\n")
        rows: list[Any] = [json.loads(line) for line in lines if line.strip()]
    except (OSError, ValueError):
        return {}
    return {str(row["file"]): row for row in rows if isinstance(row, dict) and "file" in row}


def inherited(before: Mapping[str, Any]) -> dict[str, Any]:
    """What a source set's line still says of a picture that is taken over unchanged: film, time, shot, likeness, ….

    How it was made (from which picture, by what) moves to `made` where the picture is no original.
    """
    rest = dict(before)
    made = {key: rest.pop(key, None) for key in ("operation", "source", "source_hash", "box")}
    if made["operation"] not in (None, "copy", "caption"):
        rest["made"] = made
    return rest


def carry_labels(source: Path, folder: Path, files: Mapping[str, str]) -> None:
    """Copy what a person said of pictures that a derived set holds unchanged.

    Args:
        source: folder of the dataset whose labels are read.
        folder: the derived set being made.
        files: content hash -> path below the derived set.

    Raises:
        UserError: the labels are damaged.
    """
    labels = [
        label.model_copy(update={"file": files[content]})
        for content, label in read_labels(source).items()
        if content in files
    ]
    if labels:
        write_labels(folder, labels)


def carry_facts(source: Path, folder: Path, files: Mapping[str, str]) -> None:
    """Copy what is known of pictures that a derived set holds unchanged, so that analysing it looks at none again.

    What a person corrected goes along too.

    Args:
        source: folder of the dataset whose facts and labels are read.
        folder: the derived set being made.
        files: content hash of each picture to its path below `folder`.
    """
    kept = Facts(folder / FILE)
    for key, outcome in Facts.open(source).items():
        if key[0] in files:
            kept.put(key, outcome)
    kept.save()
    carry_labels(source, folder, files)
