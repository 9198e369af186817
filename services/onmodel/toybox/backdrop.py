"""What is behind the characters: plain colours, or a painted busy place."""

from __future__ import annotations

import colorsys
from collections.abc import Callable
from dataclasses import dataclass
from typing import Final, Literal

import numpy as np

from onmodel.toybox.character import Colour
from onmodel.toybox.shapes import Array

PlainPlace = Literal["flat", "gradient", "glow", "floor"]
BusyPlace = Literal["room", "park", "street", "market"]
PlaceName = PlainPlace | BusyPlace
PLAIN: Final[tuple[PlainPlace, ...]] = ("flat", "gradient", "glow", "floor")
BUSY: Final[tuple[BusyPlace, ...]] = ("room", "park", "street", "market")

WALLS: Final[dict[str, Colour]] = {
    "white": (0.93, 0.93, 0.92), "grey": (0.70, 0.71, 0.73), "blue": (0.62, 0.76, 0.92), "green": (0.68, 0.86, 0.68),
    "pink": (0.95, 0.78, 0.82), "yellow": (0.96, 0.90, 0.66), "purple": (0.78, 0.70, 0.90),
    "orange": (0.97, 0.80, 0.62),
}  # fmt: skip
"""Colours of plain backgrounds, by the word a caption uses."""


@dataclass(frozen=True, slots=True)
class Backdrop:
    """A place. `horizon` is where the ground begins, in frame heights from the top; `zoom` enlarges what is painted."""

    place: PlaceName
    seed: int
    horizon: float = 0.75
    zoom: float = 1.0
    wall: str = "white"

    @property
    def busy(self) -> bool:
        return self.place in BUSY


class Canvas:
    """An (h, w, 3) float32 picture to paint on, in frame units with y down."""

    def __init__(self, size: int) -> None:
        self.size = size
        self.pixels: Array = np.ones((size, size, 3), dtype=np.float32)
        self.at: Array = ((np.arange(size) + 0.5) / size).astype(np.float32)

    def _span(self, low: float, high: float) -> slice:
        return slice(
            max(0, int(np.ceil(low * self.size - 0.5))), min(self.size, max(0, int(np.ceil(high * self.size - 0.5))))
        )

    def rect(self, x0: float, y0: float, x1: float, y1: float, colour: Colour) -> None:
        self.pixels[self._span(y0, y1), self._span(x0, x1)] = colour

    def ramp(self, y0: float, y1: float, top: Colour, bottom: Colour) -> None:
        rows = self._span(y0, y1)
        t = np.clip((self.at[rows] - y0) / max(y1 - y0, 1e-6), 0, 1)[:, None, None]
        self.pixels[rows] = (1 - t) * np.asarray(top, np.float32) + t * np.asarray(bottom, np.float32)

    def disc(self, cx: float, cy: float, rx: float, ry: float, colour: Colour, shade: float = 0.0) -> None:
        """An ellipse; with shade, darker towards its lower right, so that it reads as round."""
        rows, cols = self._span(cy - ry, cy + ry), self._span(cx - rx, cx + rx)
        x = ((self.at[cols] - cx) / rx)[None, :]
        y = ((self.at[rows] - cy) / ry)[:, None]
        inside = x * x + y * y < 1
        tone = np.clip(1 - shade * (0.5 * x + 0.5 * y + 0.35), 0, 1.15)[..., None]
        window = self.pixels[rows, cols]
        window[inside] = (tone * np.asarray(colour, np.float32))[inside]

    def roof(self, x0: float, x1: float, base: float, peak: float, colour: Colour) -> None:
        """A triangle standing on y = base with its tip at y = peak."""
        rows, cols = self._span(peak, base), self._span(x0, x1)
        t = ((self.at[rows] - peak) / max(base - peak, 1e-6))[:, None]
        middle, half = (x0 + x1) / 2, (x1 - x0) / 2
        inside = np.abs(self.at[cols] - middle)[None, :] < half * t
        self.pixels[rows, cols][inside] = colour


def _hue(rng: np.random.Generator, saturation: tuple[float, float], value: tuple[float, float]) -> Colour:
    return colorsys.hsv_to_rgb(float(rng.random()), float(rng.uniform(*saturation)), float(rng.uniform(*value)))


def _near(rng: np.random.Generator, colour: Colour, spread: float = 0.06) -> Colour:
    r, g, b = (float(np.clip(c + rng.uniform(-spread, spread), 0, 1)) for c in colour)
    return r, g, b


