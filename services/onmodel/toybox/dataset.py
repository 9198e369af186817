"""Dataset folders of one character with any mix of scenes, exact truth beside them."""

from __future__ import annotations

import json
from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Final

import numpy as np
from PIL import Image

from onmodel.core.vocabulary import Attribute, Box, ShotType
from onmodel.toybox.character import Character
from onmodel.toybox.render import CharacterTruth, OccluderTruth, Rendered, Truth, render
from onmodel.toybox.scene import Scene, random_place, random_scene
from onmodel.toybox.wording import describe, training_caption

TRUTH_FILE: Final[str] = "toybox_truth.jsonl"


@dataclass(frozen=True, slots=True)
class Shares:
    """A mix of scenes in shares of all pictures, 0..1. Shot types exclude each other; their rest is unclassified."""

    close_up: float = 0.0
    medium: float = 0.0
    full_body: float = 0.0
    far: float = 0.0
    multi_character: float = 0.0
    occlusion: float = 0.0
    complex_background: float = 0.0

    def __post_init__(self) -> None:
        if any(not 0 <= v <= 1 for v in (*self.shot_types().values(), *self.attributes().values())):
            raise ValueError("every share must lie in 0..1")
        if sum(self.shot_types().values()) > 1 + 1e-9:
            raise ValueError("the shares of the shot types, which exclude each other, must not sum to more than 1")

    def shot_types(self) -> dict[ShotType, float]:
        return {
            ShotType.CLOSE_UP: self.close_up, ShotType.MEDIUM: self.medium,
            ShotType.FULL_BODY: self.full_body, ShotType.FAR: self.far,
        }  # fmt: skip

    def attributes(self) -> dict[Attribute, float]:
        return {
            Attribute.MULTI_CHARACTER: self.multi_character, Attribute.OCCLUSION: self.occlusion,
            Attribute.COMPLEX_BACKGROUND: self.complex_background,
        }  # fmt: skip


TRIAL_SHARES: Final[Shares] = Shares(close_up=0.414, full_body=0.102, far=0.008)
"""The trial's own mix: faces on plain backgrounds, and almost half of no known shot type."""
BALANCED_SHARES: Final[Shares] = Shares(0.35, 0.275, 0.275, 0.075, 0.175, 0.10, 0.25)
"""The middle of every recommended range."""
EVERY_FRAMING: Final[Shares] = Shares(close_up=0.25, medium=0.25, full_body=0.25, far=0.25)
"""Of pictures that are held back: each framing as often as the others."""
PEOPLE: Final[Shares] = Shares(medium=0.4, full_body=0.6)
"""Of pictures that companions are cut out of."""
THINGS: Final[Shares] = Shares(full_body=1.0, occlusion=1.0)
"""Of pictures that things in front are cut out of."""


@dataclass(frozen=True, slots=True)
class Plan:
    """What one picture of a dataset must show."""

    shot_type: ShotType
    attributes: frozenset[Attribute]


def plan(count: int, shares: Shares, rng: np.random.Generator) -> tuple[Plan, ...]:
    """`count` pictures in random order whose categories meet the shares to the nearest whole picture.

    Attributes fall on pictures that have a shot type, since only those have a main character.
    """
    shots = [shot for shot, share in shares.shot_types().items() for _ in range(round(share * count))][:count]
    shots += [ShotType.UNCLASSIFIED] * (count - len(shots))
    order = rng.permutation(count)
    shots = [shots[int(i)] for i in order]
    framed = np.array([i for i, s in enumerate(shots) if s is not ShotType.UNCLASSIFIED], dtype=np.int64)
    marks: list[set[Attribute]] = [set() for _ in shots]
    for attribute, share in shares.attributes().items():
        wanted = min(round(share * count), framed.size)
        for i in rng.choice(framed, size=wanted, replace=False) if wanted else ():
            marks[int(i)].add(attribute)
    return tuple(Plan(s, frozenset(m)) for s, m in zip(shots, marks, strict=True))


def scene_for(
    item: Plan,
    rng: np.random.Generator,
    character: Character | None = None,
    others: Sequence[Character] | None = None,
) -> Scene:
    """A random scene that shows what the plan asks for; companions are drawn of `others`, else at random."""
    return random_scene(
        rng,
        character=character,
        shot_type=item.shot_type,
        multi_character=Attribute.MULTI_CHARACTER in item.attributes,
        occlusion=Attribute.OCCLUSION in item.attributes,
        complex_background=Attribute.COMPLEX_BACKGROUND in item.attributes,
        others=others,
    )


