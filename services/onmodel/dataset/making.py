"""Planned pictures made: their pixels, captions, files and lineage."""

from collections.abc import Mapping
from pathlib import Path
from typing import Any

import numpy as np

from onmodel.core.files import content_hash
from onmodel.core.images import decode, encode_png
from onmodel.core.vocabulary import ShotType
from onmodel.dataset.analysis import Numbers
from onmodel.dataset.candidates import Planned, rng_of
from onmodel.dataset.captions import (
    PLACE,
    for_crop,
    segments,
    shuffled,
    with_context,
    with_shot,
    without_company,
    without_hiding,
    without_place,
)
from onmodel.dataset.compose import Recipe, paint
from onmodel.dataset.crops import CropConfig, cut, widen
from onmodel.dataset.derived import Names
from onmodel.dataset.folder import Picture


class Maker:
    """Makes planned pictures, each once: what was made to be checked is kept in a folder until it is written."""

    def __init__(self, sources: Mapping[str, Picture], crop: CropConfig, seed: int, folder: Path) -> None:
        self._sources = sources
        self._crop = crop
        self._seed = seed
        self._folder = folder
        self._made: dict[int, tuple[Path, Numbers | None]] = {}

    def source(self, item: Planned) -> Picture:
        """The original that an item is made from."""
        return self._sources[item.row.file]

    def pixels(self, number: int, item: Planned) -> tuple[bytes, Numbers | None]:
        """Encoded bytes, and the window (of a crop, or that a composite starts from) or where the original lies
        (widen). Raises ImageError.

        `number` tells one item from another.
        """
        if item.operation == "copy":
            return self.source(item).bytes(), None
        if number not in self._made:
            data, box = self._make(item)
            path = self._folder / f"{number}.png"
            path.write_bytes(data)
            self._made[number] = (path, box)
        path, box = self._made[number]
        return path.read_bytes(), box

    def _make(self, item: Planned) -> tuple[bytes, Numbers | None]:
        image = decode(self.source(item).bytes(), item.row.file)
        if item.operation == "widen":
            made, where = widen(image, item.row, self._crop, rng_of(self._seed, item.row, "widen", item.variant))
            x0, y0, x1, y1 = (round(v, 2) for v in where)
            return encode_png(made), (x0, y0, x1, y1)
        if item.window is not None:
            image = cut(image, item.window, self._crop)
        if item.recipe is not None:
            image = paint(item.recipe, image)
        return encode_png(image), None if item.window is None else item.window.as_tuple()


class Writer:
    """Writes pictures and captions below one folder and keeps their lineage."""

    def __init__(
        self, folder: Path, maker: Maker, lines: int, seed: int, dataset: Path, trigger: str | None = None
    ) -> None:
        """`dataset`: the originals' set. `trigger`: what derived pictures of an uncaptioned original are called."""
        self._dataset = str(dataset)
        self._trigger = trigger
        self._folder = folder
        self._maker = maker
        self._lines = lines
        self._seed = seed
        self._names = Names()
        self.lineage: list[dict[str, Any]] = []

    def write(self, number: int, item: Planned, repeats: int, folder: str) -> tuple[str, str]:
        """Write one picture and its captions; returns its content hash and path. Raises ImageError."""
        data, box = self._maker.pixels(number, item)
        source = self._maker.source(item)
        rng = rng_of(self._seed, item.row, f"{item.kind} {item.shot}", item.variant)
        lines = captions(item, self._lines, rng, self._trigger)
        stem, suffix = source.path.stem, source.path.suffix
        if item.operation != "copy":
            stem, suffix = f"{stem}_{item.shot.value}{item.variant + 1}", ".png"
        if item.recipe is not None:
            stem = f"{source.path.stem}_composite_{item.shot.value}{item.variant + 1}"
        target = self._folder / folder / f"{self._names.free(stem)}{suffix}"
        target.parent.mkdir(exist_ok=True)
        target.write_bytes(data)
        target.with_suffix(".txt").write_text("".join(line + "\n" for line in lines), encoding="utf-8")
        content, file = content_hash(data), target.relative_to(self._folder).as_posix()
        self.lineage.append(
            {
                "file": file,
                "hash": content,
                "dataset": self._dataset,
                "source": item.row.file,
                "source_hash": item.row.hash,
                "operation": item.operation,
                "synthetic": item.synthetic,
                "box": box,
                "parts": None if item.recipe is None else parts(item.recipe),
                "shot_type": item.shot.value,
                "attributes": sorted(item.attributes),
                "repeats": repeats,
                "caption_before": item.row.caption,
                "caption": lines[0],
            }
        )
        return content, file


def parts(recipe: Recipe) -> dict[str, Any]:
    """What a composite was put together from, for the lineage: files, hashes and boxes in its pixels."""

    def placed(name: str) -> dict[str, Any] | None:
        part = getattr(recipe, name)
        if part is None:
            return None
        box = [round(v, 2) for v in part.box.as_tuple()]
        return {"file": part.cutout.file, "hash": part.cutout.hash, "box": box}

    back = recipe.backdrop
    return {
        "background": None if back is None else {"file": back.file, "hash": back.hash},
        "character": placed("main"),
        "companion": placed("companion"),
        "foreground": placed("foreground"),
    }


def captions(item: Planned, lines: int, rng: np.random.Generator, trigger: str | None = None) -> list[str]:
    """Captions of a planned picture, the plainest first, `lines` at most and no two alike."""
    if item.shot is ShotType.UNCLASSIFIED:
        return [item.row.caption]
    caption = _shown(item, item.row.caption or trigger or "")
    found: list[str] = []
    for variant in range(item.variant, item.variant + 2 * lines):
        line = with_context(with_shot(caption, item.shot, variant), item.attributes, variant)
        line = shuffled(line, rng) if variant else line
        if line not in found:
            found.append(line)
        if len(found) == lines:
            break
    return found


def _shown(item: Planned, caption: str) -> str:
    """The original's caption without what the new picture no longer shows, and with what its parts' captions say."""
    if item.window is not None:
        caption = for_crop(caption, item.shot)
    if item.operation == "crop":
        if "multi_character" not in item.attributes:
            caption = without_company(caption)
        return caption if "occlusion" in item.attributes else without_hiding(caption)
    recipe = item.recipe
    if recipe is None:
        return caption
    if recipe.backdrop is not None:
        caption = without_hiding(without_company(without_place(caption)))
        places = [part for part in segments(recipe.backdrop.caption) if PLACE.search(part)]
        caption = ", ".join([*segments(caption), *places])
    if recipe.foreground is not None:
        thing = recipe.foreground.cutout.caption
        if thing and "," not in thing and len(thing.split()) <= 3:
            caption = f"{caption}, behind {thing}"
    return caption
