"""Renders of a suite's pictures with a set amount of one fault: where the right answer of a metric is known.

Every level of a fault shows the same scenes; what changes from level to level is the fault alone. A level lies between
0 (the character as it is) and 1.
"""

import dataclasses
from collections.abc import Generator
from contextlib import contextmanager
from typing import Any

import numpy as np

from onmodel.core.vocabulary import ShotType
from onmodel.toybox.character import CLOTH, HAIR, HEADS, HELD_OUT, SKIN, Character, random_character
from onmodel.toybox.render import Rendered, render
from onmodel.toybox.scene import Scene, random_scene

OURS = HELD_OUT["zibo"]
OTHER = HELD_OUT["mirel"]
"""Whom the character drifts towards."""
SCENARIOS: tuple[str, ...] = ("close_up", "full_body", "multi_character", "complex_background", "occlusion")
FAULTS: dict[str, tuple[str, ...]] = {
    "identity drift": ("close_up", "full_body", "multi_character"),
    "proportion noise": ("full_body", "multi_character", "complex_background", "occlusion"),
    "wrong count": SCENARIOS,
    "body missing when hidden": ("occlusion",),
    "drift on busy backgrounds": ("complex_background",),
    "background change": SCENARIOS,
}
"""Faults and the scenarios that they happen in. A character that drifts everywhere would be wrong on busy backgrounds
and behind things as well, and the figures for these should say so; so plain pictures drift in one fault, and those
under a condition in the fault of that condition."""
NOISE = 0.3
"""Spread of the logarithm of the body's height in heads at level 1: most heads within a third of their size."""
SIZE = 96
_BLEND = "blend"
_TABLES: tuple[tuple[str, dict[Any, Any]], ...] = (
    ("skin", SKIN),
    ("hair_colour", HAIR),
    ("shirt", CLOTH),
    ("pattern_colour", CLOTH),
    ("leg_colour", CLOTH),
    ("shoes", CLOTH),
)
_FACTORS = ("head_width", "eye_size", "nose_size", "ear_size", "girth")


def scene_of(scenario: str, seed: int, character: Character | None = OURS) -> Scene:
    """A scene that answers `scenario`, always with a companion to take out or leave in; None takes a stranger."""
    rng = np.random.default_rng(seed)
    return random_scene(
        rng,
        character=character or random_character(rng),
        shot_type=ShotType.CLOSE_UP if scenario == "close_up" else ShotType.FULL_BODY,
        multi_character=True,
        occlusion=scenario == "occlusion",
        complex_background=scenario == "complex_background",
    )


def people(scene: Scene, count: int) -> Scene:
    """The scene with the first one or two of its people."""
    return dataclasses.replace(scene, people=scene.people[:count])


@contextmanager
def drifted(scene: Scene, level: float) -> Generator[Scene]:
    """The scene with its main character's colours and features `level` of the way to the other's."""
    own = scene.people[0].character
    changes: dict[str, Any] = {
        name: getattr(own, name) * (1 - level) + getattr(OTHER, name) * level for name in _FACTORS
    }
    for name, table in _TABLES:
        ours, other = (np.array(table[getattr(who, name)]) for who in (own, OTHER))
        word = f"{_BLEND} {name}"
        table[word] = tuple(float(v) for v in ours * (1 - level) + other * level)
        changes[name] = word
    main = dataclasses.replace(scene.people[0], character=dataclasses.replace(own, **changes))
    try:
        yield dataclasses.replace(scene, people=(main, *scene.people[1:]))
    finally:
        for name, table in _TABLES:
            del table[f"{_BLEND} {name}"]


@contextmanager
def reproportioned(scene: Scene, factor: float) -> Generator[Scene]:
    """The scene with its main character as tall as before but `factor` times as many heads high."""
    main = scene.people[0]
    age = main.character.age
    usual = HEADS[age]
    HEADS[age] = usual * factor
    try:
        yield dataclasses.replace(scene, people=(dataclasses.replace(main, unit=main.unit / factor), *scene.people[1:]))
    finally:
        HEADS[age] = usual


def with_missing_body(scene: Scene, level: float, rng: np.random.Generator) -> Rendered:
    """The render with a part of the main character gone that nothing covers: the background shows through.

    The part is a disc about a visible place below the head, grown until it holds 0.6 x `level` of the visible pixels.
    """
    whole = render(scene, SIZE)
    mask = whole.masks[0]
    rows, cols = np.nonzero(mask)
    face = whole.truth.characters[0].face_box
    below = np.flatnonzero(rows > (face.y1 if face else rows.mean()))
    at = below[int(rng.integers(len(below)))] if len(below) else 0
    far = (rows - rows[at]) ** 2 + (cols - cols[at]) ** 2
    gone = far.argsort()[: round(0.6 * level * len(far))]
    empty = render(dataclasses.replace(scene, people=scene.people[1:]), SIZE).image
    image = whole.image.copy()
    image[rows[gone], cols[gone]] = empty[rows[gone], cols[gone]]
    return dataclasses.replace(whole, image=image)


class Painter:
    """Renders the pictures of a suite of `SCENARIOS`, several prompts each, with a fault at a level."""

    def __init__(self, prompts: int, variations: int, seed: int) -> None:
        self._variations = variations
        self._seed = seed
        total = prompts * len(SCENARIOS) * variations
        self._order = np.random.default_rng([seed, 1]).permutation(total) / total
        self._strays = np.clip(np.random.default_rng([seed, 2]).normal(size=total), -2, 2)

    def picture(self, scenario: str, prompt: int, variation: int, fault: str, level: float) -> Rendered:
        """Prompts are numbered over the whole suite."""
        number = prompt * self._variations + variation
        scene = scene_of(scenario, 1000 * self._seed + number)
        first = scene_of(scenario, 1000 * self._seed + prompt * self._variations).backdrop
        hit = scenario in FAULTS.get(fault, ())
        # A share `level` of the pictures, the same ones and more at the next level.
        chosen = hit and bool(self._order[number] < level)
        if not (fault == "background change" and chosen):
            scene = dataclasses.replace(scene, backdrop=dataclasses.replace(first, horizon=scene.backdrop.horizon))
        several = scenario == "multi_character"
        scene = people(scene, 2 if several != (fault == "wrong count" and chosen) else 1)
        if hit and fault in ("identity drift", "drift on busy backgrounds"):
            with drifted(scene, level) as changed:
                return render(changed, SIZE)
        if hit and fault == "proportion noise":
            with reproportioned(scene, float(np.exp(NOISE * level * self._strays[number]))) as changed:
                return render(changed, SIZE)
        if hit and fault == "body missing when hidden":
            return with_missing_body(scene, level, np.random.default_rng([self._seed, 3, number]))
        return render(scene, SIZE)

    def stranger(self, scenario: str, number: int) -> Rendered:
        """Another character in a scene of that kind."""
        scene = scene_of(scenario, 500_000 + 1000 * self._seed + number, None)
        return render(people(scene, 2 if scenario == "multi_character" else 1), SIZE)

    def reference(self, number: int) -> Rendered:
        """A held-back picture of the character, close-ups and full bodies in turn."""
        scene = scene_of(("close_up", "full_body")[number % 2], 900_000 + 1000 * self._seed + number)
        return render(people(scene, 1), SIZE)
