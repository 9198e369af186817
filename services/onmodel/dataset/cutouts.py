"""Characters and things cut out of pictures with soft edges, where the cut can be believed; and why not where it can't.

Three ways, the surest first: a segmentation model's outline; the difference from a plain background that is known all
around the character; GrabCut, its leaks into even surroundings closed. A cut is believed when colours change across its
outline nearly everywhere, which they don't where a cut runs through sky or bark.
"""

from dataclasses import dataclass

import cv2
import numpy as np
import numpy.typing as npt

from onmodel.core.images import RGB
from onmodel.core.masks import WORKING_SIDE, Mask, character_mask
from onmodel.core.vocabulary import Attribute, Box, Instance, ShotType
from onmodel.dataset.analysis import Row
from onmodel.dataset.plain import difference

Soft = npt.NDArray[np.float32]
"""float32 (height, width), 0 to 1."""

LEAST_SUPPORT = 0.9
"""Share of an outline across which colours must change. On 48 film frames looked at, cuts below it run through sky or
bark; those above it are right but for small patches."""
STEP = 9.0
"""Least change of colour across an outline, as a distance in CIE Lab."""
LEAST_REACH = 0.85
"""Width and height of a cut, in shares of the detector's box, which is a little wider than the character."""
AGREEMENT = 0.7
"""Overlap (IoU) with GrabCut's cut that a difference from the background must have."""


@dataclass(frozen=True, slots=True)
class Cutout:
    """A character or thing with its soft mask, trimmed to the mask."""

    file: str
    """Where it is from, for the lineage."""
    hash: str
    pixels: RGB
    alpha: Soft
    box: Box
    """Where the trimmed patch lies in its picture, pixels."""
    size: tuple[int, int]
    """Width and height of its picture."""
    face: Box | None = None
    """In the patch's pixels."""
    caption: str = ""
    """What is said of it: "a bush"."""

    @property
    def stands(self) -> bool:
        """Whether it ends within its picture, so that it needs ground; else the lower edge cuts it."""
        return self.box.y1 < self.size[1] - max(1.0, 0.012 * self.size[1])


def cut_character(image: RGB, row: Row) -> Cutout | str:
    """The main character of a picture, or a clause saying why no cut of it can be believed.

    Args:
        image: uint8 RGB (height, width, 3).
        row: what was seen in it.
    """
    main = row.main_instance
    if main is None or row.shot_type is ShotType.UNCLASSIFIED:
        return "no character of a known shot type"
    if Attribute.OCCLUSION in row.attributes:
        return "the character is partly hidden"
    box = Box(*main.box)
    others = [Box(*each.box) for number, each in enumerate(row.instances) if number != row.main]
    if any(other.intersection(box) > 0.02 * box.area for other in others):
        return "another character overlaps it"
    width, height = row.width, row.height
    if box.x0 <= 0.004 * width or box.x1 >= 0.996 * width or (box.y0 <= 0.002 * height and row.shot_type != "close_up"):
        return "the picture's edge cuts the character at its side or top"
    face = None if main.face is None else Box(*main.face)
    instance = Instance(box, main.confidence, main.label, face, outline=main.outline)
    mask = character_mask(image, instance, others=others)
    if mask is None:
        return "no cut found"
    if not main.outline:
        if Attribute.COMPLEX_BACKGROUND in row.attributes:
            return "a busy background, and no outline from a segmentation model"
        mask = _best(image, box, mask, standing=box.y1 < 0.985 * height)
        if mask is None or support(image, mask) < LEAST_SUPPORT:
            return "the cut runs through its surroundings"
        if not _fills(mask, box):
            return "the cut lacks a part of the character"
    return trimmed(row.file, row.hash or "", image, mask, face)


def cut_thing(image: RGB, box: Box, file: str, content: str) -> Cutout | str:
    """A thing in front, by its box; or a clause saying why no cut can be believed."""
    mask = character_mask(image, Instance(box, 1.0, "object"))
    if mask is None:
        return "no cut found"
    opened = _largest(_closed_leaks(image, mask))
    if opened is None or support(image, opened) < LEAST_SUPPORT:
        return "the cut runs through its surroundings"
    return trimmed(file, content, image, opened, None)


def trimmed(file: str, content: str, image: RGB, mask: Mask, face: Box | None) -> Cutout:
    """A cutout of `mask`'s pixels, its edge softened and cleaned of what was behind it."""
    alpha = soften(mask)
    rows, columns = np.flatnonzero((alpha > 0.01).any(axis=1)), np.flatnonzero((alpha > 0.01).any(axis=0))
    y0, y1, x0, x1 = int(rows[0]), int(rows[-1]) + 1, int(columns[0]), int(columns[-1]) + 1
    patch, soft = image[y0:y1, x0:x1], np.ascontiguousarray(alpha[y0:y1, x0:x1])
    inner = None if face is None else Box(face.x0 - x0, face.y0 - y0, face.x1 - x0, face.y1 - y0)
    size = (image.shape[1], image.shape[0])
    return Cutout(file, content, _clean_edge(patch, soft), soft, Box(x0, y0, x1, y1), size, inner)


