"""Everything that could be made from a dataset: crops, continued backgrounds, composites. Pixels come later."""

import zlib
from collections import Counter
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass, replace
from typing import Literal

import numpy as np

from onmodel.core.errors import ImageError
from onmodel.core.images import RGB, decode
from onmodel.core.vocabulary import Attribute, Box, ShotType
from onmodel.dataset.analysis import Row
from onmodel.dataset.balance import Group
from onmodel.dataset.compose import Recipe, Subject, framed, plan_composite
from onmodel.dataset.crops import CropConfig, can_widen, crop_window, cropped_attributes, cut_size, has_even_edges
from onmodel.dataset.cutouts import cut_character
from onmodel.dataset.folder import Picture
from onmodel.dataset.mix import spread
from onmodel.dataset.scenery import MOST, Scenery, lightness

Operation = Literal["copy", "crop", "widen", "composite"]
_TRIES = 6
"""Combinations that are tried for one composite before it is given up."""
_ASIDE = (0.14, 0.22)
"""How far from the middle a character is framed that another one comes beside, in shares of the width."""


@dataclass(frozen=True, slots=True)
class Planned:
    """One picture of the derived set, before any pixel is touched."""

    row: Row
    operation: Operation
    shot: ShotType
    attributes: frozenset[str]
    variant: int = 0
    window: Box | None = None
    """The part of the original that is shown, or that a composite starts from; None is all of it."""
    recipe: Recipe | None = None

    @property
    def group(self) -> Group:
        """Its categories; empty without a shot type, so that nothing repeats it."""
        return frozenset() if self.shot is ShotType.UNCLASSIFIED else self.attributes | {self.shot.value}

    @property
    def synthetic(self) -> bool:
        """Whether pixels were made that no camera saw."""
        return self.operation in ("widen", "composite")

    @property
    def ingredients(self) -> tuple[str, ...]:
        """Content hashes, or names, of all pictures that it is made from."""
        found = [self.row.hash or self.row.file]
        if self.recipe is not None:
            placed = (self.recipe.companion, self.recipe.foreground)
            found += [part.cutout.hash for part in placed if part is not None]
            found += [self.recipe.backdrop.hash] if self.recipe.backdrop is not None else []
        return tuple(found)

    @property
    def kind(self) -> str:
        """What was done, in a word or more: "crop", "composite background + foreground"."""
        if self.recipe is None:
            return self.operation
        parts = [name for name in ("backdrop", "companion", "foreground") if getattr(self.recipe, name) is not None]
        return f"{self.operation} {' + '.join('background' if name == 'backdrop' else name for name in parts)}"


def originals(rows: Sequence[Row]) -> list[Planned]:
    """Every readable picture as it is."""
    return [Planned(row, "copy", row.shot_type, frozenset(row.attributes)) for row in rows]


def crops(rows: Sequence[Row], config: CropConfig, variants: int, seed: int) -> Iterator[Planned]:
    """Medium shots and close-ups cut out of what shows more."""
    for shot in (ShotType.MEDIUM, ShotType.CLOSE_UP):
        for variant in range(variants):
            for row in rows:
                window = crop_window(row, shot, config, rng_of(seed, row, f"crop {shot}", variant), variant)
                if window is not None:
                    yield Planned(row, "crop", shot, cropped_attributes(row, window), variant, window)


def widened(
    rows: Sequence[Row], sources: Mapping[str, Picture], variants: int, refused: Counter[str]
) -> Iterator[Planned]:
    """Far shots by continuing a plain background, where its edges can go on without stripes."""
    for row in filter(can_widen, rows):
        image = _read(row, sources)
        if image is not None and not has_even_edges(image):
            refused["far by continuing the background: its edges are not even"] += 1
            continue
        if image is not None:
            for variant in range(variants):
                yield Planned(row, "widen", ShotType.FAR, frozenset(row.attributes), variant)


def composites(
    rows: Sequence[Row],
    sources: Mapping[str, Picture],
    scenery: Scenery,
    config: CropConfig,
    variants: int,
    seed: int,
    refused: Counter[str],
    advance: Callable[[int], object] = lambda count: None,
) -> Iterator[Planned]:
    """Every combination of background, company and thing in front that the scenery has, for every character.

    Full bodies are also framed as medium shots and before backgrounds put far away: what is only ever added to one
    shot type is learned as part of it, and that medium shots show the character alone.

    Args:
        rows: pictures whose characters may be used.
        sources: the pictures by name.
        scenery: what to combine them with.
        config: of far shots.
        variants: pictures of one combination from one original.
        seed: decides what is drawn.
        refused: counts why something was not made.
        advance: called with the number of pictures looked at.
    """
    # Plain and busy backgrounds are drawn apart, since they count differently.
    backs = [None, *sorted({each.busy for each in scenery.backdrops})]
    sides = [False, True] if scenery.companions else [False]
    fronts = [False, True] if scenery.foregrounds else [False]
    combinations = [(b, s, f) for b in backs for s in sides for f in fronts if b is not None or s or f]
    usable = [row for row in rows if row.shot_type is not ShotType.UNCLASSIFIED and row.main is not None]
    for row in _by_shot(usable):
        subject = _subject(row, sources, refused)
        advance(1)
        if subject is None:
            continue
        for busy, beside, front in combinations:
            if subject.cutout is None and (busy is not None or beside):
                continue
            for shot in _shots(row, busy is not None):
                for variant in range(variants):
                    item = _draw(row, subject, shot, scenery, config, (busy, beside, front), variant, seed)
                    if isinstance(item, str):
                        refused[f"composite: {item}"] += 1
                    else:
                        yield item


