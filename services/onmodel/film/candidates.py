"""From frames to candidates: the sharpest good frame of each span of each shot, near-duplicates folded to a few."""

import collections
from collections.abc import Iterable, Iterator, Sequence
from dataclasses import dataclass

from pydantic import Field

from onmodel.core.config import Config
from onmodel.core.likeness import distance, fingerprint, sharpness
from onmodel.film.decode import Frame
from onmodel.film.quality import (
    FADE_REACH,
    Fault,
    QualityConfig,
    Thumb,
    is_black,
    is_blurred,
    is_fade,
    is_title_card,
    thumb,
)
from onmodel.film.shots import ShotConfig, with_cuts

_RECENT = 40
"""Frames whose sharpness a frame's is compared with: with more, a camera that moves to softer things seems blurred."""
BEYOND = FADE_REACH
"""Frames beyond a part that are needed to judge its last ones, and whether a cut follows."""


class SamplingConfig(Config):
    """How many frames of a shot are looked at."""

    span_s: float = Field(default=0.5, gt=0)
    """Every span of this length, counted from its shot's beginning, gives its sharpest frame."""
    looks: int = Field(default=3, ge=1)
    """Of a run of near-duplicates the sharpest so many are looked at. One is chosen at most, but what one look misses
    in a still take another sees, and they vote on who and what is there."""
    shots: ShotConfig = ShotConfig()
    quality: QualityConfig = QualityConfig()


@dataclass(slots=True)
class Candidate:
    """The frame that stands for one span."""

    time_s: float
    shot: int
    """Counted from 0 within the part of the film."""
    sharpness: float
    fingerprint: int
    fault: Fault | None
    """Why it is dropped; None = it is looked at."""
    frame: Frame | None
    """None for a dropped one: its pixels are let go."""


@dataclass(slots=True)
class Counted:
    """What went by while candidates were made."""

    frames: int = 0
    shots: int = 0
    cut_at_end: bool = False
    """Whether a new shot begins with the first frame after this part."""


@dataclass(frozen=True, slots=True)
class _Judged:
    frame: Frame
    shot: int
    sharp: float
    fault: Fault | None


def candidates(frames: Iterable[tuple[Frame, bool]], config: SamplingConfig, counted: Counted) -> Iterator[Candidate]:
    """Candidates of one part of a film, dropped ones too, nearly in the order of time.

    Args:
        frames: as of `Reader.read` with `BEYOND` frames beyond the part.
        config: spans, and what is dropped.
        counted: filled while candidates are drawn.
    """
    folding = _Folding(config.quality.near_duplicate_bits, config.looks)
    best: _Judged | None = None
    history: collections.deque[float] = collections.deque(maxlen=_RECENT)
    place = (-1, 0)
    begin = 0.0
    for judged in _judge(frames, config, counted):
        if judged.shot != place[0]:
            begin = judged.frame.time_s
        here = (judged.shot, int((judged.frame.time_s - begin) / config.span_s + 1e-6))
        if here != place and best is not None:
            yield from folding.add(_close(best, history, config.quality))
            best = None
        if here[0] != place[0]:
            history.clear()
        place = here
        history.append(judged.sharp)
        # A good frame before a faulty one, then the sharper, then the earlier.
        if best is None or (judged.fault is None, judged.sharp) > (best.fault is None, best.sharp):
            best = judged
    if best is not None:
        yield from folding.add(_close(best, history, config.quality))
    yield from folding.flush()


def _close(best: _Judged, history: Iterable[float], config: QualityConfig) -> Candidate:
    """The candidate of a finished span, judged as a whole."""
    fault = best.fault
    if fault is None and is_title_card(best.frame.small, config):
        fault = Fault.TITLE_CARD
    if fault is None and is_blurred(best.sharp, list(history), config):
        fault = Fault.BLUR
    mark = fingerprint(best.frame.small)
    return Candidate(best.frame.time_s, best.shot, best.sharp, mark, fault, best.frame if fault is None else None)


class _Folding:
    """Keeps the sharpest few of each run of near-duplicates, and none that repeats an earlier picture of this part."""

    def __init__(self, bits: int, looks: int) -> None:
        self._bits = bits
        self._looks = looks
        self._held: list[Candidate] = []
        self._head = 0
        self._gone: list[int] = []

    def add(self, item: Candidate) -> Iterator[Candidate]:
        if item.fault is not None:
            yield item
            return
        if self._held and distance(self._head, item.fingerprint) <= self._bits:
            # Compared with the run's first one: else a slow pan would fold into a single picture.
            self._held.append(item)
            if len(self._held) > self._looks:
                dullest = min(self._held, key=lambda held: (held.sharpness, -held.time_s))
                self._held.remove(dullest)
                yield _dropped(dullest)
            return
        yield from self.flush()
        if any(distance(mark, item.fingerprint) <= self._bits for mark in self._gone):
            yield _dropped(item)
            return
        self._held, self._head = [item], item.fingerprint

    def flush(self) -> Iterator[Candidate]:
        if self._held:
            self._gone += [self._head, *(held.fingerprint for held in self._held)]
            held, self._held = self._held, []
            yield from held


def _dropped(item: Candidate) -> Candidate:
    return Candidate(item.time_s, item.shot, item.sharpness, item.fingerprint, Fault.NEAR_DUPLICATE, None)


@dataclass(frozen=True, slots=True)
class _Item:
    frame: Frame
    beyond: bool
    new: bool
    thumb: Thumb


def _judge(frames: Iterable[tuple[Frame, bool]], config: SamplingConfig, counted: Counted) -> Iterator[_Judged]:
    """Shot number, sharpness, and the faults that a frame shows by itself or beside its neighbours."""
    items = (_Item(frame, beyond, new, thumb(frame.small)) for frame, beyond, new in with_cuts(frames, config.shots))
    inside = True
    for window, index in _windows(items):
        item = window[index]
        if item.beyond:
            counted.cut_at_end |= inside and item.new
            inside = False
            continue
        counted.shots += item.new or counted.frames == 0
        counted.frames += 1
        fault = _fault(window, index, config.quality)
        yield _Judged(item.frame, counted.shots - 1, sharpness(item.frame.small), fault)


def _fault(window: Sequence[_Item], index: int, config: QualityConfig) -> Fault | None:
    if is_black(window[index].thumb, config):
        return Fault.BLACK
    reach = min(FADE_REACH, index, len(window) - 1 - index)
    if reach < 2:
        return None
    before, here, after = (window[at].thumb for at in (index - reach, index, index + reach))
    return Fault.FADE if is_fade(before, here, after, config) else None


def _windows(items: Iterable[_Item]) -> Iterator[tuple[Sequence[_Item], int]]:
    """Each item once, in order, as its index in a run of it and up to `FADE_REACH` neighbours on either side."""
    window: collections.deque[_Item] = collections.deque(maxlen=2 * FADE_REACH + 1)
    for number, item in enumerate(items):
        window.append(item)
        if number >= FADE_REACH:
            yield window, len(window) - 1 - FADE_REACH
    for index in range(max(0, len(window) - FADE_REACH), len(window)):
        yield window, index
