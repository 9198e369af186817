"""When a picture is on model by truth: what the probe reads of it is the character, framed as asked.

**The seven features** are age, skin, hair style, hair colour, shirt (its colour and its pattern), legs (the garment and
its colour) and hat. A feature counts where the picture shows enough to tell it, as the probe says; of shirt and legs,
the part that it shows. A bald head has no hair colour, which is then another than that of any hair.
"""

from __future__ import annotations

from collections.abc import Iterable
from typing import Final, Literal

from onmodel.core.vocabulary import Attribute, ShotType
from onmodel.experiments.probe import Person
from onmodel.experiments.probe_pictures import Feature
from onmodel.toybox.body import proportions
from onmodel.toybox.character import Character
from onmodel.toybox.wording import FRAMING

Mark = Literal["age", "skin", "hair_style", "hair_colour", "shirt", "legs", "hat"]
MARKS: Final[dict[Mark, tuple[Feature, ...]]] = {
    "age": ("age",), "skin": ("skin",), "hair_style": ("hair_style",), "hair_colour": ("hair_colour",),
    "shirt": ("shirt", "pattern"), "legs": ("legwear", "leg_colour"), "hat": ("hat",),
}  # fmt: skip
"""The seven features, by what the probe reads for each."""
WRONG: Final[int] = 1
"""So many of the seven may differ: six must agree. Of fewer than `ENOUGH` in view, all must."""
ENOUGH: Final[int] = 5
LEAST: Final[int] = 4
"""With fewer features in view nobody can be recognised."""
SEEN: Final[float] = 0.5
"""Chance from which a feature counts as in view."""
HEAD_ERROR: Final[float] = 0.15
"""How far the head's height, against the body's, may be from the character's own, relatively."""


def compare(person: Person, character: Character) -> dict[Mark, bool]:
    """For each of the seven features in view, whether it is the character's."""
    found: dict[Mark, bool] = {}
    for mark, names in MARKS.items():
        seen: list[Feature] = [name for name in names if person.features[name].seen >= SEEN]
        if mark == "hair_colour":
            style = person.features["hair_style"]
            bald = style.seen >= SEEN and style.value == "bald"
            if bald or character.hair_style == "bald":
                # Without hair there is no colour to see; whether there is hair must be in view.
                if bald or seen:
                    found[mark] = bald and character.hair_style == "bald"
                continue
        if seen:
            found[mark] = all(person.features[name].value == getattr(character, name) for name in seen)
    return found


def proportioned(person: Person, character: Character) -> bool:
    """Whether the head's height against the body's is the character's own within `HEAD_ERROR`; true where the body is
    not wholly in view."""
    if person.ratio is None:
        return True
    p = proportions(character)
    return abs(person.ratio / (p.head / p.crown) - 1) <= HEAD_ERROR


def reads_as(person: Person, character: Character) -> bool:
    """Whether a person in a picture is the character: at least `LEAST` features are in view, at most `WRONG` of
    them differ (none of fewer than `ENOUGH`), and the head is proportioned."""
    marks = compare(person, character)
    differing = sum(not same for same in marks.values())
    allowed = WRONG if len(marks) >= ENOUGH else 0
    return len(marks) >= LEAST and differing <= allowed and proportioned(person, character)


def on_model(
    people: Iterable[Person], character: Character, scenario: str, framing: ShotType | None = None
) -> bool:  # fmt: skip
    """Whether a picture is on model: somebody in it is the character and framed as asked.

    Args:
        people: what the probe read of the picture.
        character: who was asked for.
        scenario: a category of the suite. The four shot types ask for their framing; `multi_character` asks for at
            least two people. Things in front and backgrounds are not read.
        framing: what the prompt of another scenario asks for (`asked_framing`); None takes any.
    """
    found = tuple(people)
    if scenario == Attribute.MULTI_CHARACTER and len(found) < 2:
        return False
    if scenario in tuple(ShotType):
        framing = ShotType(scenario)
    return any((framing is None or person.framing is framing) and reads_as(person, character) for person in found)


def asked_framing(prompt: str) -> ShotType | None:
    """The framing that a prompt names by one of the toybox's phrases, whole between commas or at its start; None when
    it names none."""
    parts = [part.strip() for part in prompt.lower().split(",")]
    for shot, phrases in FRAMING.items():
        if any(part == phrase or part.startswith(f"{phrase} of ") for part in parts for phrase in phrases):
            return shot
    return None
