"""Films of the rendered world with the exact truth of every frame.

A film is a row of takes with hard cuts, now and then a fade through black, a black pause or a title card. Drawings are
made on twos, as in animation: each is held for two frames, 5 drawings a second at the default 10 frames a second. A
ten-minute film at 128 px takes about two minutes on one core. It follows from its arguments alone.
"""

from __future__ import annotations

import json
from collections.abc import Generator, Iterator, Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any, Final, Literal

import av
import numpy as np
from PIL import Image, ImageDraw, ImageFont

from onmodel.core.files import write_aside, write_text
from onmodel.core.images import RGB
from onmodel.core.vocabulary import Attribute, ShotType
from onmodel.toybox.character import Character
from onmodel.toybox.dataset import Plan, truth_from_json, truth_to_json
from onmodel.toybox.motion import Take, make_take
from onmodel.toybox.render import SAMPLES, Rendered, Truth, render
from onmodel.toybox.scene import CLEAR_SHARE, FRAMED, HIDDEN_SHARE

Kind = Literal["take", "fade", "black", "card"]

FADE_SECONDS: Final[float] = 0.6
BLACK_SECONDS: Final[float] = 0.5
CARD_SECONDS: Final[float] = 1.6
TAKE_SECONDS: Final[tuple[float, float]] = (2.0, 4.4)
FADE_EVERY: Final[int] = 9
"""Takes from one fade through black to the next; every third of them has a card instead of the black."""
COMPANION_SHARE: Final[float] = 0.15
"""A companion counts from this share of the main character's visible pixels, as in `random_scene`."""
QUALITY: Final[int] = 14
"""libx264's constant rate factor: small pictures suffer most from coarse quantisation."""
TITLES: Final[tuple[str, ...]] = ("THE TOYBOX", "ONE WEEK LATER", "THE NEXT DAY", "PART TWO", "MEANWHILE", "THE END")


@dataclass(frozen=True, slots=True)
class FrameTruth:
    """What is exactly known of one frame."""

    time_s: float
    shot: int
    """Number of the take, black pause or card, from 0 in the film's order."""
    kind: Kind
    """"fade": a take's frame that is being darkened."""
    truth: Truth
    """Of cards and black frames: no character, no shot type, place "card" or "black". The attributes are this frame's:
    `occlusion` while at least `HIDDEN_SHARE[0]` of the main character is hidden."""
    doubtful: frozenset[Attribute] = frozenset()
    """Attributes that one may see either way: hidden by a sliver, a companion half out of the frame."""


@dataclass(frozen=True, slots=True)
class FilmTruth:
    """A film's frames, in order."""

    path: Path
    fps: int
    frames: tuple[FrameTruth, ...]

    def at(self, time_s: float) -> FrameTruth:
        """The frame shown at that time; the last one behind the end."""
        index = int(time_s * self.fps + 0.5)
        return self.frames[min(max(index, 0), len(self.frames) - 1)]

    @property
    def shots(self) -> dict[int, tuple[FrameTruth, ...]]:
        """The frames of every shot, by its number."""
        found: dict[int, list[FrameTruth]] = {}
        for frame in self.frames:
            found.setdefault(frame.shot, []).append(frame)
        return {number: tuple(frames) for number, frames in found.items()}


@dataclass(frozen=True, slots=True)
class _Slot:
    """One part of the plan of a film."""

    kind: Literal["take", "black", "card"]
    frames: int
    plan: Plan | None = None
    main: int | None = None
    passing: bool = False
    fade_in: bool = False
    fade_out: bool = False
    title: str = ""


