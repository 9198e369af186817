"""Renders that the probe learns from and is measured on, with what it must read of every character in them.

Characters are drawn without the bundled models' restriction (`character.any_character`), every fourth is a near twin of
the one before, and a third has a body longer or shorter than its age's, so that the probe measures proportions instead
of naming the age.
"""

from __future__ import annotations

import dataclasses
import math
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Final, Literal, get_args

import cv2
import numpy as np
import numpy.typing as npt

from onmodel.core.vocabulary import Box, ShotType
from onmodel.toybox import character as looks
from onmodel.toybox.body import Proportions, proportions
from onmodel.toybox.character import Character, any_character
from onmodel.toybox.models import MODEL_SIDE
from onmodel.toybox.render import CharacterTruth, Rendered, render
from onmodel.toybox.scene import FRAMED, Person, Scene, extent, random_scene, shapes_of
from onmodel.toybox.training_set import shrink

Feature = Literal[
    "age", "skin", "hair_style", "hair_colour", "shirt", "pattern", "legwear", "leg_colour", "hat"
]  # fmt: skip
FEATURES: Final[dict[Feature, tuple[str, ...]]] = {
    "age": get_args(looks.Age), "skin": get_args(looks.Skin), "hair_style": get_args(looks.HairStyle),
    "hair_colour": get_args(looks.HairColour), "shirt": get_args(looks.Cloth), "pattern": get_args(looks.Pattern),
    "legwear": get_args(looks.Legwear), "leg_colour": get_args(looks.Cloth), "hat": get_args(looks.Hat),
}  # fmt: skip
"""What the probe reads of a character, named as `Character`'s fields are, with the values of each."""

SEED: Final[int] = 71_993
SHARD: Final[int] = 250
SIDE: Final[int] = 96
"""Pictures are rendered at this side and made smaller, as those are that the bundled pipeline learned from."""
PEOPLE: Final[int] = 3
"""Most characters in one picture."""
SHOTS: Final[tuple[tuple[ShotType, float], ...]] = (
    (ShotType.CLOSE_UP, 0.22), (ShotType.MEDIUM, 0.22), (ShotType.FULL_BODY, 0.28), (ShotType.FAR, 0.22),
    (ShotType.UNCLASSIFIED, 0.06),
)  # fmt: skip

COUNTED: Final[int] = 1
"""State of a character whose head is well seen; 0 says that there is none, `UNSURE` that little of a head is seen."""
UNSURE: Final[int] = 2
HEAD_SHARE: Final[float] = 0.3
"""Share of the head that must be seen for a character to count."""


@dataclass(frozen=True, slots=True)
class Targets:
    """What is to be read of n pictures with places for `PEOPLE` each; lengths in pixels of `MODEL_SIDE`."""

    state: npt.NDArray[np.int64]
    """(n, p): 0, `COUNTED` or `UNSURE`."""
    centre: npt.NDArray[np.float32]
    """(n, p, 2): x, y of the middle of the seen part of the head."""
    box: npt.NDArray[np.float32]
    """(n, p, 4): x0, y0, x1, y1 around the seen part of the character."""
    head: npt.NDArray[np.float32]
    """(n, p): height of the head from chin to crown, without hair and hat."""
    body: npt.NDArray[np.float32]
    """(n, p): height from the ground to the crown, as the character is when it stands straight."""
    framing: npt.NDArray[np.int64]
    """(n, p): place in `FRAMED`; -1 where there is no character."""
    values: npt.NDArray[np.int64]
    """(n, p, features): place of the value in `FEATURES`."""
    seen: npt.NDArray[np.bool_]
    """(n, p, features): whether the picture shows enough to tell the value."""

    @staticmethod
    def nobody(count: int) -> Targets:
        """Targets of that many pictures without anyone."""
        shape = (count, PEOPLE)
        return Targets(
            np.zeros(shape, np.int64), np.zeros((*shape, 2), np.float32), np.zeros((*shape, 4), np.float32),
            np.ones(shape, np.float32), np.ones(shape, np.float32), np.full(shape, -1, np.int64),
            np.zeros((*shape, len(FEATURES)), np.int64), np.zeros((*shape, len(FEATURES)), np.bool_),
        )  # fmt: skip

    def arrays(self) -> dict[str, npt.NDArray[Any]]:
        return {field.name: getattr(self, field.name) for field in dataclasses.fields(self)}

    def between(self, first: int, last: int) -> Targets:
        """Targets of pictures first..last (exclusive)."""
        return Targets(**{name: array[first:last] for name, array in self.arrays().items()})

    @staticmethod
    def joined(parts: list[Targets]) -> Targets:
        """Targets of all pictures of the parts, in order."""
        return Targets(**{name: np.concatenate([p.arrays()[name] for p in parts]) for name in parts[0].arrays()})


