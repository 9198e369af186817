"""Characters put before other backgrounds, beside others and behind things: where each goes, and the pixels.

Placing is arithmetic on boxes and soft masks; a clause says why a combination cannot look right. The character's
colours stay as they are: a background whose light is too far from the picture's own is refused instead.
"""

from dataclasses import dataclass, replace

import cv2
import numpy as np
import numpy.typing as npt

from onmodel.core.images import RGB
from onmodel.core.vocabulary import Box, ShotType
from onmodel.dataset.crops import CropConfig
from onmodel.dataset.cutouts import Cutout, Soft
from onmodel.dataset.scenery import Backdrop, Companion

MOST_UPSCALE = 1.5
"""Backgrounds and others are enlarged at most so much: a blurred thing beside a sharp one gives the seam away."""
MOST_LIGHT = 28.0
"""Most difference in lightness (CIE L) between a picture's surroundings and its new background."""
HIDDEN = (0.10, 0.42)
"""Share of the character that a thing in front hides: less is no occlusion, more leaves too little to learn from."""
HIDDEN_FACE = 0.12
"""Most share of the face that it hides."""
SHADOW = 0.34
"""Darkening under the feet."""


@dataclass(frozen=True, slots=True)
class Placed:
    """A cutout on the canvas."""

    cutout: Cutout
    box: Box
    """Where the whole patch goes, canvas pixels; parts may lie outside."""

    @property
    def scale(self) -> float:
        return self.box.height / self.cutout.alpha.shape[0]

    @property
    def face(self) -> Box | None:
        """Its face on the canvas."""
        face, scale = self.cutout.face, self.scale
        if face is None:
            return None
        x, y = self.box.x0, self.box.y0
        return Box(x + face.x0 * scale, y + face.y0 * scale, x + face.x1 * scale, y + face.y1 * scale)


@dataclass(frozen=True, slots=True)
class Recipe:
    """What a composite is made of, from back to front."""

    size: tuple[int, int]
    """Width and height of the canvas: the original's."""
    backdrop: Backdrop | None = None
    """None keeps the original's own background."""
    across: float = 0.5
    """Which part of a wider backdrop is shown, 0 left to 1 right."""
    companion: Placed | None = None
    main: Placed | None = None
    """None where the original is only painted over."""
    foreground: Placed | None = None


@dataclass(frozen=True, slots=True)
class Subject:
    """Our character in its picture."""

    box: Box
    face: Box | None
    shot: ShotType
    light: float
    """Lightness (CIE L) around it."""
    size: tuple[int, int]
    cutout: Cutout | None = None
    """None where no cut of it can be believed; then nothing can go behind it."""


def framed(subject: Subject, shot: ShotType, window: Box, size: tuple[int, int]) -> Subject:
    """The same character as `window` of its picture shows it, enlarged to `size` (width, height)."""
    x, y = size[0] / window.width, size[1] / window.height

    def moved(box: Box) -> Box:
        return Box(
            (box.x0 - window.x0) * x, (box.y0 - window.y0) * y, (box.x1 - window.x0) * x, (box.y1 - window.y0) * y
        )

    cutout = subject.cutout and replace(subject.cutout, box=moved(subject.cutout.box), size=size)
    face = subject.face and moved(subject.face)
    return Subject(moved(subject.box), face, shot, subject.light, size, cutout)


def plan_composite(
    subject: Subject,
    shot: ShotType,
    config: CropConfig,
    rng: np.random.Generator,
    *,
    backdrop: Backdrop | None = None,
    companion: Companion | None = None,
    foreground: Cutout | None = None,
) -> Recipe | str:
    """Where everything goes, or a clause saying why it cannot look right.

    Args:
        subject: our character.
        shot: the subject's own shot type; or far, for a full body before a backdrop.
        config: of far shots' heights.
        rng: decides places and sizes within what is plausible.
        backdrop, companion, foreground: what to put behind, beside and in front; None leaves it out.
    """
    if (backdrop is not None or companion is not None) and subject.cutout is None:
        return "no believable cut of the character"
    if backdrop is not None:
        problem = _fits(backdrop, subject, standing=shot in (ShotType.FULL_BODY, ShotType.FAR))
        if problem is not None:
            return problem
    main = None
    box, face = subject.box, subject.face
    if subject.cutout is not None and (backdrop is not None or companion is not None):
        main = _place_main(subject, shot, config, rng, moves=backdrop is not None, beside=companion is not None)
        box, face = main.box, main.face
    beside = None
    if companion is not None:
        assert main is not None
        beside = _place_beside(main, companion, subject.size, rng)
        if isinstance(beside, str):
            return beside
    front = None
    if foreground is not None:
        standing = subject.cutout.stands if subject.cutout is not None else box.y1 < 0.985 * subject.size[1]
        front = _place_front(box, face, main, foreground, subject.size, rng, standing=standing)
        if isinstance(front, str):
            return front
    return Recipe(subject.size, backdrop, float(rng.uniform(0, 1)), beside, main, front)