def _times(colour: Colour, factor: float) -> Colour:
    return min(1.0, colour[0] * factor), min(1.0, colour[1] * factor), min(1.0, colour[2] * factor)


def _plain(canvas: Canvas, backdrop: Backdrop, rng: np.random.Generator) -> None:
    colour = _near(rng, WALLS[backdrop.wall], 0.04)
    canvas.rect(0, 0, 1, 1, colour)
    if backdrop.place == "gradient":
        canvas.ramp(0, 1, _times(colour, 1.06), _times(colour, float(rng.uniform(0.72, 0.85))))
    elif backdrop.place == "glow":
        x, y = canvas.at[None, :] - 0.5, canvas.at[:, None] - 0.45
        tone = np.clip(1.08 - 0.75 * (x * x + y * y), 0, 1.08)[..., None].astype(np.float32)
        canvas.pixels = np.minimum(tone * np.asarray(colour, np.float32), 1.0)
    elif backdrop.place == "floor":
        dark = _times(colour, 0.82)
        canvas.ramp(backdrop.horizon - 0.03, backdrop.horizon + 0.03, colour, dark)
        canvas.rect(0, backdrop.horizon + 0.03, 1, 1, dark)


def _room(canvas: Canvas, backdrop: Backdrop, rng: np.random.Generator) -> None:
    h, z = backdrop.horizon, backdrop.zoom
    wall = _hue(rng, (0.2, 0.45), (0.65, 0.9))
    canvas.rect(0, 0, 1, h, wall)
    paper = _times(wall, float(rng.choice([0.86, 1.12])))
    pitch = 0.11 * z
    for x in np.arange(float(rng.uniform(-pitch, 0)), 1, pitch):
        canvas.rect(float(x), 0, float(x) + 0.4 * pitch, h, paper)
    floor = _near(rng, (0.62, 0.42, 0.26))
    canvas.rect(0, h, 1, 1, floor)
    for y in np.arange(h, 1, 0.07 * z):
        canvas.rect(0, float(y), 1, float(y) + 0.012, _times(floor, 0.75))
    canvas.rect(0, h - 0.025 * z, 1, h, (0.95, 0.93, 0.88))
    x = float(rng.uniform(-0.15, 0.02))
    while x < 1:
        w = float(rng.uniform(0.2, 0.36)) * z
        _FURNITURE[int(rng.integers(len(_FURNITURE)))](canvas, rng, x, h, w, z)
        x += w + float(rng.uniform(0.02, 0.07)) * z


def _shelf(canvas: Canvas, rng: np.random.Generator, x: float, h: float, w: float, z: float) -> None:
    top, wood = h - float(rng.uniform(0.55, 0.75)) * z, _near(rng, (0.45, 0.28, 0.16))
    canvas.rect(x, top, x + w, h, wood)
    y = top + 0.02 * z
    while y < h - 0.06 * z:
        canvas.rect(x + 0.015 * z, y, x + w - 0.015 * z, y + 0.12 * z, _times(wood, 0.5))
        b = x + 0.02 * z
        while b < x + w - 0.045 * z:
            bw = float(rng.uniform(0.02, 0.04)) * z
            canvas.rect(
                b, y + float(rng.uniform(0.01, 0.05)) * z, b + bw, y + 0.12 * z, _hue(rng, (0.5, 0.9), (0.5, 0.95))
            )
            b += bw + 0.004
        y += 0.145 * z


def _window(canvas: Canvas, rng: np.random.Generator, x: float, h: float, w: float, z: float) -> None:
    top, low = h - 0.72 * z, h - 0.30 * z
    canvas.rect(x, top, x + w, low, (0.97, 0.97, 0.95))
    canvas.rect(x + 0.02 * z, top + 0.02 * z, x + w - 0.02 * z, low - 0.02 * z, (0.55, 0.80, 0.97))
    canvas.rect(x + w / 2 - 0.008 * z, top, x + w / 2 + 0.008 * z, low, (0.97, 0.97, 0.95))
    canvas.rect(x, (top + low) / 2 - 0.008, x + w, (top + low) / 2 + 0.008, (0.97, 0.97, 0.95))
    drape = _hue(rng, (0.5, 0.8), (0.5, 0.85))
    canvas.rect(x - 0.03 * z, top - 0.02 * z, x + 0.05 * z, low + 0.06 * z, drape)
    canvas.rect(x + w - 0.05 * z, top - 0.02 * z, x + w + 0.03 * z, low + 0.06 * z, drape)
    _sofa(canvas, rng, x, h, w, z)


