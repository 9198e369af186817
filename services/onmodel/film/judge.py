"""Which scenes each candidate serves, how well, and why not: decided over all films together."""

import bisect
from collections import Counter
from collections.abc import Iterator, Sequence
from dataclasses import dataclass, field, replace

import numpy as np
from pydantic import Field

from onmodel.core.config import Config
from onmodel.core.vocabulary import Attribute, Box, Decision, Detections, Instance, ShotType
from onmodel.detection.config import ShotConfig
from onmodel.detection.rules import behind, cut_edges, other_characters, shot_type
from onmodel.film.chunk import Looked
from onmodel.film.identity import Character, IdentityConfig, threshold
from onmodel.film.profile import SCENES, Profile, Scene

_SHOTS = frozenset(shot.value for shot in ShotType)
_SHAKEN = tuple((dx, dy) for dx in (-0.05, 0.0, 0.05) for dy in (-0.05, 0.0, 0.05))


class JudgeConfig(Config):
    """How sure a decision must be, and what makes one frame better than another."""

    neighbour_s: float = Field(default=1.5, gt=0)
    """Frames of the same shot within this time should agree about a category."""
    same_box: float = Field(default=0.6, ge=0, le=1)
    """A box of a neighbour is the same character where this share of the smaller one lies in the other."""
    min_certainty: float = Field(default=0.55, ge=0, le=1)
    """A category less certain than this is not believed: see `certainty`."""
    attribute_agreement: float = Field(default=0.3, ge=0, le=1)
    """What the neighbours weigh in an attribute's certainty; in a shot type's it is half. What passes by is seen in a
    few frames only, while a camera that changes the shot type does so slowly."""
    main_share: float = Field(default=0.6, ge=0, le=1)
    """Where our box has less than this share of the largest character's area, the framing is the other's, and the
    frame is no shot type of ours; it still shows ours with another."""
    other_share: float = Field(default=0.15, ge=0)
    """Another character is certain from this share of the area of ours: smaller may be decoration."""
    identity_weight: float = Field(default=0.3, ge=0)
    certainty_weight: float = Field(default=0.35, ge=0)
    confidence_weight: float = Field(default=0.15, ge=0)
    sharpness_weight: float = Field(default=0.2, ge=0)
    occluder_share: float = Field(default=0.13, ge=0, le=1)
    """A thing in front hides something for certain from this share of the character's box: a box's corners are empty,
    and of those that cover less in a rendered film most hide nothing."""
    side_cut_discount: float = Field(default=0.5, ge=0, le=1)
    """What remains of the certainty of a shot type where the character has no face and is cut below and at a side: then
    its box is some part of it, whose shape says little."""
    text_weight: float = Field(default=0.15, ge=0)
    """What the marks count in a frame's score; the text's only in scenes with keywords or scene types."""


@dataclass(slots=True)
class Judged:
    """One candidate in all films' order."""

    film: int
    shot: int
    """Counted through the film."""
    part: int
    looked: Looked
    likeness: float | None = None
    """Of the instance taken for our character, its neighbours in the shot heard."""
    needed: float = 0.0
    """From which likeness on it is ours, framed as it is."""
    height_ratio: float = 0.0
    """Our character's height over the frame's."""
    scores: dict[str, float] = field(default_factory=dict[str, float])
    """Scenes that the frame can serve, with how well: 0 to about 1."""
    own: dict[str, float] | None = None
    """Category -> how sure it is by this frame alone; of the frame's categories."""
    certainties: dict[str, float] = field(default_factory=dict[str, float])
    """The same with its neighbours heard; empty where our character is not seen."""
    refusals: dict[str, str] = field(default_factory=dict[str, str])
    """Scene -> why the frame cannot serve it."""
    voted: ShotType | None = None
    """The shot type of most of its neighbours in the shot, where they agree."""
    least: float = 0.0
    """Certainty from which a category is believed."""
    stranger: bool = False
    """A character is there, but it is not ours."""
    beside_larger: bool = False
    """Another character in the frame is much larger than ours."""
    aside: bool = False
    """Ours is cut by a side of the frame, beside a larger character."""

    @property
    def sure(self) -> frozenset[str]:
        """The frame's categories that are certain enough to be believed."""
        return frozenset(c for c, sure in self.certainties.items() if sure >= self.least)

    @property
    def decision(self) -> Decision | None:
        return None if self.looked.detected is None else self.looked.detected.decision

    @property
    def main(self) -> Instance | None:
        """The instance taken for our character."""
        found = self.looked.detected
        if found is None or found.decision.main is None:
            return None
        return found.detections.instances[found.decision.main]