def _shots(row: Row, before_backdrop: bool) -> list[ShotType]:
    if row.shot_type is not ShotType.FULL_BODY:
        return [row.shot_type]
    return [row.shot_type, ShotType.MEDIUM, *([ShotType.FAR] if before_backdrop else [])]


def _by_shot(rows: Sequence[Row]) -> list[Row]:
    """At most `MOST` rows, as many of each shot type as there are, evenly over the dataset."""
    shots = sorted({row.shot_type for row in rows})
    share = MOST // max(1, len(shots))
    found: list[Row] = []
    for shot in shots:
        members = [row for row in rows if row.shot_type is shot]
        found += [members[place] for place in spread(share, len(members))]
    return found


def _subject(row: Row, sources: Mapping[str, Picture], refused: Counter[str]) -> Subject | None:
    image = _read(row, sources)
    main = row.main_instance
    if image is None or main is None or Attribute.OCCLUSION in row.attributes:
        return None
    cutout = cut_character(image, row)
    if isinstance(cutout, str):
        refused[f"cutting out: {cutout}"] += 1
        cutout = None
    light = lightness(image, outside=[Box(*each.box) for each in row.instances])
    face = None if main.face is None else Box(*main.face)
    return Subject(Box(*main.box), face, row.shot_type, light, (row.width, row.height), cutout)


def _draw(
    row: Row,
    subject: Subject,
    shot: ShotType,
    scenery: Scenery,
    config: CropConfig,
    wanted: tuple[bool | None, bool, bool],
    variant: int,
    seed: int,
) -> Planned | str:
    """One composite of a combination, or the clause that the last try failed with."""
    busy, beside, front = wanted
    rng = rng_of(seed, row, f"composite {shot} {wanted}", variant)
    window = None
    if shot is ShotType.MEDIUM and row.shot_type is ShotType.FULL_BODY:
        aside = float(rng.choice((-1, 1)) * rng.uniform(*_ASIDE)) if beside else 0.0
        window = crop_window(row, shot, config, rng, variant, aside=aside)
        if window is None:
            return "too few pixels for a medium shot"
        subject = framed(subject, shot, window, cut_size(window, config))
    backs = [each for each in scenery.backdrops if each.busy == busy]
    # The nearest light first: those that fit best are tried more often.
    backs = sorted(backs, key=lambda each: abs(each.light - subject.light))
    problem = "nothing was tried"
    for _ in range(_TRIES):
        backdrop = backs[int(rng.integers(max(1, (len(backs) + 1) // 2)))] if busy is not None else None
        companion = scenery.companions[int(rng.integers(len(scenery.companions)))] if beside else None
        foreground = scenery.foregrounds[int(rng.integers(len(scenery.foregrounds)))] if front else None
        recipe = plan_composite(
            subject, shot, config, rng, backdrop=backdrop, companion=companion, foreground=foreground
        )
        if isinstance(recipe, Recipe):
            return Planned(row, "composite", shot, _attributes(row, window, recipe), variant, window, recipe)
        problem = recipe
    return problem


def _attributes(row: Row, window: Box | None, recipe: Recipe) -> frozenset[str]:
    """What a composite shows: of a new background nothing of the old picture's surroundings is left."""
    found: set[str] = set(row.attributes if window is None else cropped_attributes(row, window))
    if recipe.backdrop is not None:
        found = {Attribute.COMPLEX_BACKGROUND.value} if recipe.backdrop.busy else set[str]()
    if recipe.companion is not None:
        found.add(Attribute.MULTI_CHARACTER.value)
    if recipe.foreground is not None:
        found.add(Attribute.OCCLUSION.value)
    return frozenset(found)


def _read(row: Row, sources: Mapping[str, Picture]) -> RGB | None:
    try:
        return decode(sources[row.file].bytes(), row.file)
    except ImageError:
        return None


def rng_of(seed: int, row: Row, what: str, variant: int) -> np.random.Generator:
    """Of the picture and what is made of it alone, so that another picture in the set changes nothing."""
    return np.random.default_rng([seed, zlib.crc32(row.file.encode()), zlib.crc32(what.encode()), variant])


def seen_as(item: Planned, shot: ShotType, attributes: frozenset[str]) -> Planned:
    """The same picture with the categories that a detector sees in it."""
    return replace(item, shot=shot, attributes=attributes)