def _fits(backdrop: Backdrop, subject: Subject, *, standing: bool) -> str | None:
    width, height = subject.size
    if max(width / backdrop.width, height / backdrop.height) > MOST_UPSCALE:
        return "the background has too few pixels"
    if abs(backdrop.light - subject.light) > MOST_LIGHT:
        return "the background's light is too different"
    return "the background has no ground to stand on" if standing and not backdrop.ground else None


def _place_main(
    subject: Subject, shot: ShotType, config: CropConfig, rng: np.random.Generator, *, moves: bool, beside: bool
) -> Placed:
    """Our character at its own place and size; aside where another comes beside it; small for a far shot."""
    cutout = subject.cutout
    assert cutout is not None
    width, height = subject.size
    box = cutout.box
    if shot is ShotType.FAR and subject.shot is not ShotType.FAR:
        scale = min(1.0, config.far_height * float(rng.uniform(0.85, 1.1)) * height / box.height)
        wide, high = box.width * scale, box.height * scale
        left = float(rng.uniform(0.06 * width, max(0.06 * width, 0.94 * width - wide)))
        bottom = float(rng.uniform(0.78, 0.92)) * height
        return Placed(cutout, Box(round(left), round(bottom - high), round(left) + wide, round(bottom - high) + high))
    shift = 0.0
    if moves:
        room_left, room_right = box.x0 - 0.02 * width, 0.98 * width - box.x1
        wanted = float(rng.uniform(0.12, 0.2) if beside else rng.uniform(-0.08, 0.08)) * width
        # Aside means to the nearer edge, so that the room is on one side.
        if beside and room_left < room_right:
            wanted = -wanted
        shift = min(max(wanted, -max(room_left, 0.0)), max(room_right, 0.0))
    moved = round(shift)
    return Placed(cutout, Box(box.x0 + moved, box.y0, box.x1 + moved, box.y1))


def _place_beside(main: Placed, companion: Companion, size: tuple[int, int], rng: np.random.Generator) -> Placed | str:
    """Another character beside ours, a little behind: heads of one size, feet on one ground."""
    width, height = size
    cutout, ours = companion.cutout, main.box
    scale = _matching_scale(main, cutout, rng)
    if isinstance(scale, str):
        return scale
    wide, high = cutout.box.width * scale, cutout.box.height * scale
    stands = main.cutout.stands
    if stands:
        if not cutout.stands:
            return "the other character has no feet to stand on"
        if not 0.5 <= high / ours.height <= 1.8:
            return "the sizes of the two do not go together"
        top = ours.y1 - float(rng.uniform(0.0, 0.02)) * height - high
    else:
        top = ours.y0 + float(rng.uniform(-0.03, 0.07)) * height
        if top + high < height:
            return "too little is seen of the other character to reach the lower edge"
    if top < 0.0:
        return "the other character is too tall for the picture"
    right = width - ours.x1 >= ours.x0
    gap = float(rng.uniform(-0.12, 0.06)) * min(wide, ours.width)
    left = ours.x1 + gap if right else ours.x0 - gap - wide
    box = Box(round(left), round(top), round(left) + wide, round(top) + high)
    placed = Placed(cutout, box)
    seen = box.clip(width, height)
    if seen.width < 0.72 * box.width or not _face_is_free(placed, ours, size):
        return "no room beside the character"
    return placed


