"""People as a probe that makes no mistake would read them."""

from collections.abc import Mapping
from typing import Any

import numpy as np
import numpy.typing as npt

from onmodel.core.vocabulary import Box, ShotType
from onmodel.experiments.probe import FeatureReading, Person, Probe
from onmodel.experiments.probe_pictures import COUNTED, FEATURES, Feature, Targets
from onmodel.toybox.body import proportions
from onmodel.toybox.character import Character
from onmodel.toybox.scene import FRAMED

WHOLE = (ShotType.FULL_BODY, ShotType.FAR)
OUT_OF_VIEW: dict[ShotType, set[Feature]] = {
    ShotType.CLOSE_UP: {"age", "legwear", "leg_colour"},
    ShotType.MEDIUM: {"legwear"},
}


def person(
    character: Character,
    framing: ShotType,
    *,
    unseen: set[Feature] | None = None,
    reads: Mapping[Feature, str] | None = None,
) -> Person:
    """The character as it is in a picture of that framing; `reads` are values that it has instead."""
    other = reads or {}
    unseen = OUT_OF_VIEW.get(framing, set()) if unseen is None else unseen
    if character.hair_style == "bald" and "hair_colour" not in other:
        unseen = {*unseen, "hair_colour"}
    features: dict[Feature, FeatureReading] = {
        name: FeatureReading(other.get(name, str(getattr(character, name))), 0.99, 0.02 if name in unseen else 0.98)
        for name in FEATURES
    }
    p = proportions(character)
    head = 10.0
    body = head * p.crown / p.head if framing in WHOLE else None
    return Person(features, head, body, (32.0, 20.0), Box(20, 10, 44, 60), framing, 0.99, 0.9)


class PerfectProbe(Probe):
    """Reads from the truth, whatever the pictures are."""

    def __init__(self, targets: Targets) -> None:
        self._targets = targets
        self.threshold = 0.5

    def read(self, images: npt.NDArray[np.uint8], batch: int = 128) -> list[tuple[Person, ...]]:
        return [_truly(self._targets, row) for row in range(len(images))]


def _truly(targets: Targets, row: int) -> tuple[Person, ...]:
    found: list[Person] = []
    for k in np.flatnonzero(targets.state[row] == COUNTED):
        at: Any = (row, int(k))
        features: dict[Feature, FeatureReading] = {
            name: FeatureReading(options[int(targets.values[at][f])], 1.0, float(targets.seen[at][f]))
            for f, (name, options) in enumerate(FEATURES.items())
        }
        shot, head = FRAMED[int(targets.framing[at])], float(targets.head[at])
        x, y = (float(v) for v in targets.centre[at])
        body = float(targets.body[at]) if shot in WHOLE else None
        found.append(Person(features, head, body, (x, y), Box(*map(float, targets.box[at])), shot, 1.0, 1.0))
    return tuple(found)