def soften(mask: Mask) -> Soft:
    """A mask with an edge of one to three pixels, drawn in by half of it so that no old background shines through."""
    height = max(1, int(mask.any(axis=1).sum()))
    sigma = min(1.6, max(0.6, height / 300))
    soft = cv2.GaussianBlur(mask.astype(np.float32), (0, 0), sigma)
    # At the mask's edge the blur is at one half: this maps 0.5 to 0.15 and keeps the inside whole.
    return np.clip((soft - 0.42) / 0.5, 0.0, 1.0).astype(np.float32)


def _clean_edge(patch: RGB, alpha: Soft) -> RGB:
    """The patch, its edge in the colours of the nearest pixels well inside: edges had mixed with what was behind."""
    inside = alpha >= 0.98
    height = alpha.shape[0]
    deep = cv2.erode(inside.astype(np.uint8), np.ones((3, 3), np.uint8), iterations=1 if height < 400 else 2) > 0
    if not deep.any():
        return patch.copy()
    _, found = cv2.distanceTransformWithLabels((~deep).astype(np.uint8), cv2.DIST_L2, 5, labelType=cv2.DIST_LABEL_PIXEL)
    labels = found.astype(np.int64)
    colours = np.zeros((int(labels.max()) + 1, 3), dtype=np.uint8)
    colours[labels[deep]] = patch[deep]
    return np.where(deep[..., None], patch, colours[labels]).astype(np.uint8)


def support(image: RGB, mask: Mask) -> float:
    """Share of a mask's outline across which colours change, 0 to 1; along the picture's edges nothing is asked.

    Colours are means just inside and just outside, two pixels from the outline at `WORKING_SIDE`, each over its own
    side alone.
    """
    rows, columns = np.flatnonzero(mask.any(axis=1)), np.flatnonzero(mask.any(axis=0))
    if len(rows) < 4 or len(columns) < 4:
        return 0.0
    height, width = mask.shape
    scale = min(1.0, WORKING_SIDE / max(rows[-1] - rows[0] + 1, columns[-1] - columns[0] + 1))
    pad = int(8 / scale)
    y0, y1 = max(0, int(rows[0]) - pad), min(height, int(rows[-1]) + pad + 1)
    x0, x1 = max(0, int(columns[0]) - pad), min(width, int(columns[-1]) + pad + 1)
    size = (max(8, round((x1 - x0) * scale)), max(8, round((y1 - y0) * scale)))
    small = cv2.resize(image[y0:y1, x0:x1], size, interpolation=cv2.INTER_AREA)
    soft = cv2.resize(mask[y0:y1, x0:x1].astype(np.float32), size, interpolation=cv2.INTER_AREA)
    lab = cv2.cvtColor(small.astype(np.float32) / 255, cv2.COLOR_RGB2LAB).astype(np.float32)
    inside = soft >= 0.5
    points = _outline(inside, edges=(x0 == 0, y0 == 0, x1 == width, y1 == height))
    if len(points) < 10:
        return 0.0
    blurred = cv2.GaussianBlur(soft, (0, 0), 2.0)
    slope = np.stack([cv2.Sobel(blurred, cv2.CV_32F, 1, 0), cv2.Sobel(blurred, cv2.CV_32F, 0, 1)], axis=-1)
    normal = slope[points[:, 1], points[:, 0]]
    normal /= np.maximum(np.linalg.norm(normal, axis=1, keepdims=True), 1e-6)
    limit = np.array([size[0] - 1, size[1] - 1])
    within = np.clip(np.round(points + 2.0 * normal).astype(int), 0, limit)
    beyond = np.clip(np.round(points - 2.0 * normal).astype(int), 0, limit)
    here, there = _side(lab, inside), _side(lab, ~inside)
    step = np.linalg.norm(here[within[:, 1], within[:, 0]] - there[beyond[:, 1], beyond[:, 0]], axis=1)
    return float((step >= STEP).mean())


def _outline(inside: Mask, edges: tuple[bool, bool, bool, bool]) -> npt.NDArray[np.int64]:
    """Points (x, y) of a mask's outlines, holes too, without those on the given edges (left, top, right, bottom)."""
    found, _ = cv2.findContours(inside.astype(np.uint8), cv2.RETR_LIST, cv2.CHAIN_APPROX_NONE)
    points = np.concatenate([each[:, 0] for each in found]).astype(np.int64) if found else np.zeros((0, 2), np.int64)
    height, width = inside.shape
    x, y = points[:, 0], points[:, 1]
    left, top, right, bottom = edges
    cut = ((x <= 1) & left) | ((y <= 1) & top) | ((x >= width - 2) & right) | ((y >= height - 2) & bottom)
    return points[~cut]