def make_dataset(
    out: Path,
    character: Character | None,
    count: int,
    shares: Shares,
    seed: int,
    *,
    size: int = 96,
    trigger: str | None = None,
    prefix: str = "toy",
) -> tuple[Truth, ...]:
    """Write a dataset folder: `<prefix>_0000.png` with same-stem `.txt` captions, and `toybox_truth.jsonl`.

    Args:
        out: folder to write into; made when missing.
        character: whom to show; None shows a new random character in every picture.
        count: number of pictures.
        shares: their mix.
        seed: everything follows from it; picture k depends on (seed, k) and its plan alone.
        size: side of the square pictures in pixels.
        trigger: word that stands for the character in captions, e.g. "zibo". None names the looks instead.
        prefix: start of file names.

    Returns:
        The truth of every picture, in the order of the file names.
    """
    items = plan(count, shares, np.random.default_rng([seed, 0]))
    generators = [np.random.default_rng([seed, 1, k]) for k in range(count)]
    scenes = (scene_for(item, rng, character) for item, rng in zip(items, generators, strict=True))
    return _write(out, zip(scenes, generators, strict=True), size, trigger, prefix)


def make_places(out: Path, count: int, seed: int, *, size: int = 96, prefix: str = "place") -> tuple[Truth, ...]:
    """Write a folder of busy places without anyone, files as of `make_dataset`."""
    generators = [np.random.default_rng([seed, 3, k]) for k in range(count)]
    return _write(out, ((random_place(rng, busy=True), rng) for rng in generators), size, None, prefix)


def _write(
    out: Path, scenes: Iterable[tuple[Scene, np.random.Generator]], size: int, trigger: str | None, prefix: str
) -> tuple[Truth, ...]:
    out.mkdir(parents=True, exist_ok=True)
    truths: list[Truth] = []
    lines: list[str] = []
    for k, (scene, rng) in enumerate(scenes):
        picture = render(scene, size)
        caption = describe(scene, rng) if trigger is None else training_caption(scene, rng, trigger)
        stem = f"{prefix}_{k:04d}"
        Image.fromarray(picture.image).save(out / f"{stem}.png")
        (out / f"{stem}.txt").write_text(caption + "\n", encoding="utf-8")
        lines.append(json.dumps({"file": f"{stem}.png", "caption": caption, **truth_to_json(picture.truth)}))
        truths.append(picture.truth)
    (out / TRUTH_FILE).write_text("".join(line + "\n" for line in lines), encoding="utf-8")
    return tuple(truths)


def reference_pictures(
    character: Character, count: int, seed: int, *, size: int = 96, complex_background: bool = False
) -> tuple[Rendered, ...]:
    """Clear pictures of a character alone, all shot types but far in turn: references for judging identity."""
    shots = (ShotType.CLOSE_UP, ShotType.MEDIUM, ShotType.FULL_BODY)
    return tuple(
        render(
            random_scene(
                np.random.default_rng([seed, 2, k]), character=character, shot_type=shots[k % 3],
                multi_character=False, occlusion=False, complex_background=complex_background,
            ),
            size,
        )
        for k in range(count)
    )  # fmt: skip


def _box_to_json(box: Box | None) -> list[float] | None:
    return None if box is None else [round(v, 2) for v in box.as_tuple()]


def _box_from_json(value: list[float] | None) -> Box | None:
    return None if value is None else Box(*value)


def truth_to_json(truth: Truth) -> dict[str, Any]:
    """A truth as plain JSON values; boxes as [x0, y0, x1, y1] in pixels, rounded to a hundredth."""
    return {
        "size": truth.size,
        "shot_type": truth.shot_type.value,
        "attributes": sorted(a.value for a in truth.attributes),
        "count": truth.count,
        "place": truth.place,
        "characters": [
            {
                "name": c.name, "noun": c.noun, "main": c.main, "box": _box_to_json(c.box),
                "visible_box": _box_to_json(c.visible_box), "face_box": _box_to_json(c.face_box),
                "visible_fraction": round(c.visible_fraction, 4), "in_frame_fraction": round(c.in_frame_fraction, 4),
                "visible_pixels": c.visible_pixels,
            }
            for c in truth.characters
        ],
        "occluders": [{"kind": o.kind, "box": _box_to_json(o.box)} for o in truth.occluders],
    }  # fmt: skip


def truth_from_json(row: dict[str, Any]) -> Truth:
    """The inverse of `truth_to_json`, but for its rounding; other keys are ignored."""
    people = tuple(
        CharacterTruth(
            c["name"], c["noun"], c["main"], Box(*c["box"]), _box_from_json(c["visible_box"]),
            _box_from_json(c["face_box"]), c["visible_fraction"], c["in_frame_fraction"], c["visible_pixels"],
        )
        for c in row["characters"]
    )  # fmt: skip
    return Truth(
        row["size"], ShotType(row["shot_type"]), frozenset(Attribute(a) for a in row["attributes"]), people,
        tuple(OccluderTruth(o["kind"], Box(*o["box"])) for o in row["occluders"]), row["place"],
    )  # fmt: skip


def read_truth(folder: Path) -> dict[str, Truth]:
    """The truth of a folder that `make_dataset` wrote, by file name."""
    rows = [json.loads(line) for line in (folder / TRUTH_FILE).read_text(encoding="utf-8").splitlines() if line]
    return {row["file"]: truth_from_json(row) for row in rows}
