"""A film as upright frames with times, decoded once, in pieces that can be decoded apart from each other.

Times are seconds from the first frame, from the film's own time stamps, so a variable frame rate needs no care.
Frames are turned as the film's display matrix says, non-square pixels are made square, and HDR (PQ or HLG) is brought
to BT.709 by FFmpeg's colour-managed scaler: diffuse white (203 nits) becomes full white, brighter highlights clip.
"""

import collections
from collections.abc import Iterator
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, Final

import av
import av.error
import numpy as np
from av.stream import Disposition
from av.video.reformatter import ColorPrimaries, ColorTrc, VideoReformatter

from onmodel.core.errors import UserError
from onmodel.core.files import existing, file_hash
from onmodel.core.images import RGB

SMALL_SIDE: Final = 256
"""Longer side in pixels of the small copy of every frame on which cuts, sharpness and faults are judged."""
HDR: Final = {ColorTrc.SMPTE2084: "PQ", ColorTrc.ARIB_STD_B67: "HLG"}
_DECODE_ERRORS = (av.error.FFmpegError, EOFError)
Piece = tuple[float, float]
"""Start and end of a part of a film in seconds, the end exclusive."""


@dataclass(frozen=True, slots=True)
class Film:
    """What is known of a film before it is decoded."""

    path: Path
    hash: str
    """SHA-256 of the file."""
    width: int
    height: int
    """Of its upright frames with square pixels."""
    rotation: int
    """Degrees counter-clockwise that its frames are turned by, a multiple of 90."""
    duration_s: float
    frames: int
    """Coded frames in the file."""
    keyframes: tuple[float, ...]
    """Times in seconds at which decoding can begin."""
    start: int
    """Time stamp of the first frame, in the stream's time base."""
    seekable: bool
    """Whether decoding can begin in the middle; else it always begins at the beginning."""
    hdr: str | None = None
    """"PQ" or "HLG"."""
    notes: tuple[str, ...] = ()
    """Sentences for the user: damage, HDR, a missing index."""

    @property
    def rate(self) -> float:
        """Mean frames a second."""
        return self.frames / self.duration_s if self.duration_s > 0 else 25.0


@dataclass(slots=True)
class Frame:
    """One decoded frame. The picture in full size is made only when asked for."""

    time_s: float
    small: RGB
    """uint8 RGB, the longer side `SMALL_SIDE` at most."""
    source: Any = field(repr=False)
    converter: "_Converter" = field(repr=False)

    def picture(self) -> RGB:
        """The whole frame: uint8 RGB (height, width, 3), upright."""
        return self.converter.full(self.source)


def probe(path: Path) -> Film:
    """Read a film's facts: its packets are walked through, one frame is decoded.

    Raises:
        NotFoundError: no such file.
        UserError: not a film, only sound, or nothing in it can be decoded.
    """
    if existing(path, "film").is_dir():
        raise UserError(f"{path}: is a folder; give the film's file")
    try:
        with av.open(str(path)) as container:
            stream = _video(path, container)
            scan = _scan(container, stream)
        with av.open(str(path)) as container:
            first = _first_frame(path, container)
    except _DECODE_ERRORS as error:
        raise _unreadable(path, error) from None
    return _describe(path, scan, first)


@dataclass(slots=True)
class _Scan:
    base: float
    stamps: list[int] = field(default_factory=list[int])
    keys: list[int] = field(default_factory=list[int])
    packets: int = 0
    timed: bool = True
    damaged: bool = False
    claimed_s: float | None = None
    rate: float | None = None
    aspect: float = 1.0


def _video(path: Path, container: Any) -> Any:
    found = [s for s in container.streams.video if not s.disposition & Disposition.attached_pic]
    if not found:
        sound = ", ".join(sorted({s.codec_context.name for s in container.streams.audio if s.codec_context}))
        what = f"holds sound alone ({sound})" if sound else "holds no moving picture"
        raise UserError(f"{path}: {what}; give the file with the film's picture")
    if found[0].codec_context is None:
        raise UserError(
            f"{path}: its picture cannot be decoded: it is coded in a way that this FFmpeg does not know, or the"
            " file is cut off; convert it, or get the whole file"
        )
    return found[0]


