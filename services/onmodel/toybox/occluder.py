"""Things that stand in front of a character: what they are, and their shapes."""

from __future__ import annotations

import math
from dataclasses import dataclass
from typing import Final, Literal, get_args

import numpy as np

from onmodel.toybox.character import Colour
from onmodel.toybox.shapes import Card, Ellipsoid, Paint, RoundCone, Shape, turn

OccluderKind = Literal["bush", "crate", "fence", "pole", "table", "vase", "tree"]
KINDS: Final[tuple[OccluderKind, ...]] = get_args(OccluderKind)
UPRIGHT: Final[frozenset[str]] = frozenset({"pole", "tree"})
"""Kinds that hide a vertical strip; the others rise from below."""


@dataclass(frozen=True, slots=True)
class Occluder:
    """A thing in front: its box in frame units (y up) and a seed for its details."""

    kind: OccluderKind
    x0: float
    y0: float
    x1: float
    y1: float
    seed: int


def _bush(o: Occluder, rng: np.random.Generator, z: float) -> list[Shape]:
    w, h = o.x1 - o.x0, o.y1 - o.y0
    green = (float(rng.uniform(0.12, 0.25)), float(rng.uniform(0.45, 0.6)), float(rng.uniform(0.12, 0.25)))
    petal: Colour = (0.95, 0.35, 0.5) if rng.random() < 0.4 else (green[0] * 0.6, green[1] * 0.7, green[2] * 0.6)
    shapes: list[Shape] = []
    radius = min(0.32 * w, 0.5 * h)
    for k in range(7):
        x = o.x0 + radius + (w - 2 * radius) * (k % 4 + 0.5 * (k // 4)) / 3
        y = o.y0 + (0.5 * h if k < 4 else h - radius)
        tall = max(radius, 0.5 * h) if k < 4 else radius
        centre = np.array([x, y, z - 0.01 * (k % 3)])
        shapes.append(
            Ellipsoid(
                centre,
                (radius, tall, radius),
                green,
                turn(float(rng.uniform(0, 6))),
                Paint("leaves", (petal,), (9.0, 0.25)),
                gloss=0.05,
            )
        )
    return shapes


def _crate(o: Occluder, rng: np.random.Generator, z: float) -> list[Shape]:
    wood = (float(rng.uniform(0.68, 0.80)), float(rng.uniform(0.48, 0.58)), float(rng.uniform(0.25, 0.35)))
    dark = (wood[0] * 0.7, wood[1] * 0.68, wood[2] * 0.6)
    return [Card(o.x0, o.y0, o.x1, o.y1, z, wood, Paint("planks", (dark,), (0.0, 4.0, 0.10)))]


def _fence(o: Occluder, rng: np.random.Generator, z: float) -> list[Shape]:
    colour: Colour = (0.93, 0.92, 0.88) if rng.random() < 0.5 else (0.60, 0.40, 0.24)
    h = o.y1 - o.y0
    pitch = max(0.09, 0.28 * h)
    count = max(2, math.ceil((o.x1 - o.x0) / pitch))
    step = (o.x1 - o.x0) / count
    shapes: list[Shape] = []
    for k in range(count):
        x = o.x0 + (k + 0.5) * step
        shapes.append(
            RoundCone(
                np.array([x, o.y0 + 0.3 * step, z]),
                np.array([x, o.y1 - 0.3 * step, z]),
                0.30 * step,
                0.30 * step,
                colour,
                gloss=0.05,
            )
        )
    rail = (colour[0] * 0.85, colour[1] * 0.85, colour[2] * 0.85)
    for level in (0.28, 0.72):
        y = o.y0 + level * h
        shapes.append(Card(o.x0, y - 0.06 * h, o.x1, y + 0.06 * h, z - 0.2 * step, rail))
    return shapes


def _pole(o: Occluder, rng: np.random.Generator, z: float) -> list[Shape]:
    x, r = (o.x0 + o.x1) / 2, (o.x1 - o.x0) / 2
    colour: Colour = (0.80, 0.20, 0.18) if rng.random() < 0.5 else (0.42, 0.45, 0.50)
    paint = Paint("stripes", ((0.95, 0.95, 0.95),), (1.0, 1 / (6 * r), 0.0)) if colour[0] > 0.7 else None
    return [RoundCone(np.array([x, o.y0 - r, z]), np.array([x, o.y1 + r, z]), r, r, colour, paint, gloss=0.5)]


def _tree(o: Occluder, rng: np.random.Generator, z: float) -> list[Shape]:
    x, r = (o.x0 + o.x1) / 2, (o.x1 - o.x0) / 2
    bark = (0.42, 0.28, 0.17)
    paint = Paint("stripes", ((0.34, 0.22, 0.13),), (0.0, 3.2 / r, float(rng.random())))
    return [RoundCone(np.array([x, o.y0 - r, z]), np.array([x, o.y1 + r, z]), r, 0.85 * r, bark, paint, gloss=0.0)]


def _table(o: Occluder, rng: np.random.Generator, z: float) -> list[Shape]:
    wood = (float(rng.uniform(0.45, 0.65)), float(rng.uniform(0.28, 0.40)), 0.18)
    cloth: Colour = (0.90, 0.90, 0.92) if rng.random() < 0.4 else (float(rng.uniform(0.3, 0.9)), 0.3, 0.35)
    h, w = o.y1 - o.y0, o.x1 - o.x0
    return [
        Card(o.x0, o.y1 - 0.16 * h, o.x1, o.y1, z, wood),
        Card(
            o.x0 + 0.06 * w,
            o.y0,
            o.x1 - 0.06 * w,
            o.y1 - 0.16 * h,
            z - 0.01,
            cloth,
            Paint("planks", (cloth,), (6.0, 0.0, 0.0)),
        ),
    ]


def _vase(o: Occluder, rng: np.random.Generator, z: float) -> list[Shape]:
    x, w, h = (o.x0 + o.x1) / 2, o.x1 - o.x0, o.y1 - o.y0
    glaze = (float(rng.uniform(0.2, 0.9)), float(rng.uniform(0.2, 0.6)), float(rng.uniform(0.3, 0.9)))
    band = Paint("bands", ((0.96, 0.94, 0.88),), (0.0, 0.3))
    shapes: list[Shape] = [
        Ellipsoid(np.array([x, o.y0 + 0.32 * h, z]), (0.40 * w, 0.32 * h, 0.40 * w), glaze, turn(), band, gloss=0.7),
        RoundCone(
            np.array([x, o.y0 + 0.55 * h, z]), np.array([x, o.y0 + 0.66 * h, z]), 0.16 * w, 0.22 * w, glaze, gloss=0.7
        ),
    ]
    petal = (float(rng.uniform(0.8, 1.0)), float(rng.uniform(0.2, 0.8)), float(rng.uniform(0.2, 0.6)))
    for k in range(5):
        fx = x + (k - 2) * 0.19 * w
        fy = o.y1 - (0.13 + 0.05 * (k % 2)) * h
        shapes.append(Ellipsoid(np.array([fx, fy, z]), (0.12 * w, 0.12 * h, 0.1 * w), petal, turn(), gloss=0.1))
        shapes.append(
            RoundCone(
                np.array([x, o.y0 + 0.6 * h, z - 0.02]),
                np.array([fx, fy, z - 0.02]),
                0.03 * w,
                0.03 * w,
                (0.2, 0.5, 0.2),
            )
        )
    return shapes


_MAKERS = {
    "bush": _bush,
    "crate": _crate,
    "fence": _fence,
    "pole": _pole,
    "table": _table,
    "vase": _vase,
    "tree": _tree,
}


def build(occluder: Occluder, z: float) -> list[Shape]:
    """Shapes of an occluder in frame units at depth z."""
    return _MAKERS[occluder.kind](occluder, np.random.default_rng(occluder.seed), z)
