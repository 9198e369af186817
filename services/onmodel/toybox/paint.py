"""Textures by formula: what colour a hit has, from its local coordinates, and where a shape has a hole."""

from __future__ import annotations

from collections.abc import Callable
from typing import Final

import numpy as np

from onmodel.toybox.shapes import Array, Mask, Paint


def _blend(base: Array, where: Mask, colour: tuple[float, float, float]) -> None:
    base[where] = np.asarray(colour, dtype=np.float32)


def _flat(local: Array, colour: tuple[float, float, float]) -> Array:
    return np.broadcast_to(np.asarray(colour, dtype=np.float32), (local.shape[0], 3)).copy()


def stripes(local: Array, base: Array, paint: Paint) -> None:
    """Horizontal stripes. values: axis, scale and offset that turn a local coordinate into bands."""
    axis, scale, offset = int(paint.values[0]), paint.values[1], paint.values[2]
    _blend(base, ((local[:, axis] * scale + offset) % 1.0) < 0.42, paint.colours[0])


def spots(local: Array, base: Array, paint: Paint) -> None:
    """Round spots on a staggered grid. values: scale in x and in y."""
    v = local[:, 1] * paint.values[1]
    u = local[:, 0] * paint.values[0] + 0.5 * (np.floor(v) % 2)
    _blend(base, ((u % 1.0) - 0.5) ** 2 + ((v % 1.0) - 0.5) ** 2 < 0.095, paint.colours[0])


def face(local: Array, base: Array, paint: Paint) -> None:
    """Cheeks and mouth on the head. colours: cheek, lips; values: smile (-1..1), openness (0..1)."""
    x, y, front = local[:, 0], local[:, 1], local[:, 2] > 0.2
    smile, openness = paint.values
    cheek = ((np.abs(x) - 0.52) ** 2 + (y + 0.32) ** 2 < 0.026) & front
    base[cheek] = 0.6 * base[cheek] + 0.4 * np.asarray(paint.colours[0], dtype=np.float32)
    curve = y + 0.62 - smile * 1.3 * x * x
    mouth = (np.abs(x) < 0.34) & (np.abs(curve) < 0.045 + 0.10 * openness * (1 - (x / 0.34) ** 2)) & front
    _blend(base, mouth, paint.colours[1])


def eye(local: Array, base: Array, paint: Paint) -> None:
    """Iris, pupil and a highlight. colours: iris; values: gaze x and y in -1..1."""
    gx, gy = paint.values
    x, y = local[:, 0] - 0.25 * gx, local[:, 1] - 0.2 * gy
    front = local[:, 2] > 0
    r = x * x + y * y
    _blend(base, (r < 0.36) & front, paint.colours[0])
    _blend(base, (r < 0.12) & front, (0.05, 0.05, 0.06))
    _blend(base, ((x + 0.2) ** 2 + (y - 0.22) ** 2 < 0.025) & front, (1.0, 1.0, 1.0))


def planks(local: Array, base: Array, paint: Paint) -> None:
    """Boards with dark gaps. values: count across, count up, frame width (0 for none)."""
    across, up, frame = paint.values
    u, v = local[:, 0] * across, local[:, 1] * up
    gap = np.zeros(local.shape[0], dtype=np.bool_)
    if across > 0:
        gap |= ((u % 1.0) < 0.10) | ((u % 1.0) > 0.92)
    if up > 0:
        gap |= ((v % 1.0) < 0.10) | ((v % 1.0) > 0.92)
    base[gap] *= 0.62
    if frame > 0:
        x, y = local[:, 0], local[:, 1]
        edge = (np.minimum(x, 1 - x) < frame) | (np.minimum(y, 1 - y) < frame)
        brace = np.abs(x - y) < frame * 0.8
        _blend(base, edge | brace, paint.colours[0])


def bands(local: Array, base: Array, paint: Paint) -> None:
    """A ring of another colour around a vase or cap. values: lower and upper local y."""
    _blend(base, (local[:, 1] > paint.values[0]) & (local[:, 1] < paint.values[1]), paint.colours[0])


def leaves(local: Array, base: Array, paint: Paint) -> None:
    """Speckles of a second green (or of flowers). values: frequency, share in 0..1."""
    f, share = paint.values
    noise = np.sin(local[:, 0] * f + 1.7) * np.sin(local[:, 1] * f * 1.3 + 0.6) + 0.5 * np.sin(local[:, 2] * f * 0.9)
    _blend(base, noise > 1.2 - 1.6 * share, paint.colours[0])


PAINTS: Final[dict[str, Callable[[Array, Array, Paint], None]]] = {
    "stripes": stripes, "spots": spots, "face": face, "eye": eye, "planks": planks, "bands": bands, "leaves": leaves,
}  # fmt: skip


def hair_opening(local: Array, cut: Paint) -> Mask:
    """True where the hair shell leaves the face free. values: hair line height, side width, nape height."""
    line, side, nape = cut.values
    x, y, z = local[:, 0], local[:, 1], local[:, 2]
    face_hole = (z > -0.05) & (y < line + 0.18 * np.cos(x * 5.0)) & (np.abs(x) < side)
    return face_hole | (y < nape)


def below(local: Array, cut: Paint) -> Mask:
    """True below a local height (half an ellipsoid: caps, beanies). values: that height."""
    return local[:, 1] < cut.values[0]


CUTS: Final[dict[str, Callable[[Array, Paint], Mask]]] = {"hair_opening": hair_opening, "below": below}


def colours_of(local: Array, colour: tuple[float, float, float], paint: Paint | None) -> Array:
    """(n, 3) colours of n hits."""
    base = _flat(local, colour)
    if paint is not None:
        PAINTS[paint.kind](local, base, paint)
    return base