def _scan(container: Any, stream: Any) -> _Scan:
    """Walk through all packets without decoding: what a truncated or index-less file really holds."""
    scan = _Scan(float(stream.time_base or 0) or 1 / 90000)
    rate = stream.average_rate or stream.guessed_rate
    scan.rate = float(rate) if rate else None
    scan.aspect = float(stream.sample_aspect_ratio or 1) or 1.0
    if stream.duration:
        scan.claimed_s = float(stream.duration) * scan.base
    elif container.duration:
        scan.claimed_s = container.duration / av.time_base
    try:
        for packet in container.demux(stream):
            if packet.size == 0:
                continue
            scan.packets += 1
            if packet.pts is None:
                scan.timed = False
                continue
            scan.stamps.append(packet.pts)
            if packet.is_keyframe:
                scan.keys.append(packet.pts)
    except _DECODE_ERRORS:
        scan.damaged = True
    return scan


def _first_frame(path: Path, container: Any) -> Any:
    for packet in container.demux(_video(path, container)):
        try:
            for frame in packet.decode():
                return frame
        except _DECODE_ERRORS:
            continue
    raise UserError(f"{path}: no frame of it can be decoded; get the whole file again")


def _describe(path: Path, scan: _Scan, first: Any) -> Film:
    notes: list[str] = []
    rate = scan.rate if scan.rate and 1 <= scan.rate <= 1000 else 25.0
    if scan.timed and scan.stamps:
        start = min(scan.stamps)
        duration = (max(scan.stamps) - start) * scan.base + 1 / rate
    else:
        start, duration = 0, scan.packets / rate
    keys = tuple(sorted((key - start) * scan.base for key in scan.keys)) if scan.timed else ()
    seekable = scan.timed and bool(keys) and _can_seek(path, keys[len(keys) // 2], start, scan.base)
    if not seekable:
        notes.append(
            f"{path.name} has no index to start in the middle by: it is decoded from its beginning, also when a run"
            " goes on that was stopped"
        )
    if scan.damaged or (scan.claimed_s is not None and duration < 0.97 * scan.claimed_s - 1):
        claimed = f" of {scan.claimed_s:.1f} s" if scan.claimed_s else ""
        notes.append(f"{path.name} is damaged or cut off: {duration:.1f} s{claimed} are there and are used")
    hdr = HDR.get(first.color_trc)
    if hdr:
        notes.append(f"{path.name} is HDR ({hdr}): brought to BT.709, highlights above 203 nits clip")
    rotation = round(first.rotation / 90) * 90 % 360
    width, height = max(1, round(first.width * scan.aspect)), first.height
    if rotation in (90, 270):
        width, height = height, width
    return Film(
        path, file_hash(path), width, height, rotation, duration, max(1, scan.packets), keys, start, seekable,
        hdr, tuple(notes),
    )  # fmt: skip


def _can_seek(path: Path, time_s: float, start: int, base: float) -> bool:
    """Whether a jump to a key frame lands at it or before it."""
    try:
        with av.open(str(path)) as container:
            stream: Any = _video(path, container)
            container.seek(start + round(time_s / base), stream=stream)
            for frame in container.decode(stream):
                return frame.pts is not None and (frame.pts - start) * base <= time_s + 1e-3
    except _DECODE_ERRORS:
        return False
    return False


def _unreadable(path: Path, error: BaseException) -> UserError:
    reason = getattr(error, "strerror", None) or str(error)
    return UserError(
        f"{path}: cannot be read as a film ({reason}): it is another kind of file, or cut off before its index;"
        " get the whole file, or rewrap it with `ffmpeg -i IN -c copy OUT.mkv`"
    )


def pieces(film: Film, length_s: float) -> list[Piece]:
    """Parts of about `length_s`, each from one key frame to another; of exactly that length where it cannot seek."""
    bounds = [0.0]
    rare = not film.keyframes or max(np.diff([*film.keyframes, film.duration_s]), default=0.0) > 3 * length_s
    starts = film.keyframes
    if not film.seekable or rare:
        starts = tuple(n * length_s for n in range(1, int(film.duration_s / length_s) + 1))
    for time_s in starts:
        # The last part takes a short rest with it.
        if time_s - bounds[-1] >= length_s - 1e-6 and film.duration_s - time_s >= 0.25 * length_s:
            bounds.append(time_s)
    return list(zip(bounds, [*bounds[1:], film.duration_s + 1.0], strict=True))


class Reader:
    """Decodes parts of a film. A part's frames do not depend on what was read before."""

    def __init__(self, film: Film, *, threads: int = 0) -> None:
        self._film = film
        self._threads = threads
        self._converter = _Converter(film)
        self._running: Iterator[Frame] | None = None
        self._ahead: collections.deque[Frame] = collections.deque()
        self._position = 0.0
        self.damaged = 0
        """Frames and packets that could not be decoded, so far."""

    def read(self, start: float, end: float, *, beyond: int = 0) -> Iterator[tuple[Frame, bool]]:
        """Frames from `start` to before `end`, then up to `beyond` frames more, marked True."""
        frames = self._from(start)
        extra: list[Frame] = []
        for frame in frames:
            if frame.time_s < start - 1e-6:
                continue
            if frame.time_s < end - 1e-6:
                yield frame, False
                continue
            extra.append(frame)
            if len(extra) > beyond:
                break
        self._position = end
        self._ahead.extend(extra)
        for frame in extra[:beyond]:
            yield frame, True

    def _from(self, start: float) -> Iterator[Frame]:
        # Where a film can be entered in the middle each part is entered anew, so that a part is the same whether
        # its forerunner was decoded just before it or yesterday.
        if not self._film.seekable and self._running is not None and abs(self._position - start) < 1e-6:
            waiting = list(self._ahead)
            self._ahead.clear()
            return _chain(waiting, self._running)
        self._ahead.clear()
        self._running = self._decode(start if self._film.seekable else 0.0)
        return self._running

    def _decode(self, start: float) -> Iterator[Frame]:
        film = self._film
        with av.open(str(film.path)) as container:
            stream: Any = _video(film.path, container)
            stream.thread_type = "AUTO"
            if self._threads:
                stream.codec_context.thread_count = self._threads
            base = float(stream.time_base or 0) or 1 / 90000
            if start > 0:
                container.seek(film.start + round(start / base), stream=stream)
            last = -1.0
            for source in self._sources(container, stream):
                stamp = source.pts if source.pts is not None else source.dts
                time_s = last + 1 / film.rate if stamp is None else (stamp - film.start) * base
                if stamp is None and last < 0:
                    time_s = 0.0
                # A time stamp that goes back is a damaged one.
                if time_s <= last:
                    continue
                last = time_s
                yield Frame(time_s, self._converter.small(source), source, self._converter)

    def _sources(self, container: Any, stream: Any) -> Iterator[Any]:
        packets = container.demux(stream)
        while True:
            try:
                packet = next(packets)
            except (StopIteration, *_DECODE_ERRORS):
                return
            try:
                for frame in packet.decode():
                    if frame.is_corrupt:
                        self.damaged += 1
                        continue
                    yield frame
            except _DECODE_ERRORS:
                self.damaged += packet.size > 0


def _chain(first: list[Frame], rest: Iterator[Frame]) -> Iterator[Frame]:
    yield from first
    yield from rest


class _Converter:
    """A decoder's frames to upright RGB. Keeps its scalers: setting one up for HDR takes seconds."""

    def __init__(self, film: Film) -> None:
        self._film = film
        self._scaler = VideoReformatter()
        self._small = VideoReformatter()
        self._full = VideoReformatter()
        self._colours: dict[str, Any] = {}
        if film.hdr:
            self._colours = {"dst_color_trc": ColorTrc.BT709, "dst_color_primaries": ColorPrimaries.BT709}

    def small(self, source: Any) -> RGB:
        """The frame with its longer side at most `SMALL_SIDE`."""
        width, height = self._size(min(1.0, SMALL_SIDE / max(self._film.width, self._film.height)))
        if not self._film.hdr:
            made = self._small.reformat(source, width=width, height=height, format="rgb24", interpolation="AREA")
            return self._upright(made)
        # Scaled first: to bring the colours of every pixel of every frame to BT.709 would take most of the time.
        scaled: Any = self._scaler.reformat(source, width=width, height=height, interpolation="AREA")
        scaled.color_trc, scaled.color_primaries = source.color_trc, source.color_primaries
        scaled.colorspace = source.colorspace
        return self._upright(self._small.reformat(scaled, format="rgb24", **self._colours))

    def full(self, source: Any) -> RGB:
        """The frame in the film's size."""
        width, height = self._size(1.0)
        made = self._full.reformat(
            source, width=width, height=height, format="rgb24", interpolation="BILINEAR", **self._colours
        )
        return self._upright(made)

    def _size(self, scale: float) -> tuple[int, int]:
        """Width and height before the turn."""
        width = max(1, round(self._film.width * scale))
        height = max(1, round(self._film.height * scale))
        return (height, width) if self._film.rotation in (90, 270) else (width, height)

    def _upright(self, made: Any) -> RGB:
        return np.ascontiguousarray(np.rot90(made.to_ndarray(), self._film.rotation // 90), dtype=np.uint8)