def make_film(
    path: Path,
    characters: Sequence[Character],
    *,
    seconds: float,
    seed: int,
    size: int = 128,
    fps: int = 10,
    held: int = 2,
) -> FilmTruth:
    """Render a film as H.264 in mp4, and its truth as `<film>.truth.jsonl` (one JSON a line and frame) beside it.

    The first character leads: it is the main one of about a third of the takes, and a companion like the others. Every
    character goes through all shot types on plain and busy backgrounds, alone, in company, with something in front.

    Args:
        path: the file to write, whole or not at all.
        characters: the cast, at least one.
        seconds: length of the film; takes last `TAKE_SECONDS`.
        seed: everything follows from it.
        size: side of the square frames in pixels, even.
        fps: frames a second.
        held: frames that one drawing is shown for.

    Raises:
        ValueError: nobody in the cast, an odd size, or less than one frame.
    """
    if not characters or size % 2 or round(seconds * fps) < 1:
        raise ValueError("a film needs a character, an even size and at least one frame")
    slots = _schedule(characters, round(seconds * fps), fps, np.random.default_rng([seed, 0]))
    truths: list[FrameTruth] = []
    with write_aside(path) as aside, av.open(str(aside), "w", format="mp4") as container:
        # One thread: slices of several threads would make the bytes depend on the machine.
        options = {"crf": str(QUALITY), "preset": "veryfast", "threads": "1"}
        stream: Any = container.add_stream("libx264", rate=fps, options=options)
        stream.width = stream.height = size
        stream.pix_fmt = "yuv420p"
        for image, truth in _frames(slots, characters, seed, size, fps, held):
            truths.append(truth)
            container.mux(stream.encode(av.VideoFrame.from_ndarray(image, format="rgb24")))
        container.mux(stream.encode(None))
    write_text(truth_path(path), "".join(json.dumps(_to_json(t, fps)) + "\n" for t in truths))
    return FilmTruth(path, fps, tuple(truths))


def truth_path(film: Path) -> Path:
    """Where the truth of a film lies."""
    return film.with_suffix(".truth.jsonl")


def read_film_truth(film: Path) -> FilmTruth:
    """The truth of a film that `make_film` wrote."""
    rows = [json.loads(line) for line in truth_path(film).read_text(encoding="utf-8").splitlines()]
    return FilmTruth(
        film,
        rows[0]["fps"],
        tuple(
            FrameTruth(
                row["time_s"], row["shot"], row["kind"], truth_from_json(row),
                frozenset(Attribute(a) for a in row["doubtful"]),
            )
            for row in rows
        ),
    )  # fmt: skip


def _to_json(frame: FrameTruth, fps: int) -> dict[str, Any]:
    head = {"time_s": round(frame.time_s, 4), "fps": fps, "shot": frame.shot, "kind": frame.kind}
    return {**head, "doubtful": sorted(a.value for a in frame.doubtful), **truth_to_json(frame.truth)}


def _schedule(characters: Sequence[Character], frames: int, fps: int, rng: np.random.Generator) -> list[_Slot]:
    """Parts of exactly `frames` frames together."""
    slots: list[_Slot] = []
    left = frames
    titles = iter(TITLES)
    takes = _takes(len(characters), rng)
    fades = 0
    if frames >= 20 * fps:
        slots.append(_Slot("card", round(CARD_SECONDS * fps), title=next(titles)))
        left -= slots[-1].frames
    number, fade_in = 0, False
    while left > 0:
        count = min(left, round(float(rng.uniform(*TAKE_SECONDS)) * fps))
        # A rest too short for a take of its own is added to the last one.
        if left - count < TAKE_SECONDS[0] * fps:
            count = left
        left -= count
        number += 1
        fade_out = number % FADE_EVERY == 0 and left > 0
        plan, main, passing = next(takes)
        slots.append(_Slot("take", count, plan, main, passing, fade_in, fade_out))
        fade_in = fade_out
        if fade_out:
            fades += 1
            title = next(titles, TITLES[-1]) if fades % 3 == 0 else ""
            pause = min(left, round((CARD_SECONDS if title else BLACK_SECONDS) * fps))
            slots.append(_Slot("card" if title else "black", pause, title=title))
            left -= pause
    return slots