def character_of(k: int) -> Character:
    """The main character of picture k. Every fourth is a near twin of the one before (hair colour and shirt differ)."""
    rng = np.random.default_rng([SEED, 1, k])
    if k % 4 == 3:
        return twin(rng, character_of(k - 1))
    drawn = any_character(rng)
    if rng.random() < 1 / 3:
        drawn = dataclasses.replace(drawn, height=float(math.exp(rng.uniform(-0.16, 0.16))))
    return drawn


def twin(rng: np.random.Generator, character: Character) -> Character:
    """Another character that differs in hair colour and shirt alone, of any looks."""
    while True:
        other = any_character(rng)
        if other.hair_colour != character.hair_colour and other.shirt not in (character.shirt, character.leg_colour):
            return dataclasses.replace(
                character, name=other.name, hair_colour=other.hair_colour, shirt=other.shirt, pattern=other.pattern,
                pattern_colour=other.pattern_colour,
            )  # fmt: skip


def scene_of(k: int) -> Scene:
    """Scene k, of all shot types: three tenths with several characters, a quarter with something in front."""
    rng = np.random.default_rng([SEED, 2, k])
    shot = SHOTS[int(rng.choice(len(SHOTS), p=[share for _, share in SHOTS]))][0]
    return random_scene(
        rng, character=character_of(k), shot_type=shot, multi_character=bool(rng.random() < 0.30),
        occlusion=bool(rng.random() < 0.25), complex_background=bool(rng.random() < 0.50),
        others=[any_character(rng) for _ in range(1 if rng.random() < 0.65 else PEOPLE - 1)],
    )  # fmt: skip


def targets_of(scene: Scene, drawn: Rendered, row: int, targets: Targets) -> None:
    """Fill in one picture's row."""
    scale = MODEL_SIDE / drawn.truth.size
    masks = [
        cv2.resize(mask.astype(np.float32), (MODEL_SIDE, MODEL_SIDE), interpolation=cv2.INTER_AREA)
        for mask in drawn.masks
    ]
    for k, (person, truth) in enumerate(zip(scene.people, drawn.truth.characters, strict=True)):
        if truth.face_box is None or truth.visible_box is None or scene.shot_type not in FRAMED:
            continue
        _fill(person, truth, masks[k], scale, targets, (row, k))
        targets.framing[row, k] = FRAMED.index(scene.shot_type)


def _fill(
    person: Person, truth: CharacterTruth, mask: npt.NDArray[np.float32], scale: float, targets: Targets,
    at: tuple[int, int],
) -> None:  # fmt: skip
    assert truth.face_box is not None and truth.visible_box is not None
    face = Box(*(v * scale for v in truth.face_box.as_tuple()))
    p, unit = proportions(person.character), person.unit * MODEL_SIDE
    who = person.character
    targets.centre[at] = face.center
    targets.box[at] = [v * scale for v in truth.visible_box.as_tuple()]
    targets.head[at], targets.body[at] = p.head * unit, p.crown * unit
    targets.values[at] = [values.index(getattr(who, name)) for name, values in FEATURES.items()]
    share = _head_share(person, face, mask)
    targets.state[at] = COUNTED if share >= HEAD_SHARE else UNSURE
    seen = _seen(person, p, unit, share, mask)
    targets.seen[at] = [seen[name] for name in FEATURES]


def _head_share(person: Person, face: Box, mask: npt.NDArray[np.float32]) -> float:
    """Share of the head that is seen, taking it to fill about 0.7 of its box."""
    x0, y0, x1, y1 = extent(shapes_of(person), head_only=True)
    whole = (x1 - x0) * (y1 - y0) * MODEL_SIDE**2
    rows, columns = slice(math.floor(face.y0), math.ceil(face.y1)), slice(math.floor(face.x0), math.ceil(face.x1))
    return float(mask[rows, columns].sum()) / max(0.7 * whole, 1e-6)


