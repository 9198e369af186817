"""Captions of scenes, from a closed vocabulary, in the style trainers use."""

from __future__ import annotations

from typing import Final

import numpy as np

from onmodel.core.vocabulary import ShotType
from onmodel.toybox.character import Character
from onmodel.toybox.scene import Scene

FRAMING: Final[dict[ShotType, tuple[str, ...]]] = {
    ShotType.CLOSE_UP: ("close-up", "close-up portrait", "head and shoulders", "close-up shot"),
    ShotType.MEDIUM: ("medium shot", "medium shot", "from the waist up", "upper body"),
    ShotType.FULL_BODY: ("full body", "full body shot", "from head to feet", "full body view"),
    ShotType.FAR: ("far away", "wide shot", "in the distance", "far shot"),
}  # fmt: skip
"""Ways to say a shot type; the first is the plainest."""

TRIGGERS: Final[tuple[str, ...]] = ("zibo", "mirel", "tokko", "ohwx", "sks", "lumo", "pavi", "runo")
"""Rare words for new characters: in the tokenizer, in no caption of base training."""

PLACES: Final[dict[str, tuple[str, ...]]] = {
    "room": ("in a busy room", "in a room with shelves", "in a living room"),
    "park": ("in a busy park", "in a park with trees", "in a park"),
    "street": ("in a busy street", "in a city street", "in a street with buildings"),
    "market": ("in a busy market", "in a market with stalls", "at the market"),
}
THINGS: Final[dict[str, str]] = {
    "bush": "a bush", "crate": "a crate", "fence": "a fence", "pole": "a pole", "table": "a table", "vase": "a vase",
    "tree": "a tree",
}  # fmt: skip
EXTRA_WORDS: Final[str] = (
    "3d animated animation cartoon character characters style smiling happy looking at viewer front side view "
    "photo of picture image one two three no people nobody person detail closeup boy girl child teenager teen "
    "young adult old portrait shot wide medium full body far away distance long face head shoulders waist thighs "
    "legs feet hands outdoors indoors outside inside background plain simple busy crowded complex detailed forest "
    "city beach school kitchen house garden bookshelf shop holding jumping sitting dancing posing next to beside "
    "behind in front partly partially hidden covered friend friends group another other with and the a an on "
    "under near by his her their is low quality blurry deformed bad anatomy ugly text watermark box flowers teal "
    "turquoise scarf from up down left right "
)
"""Words that people put in prompts beside those of our own captions."""


def _choose(rng: np.random.Generator, options: tuple[str, ...]) -> str:
    return options[int(rng.integers(len(options)))]


def looks(character: Character, rng: np.random.Generator) -> list[str]:
    """Phrases for a character's looks, most telling first: hair, shirt, legs, hat, glasses, skin, shoes."""
    legs = character.legwear if character.legwear != "trousers" else _choose(rng, ("trousers", "trousers", "pants"))
    return list(phrases(character, legs).values())


def phrases(character: Character, legwear: str) -> dict[str, str]:
    """What is said of each part of a character's looks, most telling first; `legwear` is the word for its garment."""
    hair = "bald" if character.hair_style == "bald" else f"{character.hair_style} {character.hair_colour} hair"
    pattern = "" if character.pattern == "plain" else f"{character.pattern} "
    said = {"hair": hair, "shirt": f"{pattern}{character.shirt} shirt", "legs": f"{character.leg_colour} {legwear}"}
    if character.hat != "none":
        said["hat"] = f"{character.hat_colour} {character.hat}"
    if character.glasses:
        said["glasses"] = "glasses"
    return said | {"skin": f"{character.skin} skin", "shoes": f"{character.shoes} shoes"}


def _context(scene: Scene, rng: np.random.Generator) -> list[str]:
    phrases: list[str] = []
    if scene.multi_character:
        options = ("with another character", "with a friend", "next to another character")
        if len(scene.people) > 2:
            options = ("with friends", "with two friends", "with two other characters")
        phrases.append(_choose(rng, options))
    for thing in scene.occluders:
        phrases.append(f"{_choose(rng, ('behind', 'behind', 'partly hidden behind'))} {THINGS[thing.kind]}")
    phrases.append(place(scene, rng))
    return phrases


