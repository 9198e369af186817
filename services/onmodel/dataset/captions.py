"""Captions that say how a picture is framed: find, replace and add phrases, the trigger staying first.

A caption is a list of tags parted by commas, each true by itself, so that trainers may shuffle or drop them:
trigger, subject ("a teenage boy"), shot type, whatever else is there, company, what hides, background.
"""

import re
from collections.abc import Iterable, Sequence
from dataclasses import dataclass

import numpy as np

from onmodel.core.vocabulary import Attribute, ShotType
from onmodel.dataset.ages import NOUNS

PHRASES: dict[ShotType, tuple[str, ...]] = {
    ShotType.CLOSE_UP: ("close-up", "close-up portrait", "close-up shot", "head and shoulders"),
    ShotType.MEDIUM: ("medium shot", "upper body", "from the waist up"),
    ShotType.FULL_BODY: ("full body", "full body shot", "full body view"),
    ShotType.FAR: ("wide shot", "far away", "far shot"),
}
"""Ways to say a shot type, the plainest first; variants of a caption take turns."""

CONTEXT: dict[str, tuple[str, ...]] = {
    Attribute.MULTI_CHARACTER.value: ("with another character", "next to another character", "with a friend"),
    Attribute.OCCLUSION.value: ("partly hidden", "partly covered"),
    Attribute.COMPLEX_BACKGROUND.value: ("detailed background", "busy background"),
    "plain_background": ("plain background", "simple background"),
}
"""Ways to say what else a picture shows, and that its background is plain; the plainest first."""

_C, _M, _B, _F = ShotType.CLOSE_UP, ShotType.MEDIUM, ShotType.FULL_BODY, ShotType.FAR
# What people and taggers write, and the shot types it may mean. Longer phrases first, so that "extreme close-up" is
# not left as "extreme".
_KNOWN: tuple[tuple[str, frozenset[ShotType]], ...] = (
    (r"extreme close[- ]?up(?: shot| portrait)?", frozenset({_C})),
    (r"medium close[- ]?up(?: shot)?", frozenset({_C, _M})),
    (r"close[- ]?up(?: shot| portrait| view)?", frozenset({_C})),
    (r"head and shoulders(?: shot| portrait)?|head ?shot", frozenset({_C})),
    (r"portrait", frozenset({_C, _M})),
    (r"medium full shot|american shot|cowboy shot", frozenset({_M, _B})),
    (r"medium[- ](?:wide |long )?shot|mid[- ]shot", frozenset({_M})),
    (r"upper[- ]body(?: shot)?|half[- ]body(?: shot)?|from the waist up|waist[- ]up", frozenset({_M})),
    (r"full[- ]?body(?: shot| view)?|full[- ]length(?: shot| view)?|from head to (?:feet|toe)", frozenset({_B})),
    (r"(?:extreme )?(?:wide|long|far)[- ]shot|far away|in the distance|from a distance", frozenset({_F})),
)
_ANY = "|".join(pattern for pattern, _ in _KNOWN)
_SHOT = re.compile(rf"\b(?:(?:in|as) )?(?:an? )?(?:{_ANY})\b", re.IGNORECASE)
_OPENING = re.compile(rf"^(?:an? )?(?:{_ANY}) of (.+)$", re.IGNORECASE)
_SCENERY = re.compile(
    r"\b(?:mountains?|trees?|hills?|city|castle|buildings?|forest|sky|sea|houses?|people) (?:\w+ )?"
    r"(?:in the distance|far away)",
    re.IGNORECASE,
)