def _seen(
    person: Person, p: Proportions, unit: float, head_share: float, mask: npt.NDArray[np.float32]
) -> dict[Feature, bool]:
    """Which features the picture shows. Torso and thighs are bands of rows at heights that no pose moves: they hang
    below the skull, which is the first shape of the head. Thresholds are in pixels, and in heads squared, since what is
    a tenth of a head small says nothing of a shirt."""
    skull = next(s for s in shapes_of(person) if s.is_head)
    middle: Any = getattr(skull, "centre", None)
    chin_row = MODEL_SIDE * (1 - float(middle[1])) + 0.5 * p.head * unit
    head = p.head * unit
    half = max(1.0, p.shoulder_half * unit)

    def row(height: float) -> float:
        """Row of a height above the ground of the standing body."""
        return chin_row + (p.chin - height) * unit

    def area(top: float, bottom: float) -> float:
        """Seen pixels between two heights, no further aside than the shoulders."""
        rows, columns = np.arange(MODEL_SIDE) + 0.5, np.arange(MODEL_SIDE) + 0.5
        inside = (rows >= row(top)) & (rows < row(bottom))
        near = np.abs(columns - MODEL_SIDE * person.foot_x) <= half
        return float(mask[inside][:, near].sum())

    torso, thighs = area(p.shoulder, p.hip), area(p.hip * 0.97, p.hip * 0.62)
    shins = area(p.hip * 0.45, p.hip * 0.06)
    hairy = person.character.hair_style != "bald"
    leg = max(3.0, 0.08 * head * head)
    return {
        "age": row(p.hip) <= MODEL_SIDE + 0.1 * head and torso + thighs >= 0.3 * head * head,
        "skin": True,
        "hair_style": head >= 5 and head_share >= 0.55,
        "hair_colour": hairy and head_share >= 0.45,
        "shirt": torso >= max(4.0, 0.06 * head * head),
        "pattern": head >= 8 and torso >= 0.35 * head * head,
        "legwear": shins >= leg and thighs >= leg,
        "leg_colour": thighs >= leg,
        "hat": head >= 4 and head_share >= 0.55,
    }


def picture(k: int) -> tuple[npt.NDArray[np.uint8], Targets]:
    """Picture k, uint8 (side, side, 3) RGB of `MODEL_SIDE`, and its targets (n = 1)."""
    scene, targets = scene_of(k), Targets.nobody(1)
    drawn = render(scene, SIDE)
    targets_of(scene, drawn, 0, targets)
    return shrink(drawn.image[None], MODEL_SIDE)[0], targets


def compressed(image: npt.NDArray[np.uint8], quality: int) -> npt.NDArray[np.uint8]:
    """The picture after a round trip through JPEG of that quality."""
    stored: Any = cv2.imencode(".jpg", image[..., ::-1], [cv2.IMWRITE_JPEG_QUALITY, quality])[1]
    back: Any = cv2.imdecode(stored, cv2.IMREAD_COLOR)
    return np.ascontiguousarray(back[..., ::-1])


@dataclass(frozen=True, slots=True)
class Pictures:
    """n renders with their targets."""

    images: npt.NDArray[np.uint8]
    """(n, side, side, 3) RGB."""
    jpegs: npt.NDArray[np.uint8]
    """The same after JPEG of random quality."""
    targets: Targets


def write(folder: Path, first: int, last: int) -> None:
    """Render pictures first..last (exclusive) into shards of `SHARD`; one that is there already is left as it is."""
    folder.mkdir(parents=True, exist_ok=True)
    for start in range(first, last, SHARD):
        path = folder / f"shard_{start:08d}.npz"
        if path.exists():
            continue
        numbers = range(start, min(start + SHARD, last))
        pairs = [picture(k) for k in numbers]
        images = np.stack([image for image, _ in pairs])
        qualities = [int(np.random.default_rng([SEED, 3, k]).integers(35, 95)) for k in numbers]
        jpegs = np.stack([compressed(i, q) for i, q in zip(images, qualities, strict=True)])
        temporary = path.with_suffix(".partial.npz")
        arrays: dict[str, Any] = Targets.joined([t for _, t in pairs]).arrays()
        np.savez(temporary, images=images, jpegs=jpegs, **arrays)
        temporary.rename(path)


Span = tuple[Path, int, int]


def spans(folder: Path, first: int, count: int) -> list[Span]:
    """The work of `write` in parts of one shard each."""
    return [(folder, k, min(k + SHARD, first + count)) for k in range(first, first + count, SHARD)]


def write_one(span: Span) -> None:
    """`write` as one of several processes that each keep to one core."""
    cv2.setNumThreads(1)
    write(*span)


def shards(folder: Path) -> list[Path]:
    """The finished shards of a folder, in order."""
    return sorted(path for path in folder.glob("shard_*.npz") if ".partial." not in path.name)


def read(path: Path) -> Pictures:
    """One shard."""
    with np.load(path) as shard:
        names = [field.name for field in dataclasses.fields(Targets)]
        return Pictures(shard["images"], shard["jpegs"], Targets(**{name: shard[name] for name in names}))
