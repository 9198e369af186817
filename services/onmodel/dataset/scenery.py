"""What composites are made of: backgrounds without anyone, other characters, things in front; and what was refused."""

import io
from collections import Counter
from collections.abc import Callable, Iterable, Sequence
from dataclasses import dataclass, field
from typing import TypeVar

import cv2
import numpy as np
import numpy.typing as npt
from PIL import Image, ImageOps

from onmodel.core.errors import ImageError
from onmodel.core.images import MAX_PIXELS, RGB, decode
from onmodel.core.vocabulary import Attribute, Box, ShotType
from onmodel.dataset.analysis import Analysis, Row
from onmodel.dataset.captions import segments
from onmodel.dataset.cutouts import Cutout, cut_character, cut_thing
from onmodel.dataset.folder import Dataset, Picture
from onmodel.dataset.mend import names_somebody
from onmodel.dataset.mix import spread

Item = TypeVar("Item")

OTHER_COLOUR = 15.0
"""Distance in CIE Lab between the ends of a picture that have different things in them."""
EVEN = 0.6
"""Mean step of lightness between neighbours, at 64 pixels a side, that a wall or a floor stays below."""
MOST = 48
"""Cutouts of a kind that are kept in memory, evenly over the given pictures."""


@dataclass(frozen=True, slots=True)
class Backdrop:
    """A picture without a character."""

    file: str
    hash: str
    width: int
    height: int
    busy: bool
    light: float
    """Mean lightness of its lower two thirds, CIE L of 0 to 100."""
    ground: bool
    """Whether somebody could stand in it."""
    read: Callable[[], RGB]
    caption: str = ""


@dataclass(frozen=True, slots=True)
class Companion:
    """Another character."""

    cutout: Cutout
    shot: ShotType


@dataclass
class Scenery:
    """Everything that may be put together with the dataset's own characters."""

    backdrops: list[Backdrop] = field(default_factory=list[Backdrop])
    companions: list[Companion] = field(default_factory=list[Companion])
    foregrounds: list[Cutout] = field(default_factory=list[Cutout])
    refused: Counter[str] = field(default_factory=Counter[str])
    """Why a given picture is not used -> how many."""

    def add_backgrounds(self, dataset: Dataset, analysis: Analysis, trigger: str | None = None) -> None:
        """Pictures in which the detector finds nobody, and whose captions name nobody either."""
        for picture, row in paired(dataset, analysis):
            if row.error is not None:
                self.refused["background: the picture cannot be read"] += 1
            elif row.instances:
                self.refused["background: it shows a character"] += 1
            elif names_anybody(picture.caption, trigger):
                self.refused["background: its caption names a character that is not found"] += 1
            else:
                self._add_background(picture, row)

    def _add_background(self, picture: Picture, row: Row) -> None:
        try:
            image = decode(picture.bytes(), row.file)
        except ImageError:
            self.refused["background: the picture cannot be read"] += 1
            return
        busy, light = Attribute.COMPLEX_BACKGROUND in row.attributes, lightness(image, lower=2 / 3)

        def read() -> RGB:
            return decode(picture.bytes(), row.file)

        self.backdrops.append(
            Backdrop(
                row.file, row.hash or "", row.width, row.height, busy, light, has_ground(image), read, picture.caption
            )
        )

    def add_companions(self, dataset: Dataset, analysis: Analysis, own: Iterable[str] = ()) -> None:
        """Main characters that can be cut out. `own`: hashes of the dataset's pictures, which show our character."""
        mine = frozenset(own)
        usable = [pair for pair in paired(dataset, analysis) if pair[1].hash not in mine]
        for picture, row in _some(usable):
            try:
                cutout = cut_character(decode(picture.bytes(), row.file), row)
            except ImageError:
                cutout = "the picture cannot be read"
            if isinstance(cutout, str):
                self.refused[f"companion: {cutout}"] += 1
            else:
                self.companions.append(Companion(cutout, row.shot_type))

    def add_foregrounds(self, dataset: Dataset, analysis: Analysis | None) -> None:
        """Pictures with transparency as they are; of others the things that the detector finds in front."""
        rows = {} if analysis is None else {row.file: row for row in analysis.rows}
        for picture in _some(dataset.pictures):
            name = dataset.relative(picture)
            try:
                found = _with_alpha(picture, name) or _things(picture, name, rows.get(name))
            except ImageError:
                found = ["the picture cannot be read"]
            for cutout in found:
                if isinstance(cutout, str):
                    self.refused[f"foreground: {cutout}"] += 1
                else:
                    self.foregrounds.append(cutout)


def paired(dataset: Dataset, analysis: Analysis) -> list[tuple[Picture, Row]]:
    """Pictures with what was seen in them, in the dataset's order."""
    rows = {row.file: row for row in analysis.rows}
    return [(p, rows[dataset.relative(p)]) for p in dataset.pictures if dataset.relative(p) in rows]


