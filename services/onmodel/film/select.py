"""The best frames of each scene, spread over shots, each frame serving every scene that it can."""

from collections import Counter
from collections.abc import Sequence
from dataclasses import dataclass, field

from pydantic import Field

from onmodel.core.config import Config
from onmodel.core.likeness import distance
from onmodel.film.judge import Judged
from onmodel.film.profile import SCENES, Profile


class SelectConfig(Config):
    """How quality and variety are weighed."""

    same_shot: float = Field(default=0.06, ge=0)
    """What each frame already chosen from a shot takes off the score of its others."""
    same_look: float = Field(default=0.25, ge=0)
    """What an equal fingerprint among those chosen takes off; less the more bits differ, nothing from 20 on."""
    near_duplicate_bits: int = Field(default=4, ge=-1, le=64)
    """A frame this like a chosen one is not taken at all; -1 takes all."""


@dataclass(slots=True)
class Chosen:
    """What was taken, and what could not be had."""

    scenes: dict[int, list[str]] = field(default_factory=dict[int, list[str]])
    """Row number -> the scenes that it serves."""
    passed: dict[int, dict[str, str]] = field(default_factory=dict[int, dict[str, str]])
    """Row number -> scene -> why a frame that could serve was not taken."""
    found: dict[str, int] = field(default_factory=dict[str, int])
    """Scene -> frames taken for it."""
    could: dict[str, int] = field(default_factory=dict[str, int])
    """Scene -> frames that could serve it."""


def select(rows: Sequence[Judged], profile: Profile, config: SelectConfig) -> Chosen:
    """Choose frames until each scene has its target or nothing is left.

    The scene with the fewest frames for what it asks chooses first; a frame taken for one scene then counts for
    every other that it serves.
    """
    asked = dict(profile.scenes())
    able = {name: [n for n, row in enumerate(rows) if name in row.scores] for name in asked}
    chosen = Chosen(could={name: len(numbers) for name, numbers in able.items()})
    for name in sorted(asked, key=lambda s: (len(able[s]) / asked[s].target, list(SCENES).index(s))):
        _fill(rows, name, asked[name].target, able[name], chosen, config)
    for name in asked:
        serving = [n for n in chosen.scenes if name in rows[n].scores]
        for n in serving:
            chosen.scenes[n].append(name)
        chosen.found[name] = len(serving)
    for names in chosen.scenes.values():
        names.sort(key=list(SCENES).index)
    return chosen


def _fill(
    rows: Sequence[Judged], name: str, target: int, able: Sequence[int], chosen: Chosen, config: SelectConfig
) -> None:
    """Take frames for one scene, best first, each choice making its like less wanted."""
    need = target - sum(n in chosen.scenes for n in able)
    left = [n for n in able if n not in chosen.scenes]
    taken = [n for n in chosen.scenes if name in rows[n].scores]
    shots = Counter((rows[n].film, rows[n].shot) for n in taken)
    nearest = {n: _nearest(rows, n, chosen.scenes) for n in left}
    while left and need > 0:
        close = [n for n in left if nearest[n] <= config.near_duplicate_bits]
        for n in close:
            chosen.passed.setdefault(n, {})[name] = "too like a frame that is taken"
        left = [n for n in left if nearest[n] > config.near_duplicate_bits]
        if not left:
            break
        best = max(left, key=lambda n: (_worth(rows[n], name, shots, nearest[n], config), -n))
        chosen.scenes[best] = []
        shots[rows[best].film, rows[best].shot] += 1
        need -= 1
        left.remove(best)
        for n in left:
            nearest[n] = min(nearest[n], distance(rows[n].looked.fingerprint, rows[best].looked.fingerprint))
    for n in left:
        chosen.passed.setdefault(n, {})[name] = "there are enough better ones"


def _nearest(rows: Sequence[Judged], number: int, taken: dict[int, list[str]]) -> int:
    mark = rows[number].looked.fingerprint
    return min((distance(mark, rows[n].looked.fingerprint) for n in taken), default=64)


def _worth(row: Judged, name: str, shots: "Counter[tuple[int, int]]", nearest: int, config: SelectConfig) -> float:
    like = max(0.0, 1 - nearest / 20)
    return row.scores[name] - config.same_shot * shots[row.film, row.shot] - config.same_look * like
