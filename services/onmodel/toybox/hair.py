"""Hair and hats as shapes around a head."""

from __future__ import annotations

import math
from typing import Protocol

import numpy as np
import numpy.typing as npt

from onmodel.toybox.character import CLOTH, HAIR, Character, Colour
from onmodel.toybox.shapes import Ellipsoid, Paint, RoundCone, Shape, turn

Vector = npt.NDArray[np.float64]
Radii = tuple[float, float, float]


class Place(Protocol):
    """Turns head coordinates (the skull is the unit ball, z to the front) into world coordinates."""

    def __call__(self, x: float, y: float, z: float) -> Vector: ...


def build(character: Character, centre: Vector, radii: Radii, frame: Vector) -> list[Shape]:
    """Hair, then hat. Hair that hangs below the chin is not tagged as head, so that a head box ends at the chin."""

    def at(x: float, y: float, z: float) -> Vector:
        return centre + frame @ (np.array([x, y, z]) * np.asarray(radii))

    shapes = _hair(character, centre, radii, frame, at)
    return shapes + _hat(character, centre, radii, frame, at)


def _shell(
    centre: Vector, radii: Radii, frame: Vector, colour: Colour, grow: float, cut: tuple[float, float, float]
) -> Shape:
    centre = centre + frame @ np.array([0.0, 0.03 * radii[1], -0.05 * radii[2]])
    grown = (radii[0] * grow, radii[1] * grow, radii[2] * grow)
    return Ellipsoid(centre, grown, colour, frame, cut=Paint("hair_opening", (), cut), is_head=True, gloss=0.35)


def _hair(c: Character, centre: Vector, radii: Radii, frame: Vector, at: Place) -> list[Shape]:
    colour, size = HAIR[c.hair_colour], radii[1]
    if c.hair_style == "bald":
        return []
    if c.hair_style == "mohawk":
        ridge = [(math.sin(a), math.cos(a)) for a in np.linspace(-1.0, 0.55, 6)]
        return [
            RoundCone(
                at(0, 0.92 * y, 0.9 * z), at(0, 1.42 * y, 1.35 * z), 0.17 * size, 0.12 * size, colour,
                is_head=True, gloss=0.35,
            )
            for z, y in ridge
        ]  # fmt: skip
    opening = {"spiky": (0.42, 0.86, -0.35), "short": (0.46, 0.88, -0.35), "curly": (0.40, 0.84, -0.40),
               "bun": (0.50, 0.92, -0.45), "ponytail": (0.50, 0.92, -0.45),
               }.get(c.hair_style, (0.36, 0.80, -0.60))  # fmt: skip
    shapes: list[Shape] = [_shell(centre, radii, frame, colour, 1.10, opening)]
    shapes.extend(_STYLES.get(c.hair_style, _no_more)(colour, size, at))
    return shapes


def _no_more(colour: Colour, size: float, at: Place) -> list[Shape]:
    return []


def _spiky(colour: Colour, size: float, at: Place) -> list[Shape]:
    shapes: list[Shape] = []
    for tilt, turns in ((0.1, 1), (0.62, 6), (1.12, 8)):
        for k in range(turns):
            angle = 2 * math.pi * (k + 0.5 * (turns > 6)) / turns
            x, y, z = math.sin(tilt) * math.sin(angle), math.cos(tilt), math.sin(tilt) * math.cos(angle)
            if z > 0.72:
                continue
            shapes.append(
                RoundCone(
                    at(x, y, z * 0.9),
                    at(1.62 * x, 1.55 * y + 0.08, 1.5 * z),
                    0.27 * size,
                    0.03 * size,
                    colour,
                    is_head=True,
                    gloss=0.35,
                )
            )
    return shapes


def _long(colour: Colour, size: float, at: Place) -> list[Shape]:
    shapes: list[Shape] = [
        RoundCone(at(0, 0.2, -0.55), at(0, -1.75, -0.60), 0.88 * size, 0.62 * size, colour, gloss=0.35)
    ]
    for side in (-1, 1):
        shapes.append(
            RoundCone(
                at(side * 0.88, 0.15, 0.05), at(side * 0.95, -1.7, -0.05), 0.26 * size, 0.17 * size, colour, gloss=0.35
            )
        )
    return shapes