def _some(items: Sequence[Item]) -> list[Item]:
    return [items[place] for place in spread(MOST, len(items))]


def lightness(image: RGB, lower: float = 1.0, outside: Sequence[Box] = ()) -> float:
    """Mean CIE L, 0 to 100, of the lower share of a picture outside boxes."""
    height, width = image.shape[:2]
    scale = min(1.0, 96 / max(height, width))
    size = (max(1, round(width * scale)), max(1, round(height * scale)))
    small = cv2.resize(image, size, interpolation=cv2.INTER_AREA)
    lab = cv2.cvtColor(small.astype(np.float32) / 255, cv2.COLOR_RGB2LAB)[..., 0]
    counted = np.ones(lab.shape, dtype=np.bool_)
    counted[: int(size[1] * (1 - lower))] = False
    for box in outside:
        x0, y0, x1, y1 = (round(v * scale) for v in box.as_tuple())
        counted[max(0, y0) : max(0, y1), max(0, x0) : max(0, x1)] = False
    return float(lab[counted].mean() if counted.any() else lab.mean())


def has_ground(image: RGB) -> bool:
    """Whether the lower end of a picture can be stood on: it has another colour than the upper end, and is no lighter.

    Sky goes on as sky, lightest at its lower end. Where both ends are even, it is a studio's wall and floor.
    """
    small = cv2.resize(image, (64, 64), interpolation=cv2.INTER_AREA).astype(np.float32) / 255
    lab = cv2.cvtColor(small, cv2.COLOR_RGB2LAB)
    upper, lower = lab[:13], lab[-13:]
    detail = max(float(np.abs(np.diff(part[..., 0], axis=1)).mean()) for part in (upper, lower))
    if detail < EVEN:
        return True
    ends = [np.median(part.reshape(-1, 3), axis=0) for part in (upper, lower)]
    return bool(np.linalg.norm(ends[1] - ends[0]) >= OTHER_COLOUR and ends[1][0] <= ends[0][0] + 5.0)


def names_anybody(caption: str, trigger: str | None) -> bool:
    """Whether a caption names our character or any other."""
    parts = segments(caption)
    return any(names_somebody(part) or (trigger is not None and part.lower() == trigger.lower()) for part in parts)


def is_opaque(picture: Picture) -> bool:
    """Whether a picture has no transparency; True for one that cannot be read."""
    try:
        return _alpha_of(picture) is None
    except ImageError:
        return True


def _alpha_of(picture: Picture) -> npt.NDArray[np.uint8] | None:
    """A picture with transparency as uint8 RGBA (height, width, 4); None for one without. Raises ImageError."""
    try:
        with Image.open(io.BytesIO(picture.bytes())) as opened:
            if "A" not in opened.getbands() and "transparency" not in opened.info:
                return None
            if opened.width * opened.height > MAX_PIXELS:
                raise ImageError(f"{picture.path}: more pixels than the limit of {MAX_PIXELS}; scale it down")
            rgba = np.asarray(ImageOps.exif_transpose(opened).convert("RGBA"), dtype=np.uint8)
    except (OSError, SyntaxError, ValueError, ImportError) as error:
        # ImportError: ultralytics replaces Image.open by one that asks for a HEIF plugin before giving up.
        raise ImageError(f"{picture.path}: damaged or no picture ({error}); replace it") from None
    return rgba if rgba[..., 3].min() < 250 else None


def _with_alpha(picture: Picture, name: str) -> list[Cutout | str]:
    """The opaque part of a picture with transparency; empty for one without."""
    rgba = _alpha_of(picture)
    if rgba is None:
        return []
    alpha = rgba[..., 3].astype(np.float32) / 255
    rows, columns = np.flatnonzero((alpha > 0.05).any(axis=1)), np.flatnonzero((alpha > 0.05).any(axis=0))
    if len(rows) < 8 or len(columns) < 8:
        return ["hardly a pixel of it is opaque"]
    y0, y1, x0, x1 = int(rows[0]), int(rows[-1]) + 1, int(columns[0]), int(columns[-1]) + 1
    pixels = np.ascontiguousarray(rgba[y0:y1, x0:x1, :3])
    soft = np.ascontiguousarray(alpha[y0:y1, x0:x1], dtype=np.float32)
    # Its lower end is the thing's own, wherever it lies in the file: nothing cuts a drawn cutout.
    size = (rgba.shape[1], 2 * rgba.shape[0])
    return [Cutout(name, picture.hash, pixels, soft, Box(x0, y0, x1, y1), size, caption=picture.caption)]


def _things(picture: Picture, name: str, row: Row | None) -> list[Cutout | str]:
    if row is None or row.error is not None or not row.occluders:
        return ["no transparency in it, and the detector finds nothing in front"]
    image = decode(picture.bytes(), name)
    largest = max((Box(*numbers) for numbers in row.occluders), key=lambda box: box.area)
    return [cut_thing(image, largest, name, row.hash or "")]