# What a crop no longer shows.
_BELOW_WAIST = re.compile(r"\b(shoes?|boots?|sneakers|feet|foot|socks|ankles)\b", re.IGNORECASE)
_BELOW_CHEST = re.compile(
    r"\b(shoes?|boots?|sneakers|feet|foot|socks|ankles|legs?|knees|trousers|pants|jeans|shorts|skirt|belt|"
    r"standing|walking|running|sitting|jumping|kneeling)\b",
    re.IGNORECASE,
)
PLACE = re.compile(r"\b(background|in an? |in the |at the |on the |indoors|outdoors)", re.IGNORECASE)
HIDDEN = re.compile(r"\b(behind|hidden|covered|in front of (?:him|her|them)|obscured)\b", re.IGNORECASE)
_PLAIN = re.compile(
    r"\b(?:plain|simple|blank|empty|white|grey|gray|black|solid)(?: \w+){0,2} (?:background|backdrop)", re.IGNORECASE
)
_BUSY = re.compile(
    r"\b(?:detailed|busy|complex|crowded|cluttered)(?: \w+){0,1} (?:background|backdrop|street|room|park|market)",
    re.IGNORECASE,
)
_SOMEBODY = rf"(?:{'|'.join(sorted(NOUNS, key=len, reverse=True))}|friend|companion|animal|child|people|men|women)"
_MANY = r"(?:friends|characters|people|persons|men|women|children|kids|boys|girls|animals|companions|crowd|group)"
_COMPANY = re.compile(
    r"(?:^|\s)(?:(?:standing|sitting|walking|talking|running) )?(?:together )?"
    r"(?:with|next to|beside|alongside|near|and|to)\b"
    rf" (?:(?:(?:an?|another|one other|his|her|their|the other) (?:\w+ ){{0,2}}{_SOMEBODY})"
    rf"|(?:(?:\w+ ){{0,3}}{_MANY}))\b"
    rf"|\b(?:another|two|three|several|other) (?:\w+ )?(?:{_SOMEBODY}|{_MANY})s?\b"
    r"|\b(?:group|crowd) of\b.*|^(?:group|crowd|multiple (?:boys|girls|people|characters))$"
    r"|^[2-9]\+?(?:boys|girls|people)$",
    re.IGNORECASE,
)
_NOBODY = re.compile(r"^(?:no ?body|no (?:people|humans?|characters?|persons?|one)|scenery only)$", re.IGNORECASE)
_DETAIL = re.compile(r"\bdetails? of\b|\b(?:hands?|feet|shoes|eyes?|clothes|back) only\b", re.IGNORECASE)
_ARTICLE = re.compile(r"^(?:an?|1) ?\w+(?:[- ]\w+){0,3}$", re.IGNORECASE)
_NO_SUBJECT = re.compile(r"\b(?:with|in|on|at|of|behind|and|background|shot|shirt|hat|hair)\b", re.IGNORECASE)
_SUBJECT = re.compile(rf"^(?:\w+[- ]){{0,4}}1?(?:{'|'.join(NOUNS)})$", re.IGNORECASE)


@dataclass(frozen=True, slots=True)
class SaidShot:
    """A shot type that a caption names."""

    text: str
    shots: frozenset[ShotType]
    """What it may mean: a "portrait" is a close-up or a medium shot."""


def segments(caption: str) -> list[str]:
    """The comma-separated parts of a caption, trimmed, empty ones left out."""
    return [part.strip() for part in caption.split(",") if part.strip()]


def said_shots(caption: str) -> list[SaidShot]:
    """The shot types that a caption names, in order; things in the distance do not count."""
    found: list[SaidShot] = []
    for match in _SHOT.finditer(_SCENERY.sub("", caption)):
        meant = next(shots for pattern, shots in _KNOWN if re.search(rf"\b(?:{pattern})\b", match[0], re.IGNORECASE))
        found.append(SaidShot(match[0].strip(), meant))
    return found


def is_subject(part: str) -> bool:
    """Whether a part names who is shown, as "a teenage boy", "1girl" or "a grey rabbit" do."""
    if says_company(part) or _SHOT.search(part) or _NOBODY.match(part):
        return False
    return bool(_SUBJECT.match(part) or (_ARTICLE.match(part) and not _NO_SUBJECT.search(part)))


def lead(parts: Sequence[str]) -> int:
    """How many parts at the start stay in place: the trigger, and the subject where it follows."""
    return min(len(parts), 2 if len(parts) > 1 and is_subject(parts[1]) else 1)


def with_shot(caption: str, shot: ShotType, variant: int = 0, phrases: Sequence[str] | None = None) -> str:
    """A caption that names `shot` exactly once, directly behind trigger and subject.

    "zibo, a boy, full body, running" as a close-up becomes "zibo, a boy, close-up, running"; an opening such as
    "full body of zibo" becomes "zibo, close-up". Phrases of other shot types go. The first part, where trainers
    expect the trigger, stays first. `ShotType.UNCLASSIFIED` leaves the caption as it is.

    Args:
        caption: any caption, also an empty one.
        shot: what the picture shows.
        variant: chooses among the ways to say it.
        phrases: ways to say it; None takes `PHRASES`.
    """
    if shot is ShotType.UNCLASSIFIED:
        return caption
    ways = phrases or PHRASES[shot]
    parts = segments(without_shots(caption))
    at = lead(parts)
    return ", ".join([*parts[:at], ways[variant % len(ways)], *parts[at:]])


def without_shots(caption: str) -> str:
    """A caption without the phrases that name a shot type."""
    parts: list[str] = []
    for part in segments(caption):
        if _SCENERY.search(part):
            parts.append(part)
            continue
        opening = _OPENING.match(part)
        if opening:
            parts.append(opening[1])
            continue
        left = re.sub(r"\s{2,}", " ", _SHOT.sub("", part)).strip()
        # What is left of "medium shot view of" is no phrase of its own.
        if left and left.lower() not in ("in", "a", "of", "shot", "view"):
            parts.append(left)
    return ", ".join(parts)