def _picture(canvas: Canvas, rng: np.random.Generator, x: float, h: float, w: float, z: float) -> None:
    for top in (h - 0.78 * z, h - 0.52 * z):
        px = x + float(rng.uniform(0, 0.3)) * w
        canvas.rect(px, top, px + 0.6 * w, top + 0.2 * z, (0.35, 0.24, 0.12))
        canvas.rect(
            px + 0.02 * z, top + 0.02 * z, px + 0.6 * w - 0.02 * z, top + 0.18 * z, _hue(rng, (0.3, 0.6), (0.7, 0.95))
        )
        canvas.disc(px + 0.3 * w, top + 0.10 * z, 0.05 * z, 0.05 * z, _hue(rng, (0.6, 0.9), (0.5, 0.9)))
    _sofa(canvas, rng, x, h, w, z)


def _sofa(canvas: Canvas, rng: np.random.Generator, x: float, h: float, w: float, z: float) -> None:
    cloth = _hue(rng, (0.4, 0.75), (0.45, 0.8))
    canvas.rect(x, h - 0.20 * z, x + w, h + 0.05 * z, cloth)
    canvas.rect(x, h - 0.07 * z, x + w, h + 0.05 * z, _times(cloth, 0.8))
    canvas.rect(x - 0.02 * z, h - 0.12 * z, x + 0.03 * z, h + 0.05 * z, _times(cloth, 0.65))
    canvas.rect(x + w - 0.03 * z, h - 0.12 * z, x + w + 0.02 * z, h + 0.05 * z, _times(cloth, 0.65))


def _plant(canvas: Canvas, rng: np.random.Generator, x: float, h: float, w: float, z: float) -> None:
    canvas.rect(x + w / 2 - 0.05 * z, h - 0.1 * z, x + w / 2 + 0.05 * z, h + 0.05 * z, (0.75, 0.38, 0.22))
    for _ in range(9):
        canvas.disc(
            x + w / 2 + float(rng.uniform(-0.12, 0.12)) * z,
            h - float(rng.uniform(0.12, 0.45)) * z,
            0.035 * z,
            0.075 * z,
            _near(rng, (0.2, 0.55, 0.25), 0.1),
            0.4,
        )


_FURNITURE = (_shelf, _shelf, _window, _picture, _plant)


def _park(canvas: Canvas, backdrop: Backdrop, rng: np.random.Generator) -> None:
    h, z = backdrop.horizon, backdrop.zoom
    canvas.ramp(0, h, (0.42, 0.70, 0.96), (0.80, 0.92, 1.0))
    for _ in range(3):
        cx, cy = float(rng.uniform(0, 1)), float(rng.uniform(0.02, 0.3)) * h
        for k in (-1, 0, 1):
            canvas.disc(cx + k * 0.06 * z, cy, 0.06 * z, 0.035 * z, (0.98, 0.98, 1.0))
    for _ in range(3):
        canvas.disc(float(rng.uniform(0, 1)), h + 0.04, 0.35 * z, 0.16 * z, _near(rng, (0.40, 0.66, 0.38)))
    grass = _near(rng, (0.42, 0.72, 0.30))
    canvas.ramp(h, 1, _times(grass, 0.9), _times(grass, 1.1))
    x = float(rng.uniform(-0.1, 0.02))
    while x < 1.05:
        _tree(canvas, rng, x, h + float(rng.uniform(0.0, 0.04)), z)
        x += float(rng.uniform(0.16, 0.26)) * z
    if rng.random() < 0.6:
        for fx in np.arange(float(rng.uniform(-0.05, 0)), 1, 0.055 * z):
            canvas.rect(float(fx), h - 0.11 * z, float(fx) + 0.028 * z, h + 0.04, (0.96, 0.95, 0.90))
        canvas.rect(0, h - 0.08 * z, 1, h - 0.06 * z, (0.90, 0.88, 0.82))
        canvas.rect(0, h - 0.01, 1, h + 0.01, (0.90, 0.88, 0.82))
    canvas.disc(float(rng.uniform(0.2, 0.8)), 1.05, 0.28, max(1.05 - h, 0.05), (0.85, 0.75, 0.55))
    for _ in range(40):
        y = float(rng.uniform(h + 0.03, 1.02))
        canvas.disc(float(rng.uniform(0, 1)), y, 0.014 * z, 0.014 * z, _hue(rng, (0.6, 0.9), (0.9, 1.0)))


