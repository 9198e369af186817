"""Copies of a dataset at the side that is trained at, with what is in each picture beside them as labels.

Training cuts every picture to its side anyway; a copy is small, and its labels spare the machine that trains a
detector and the table of its facts.
"""

from collections.abc import Callable, Mapping
from pathlib import Path
from typing import TYPE_CHECKING

from PIL import Image

from onmodel.core.files import content_hash, folder_aside
from onmodel.core.images import decode
from onmodel.core.vocabulary import Attribute
from onmodel.dataset.folder import Dataset, Picture, load_dataset
from onmodel.dataset.labels import Label, labelled_categories, write_labels
from onmodel.training.buckets import cut_to_bucket

if TYPE_CHECKING:
    from onmodel.dataset.analysis import Analysis


def render_once(folder: Path, fill: Callable[[Path], object]) -> None:
    """Let `fill` make a rendered set where it is not there; its truth, which the product may not know, is left out."""
    if not folder.is_dir():
        with folder_aside(folder) as aside:
            fill(aside)
            for truth in aside.glob("*.jsonl"):
                truth.unlink()


def copy_small(dataset: Dataset, analysis: "Analysis", folder: Path, side: int) -> None:
    """Write `dataset` to `folder`, pictures at `side` x `side` as training cuts them, all else as it is.

    Pictures become lossless WebP; captions and repeat folders stay, and `labels.jsonl` says what the analysis saw.
    """
    rows = {row.file: row for row in analysis.rows}
    labels: list[Label] = []
    with folder_aside(folder) as aside:
        for picture in dataset.pictures:
            name = dataset.relative(picture)
            target = (aside / name).with_suffix(".webp")
            target.parent.mkdir(parents=True, exist_ok=True)
            cut_to(picture, side).save(target, "WEBP", lossless=True, quality=100, method=4)
            target.with_suffix(".txt").write_text("\n".join((picture.caption, *picture.variants)) + "\n", "utf-8")
            row = rows[name]
            labels.append(
                Label(
                    file=target.relative_to(aside).as_posix(),
                    hash=content_hash(target.read_bytes()),
                    shot_type=row.shot_type,
                    attributes=tuple(Attribute(attribute) for attribute in row.attributes),
                )
            )
        write_labels(aside, labels)


def cut_to(picture: Picture, side: int) -> Image.Image:
    """A picture as training cuts it to a square."""
    pixels = cut_to_bucket(decode(picture.bytes(), str(picture.path)), (side, side))
    return Image.fromarray(((pixels + 1) * 127.5).round().byte().permute(1, 2, 0).numpy())


def categories_in(folder: Path) -> Mapping[Path, frozenset[str]]:
    """What is in each picture of a copied set, by its path."""
    pictures = load_dataset(folder).pictures
    known = labelled_categories(folder, [picture.hash for picture in pictures])
    assert known is not None, f"{folder} is no copy"
    return {picture.path: frozenset(known[picture.hash]) for picture in pictures}