def _takes(cast: int, rng: np.random.Generator) -> Iterator[tuple[Plan, int | None, bool]]:
    """Endless (what a take shows, whose it is, whether what is in front passes by)."""
    decks = [_deck(np.random.default_rng(rng.integers(1 << 40))) for _ in range(cast)]
    lead = max(1, (cast - 1) // 2)
    hidden = 0
    while True:
        block: list[int | None] = [*([0] * lead), *range(1, cast), None]
        for k in rng.permutation(len(block)):
            who = block[int(k)]
            if who is None:
                yield Plan(ShotType.UNCLASSIFIED, frozenset()), int(rng.integers(cast)), False
                continue
            plan = next(decks[who])
            passing = False
            if Attribute.OCCLUSION in plan.attributes:
                hidden += 1
                passing = hidden % 2 == 0
            yield plan, who, passing


def _deck(rng: np.random.Generator) -> Iterator[Plan]:
    """Endless plans: all combinations in random order, then all again; shot types take turns."""
    company, front, busy = Attribute.MULTI_CHARACTER, Attribute.OCCLUSION, Attribute.COMPLEX_BACKGROUND
    marks: tuple[frozenset[Attribute], ...] = tuple(
        frozenset({*kind, *where})
        for kind in ((), (), (company,), (front,), (company, front))
        for where in ((), (busy,))
    )
    while True:
        orders = {shot: rng.permutation(len(marks)) for shot in FRAMED}
        for turn in range(len(marks)):
            for k in rng.permutation(len(FRAMED)):
                yield Plan(FRAMED[int(k)], marks[int(orders[FRAMED[int(k)]][turn])])


def _frames(
    slots: Sequence[_Slot], characters: Sequence[Character], seed: int, size: int, fps: int, held: int
) -> Generator[tuple[RGB, FrameTruth]]:
    frame = 0
    for shot, slot in enumerate(slots):
        rng = np.random.default_rng([seed, 1, shot])
        still: tuple[RGB, Truth, frozenset[Attribute]] | None = None
        take = None if slot.kind != "take" else _make(slot, characters, rng, fps)
        painted = None if take is None else take.paint(size * SAMPLES)
        if take is None:
            still = (_card(slot.title, size), _nothing(size, slot.kind), frozenset())
        for k in range(slot.frames):
            if take is not None and painted is not None and k % held == 0:
                t = k / max(slot.frames - 1, 1)
                drawn = render(take.at(t), size, take.window(painted, t))
                still = (drawn.image, *_seen(drawn))
            assert still is not None
            image, truth, doubtful = still
            light = _light(k, slot, fps)
            kind: Kind = slot.kind if light == 1 else "fade"
            shown = image if light == 1 else (image * light + 0.5).astype(np.uint8)
            yield shown, FrameTruth(frame / fps, shot, kind, truth, doubtful)
            frame += 1


def _make(slot: _Slot, characters: Sequence[Character], rng: np.random.Generator, fps: int) -> Take:
    assert slot.plan is not None and slot.main is not None
    main = characters[slot.main]
    others = [c for n, c in enumerate(characters) if n != slot.main]
    plan = slot.plan
    if not others:
        plan = replace(plan, attributes=plan.attributes - {Attribute.MULTI_CHARACTER})
    return make_take(plan, main, others, rng, seconds=slot.frames / fps, passing=slot.passing)


def _seen(drawn: Rendered) -> tuple[Truth, frozenset[Attribute]]:
    """The truth of this one frame, and what is doubtful in it: things pass by, and people leave the frame."""
    truth = drawn.truth
    attributes = set(truth.attributes) - {Attribute.OCCLUSION, Attribute.MULTI_CHARACTER}
    doubtful: set[Attribute] = set()
    if truth.characters and truth.shot_type is not ShotType.UNCLASSIFIED:
        main, *others = truth.characters
        lost = 1 - main.visible_fraction
        if lost >= HIDDEN_SHARE[0]:
            attributes.add(Attribute.OCCLUSION)
        elif lost >= CLEAR_SHARE:
            doubtful.add(Attribute.OCCLUSION)
        seen = max((other.visible_pixels for other in others), default=0)
        if seen > COMPANION_SHARE * main.visible_pixels:
            attributes.add(Attribute.MULTI_CHARACTER)
        elif seen > 0:
            doubtful.add(Attribute.MULTI_CHARACTER)
    return replace(truth, attributes=frozenset(attributes)), frozenset(doubtful)


def _light(k: int, slot: _Slot, fps: int) -> float:
    """Brightness 0..1 of frame k of a slot."""
    steps = max(1, round(FADE_SECONDS * fps))
    rising = (k + 1) / (steps + 1) if slot.fade_in else 1.0
    falling = (slot.frames - k) / (steps + 1) if slot.fade_out else 1.0
    return min(1.0, rising, falling)


def _nothing(size: int, place: str) -> Truth:
    return Truth(size, ShotType.UNCLASSIFIED, frozenset(), (), (), place)


def _card(title: str, size: int) -> RGB:
    """White words on black; without words a black frame."""
    card = Image.new("RGB", (size, size), "black")
    if title:
        font = ImageFont.load_default(size / 10)
        ImageDraw.Draw(card).text((size / 2, size / 2), title, fill="white", font=font, anchor="mm")
    return np.asarray(card, dtype=np.uint8)