def for_crop(caption: str, shot: ShotType) -> str:
    """A caption without what a crop to `shot` no longer shows; its first part always stays."""
    gone = {ShotType.CLOSE_UP: _BELOW_CHEST, ShotType.MEDIUM: _BELOW_WAIST}.get(shot)
    parts = segments(caption)
    if gone is None or not parts:
        return caption
    return ", ".join([parts[0], *(part for part in parts[1:] if not gone.search(part))])


def with_context(caption: str, attributes: Iterable[str], variant: int = 0) -> str:
    """Add what the picture also shows and the caption does not say: others, something in front, the background."""
    has = set(attributes)
    added: list[str] = []
    if Attribute.MULTI_CHARACTER in has and not says_company(caption):
        added.append(_way(Attribute.MULTI_CHARACTER, variant))
    if Attribute.OCCLUSION in has and not HIDDEN.search(caption):
        added.append(_way(Attribute.OCCLUSION, variant))
    if not PLACE.search(caption):
        added.append(
            _way(Attribute.COMPLEX_BACKGROUND if Attribute.COMPLEX_BACKGROUND in has else "plain_background", variant)
        )
    return ", ".join([part for part in (caption, *added) if part])


def _way(name: str, variant: int) -> str:
    ways = CONTEXT[str(name)]
    return ways[variant % len(ways)]


def says_company(text: str) -> bool:
    """Whether a text says that others are there."""
    return any(_COMPANY.search(part) for part in segments(text))


def says_nobody(caption: str) -> str | None:
    """The part that says that nobody is there, or None."""
    return next((part for part in segments(caption) if _NOBODY.match(part)), None)


def says_detail(caption: str) -> bool:
    """Whether a caption says that a part of somebody is shown, whose looks need no word."""
    return _DETAIL.search(caption) is not None


def without_company(caption: str) -> str:
    """A caption that names nobody else; what else its parts say stays."""
    return _cut(caption, _COMPANY)


def without_hiding(caption: str) -> str:
    """A caption without the parts that say something stands in front."""
    return ", ".join(part for part in segments(caption) if not HIDDEN.search(part))


def without_place(caption: str) -> str:
    """A caption without the parts that are about the background alone."""
    parts = segments(caption)
    return ", ".join(
        part
        for number, part in enumerate(parts)
        if number == 0 or not (part.lower().endswith(("background", "backdrop")) or PLACE.match(part))
    )


def background_said(caption: str) -> tuple[str, bool] | None:
    """The phrase that says how busy the background is, and whether it says busy; None where none does."""
    for pattern, busy in ((_PLAIN, False), (_BUSY, True)):
        match = pattern.search(caption)
        if match:
            return match[0], busy
    return None


def with_background(caption: str, busy: bool, variant: int = 0) -> str:
    """A caption whose word on how busy the background is, where it has one, is the right one."""
    said = background_said(caption)
    if said is None or said[1] == busy:
        return caption
    return caption.replace(said[0], _way(Attribute.COMPLEX_BACKGROUND if busy else "plain_background", variant), 1)


def _cut(caption: str, pattern: re.Pattern[str]) -> str:
    parts: list[str] = []
    for part in segments(caption):
        left = re.sub(r"\s{2,}", " ", pattern.sub(" ", part)).strip()
        if left and (left == part or left.lower() not in ("standing", "and", "with", "a", "the")):
            parts.append(left)
    return ", ".join(parts)


def unique(caption: str) -> str:
    """A caption without parts that repeat an earlier one, whatever their case."""
    return ", ".join({part.lower(): part for part in reversed(segments(caption))}[key] for key in _keys(caption))


def _keys(caption: str) -> list[str]:
    return list(dict.fromkeys(part.lower() for part in segments(caption)))


def repeated(caption: str) -> list[str]:
    """Parts that repeat an earlier one, whatever their case."""
    keys = [part.lower() for part in segments(caption)]
    return sorted({key for key in keys if keys.count(key) > 1})


def shuffled(caption: str, rng: np.random.Generator, keep: int | None = None) -> str:
    """The caption's parts in another order, the first `keep` in place (None: trigger, subject and shot type)."""
    parts = segments(caption)
    fixed = lead(parts) + 1 if keep is None else keep
    tail = parts[fixed:]
    return ", ".join([*parts[:fixed], *(tail[int(i)] for i in rng.permutation(len(tail)))])