def _matching_scale(main: Placed, cutout: Cutout, rng: np.random.Generator) -> float | str:
    ours, theirs = main.face, cutout.face
    if ours is not None and theirs is not None and theirs.height > 0:
        scale = ours.height / theirs.height * float(rng.uniform(0.92, 1.06))
    elif main.cutout.stands and cutout.stands:
        scale = main.box.height / cutout.box.height * float(rng.uniform(0.9, 1.05))
    else:
        return "no faces to compare sizes by"
    # Beside one that is itself enlarged, as in a medium shot cut from a full body, another looks no more blurred.
    return "the other character has too few pixels" if scale > max(MOST_UPSCALE, main.scale) else scale


def _face_is_free(placed: Placed, ours: Box, size: tuple[int, int]) -> bool:
    face = placed.face
    if face is None:
        return True
    inside = face.clip(*size).area >= 0.97 * face.area
    return inside and face.intersection(ours) <= 0.15 * face.area


def _place_front(
    box: Box,
    face: Box | None,
    main: Placed | None,
    thing: Cutout,
    size: tuple[int, int],
    rng: np.random.Generator,
    *,
    standing: bool,
) -> Placed | str:
    """A thing in front that hides a fit share of the character, on its ground or rising from the lower edge."""
    width, height = size
    if standing and not thing.stands:
        return "the thing in front is cut below and cannot stand"
    body = _alpha_map(main, size) if main is not None else _box_map(box, size)
    seen = box.clip(width, height)
    aspect = thing.alpha.shape[1] / thing.alpha.shape[0]
    for _ in range(16):
        bottom = seen.y1 + float(rng.uniform(0.01, 0.035)) * height if standing else float(height)
        high = float(rng.uniform(0.25, 0.6)) * seen.height
        if aspect < 0.5:
            # A pole or a tree hides a strip and is as tall as it may be.
            high = float(rng.uniform(0.9, 1.4)) * seen.height
        wide = high * aspect
        middle = seen.center[0] + float(rng.uniform(-0.35, 0.35)) * seen.width
        left, top = round(middle - wide / 2), round(bottom - high)
        placed = Placed(thing, Box(left, top, left + wide, top + high))
        if placed.scale > MOST_UPSCALE or bottom > height + 0.02 * height:
            continue
        over = _alpha_map(placed, size)
        hidden = float((body * over).sum()) / max(1e-6, float(body.sum()))
        on_face = (
            0.0
            if face is None
            else float((_box_map(face, size) * over).sum()) / max(1e-6, float(_box_map(face, size).sum()))
        )
        if HIDDEN[0] <= hidden <= HIDDEN[1] and on_face <= HIDDEN_FACE:
            return placed
    return "the thing in front hides too much or too little"


def _box_map(box: Box, size: tuple[int, int]) -> Soft:
    return _map(np.ones((2, 2), dtype=np.float32), box, size)


def _alpha_map(placed: Placed, size: tuple[int, int]) -> Soft:
    return _map(placed.cutout.alpha, placed.box, size)


def _map(alpha: Soft, box: Box, size: tuple[int, int]) -> Soft:
    """A soft mask on the canvas, 128 pixels on its longer side: enough to count shares."""
    scale = 128 / max(size)
    canvas = np.zeros((round(size[1] * scale), round(size[0] * scale)), dtype=np.float32)
    small = Box(*(v * scale for v in box.as_tuple()))
    wide, high = max(1, round(small.width)), max(1, round(small.height))
    patch = np.asarray(cv2.resize(alpha, (wide, high), interpolation=cv2.INTER_AREA), dtype=np.float32)
    _lay(canvas, patch, round(small.x0), round(small.y0))
    return canvas


def _lay(canvas: Soft, patch: npt.NDArray[np.float32], x: int, y: int) -> None:
    rows, columns, inner = _overlap(canvas.shape[:2], patch.shape[:2], x, y)
    if inner is not None:
        canvas[rows, columns] = patch[inner]