def place(scene: Scene, rng: np.random.Generator) -> str:
    """A phrase for the backdrop."""
    if scene.backdrop.busy:
        return _choose(rng, PLACES[scene.backdrop.place])
    return _choose(rng, ("plain background", "simple background", f"plain {scene.backdrop.wall} background"))


def describe(scene: Scene, rng: np.random.Generator, *, keep: float = 0.8) -> str:
    """A full caption: framing, who, looks, action, context; phrases are left out and the tail is ordered at random.

    Args:
        scene: what to describe.
        rng: decides the wording.
        keep: the chance that each phrase about looks is kept; a quarter of captions name no looks at all, so that a
            short prompt ("a teenage boy, close-up, plain background") is one the model has seen.
    """
    if scene.shot_type is ShotType.UNCLASSIFIED:
        return _without_anyone(scene, rng)
    main = scene.people[0]
    framing = _choose(rng, FRAMING[scene.shot_type])
    who = f"a {main.character.noun}"
    kept: list[str] = []
    if rng.random() < 0.75:
        kept = [p for p in looks(main.character, rng) if rng.random() < keep]
    tail = _context(scene, rng)
    if scene.shot_type is not ShotType.CLOSE_UP and rng.random() < 0.7:
        tail.insert(0, main.pose.action)
    if rng.random() < 0.5:
        tail = [tail[int(i)] for i in rng.permutation(len(tail))]
    style = rng.random()
    if style < 0.35 and not framing.startswith(("in ", "from ")):
        start = f"{who} with {', '.join(kept)}" if kept else who
        return ", ".join([f"{framing} of {start}", *tail])
    if style < 0.7:
        return ", ".join([who, framing, *kept, *tail])
    return ", ".join([who, *kept, *tail, framing])


def _without_anyone(scene: Scene, rng: np.random.Generator) -> str:
    if not scene.people:
        return ", ".join([_choose(rng, ("no people", "nobody")), place(scene, rng)])
    character = scene.people[0].character
    return ", ".join(
        [
            "detail of clothes",
            f"{character.shirt} shirt",
            f"{character.leg_colour} {character.legwear}",
            place(scene, rng),
        ]
    )


def training_caption(scene: Scene, rng: np.random.Generator, trigger: str) -> str:
    """A caption for a set that teaches one character: the trigger stands for the looks, which are not named.

    Example: "zibo, a teenage boy, close-up, plain background".
    """
    if scene.shot_type is ShotType.UNCLASSIFIED:
        return f"{trigger}, detail of clothes, {place(scene, rng)}" if scene.people else _without_anyone(scene, rng)
    main = scene.people[0]
    parts = [trigger, f"a {main.character.noun}", _choose(rng, FRAMING[scene.shot_type][:2])]
    if scene.shot_type is not ShotType.CLOSE_UP:
        parts.append(main.pose.action)
    return ", ".join([*parts, *_context(scene, rng)])


def vocabulary() -> tuple[str, ...]:
    """Every word that captions can hold, the triggers and some words people put in prompts; sorted, lower case."""
    from onmodel.toybox import character as c

    texts: list[str] = [
        EXTRA_WORDS,
        *TRIGGERS,
        "detail of clothes",
        "bald hair shirt trousers pants shorts skirt shoes skin glasses",
    ]
    texts += [p for options in FRAMING.values() for p in options] + [p for options in PLACES.values() for p in options]
    texts += [
        *THINGS.values(),
        "nobody with two other characters next to partly hidden behind friend",
        "teenage little man woman",
    ]
    texts += [
        *c.SKIN,
        *c.HAIR,
        *c.CLOTH,
        "short spiky long bob bun ponytail curly mohawk bald",
        "plain striped spotted",
    ]
    texts += ["cap beanie tophat", "standing walking waving running cheering", "close up"]
    return tuple(sorted({word for text in texts for word in text.replace("-", " ").lower().split()}))
