"""Captions that say how a picture is framed: find, replace and add phrases, the trigger staying first."""

import re
from collections.abc import Iterable

import numpy as np

from onmodel.core.vocabulary import Attribute, ShotType

PHRASES: dict[ShotType, tuple[str, ...]] = {
    ShotType.CLOSE_UP: ("close-up", "close-up portrait", "close-up shot", "head and shoulders"),
    ShotType.MEDIUM: ("medium shot", "upper body", "from the waist up"),
    ShotType.FULL_BODY: ("full body", "full body shot", "full body view"),
    ShotType.FAR: ("wide shot", "far away", "far shot"),
}
"""Ways to say a shot type, the plainest first; variants of a caption take turns."""

# More that people and taggers write. Longer phrases first, so that "extreme close-up" is not left as "extreme".
_KNOWN = (
    r"extreme close[- ]?up(?: shot| portrait)?", r"medium close[- ]?up", r"close[- ]?up(?: shot| portrait| view)?",
    r"head and shoulders", r"head ?shot", r"portrait", r"cowboy shot", r"medium(?: full)? shot", r"mid[- ]shot",
    r"upper[- ]body(?: shot)?", r"from the waist up", r"waist[- ]up", r"half[- ]body(?: shot)?",
    r"full[- ]?body(?: shot| view)?", r"full[- ]length(?: shot)?", r"from head to feet", r"wide[- ]shot",
    r"long[- ]shot", r"far[- ]shot", r"far away", r"in the distance", r"from a distance",
)  # fmt: skip
_SHOT = re.compile(rf"\b(?:(?:in|as) )?(?:an? )?(?:{'|'.join(_KNOWN)})\b", re.IGNORECASE)
_OPENING = re.compile(rf"^(?:an? )?(?:{'|'.join(_KNOWN)}) of (.+)$", re.IGNORECASE)

# What a crop no longer shows.
_BELOW_WAIST = re.compile(r"\b(shoes?|boots?|sneakers|feet|foot|socks|ankles)\b", re.IGNORECASE)
_BELOW_CHEST = re.compile(
    r"\b(shoes?|boots?|sneakers|feet|foot|socks|ankles|legs?|knees|trousers|pants|jeans|shorts|skirt|belt|"
    r"standing|walking|running|sitting|jumping|kneeling)\b",
    re.IGNORECASE,
)
_PLACE = re.compile(r"\b(background|in an? |in the |at the |on the |indoors|outdoors)", re.IGNORECASE)
_OTHERS = re.compile(r"\b(with (?:an|two|other|friends?|a friend)|next to|beside|another|group|crowd)\b", re.IGNORECASE)
_HIDDEN = re.compile(r"\b(behind|hidden|covered|in front of (?:him|her|them)|obscured)\b", re.IGNORECASE)


def segments(caption: str) -> list[str]:
    """The comma-separated parts of a caption, trimmed, empty ones left out."""
    return [part.strip() for part in caption.split(",") if part.strip()]


def with_shot(caption: str, shot: ShotType, variant: int = 0) -> str:
    """A caption that names `shot` exactly once, directly behind its first part.

    "zibo, a boy, full body, running" as a close-up becomes "zibo, close-up, a boy, running"; an opening such as
    "full body of zibo" becomes "zibo, close-up". Phrases of other shot types go. The first part, where trainers
    expect the trigger, stays first. `ShotType.UNCLASSIFIED` leaves the caption as it is.

    Args:
        caption: any caption, also an empty one.
        shot: what the picture shows.
        variant: chooses among the ways to say it.
    """
    if shot is ShotType.UNCLASSIFIED:
        return caption
    phrase = PHRASES[shot][variant % len(PHRASES[shot])]
    parts: list[str] = []
    for part in segments(caption):
        opening = _OPENING.match(part)
        if opening:
            parts.append(opening[1])
            continue
        left = re.sub(r"\s{2,}", " ", _SHOT.sub("", part)).strip()
        # What is left of "medium shot view of" is no phrase of its own.
        if left and left.lower() not in ("in", "a", "of", "shot", "view"):
            parts.append(left)
    return ", ".join([*parts[:1], phrase, *parts[1:]])


def for_crop(caption: str, shot: ShotType) -> str:
    """A caption without what a crop to `shot` no longer shows; its first part always stays."""
    gone = {ShotType.CLOSE_UP: _BELOW_CHEST, ShotType.MEDIUM: _BELOW_WAIST}.get(shot)
    parts = segments(caption)
    if gone is None or not parts:
        return caption
    return ", ".join([parts[0], *(part for part in parts[1:] if not gone.search(part))])


def with_context(caption: str, attributes: Iterable[str]) -> str:
    """Add what the picture also shows and the caption does not say: others, something in front, the background."""
    has = set(attributes)
    added: list[str] = []
    if Attribute.MULTI_CHARACTER in has and not _OTHERS.search(caption):
        added.append("with another character")
    if Attribute.OCCLUSION in has and not _HIDDEN.search(caption):
        added.append("partly hidden")
    if not _PLACE.search(caption):
        added.append("detailed background" if Attribute.COMPLEX_BACKGROUND in has else "plain background")
    return ", ".join([part for part in (caption, *added) if part])


def shuffled(caption: str, rng: np.random.Generator, keep: int = 2) -> str:
    """The caption's parts in another order, the first `keep` (trigger and shot type) in place."""
    parts = segments(caption)
    tail = parts[keep:]
    return ", ".join([*parts[:keep], *(tail[int(i)] for i in rng.permutation(len(tail)))])