def judge(
    rows: list[Judged],
    profile: Profile,
    names: Sequence[str],
    characters: Sequence[Character],
    identity: IdentityConfig,
    shots: ShotConfig,
    config: JudgeConfig,
) -> None:
    """Fill in what each candidate serves, anew where rows were judged before fewer were known.

    Args:
        rows: all candidates, films and times in order; changed in place.
        profile: what is asked for.
        names: the characters' names as the profile gives them; ours first (its own name may be "").
        characters: the characters of these names; none = whoever is the main one is ours.
        identity: from which likeness on an instance is a character.
        shots: thresholds of the detector.
        config: certainty and marks.
    """
    text_scenes = [name for name, scene in profile.scenes() if scene.queries]
    ranks = [_ranks(rows, index) for index in range(len(text_scenes))]
    sharp = sorted(row.looked.sharpness for row in rows if row.looked.fault is None)
    for row in rows:
        row.likeness = _own_likeness(row)
    if characters:
        _identify(rows, characters[0], identity, config)
    for row in rows:
        row.scores, row.refusals, row.certainties, row.least = {}, {}, {}, config.min_certainty
        row.voted = None
        if row.main is not None and row.looked.detected is not None:
            row.height_ratio = row.main.box.height / row.looked.detected.detections.height
        if row.main is not None and not row.stranger:
            row.beside_larger, row.aside = _beside_larger(row, shots, config)
            row.own = _alone(row, shots, config) if row.own is None else row.own
            row.certainties = dict(row.own)
    agreement = _agreement(rows, config)
    needed = [threshold(character, ShotType.UNCLASSIFIED, identity) for character in characters]
    genuine = characters[0].genuine if characters else 1.0
    for number, row in enumerate(rows):
        if row.looked.fault is not None:
            continue
        for category, share in agreement.get(number, {}).items():
            weight = 0.5 if category in _SHOTS else config.attribute_agreement
            row.certainties[category] = (1 - weight) * row.certainties[category] + weight * share
        for name, scene in profile.scenes():
            refusal = _refuse(row, name, scene, needed, names)
            if refusal is not None:
                row.refusals[name] = refusal
                continue
            score = _score(row, SCENES[name], genuine, sharp, config)
            if name in text_scenes:
                score += config.text_weight * ranks[text_scenes.index(name)].get(number, 0.0)
            row.scores[name] = round(score, 6)


def _ranks(rows: Sequence[Judged], index: int) -> dict[int, float]:
    """Row number -> rank of its text match, 0 (worst) to 1: cosines of texts and pictures say nothing by themselves."""
    known = sorted((row.looked.texts[index], n) for n, row in enumerate(rows) if row.looked.texts)
    return {n: place / max(1, len(known) - 1) for place, (_, n) in enumerate(known)}


def _own_likeness(row: Judged) -> float | None:
    main = row.main
    if main is None or row.looked.detected is None or row.looked.detected.decision.main is None:
        return None
    return row.looked.likeness[0][row.looked.detected.decision.main] if row.looked.likeness else None


def _identify(rows: Sequence[Judged], ours: Character, identity: IdentityConfig, config: JudgeConfig) -> None:
    """Decide who is ours by the median likeness of a character over its neighbours in the shot.

    One frame may be wrong: half hidden the character is less like itself, and a stranger in odd light more like it.
    """
    beyond: list[float | None] = []
    for row in rows:
        row.needed = threshold(
            ours, ShotType.UNCLASSIFIED if row.decision is None else row.decision.shot_type, identity
        )
        beyond.append(None if row.likeness is None else row.likeness - row.needed)
    for number, beside in _neighbours(rows, config):
        row = rows[number]
        main, own = row.main, beyond[number]
        if main is None or own is None:
            continue
        values = [v for n in beside if (v := beyond[n]) is not None and _same(main.box, rows[n].main, config)]
        row.likeness = row.needed + float(np.median([own, *values]))
        row.stranger = row.likeness < row.needed


def _same(box: Box, other: Instance | None, config: JudgeConfig) -> bool:
    if other is None:
        return False
    return box.intersection(other.box) >= config.same_box * max(1.0, min(box.area, other.box.area))