def _tree(canvas: Canvas, rng: np.random.Generator, x: float, h: float, z: float) -> None:
    trunk = float(rng.uniform(0.22, 0.4)) * z
    canvas.rect(x - 0.025 * z, h - trunk, x + 0.025 * z, h, _near(rng, (0.42, 0.27, 0.15)))
    leaf = _near(rng, (0.22, 0.52, 0.20), 0.08)
    for _ in range(5):
        canvas.disc(
            x + float(rng.uniform(-0.09, 0.09)) * z,
            h - trunk - float(rng.uniform(0.0, 0.17)) * z,
            0.09 * z,
            0.09 * z,
            _near(rng, leaf, 0.05),
            0.45,
        )
    for _ in range(4):
        canvas.disc(
            x + float(rng.uniform(-0.1, 0.1)) * z,
            h - trunk - float(rng.uniform(-0.03, 0.17)) * z,
            0.016 * z,
            0.016 * z,
            (0.88, 0.22, 0.18),
        )


def _street(canvas: Canvas, backdrop: Backdrop, rng: np.random.Generator) -> None:
    h, z = backdrop.horizon, backdrop.zoom
    canvas.ramp(0, h, (0.55, 0.75, 0.95), (0.88, 0.93, 0.98))
    x = float(rng.uniform(-0.2, 0.0))
    while x < 1:
        w = float(rng.uniform(0.22, 0.36)) * z
        _building(canvas, rng, x, h, w, z)
        x += w
    canvas.rect(0, h, 1, min(1.0, h + 0.06), (0.72, 0.70, 0.68))
    canvas.rect(0, h + 0.06, 1, 1, (0.36, 0.37, 0.40))
    for x in np.arange(float(rng.uniform(-0.1, 0)), 1, 0.2 * z):
        canvas.rect(float(x), h + 0.13, float(x) + 0.1 * z, h + 0.155, (0.95, 0.92, 0.75))
    for _ in range(2):
        _car(canvas, rng, float(rng.uniform(-0.1, 0.9)), h + 0.06, z)
    lamp = float(rng.uniform(0.05, 0.95))
    canvas.rect(lamp - 0.012 * z, h - 0.6 * z, lamp + 0.012 * z, h + 0.03, (0.15, 0.17, 0.2))
    canvas.disc(lamp, h - 0.6 * z, 0.04 * z, 0.04 * z, (1.0, 0.95, 0.7))


def _building(canvas: Canvas, rng: np.random.Generator, x: float, h: float, w: float, z: float) -> None:
    top = h - float(rng.uniform(0.45, 1.0)) * z
    wall = _hue(rng, (0.25, 0.6), (0.55, 0.9))
    canvas.rect(x, top, x + w, h, wall)
    if rng.random() < 0.4:
        canvas.roof(x - 0.02, x + w + 0.02, top + 0.01, top - 0.12 * z, (0.60, 0.25, 0.2))
    pane = (0.98, 0.90, 0.55) if rng.random() < 0.5 else (0.35, 0.50, 0.65)
    for wy in np.arange(top + 0.04 * z, h - 0.2 * z, 0.12 * z):
        for wx in np.arange(x + 0.03 * z, x + w - 0.05 * z, 0.09 * z):
            canvas.rect(
                float(wx) - 0.006, float(wy) - 0.006, float(wx) + 0.051 * z, float(wy) + 0.076 * z, (0.95, 0.95, 0.92)
            )
            canvas.rect(float(wx), float(wy), float(wx) + 0.045 * z, float(wy) + 0.07 * z, pane)
    canvas.rect(x + 0.35 * w, h - 0.15 * z, x + 0.65 * w, h, _times(wall, 0.45))
    shop = _hue(rng, (0.6, 0.9), (0.6, 0.95))
    canvas.rect(x + 0.1 * w, h - 0.20 * z, x + 0.9 * w, h - 0.155 * z, shop)


