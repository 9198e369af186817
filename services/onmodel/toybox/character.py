"""Who can be drawn: a `Character` is a closed set of named features and a few continuous ones."""

from __future__ import annotations

import dataclasses
from dataclasses import dataclass
from typing import Final, Literal, TypeVar, get_args

import numpy as np

T = TypeVar("T")
Colour = tuple[float, float, float]
"""Red, green, blue in 0..1."""

Age = Literal["child", "teenage", "adult"]
Gender = Literal["male", "female"]
Skin = Literal["pale", "tan", "brown", "dark", "teal"]
HairStyle = Literal["short", "spiky", "long", "bob", "bun", "ponytail", "curly", "mohawk", "bald"]
HairColour = Literal["black", "brown", "blonde", "red", "blue", "pink", "white", "green"]
Cloth = Literal["red", "orange", "yellow", "green", "blue", "purple", "pink", "white", "black", "grey", "brown"]
Pattern = Literal["plain", "striped", "spotted"]
Legwear = Literal["trousers", "shorts", "skirt"]
Hat = Literal["none", "cap", "beanie", "tophat"]

SKIN: Final[dict[Skin, Colour]] = {
    "pale": (0.98, 0.82, 0.72), "tan": (0.90, 0.68, 0.50), "brown": (0.66, 0.44, 0.30), "dark": (0.40, 0.26, 0.19),
    "teal": (0.25, 0.70, 0.66),
}  # fmt: skip
HAIR: Final[dict[HairColour, Colour]] = {
    "black": (0.10, 0.09, 0.11), "brown": (0.38, 0.22, 0.12), "blonde": (0.95, 0.80, 0.36), "red": (0.80, 0.25, 0.08),
    "blue": (0.15, 0.32, 0.85), "pink": (0.97, 0.48, 0.70), "white": (0.93, 0.93, 0.95), "green": (0.18, 0.62, 0.25),
}  # fmt: skip
CLOTH: Final[dict[Cloth, Colour]] = {
    "red": (0.84, 0.13, 0.13), "orange": (0.96, 0.52, 0.10), "yellow": (0.97, 0.84, 0.20), "green": (0.16, 0.62, 0.28),
    "blue": (0.16, 0.36, 0.82), "purple": (0.52, 0.24, 0.72), "pink": (0.96, 0.52, 0.72), "white": (0.94, 0.94, 0.94),
    "black": (0.13, 0.13, 0.15), "grey": (0.52, 0.53, 0.56), "brown": (0.48, 0.31, 0.18),
}  # fmt: skip
IRIS: Final[tuple[Colour, ...]] = ((0.25, 0.14, 0.08), (0.15, 0.40, 0.75), (0.15, 0.50, 0.25), (0.45, 0.35, 0.15))
HEADS: Final[dict[Age, float]] = {"child": 2.9, "teenage": 3.8, "adult": 4.7}
"""Height of the body in heads; cartoon proportions, so fewer than a person's 5 to 7.5."""
HEAD_HEIGHT: Final[dict[Age, float]] = {"child": 0.95, "teenage": 1.0, "adult": 1.05}
"""Height of the skull in world units."""


@dataclass(frozen=True, slots=True)
class Character:
    """A character's looks. The floats are factors around 1, the source of variety between characters alike in words."""

    name: str
    age: Age
    gender: Gender
    skin: Skin
    hair_style: HairStyle
    hair_colour: HairColour
    shirt: Cloth
    pattern: Pattern
    pattern_colour: Cloth
    legwear: Legwear
    leg_colour: Cloth
    shoes: Cloth
    hat: Hat = "none"
    hat_colour: Cloth = "red"
    glasses: bool = False
    long_sleeves: bool = False
    iris: int = 0
    head_width: float = 1.0
    eye_size: float = 1.0
    nose_size: float = 1.0
    ear_size: float = 1.0
    girth: float = 1.0
    height: float = 1.0
    """Factor of the age's `HEADS`: a body's height against its head. Only what measures proportions draws others."""

    @property
    def noun(self) -> str:
        """The class word with its age: "teenage boy", "man", "little girl"."""
        if self.age == "adult":
            return "man" if self.gender == "male" else "woman"
        young = "boy" if self.gender == "male" else "girl"
        return f"teenage {young}" if self.age == "teenage" else f"little {young}"

    @property
    def slots(self) -> dict[str, str | None]:
        """What a test suite's prompts call it: trigger, class word, class word with age."""
        return {"trigger": self.name, "class": self.noun.split()[-1], "age": self.noun}


def _pick(rng: np.random.Generator, options: tuple[T, ...], weights: tuple[float, ...] | None = None) -> T:
    if weights is None:
        return options[int(rng.integers(len(options)))]
    share = np.asarray(weights, dtype=np.float64)
    return options[int(rng.choice(len(options), p=share / share.sum()))]