def _side(lab: npt.NDArray[np.float32], chosen: Mask) -> npt.NDArray[np.float32]:
    """Blurred colours of the chosen pixels alone, (height, width, 3)."""
    weight = chosen.astype(np.float32)
    total = cv2.GaussianBlur(lab * weight[..., None], (0, 0), 1.6)
    return (total / np.maximum(cv2.GaussianBlur(weight, (0, 0), 1.6), 1e-3)[..., None]).astype(np.float32)


def _fills(mask: Mask, box: Box) -> bool:
    """Whether a mask reaches as far as the detector's box: a hand that was cut off is missing there."""
    rows, columns = np.flatnonzero(mask.any(axis=1)), np.flatnonzero(mask.any(axis=0))
    return bool(np.ptp(rows) + 1 >= LEAST_REACH * box.height and np.ptp(columns) + 1 >= LEAST_REACH * box.width)


def _best(image: RGB, box: Box, cut: Mask, *, standing: bool) -> Mask | None:
    """The difference from a plain background where that is known and agrees, else the given cut, its leaks closed."""
    different = difference(image, box, cut, standing=standing)
    if different is not None:
        shared = float((different & cut).sum()) / max(1.0, float((different | cut).sum()))
        if shared >= AGREEMENT:
            return _largest(_filled(different))
    return _largest(_closed_leaks(image, cut))


def _closed_leaks(image: RGB, mask: Mask) -> Mask:
    """A mask without what even surroundings flow into: sky between ears, the wall beside a neck."""
    height, width = mask.shape
    scale = min(1.0, 2 * WORKING_SIDE / max(height, width))
    size = (max(8, round(width * scale)), max(8, round(height * scale)))
    small = cv2.cvtColor(cv2.resize(image, size, interpolation=cv2.INTER_AREA), cv2.COLOR_RGB2LAB)
    inside = cv2.resize(mask.astype(np.float32), size, interpolation=cv2.INTER_AREA) >= 0.5
    ring = cv2.dilate(inside.astype(np.uint8), np.ones((5, 5), np.uint8)).astype(np.bool_) & ~inside
    flood = np.ones((size[1] + 2, size[0] + 2), np.uint8)
    near = cv2.dilate(inside.astype(np.uint8), np.ones((9, 9), np.uint8)) > 0
    flood[1:-1, 1:-1][near] = 0
    ys, xs = np.nonzero(ring)
    for y, x in zip(ys[::3].tolist(), xs[::3].tolist(), strict=True):
        if flood[y + 1, x + 1] == 0:
            # Neighbour to neighbour, so that a sky's gradient is followed and an outline stops it.
            cv2.floodFill(small, flood, (x, y), (0, 0, 0), (2, 2, 2), (2, 2, 2), 4 | cv2.FLOODFILL_MASK_ONLY | (2 << 8))
    reached = flood[1:-1, 1:-1] == 2
    left = inside & ~reached
    # What lost half of itself had no outline to stop the flood; its support then says so.
    if left.sum() < 0.5 * inside.sum():
        return mask
    left = cv2.morphologyEx(left.astype(np.uint8), cv2.MORPH_OPEN, np.ones((3, 3), np.uint8))
    large = cv2.resize(left.astype(np.float32), (width, height), interpolation=cv2.INTER_LINEAR) >= 0.5
    return _filled(large & mask)


def _filled(mask: Mask) -> Mask:
    """A mask without small holes and crumbs."""
    closed = cv2.morphologyEx(mask.astype(np.uint8), cv2.MORPH_CLOSE, np.ones((3, 3), np.uint8))
    count, labels, stats, _ = cv2.connectedComponentsWithStats(1 - closed, connectivity=4)
    total = int(closed.sum())
    for index in range(1, count):
        if stats[index, cv2.CC_STAT_AREA] < 0.012 * total:
            closed[labels == index] = 1
    return closed.astype(np.bool_)


def _largest(mask: Mask) -> Mask | None:
    """The largest connected piece; None for an empty mask or one in several large pieces."""
    count, labels, stats, _ = cv2.connectedComponentsWithStats(mask.astype(np.uint8), connectivity=8)
    if count < 2:
        return None
    areas = stats[1:, cv2.CC_STAT_AREA]
    if areas.max() < 0.9 * areas.sum():
        return None
    return labels == 1 + int(areas.argmax())
