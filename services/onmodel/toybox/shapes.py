"""Analytic ray casting of ellipsoids, round cones and cards, with one orthographic camera looking along -z.

Axes: x right, y up, z towards the viewer; the frame is the unit square 0..1 x 0..1. Every hit is in closed form, so a
picture costs one pass over each shape's own rectangle of samples. Hits are returned compressed: only samples that hit.
"""

from __future__ import annotations

import math
from dataclasses import dataclass
from typing import NamedTuple

import numpy as np
import numpy.typing as npt

from onmodel.toybox.character import Colour

Array = npt.NDArray[np.float32]
Mask = npt.NDArray[np.bool_]
IDENTITY = np.eye(3, dtype=np.float64)


@dataclass(frozen=True, slots=True)
class Paint:
    """A procedural texture: `kind` names a function in `paint.PAINTS`, which reads local coordinates."""

    kind: str
    colours: tuple[Colour, ...] = ()
    values: tuple[float, ...] = ()


@dataclass(frozen=True, slots=True)
class Ellipsoid:
    """Centre, half axes, and the rotation whose columns are the axes. `cut` names a hole in `paint.CUTS`."""

    centre: npt.NDArray[np.float64]
    radii: tuple[float, float, float]
    colour: Colour
    rotation: npt.NDArray[np.float64]
    paint: Paint | None = None
    cut: Paint | None = None
    is_head: bool = False
    gloss: float = 0.15


@dataclass(frozen=True, slots=True)
class RoundCone:
    """The hull of two spheres (a, radius_a) and (b, radius_b)."""

    a: npt.NDArray[np.float64]
    b: npt.NDArray[np.float64]
    radius_a: float
    radius_b: float
    colour: Colour
    paint: Paint | None = None
    is_head: bool = False
    gloss: float = 0.15


@dataclass(frozen=True, slots=True)
class Card:
    """An upright rectangle facing the viewer at depth z."""

    x0: float
    y0: float
    x1: float
    y1: float
    z: float
    colour: Colour
    paint: Paint | None = None
    is_head: bool = False
    gloss: float = 0.0


Shape = Ellipsoid | RoundCone | Card


class Hits(NamedTuple):
    """Where a shape was hit: `inside` (h, w) bool over the rectangle; for its n true samples, row by row, the rest."""

    inside: Mask
    depth: Array
    """(n,) z of the hit."""
    normal: Array
    """(n, 3) unit normals."""
    local: Array
    """(n, 3) local coordinates: in the unit ball for ellipsoids, from `a` for round cones, 0..1 for cards."""


def bounds(shape: Shape) -> tuple[float, float, float, float]:
    """Exact x0, y0, x1, y1 (y up) of a shape's projection, in frame units."""
    if isinstance(shape, Ellipsoid):
        half = np.sqrt(((shape.rotation * np.asarray(shape.radii)) ** 2).sum(axis=1))
        x, y = float(shape.centre[0]), float(shape.centre[1])
        return x - float(half[0]), y - float(half[1]), x + float(half[0]), y + float(half[1])
    if isinstance(shape, RoundCone):
        (ax, ay), (bx, by) = shape.a[:2].tolist(), shape.b[:2].tolist()
        ra, rb = shape.radius_a, shape.radius_b
        return min(ax - ra, bx - rb), min(ay - ra, by - rb), max(ax + ra, bx + rb), max(ay + ra, by + rb)
    return shape.x0, shape.y0, shape.x1, shape.y1


def hit_ellipsoid(shape: Ellipsoid, x: Array, y: Array) -> Hits:
    """Intersect the rays through x (w,) and y (h,) with an ellipsoid: a quadratic in z."""
    inverse = shape.rotation.T / np.asarray(shape.radii)[:, None]
    p, q, d = inverse[:, 0], inverse[:, 1], inverse[:, 2]
    dx = (x - np.float32(shape.centre[0]))[None, :]
    dy = (y - np.float32(shape.centre[1]))[:, None]
    a = float(d @ d)
    # With q0 = p dx + q dy, the discriminant (q0.d)^2 - a (q0.q0 - 1) is itself a quadratic form in dx and dy.
    pd, qd = float(p @ d), float(q @ d)
    disc = (
        np.float32(pd * pd - a * float(p @ p)) * dx * dx
        + np.float32(2 * (pd * qd - a * float(p @ q))) * dx * dy
        + (np.float32(qd * qd - a * float(q @ q)) * dy * dy + np.float32(a))
    )
    inside = disc > 0
    rows, cols = np.nonzero(inside)
    hx, hy = dx[0, cols], dy[rows, 0]
    z = (np.sqrt(disc[inside]) - np.float32(pd) * hx - np.float32(qd) * hy) / np.float32(a)
    inv = inverse.astype(np.float32)
    local = np.stack([hx, hy, z], axis=1) @ inv.T
    normal = local @ inv
    normal /= np.sqrt(np.einsum("ij,ij->i", normal, normal))[:, None]
    depth = (z + np.float32(shape.centre[2])).astype(np.float32)
    return Hits(inside, depth, normal, local.astype(np.float32))