def _neighbours(rows: Sequence[Judged], config: JudgeConfig) -> Iterator[tuple[int, list[int]]]:
    """Each looked-at row's number with those of the looked-at rows near it in its shot."""
    times = [(row.film, row.looked.time_s) for row in rows]
    for number, row in enumerate(rows):
        if row.main is None:
            continue
        low = bisect.bisect_left(times, (row.film, row.looked.time_s - config.neighbour_s))
        high = bisect.bisect_right(times, (row.film, row.looked.time_s + config.neighbour_s))
        yield (
            number,
            [n for n in range(low, high) if n != number and rows[n].shot == row.shot and rows[n].main is not None],
        )


def _alone(row: Judged, shots: ShotConfig, config: JudgeConfig) -> dict[str, float]:
    """How sure each of the frame's categories is by itself."""
    found, main = row.looked.detected, row.main
    assert found is not None and main is not None
    decision = found.decision
    sure: dict[str, float] = {}
    if decision.shot_type is not ShotType.UNCLASSIFIED:
        sure[decision.shot_type.value] = certainty(found.detections, main, decision.shot_type, shots)
        if main.face is None and _is_part(main.box, found.detections, shots):
            sure[decision.shot_type.value] *= config.side_cut_discount
    if Attribute.MULTI_CHARACTER in decision.attributes:
        sure[Attribute.MULTI_CHARACTER.value] = max((i.confidence for i in others(row, shots, config)), default=0.0)
    if Attribute.OCCLUSION in decision.attributes:
        sure[Attribute.OCCLUSION.value] = _hiding(row, found.detections, main, config)
    if Attribute.COMPLEX_BACKGROUND in decision.attributes:
        sure[Attribute.COMPLEX_BACKGROUND.value] = 0.8
    return sure


def _hiding(row: Judged, detections: Detections, main: Instance, config: JudgeConfig) -> float:
    """How sure it is that something stands in front: colours alone are the surer the more they cover; what a detector
    knows as a thing in front, or another character there, is believed where it covers enough."""
    if row.looked.hidden:
        return min(1.0, 0.2 + 2 * row.looked.hidden)
    things = detections.occluders
    if row.decision is not None and row.decision.shot_type is ShotType.FAR:
        # Of so small a figure its own legs are taken for things: those in front are wider than it.
        things = tuple(thing for thing in things if thing.width > main.box.width)
        if not things:
            return 0.0
    body = behind(main.box, things)
    shares = [body.intersection(thing) / max(body.area, 1.0) for thing in things]
    return 0.0 if 0 < max(shares, default=0.0) < config.occluder_share else 0.8


def _is_part(box: Box, detections: Detections, shots: ShotConfig) -> bool:
    cut = cut_edges(box, detections.width, detections.height, shots.edge_margin, shots.top_margin)
    return "bottom" in cut and bool(cut & {"left", "right"})


def certainty(detections: Detections, main: Instance, shot: ShotType, shots: ShotConfig) -> float:
    """Share of slightly shifted boxes (by 5 % of their height at either end) that give the same shot type.

    Detectors' boxes are about that uncertain, so a decision that such a shift changes is a guess. 0 to 1.
    """
    box = main.box
    same = 0
    for top, bottom in _SHAKEN:
        moved = Box(box.x0, box.y0 + top * box.height, box.x1, box.y1 + bottom * box.height)
        moved = moved.clip(detections.width, detections.height)
        # A cut edge is known to be cut: the frame's edge does not move with the box.
        moved = replace(moved, y1=box.y1) if box.y1 >= 0.98 * detections.height else moved
        same += shot_type(detections, replace(main, box=moved), shots)[0] is shot
    return same / len(_SHAKEN)


def _beside_larger(row: Judged, shots: ShotConfig, config: JudgeConfig) -> tuple[bool, bool]:
    """Whether the frame's largest character is so much larger than ours that the framing is its own, and whether ours
    is pushed out of the frame by a larger one."""
    assert row.main is not None and row.looked.detected is not None
    found, box = row.looked.detected.detections, row.main.box
    largest = max(instance.box.area for instance in found.instances)
    cut = cut_edges(box, found.width, found.height, shots.edge_margin, shots.top_margin)
    return box.area < config.main_share * largest, box.area < largest and bool(cut & {"left", "right"})