def _draw(rng: np.random.Generator) -> Character:
    gender: Gender = _pick(rng, ("male", "female"))
    styles: tuple[HairStyle, ...] = (
        ("short", "spiky", "curly", "mohawk", "bald", "long") if gender == "male"
        else ("long", "bob", "bun", "ponytail", "curly", "short")
    )  # fmt: skip
    weights = (3.0, 3.0, 2.0, 1.5, 1.0, 0.7) if gender == "male" else (3.0, 2.0, 2.0, 2.5, 2.0, 0.8)
    # Brown cloth looks like bare skin at 96 pixels; it stays for shoes and hats.
    cloths: tuple[Cloth, ...] = tuple(c for c in CLOTH if c != "brown")
    shirt: Cloth = _pick(rng, cloths)
    others: tuple[Cloth, ...] = tuple(c for c in cloths if c != shirt)
    return Character(
        name=f"c{int(rng.integers(1 << 40)):010x}",
        age=_pick(rng, get_args(Age)),
        gender=gender,
        skin=_pick(rng, ("pale", "tan", "brown", "dark")),
        hair_style=_pick(rng, styles, weights),
        hair_colour=_pick(rng, get_args(HairColour), (3, 3, 3, 2.5, 1.5, 1.5, 1, 1)),
        shirt=shirt,
        pattern=_pick(rng, get_args(Pattern), (6, 2.5, 1.5)),
        pattern_colour=_pick(rng, others),
        legwear=_pick(rng, get_args(Legwear), (6, 3, 0) if gender == "male" else (4, 2, 4)),
        leg_colour=_pick(rng, others),
        shoes=_pick(rng, get_args(Cloth)),
        hat=_pick(rng, get_args(Hat), (7, 1.5, 1, 0.5)),
        hat_colour=_pick(rng, get_args(Cloth)),
        glasses=bool(rng.random() < 0.15),
        long_sleeves=bool(rng.random() < 0.5),
        iris=int(rng.integers(len(IRIS))),
        head_width=float(rng.uniform(0.9, 1.12)),
        eye_size=float(rng.uniform(0.88, 1.15)),
        nose_size=float(rng.uniform(0.75, 1.35)),
        ear_size=float(rng.uniform(0.8, 1.25)),
        girth=float(rng.uniform(0.88, 1.15)),
    )


def likeness(a: Character, b: Character) -> int:
    """How many of five marks two characters share: hair, shirt, hat, skin, legs. Range 0..5."""
    return (
        int((a.hair_style, a.hair_colour) == (b.hair_style, b.hair_colour))
        + int((a.shirt, a.pattern) == (b.shirt, b.pattern))
        + int((a.hat, a.hat_colour) == (b.hat, b.hat_colour) and a.hat != "none")
        + int(a.skin == b.skin)
        + int((a.legwear, a.leg_colour) == (b.legwear, b.leg_colour))
    )


HELD_OUT: Final[dict[str, Character]] = {
    "zibo": Character(
        "zibo", "teenage", "male", "tan", "spiky", "blue", "orange", "striped", "white", "shorts", "green", "red",
        long_sleeves=True, iris=2, head_width=1.02, eye_size=1.12, ear_size=1.2,
    ),
    "mirel": Character(
        "mirel", "adult", "female", "dark", "bun", "white", "purple", "spotted", "yellow", "skirt", "pink", "white",
        glasses=True, iris=3, nose_size=0.8,
    ),
    "tokko": Character(
        "tokko", "child", "male", "teal", "mohawk", "pink", "yellow", "plain", "black", "trousers", "purple", "orange",
        iris=1, eye_size=1.15, ear_size=1.25, girth=1.12,
    ),
}  # fmt: skip
"""Characters that base training never shows: no training character shares two or more of their marks (`likeness`)."""


def random_character(rng: np.random.Generator) -> Character:
    """A character that resembles none of `HELD_OUT` (`likeness` below 2). Deterministic in the generator's state."""
    while True:
        drawn = _draw(rng)
        if all(likeness(drawn, held) < 2 for held in HELD_OUT.values()):
            return drawn


def any_character(rng: np.random.Generator) -> Character:
    """A character of any looks, those of `HELD_OUT` not excepted, and of every skin: for what must read all of them,
    and never for base training. Deterministic in the generator's state."""
    return dataclasses.replace(_draw(rng), skin=_pick(rng, get_args(Skin)))


def near_twin(rng: np.random.Generator, character: Character) -> Character:
    """Another character that differs in hair colour and shirt alone: the hard negative of identity work."""
    while True:
        other = random_character(rng)
        twin = dataclasses.replace(
            character, name=other.name, shirt=other.shirt, pattern=other.pattern, hair_colour=other.hair_colour
        )
        # A held-out character's own twin keeps its skin and legs; it must only stay clear of the others.
        if all(likeness(twin, held) < 2 for held in HELD_OUT.values() if held.name != character.name):
            return twin