def _overlap(
    canvas: tuple[int, ...], patch: tuple[int, ...], x: int, y: int
) -> tuple[slice, slice, tuple[slice, slice] | None]:
    """Rows and columns of a canvas that a patch at (x, y) covers, and the patch's own part that lies there."""
    y0, y1 = max(0, y), min(canvas[0], y + patch[0])
    x0, x1 = max(0, x), min(canvas[1], x + patch[1])
    if y1 <= y0 or x1 <= x0:
        return slice(0, 0), slice(0, 0), None
    return slice(y0, y1), slice(x0, x1), (slice(y0 - y, y1 - y), slice(x0 - x, x1 - x))


def paint(recipe: Recipe, original: RGB) -> RGB:
    """The composite as uint8 RGB of the original's size (height, width, 3)."""
    if recipe.backdrop is None:
        canvas = original.astype(np.float32)
    else:
        canvas = _covering(recipe.backdrop.read(), recipe.size, recipe.across).astype(np.float32)
    # Shadows fall on the ground, so all come before anyone who stands on it.
    for placed in (recipe.companion, recipe.main if recipe.backdrop is not None else None):
        if placed is not None and placed.cutout.stands:
            _cast_shadow(canvas, placed)
    if recipe.companion is not None:
        _paste(canvas, recipe.companion)
    if recipe.main is not None:
        _paste(canvas, recipe.main)
    if recipe.foreground is not None:
        if recipe.foreground.cutout.stands and recipe.foreground.box.y1 < 0.99 * recipe.size[1]:
            _cast_shadow(canvas, recipe.foreground)
        _paste(canvas, recipe.foreground)
    return (canvas + 0.5).clip(0, 255).astype(np.uint8)


def _covering(image: RGB, size: tuple[int, int], across: float) -> RGB:
    """A picture brought to cover `size`; its lower edge, where the ground is, stays."""
    width, height = size
    scale = max(width / image.shape[1], height / image.shape[0])
    wide, high = max(width, round(image.shape[1] * scale)), max(height, round(image.shape[0] * scale))
    interpolation = cv2.INTER_AREA if scale < 1 else cv2.INTER_CUBIC
    grown = np.asarray(cv2.resize(image, (wide, high), interpolation=interpolation), dtype=np.uint8)
    left = round((wide - width) * across)
    return grown[high - height :, left : left + width]


def _paste(canvas: npt.NDArray[np.float32], placed: Placed) -> None:
    wide, high = max(1, round(placed.box.width)), max(1, round(placed.box.height))
    pixels, alpha = placed.cutout.pixels, placed.cutout.alpha
    if (wide, high) != (alpha.shape[1], alpha.shape[0]):
        interpolation = cv2.INTER_AREA if wide < alpha.shape[1] else cv2.INTER_CUBIC
        pixels = np.asarray(cv2.resize(pixels, (wide, high), interpolation=interpolation), dtype=np.uint8)
        alpha = np.asarray(cv2.resize(alpha, (wide, high), interpolation=cv2.INTER_AREA), dtype=np.float32)
    x, y = round(placed.box.x0), round(placed.box.y0)
    rows, columns, inner = _overlap(canvas.shape[:2], alpha.shape[:2], x, y)
    if inner is None:
        return
    weight = alpha[inner][..., None]
    canvas[rows, columns] = weight * pixels[inner] + (1 - weight) * canvas[rows, columns]


def _cast_shadow(canvas: npt.NDArray[np.float32], placed: Placed) -> None:
    """Darken the ground softly where something stands on it."""
    alpha, scale = placed.cutout.alpha, placed.scale
    feet = (alpha[-max(2, round(0.05 * alpha.shape[0])) :] > 0.5).any(axis=0)
    columns = np.flatnonzero(feet)
    if not len(columns):
        return
    left, right = placed.box.x0 + columns[0] * scale, placed.box.x0 + (columns[-1] + 1) * scale
    radius = max(0.62 * (right - left), 0.06 * placed.box.height)
    x = (np.arange(canvas.shape[1], dtype=np.float32) + 0.5 - (left + right) / 2) / radius
    y = (np.arange(canvas.shape[0], dtype=np.float32) + 0.5 - (placed.box.y1 - 0.012 * placed.box.height)) / (
        0.2 * radius
    )
    # Full in the middle, gone at the rim.
    depth = np.clip(1.2 - (x[None, :] ** 2 + y[:, None] ** 2), 0.0, 1.0)
    canvas *= (1 - SHADOW * depth)[..., None]