def others(row: Judged, shots: ShotConfig, config: JudgeConfig) -> list[Instance]:
    """The other characters that surely take part."""
    found, main = row.looked.detected, row.main
    assert found is not None and main is not None and found.decision.main is not None
    instances = found.detections.instances
    beside = [instances[index] for index in other_characters(found.detections, found.decision.main, shots)]
    return [other for other in beside if other.box.area >= config.other_share * main.box.area]


def _agreement(rows: Sequence[Judged], config: JudgeConfig) -> dict[int, dict[str, float]]:
    """Row number -> category -> share of its neighbours in the shot that are of it too; nothing without neighbours.

    Also notes what shot type most of them are of.
    """
    shares: dict[int, dict[str, float]] = {}
    for number, near in _neighbours(rows, config):
        beside = [rows[n].certainties for n in near if rows[n].certainties]
        if beside:
            rows[number].voted = _vote([rows[n].decision for n in near if rows[n].certainties])
            shares[number] = {c: sum(c in o for o in beside) / len(beside) for c in rows[number].certainties}
    return shares


def _vote(decisions: Sequence[Decision | None]) -> ShotType | None:
    kinds = Counter(d.shot_type for d in decisions if d is not None and d.shot_type is not ShotType.UNCLASSIFIED)
    if not kinds:
        return None
    ((kind, count),) = kinds.most_common(1)
    return kind if count >= 2 and count >= 0.6 * len(decisions) else None


def _refuse(row: Judged, name: str, scene: Scene, needed: Sequence[float], names: Sequence[str]) -> str | None:
    """Why a frame cannot serve a scene, in one clause; None = it can."""
    category = SCENES[name]
    decision = row.decision
    if decision is None or row.main is None:
        return "no character found"
    if row.stranger:
        return f"not our character (likeness {row.likeness:.2f}, ours from {row.needed:.2f})"
    if row.aside:
        return "cut by the frame's side, beside a larger character"
    if category not in decision.categories:
        return _other_kind(decision, category)
    if category in _SHOTS and row.beside_larger:
        return "framed for a larger character beside ours"
    if category not in row.sure:
        return f"{category} is not certain ({row.certainties.get(category, 0.0):.2f} of {row.least:.2f})"
    if row.height_ratio < scene.min_character_height_ratio:
        least = scene.min_character_height_ratio
        return f"the character fills {row.height_ratio:.0%} of the height (at least {least:.0%})"
    missing = _missing(row, scene, needed, names)
    if missing:
        return f"{missing} not seen"
    if row.looked.picture is None:
        return "its picture was not kept"
    return None


def _other_kind(decision: Decision, category: str) -> str:
    if category in _SHOTS:
        return f"is {decision.shot_type.value} ({decision.reason})"
    return {
        "multi_character": "no other character beside ours",
        "occlusion": "nothing in front of the character",
        "complex_background": "the background is plain",
    }[category]


def _missing(row: Judged, scene: Scene, needed: Sequence[float], names: Sequence[str]) -> str:
    """Names of required characters that are not there; empty where all are."""
    found = row.looked.detected
    assert found is not None
    main = found.decision.main

    def seen(name: str) -> bool:
        index = names.index(name)
        if index == 0:
            return not row.stranger
        values = row.looked.likeness[index]
        return any(value >= needed[index] for n, value in enumerate(values) if n != main)

    absent = [name for name in scene.required_characters if not seen(name)]
    if absent:
        return " and ".join(absent)
    alternatives = scene.required_characters_alt
    if alternatives and not any(seen(name) for name in alternatives):
        return " or ".join(alternatives)
    return ""


def _score(row: Judged, category: str, genuine: float, sharp: Sequence[float], config: JudgeConfig) -> float:
    """How good a frame is for a category: identity, certainty, the detector's confidence, sharpness; 0 to 1."""
    main = row.main
    assert main is not None
    identity = 1.0
    if row.likeness is not None:
        # From the threshold (0) to what the references score against each other (1).
        identity = float(np.clip((row.likeness - row.needed) / max(genuine - row.needed, 0.05), 0, 1))
    rank = bisect.bisect_left(sharp, row.looked.sharpness) / max(1, len(sharp) - 1)
    marks = (
        (config.identity_weight, identity),
        (config.certainty_weight, row.certainties.get(category, 0.0)),
        (config.confidence_weight, main.confidence),
        (config.sharpness_weight, min(1.0, rank)),
    )
    return sum(weight * mark for weight, mark in marks) / max(sum(weight for weight, _ in marks), 1e-9)