def _car(canvas: Canvas, rng: np.random.Generator, x: float, y: float, z: float) -> None:
    paint = _hue(rng, (0.6, 0.95), (0.6, 0.95))
    canvas.disc(x + 0.14 * z, y - 0.07 * z, 0.09 * z, 0.065 * z, paint)
    canvas.disc(x + 0.14 * z, y - 0.07 * z, 0.07 * z, 0.045 * z, (0.75, 0.88, 0.95))
    canvas.rect(x, y - 0.065 * z, x + 0.29 * z, y + 0.01 * z, paint)
    for wheel in (0.06, 0.22):
        canvas.disc(x + wheel * z, y + 0.01 * z, 0.033 * z, 0.033 * z, (0.1, 0.1, 0.12))


def _market(canvas: Canvas, backdrop: Backdrop, rng: np.random.Generator) -> None:
    h, z = backdrop.horizon, backdrop.zoom
    canvas.rect(0, 0, 1, h, _near(rng, (0.86, 0.72, 0.52)))
    for y in np.arange(0, h, 0.08 * z):
        canvas.rect(0, float(y), 1, float(y) + 0.008, (0.72, 0.58, 0.42))
    canvas.rect(0, h, 1, 1, (0.74, 0.68, 0.60))
    for y in np.arange(h, 1, 0.06):
        for x in np.arange(float(rng.uniform(-0.1, 0)), 1, 0.1 * z):
            canvas.rect(float(x), float(y), float(x) + 0.09 * z, float(y) + 0.05, _near(rng, (0.66, 0.60, 0.53), 0.04))
    x = float(rng.uniform(-0.25, -0.05))
    while x < 1:
        w = float(rng.uniform(0.32, 0.46)) * z
        _stall(canvas, rng, x, h, w, z)
        x += w + float(rng.uniform(0.02, 0.08)) * z
    for k in range(14):
        fx = k / 13
        canvas.roof(
            fx - 0.025,
            fx + 0.025,
            0.03 + 0.05 * abs(np.sin(fx * 6)),
            0.10 + 0.05 * abs(np.sin(fx * 6)),
            _hue(rng, (0.7, 0.9), (0.8, 1.0)),
        )


def _stall(canvas: Canvas, rng: np.random.Generator, x: float, h: float, w: float, z: float) -> None:
    top, colour = h - 0.62 * z, _hue(rng, (0.6, 0.9), (0.65, 0.95))
    canvas.rect(x, top, x + w, h - 0.15 * z, _near(rng, (0.42, 0.30, 0.22), 0.04))
    n = 7
    for k in range(n):
        tint = colour if k % 2 == 0 else (0.97, 0.96, 0.92)
        x0 = x - 0.02 * z + (w + 0.04 * z) * k / n
        x1 = x - 0.02 * z + (w + 0.04 * z) * (k + 1) / n
        canvas.rect(x0, top - 0.08 * z, x1, top + 0.05 * z, tint)
        canvas.disc((x0 + x1) / 2, top + 0.05 * z, (x1 - x0) / 2, 0.025 * z, tint)
    wood = _near(rng, (0.62, 0.44, 0.26))
    canvas.rect(x, h - 0.2 * z, x + w, h + 0.03, wood)
    for k in np.arange(x, x + w, 0.06 * z):
        canvas.rect(float(k), h - 0.2 * z, float(k) + 0.006, h + 0.03, _times(wood, 0.6))
    for _ in range(3):
        fruit = _hue(rng, (0.7, 0.95), (0.75, 1.0))
        fx = float(rng.uniform(x + 0.03, x + w - 0.08))
        for _apple in range(9):
            canvas.disc(
                fx + float(rng.uniform(0, 0.1)) * z,
                h - (0.2 + float(rng.uniform(0.0, 0.07))) * z,
                0.026 * z,
                0.026 * z,
                fruit,
                0.4,
            )
    canvas.rect(x + 0.01, top, x + 0.03, h, (0.35, 0.24, 0.16))
    canvas.rect(x + w - 0.03, top, x + w - 0.01, h, (0.35, 0.24, 0.16))


_PAINTERS: Final[dict[str, Callable[[Canvas, Backdrop, np.random.Generator], None]]] = {
    "room": _room, "park": _park, "street": _street, "market": _market,
}  # fmt: skip


def paint(backdrop: Backdrop, size: int) -> Array:
    """The backdrop as (size, size, 3) float32 in 0..1. Deterministic in the backdrop's seed, alike at every size."""
    canvas = Canvas(size)
    rng = np.random.default_rng(backdrop.seed)
    _PAINTERS.get(backdrop.place, _plain)(canvas, backdrop, rng)
    return np.clip(canvas.pixels, 0, 1)