def hit_round_cone(shape: RoundCone, x: Array, y: Array) -> Hits:
    """Intersect with the hull of two spheres, after I. Quilez, "Intersectors" (rounded cone), for rays along -z."""
    a, b, ra, rb = shape.a, shape.b, shape.radius_a, shape.radius_b
    top = float(max(a[2] + ra, b[2] + rb)) + 1.0
    ba = (b - a).astype(np.float64)
    rr = ra - rb
    m0 = float(ba @ ba)
    d2 = m0 - rr * rr
    ox = (x.astype(np.float64) - a[0])[None, :]
    oy = (y.astype(np.float64) - a[1])[:, None]
    oz = top - float(a[2])
    m1 = ba[0] * ox + ba[1] * oy + ba[2] * oz
    m2, m3 = -float(ba[2]), -oz
    m5 = ox * ox + oy * oy + oz * oz
    t = np.full(m5.shape, np.inf)
    side = np.zeros(m5.shape, dtype=np.bool_)
    k2 = d2 - m2 * m2
    if d2 > 1e-12 and k2 > 1e-12:
        k1 = d2 * m3 - m1 * m2 + m2 * rr * ra
        k0 = d2 * m5 - m1 * m1 + m1 * (2 * rr * ra) - m0 * ra * ra
        h = k1 * k1 - k0 * k2
        ts = (-np.sqrt(np.maximum(h, 0.0)) - k1) / k2
        along = m1 - ra * rr + ts * m2
        side = (h > 0) & (along > 0) & (along < d2)
        t = np.where(side, ts, t)
    for centre, radius in ((a, ra), (b, rb)):
        cx = (x.astype(np.float64) - centre[0])[None, :]
        cy = (y.astype(np.float64) - centre[1])[:, None]
        h = radius * radius - cx * cx - cy * cy
        cap = (top - float(centre[2])) - np.sqrt(np.maximum(h, 0.0))
        t = np.where((h > 0) & ~side & (cap < t), cap, t)
    inside = np.isfinite(t)
    rows, cols = np.nonzero(inside)
    point = np.stack([ox[0, cols], oy[rows, 0], oz - t[inside]], axis=1)
    # On the hull, the nearest sphere's centre lies along the axis; its direction is the normal on caps and side alike.
    along = np.clip((m1[inside] + m2 * t[inside] - ra * rr) / max(d2, 1e-12), 0.0, 1.0)
    normal = point - along[:, None] * ba
    # What a ray hits first of a convex shape faces it; at the outline rounding can turn it away by a hair.
    normal[:, 2] = np.maximum(normal[:, 2], 0.0)
    normal /= np.linalg.norm(normal, axis=1, keepdims=True) + 1e-12
    return Hits(inside, (top - t[inside]).astype(np.float32), normal.astype(np.float32), point.astype(np.float32))


def hit_card(shape: Card, x: Array, y: Array) -> Hits:
    """Intersect with an upright rectangle; its local coordinates run 0..1 from lower left, and 0."""
    inside = ((x >= shape.x0) & (x <= shape.x1))[None, :] & ((y >= shape.y0) & (y <= shape.y1))[:, None]
    rows, cols = np.nonzero(inside)
    local = np.zeros((rows.size, 3), dtype=np.float32)
    local[:, 0] = (x[cols] - np.float32(shape.x0)) / np.float32(max(shape.x1 - shape.x0, 1e-9))
    local[:, 1] = (y[rows] - np.float32(shape.y0)) / np.float32(max(shape.y1 - shape.y0, 1e-9))
    normal = np.zeros((rows.size, 3), dtype=np.float32)
    normal[:, 1], normal[:, 2] = 0.25, 0.968
    return Hits(inside, np.full(rows.size, shape.z, dtype=np.float32), normal, local)


def hit(shape: Shape, x: Array, y: Array) -> Hits:
    """Intersect any shape with the grid of rays x (w,) by y (h,)."""
    if isinstance(shape, Ellipsoid):
        return hit_ellipsoid(shape, x, y)
    if isinstance(shape, RoundCone):
        return hit_round_cone(shape, x, y)
    return hit_card(shape, x, y)


def turn(yaw: float = 0.0, pitch: float = 0.0, roll: float = 0.0) -> npt.NDArray[np.float64]:
    """Rotation matrix (3, 3): roll about z, then pitch about x, then yaw about y; radians."""
    cy, sy, cp, sp, cr, sr = (
        math.cos(yaw), math.sin(yaw), math.cos(pitch), math.sin(pitch), math.cos(roll), math.sin(roll)
    )  # fmt: skip
    about_y = np.array([[cy, 0, sy], [0, 1, 0], [-sy, 0, cy]])
    about_x = np.array([[1, 0, 0], [0, cp, -sp], [0, sp, cp]])
    about_z = np.array([[cr, -sr, 0], [sr, cr, 0], [0, 0, 1]])
    return about_y @ about_x @ about_z