def _bob(colour: Colour, size: float, at: Place) -> list[Shape]:
    shapes: list[Shape] = [
        Ellipsoid(at(0, -0.25, -0.45), (1.02 * size, 0.85 * size, 0.7 * size), colour, turn(), is_head=True, gloss=0.35)
    ]
    for side in (-1, 1):
        shapes.append(
            RoundCone(
                at(side * 0.90, 0.3, 0.1),
                at(side * 1.02, -0.62, 0.12),
                0.24 * size,
                0.27 * size,
                colour,
                is_head=True,
                gloss=0.35,
            )
        )
    return shapes


def _bun(colour: Colour, size: float, at: Place) -> list[Shape]:
    return [
        Ellipsoid(at(0, 1.32, -0.30), (0.48 * size, 0.48 * size, 0.48 * size), colour, turn(), is_head=True, gloss=0.35)
    ]


def _ponytail(colour: Colour, size: float, at: Place) -> list[Shape]:
    return [
        RoundCone(
            at(0.25, 0.75, -0.95), at(0.95, 0.55, -1.15), 0.26 * size, 0.30 * size, colour, is_head=True, gloss=0.35
        ),
        RoundCone(at(0.95, 0.55, -1.15), at(1.35, -0.95, -1.0), 0.30 * size, 0.10 * size, colour, gloss=0.35),
    ]  # fmt: skip


def _curly(colour: Colour, size: float, at: Place) -> list[Shape]:
    shapes: list[Shape] = []
    for tilt, turns in ((0.0, 1), (0.7, 7), (1.3, 9), (1.75, 8)):
        for k in range(turns):
            angle = 2 * math.pi * k / turns
            x, y, z = math.sin(tilt) * math.sin(angle), math.cos(tilt), math.sin(tilt) * math.cos(angle)
            if z > 0.45 and y < 0.5:
                continue
            shapes.append(
                Ellipsoid(
                    at(1.05 * x, 1.05 * y + 0.1, 1.05 * z),
                    (0.36 * size, 0.36 * size, 0.36 * size),
                    colour,
                    turn(),
                    is_head=True,
                    gloss=0.25,
                )
            )
    return shapes


_STYLES = {"spiky": _spiky, "long": _long, "bob": _bob, "bun": _bun, "ponytail": _ponytail, "curly": _curly}


def _hat(c: Character, centre: Vector, radii: Radii, frame: Vector, at: Place) -> list[Shape]:
    if c.hat == "none":
        return []
    colour, size = CLOTH[c.hat_colour], radii[1]
    dark = (colour[0] * 0.7, colour[1] * 0.7, colour[2] * 0.7)
    if c.hat == "tophat":
        return [
            RoundCone(at(0, 0.95, 0), at(0, 1.65, 0), 0.62 * size, 0.60 * size, colour, is_head=True, gloss=0.3),
            Ellipsoid(at(0, 0.72, 0), (1.25 * size, 0.10 * size, 1.25 * size), dark, frame, is_head=True, gloss=0.3),
        ]
    grown = (radii[0] * 1.2, radii[1] * 1.16, radii[2] * 1.2)
    dome = Ellipsoid(centre, grown, colour, frame, cut=Paint("below", (), (0.38,)), is_head=True)
    if c.hat == "beanie":
        ball = Ellipsoid(at(0, 1.28, 0), (0.2 * size, 0.2 * size, 0.2 * size), (0.95, 0.95, 0.95), frame, is_head=True)
        band = Paint("bands", (dark,), (0.30, 0.52))
        return [Ellipsoid(centre, grown, colour, frame, band, Paint("below", (), (0.30,)), is_head=True), ball]
    brim = Ellipsoid(at(0, 0.46, 1.0), (0.78 * size, 0.09 * size, 0.62 * size), dark, frame, is_head=True)
    return [dome, brim]
