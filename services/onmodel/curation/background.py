"""Work behind the page: every picture is looked at once for near-duplicates, then embedded for similarity search."""

import os
import sys
import threading
from collections.abc import Callable, Iterator, Sequence
from contextlib import suppress
from dataclasses import dataclass
from typing import Literal, Protocol

import numpy as np

from onmodel.core.cutouts import square_crop
from onmodel.core.errors import ImageError, OnModelError
from onmodel.core.images import RGB, load
from onmodel.core.likeness import fingerprint, sharpness
from onmodel.core.vocabulary import Box
from onmodel.curation.cache import SIDES, Cache, Likeness, Vector
from onmodel.curation.catalogue import Catalogue, Entry
from onmodel.curation.similar import Floats, best, nearest_by_fingerprint, nearest_by_vector, stack

BATCH = 32
FOUND_AT_MOST = 300
"""Pictures that a search gives: more than anybody looks through."""
_NICE = 10


class Embedder(Protocol):
    """Puts crops into a space in which nearness is likeness."""

    @property
    def key(self) -> str:
        """Names the model and its preprocessing."""
        ...

    def embed(self, images: Sequence[RGB]) -> Floats:
        """float32 (len(images), width), rows of unit length."""
        ...


@dataclass(frozen=True, slots=True)
class Progress:
    """How far the work is."""

    total: int
    looked: int
    """Pictures looked at for near-duplicates."""
    embedded: int
    stacks: int
    """Grows whenever the stacks of near-duplicates have changed."""
    note: str | None
    """Why there are no embeddings, for a person."""
    embeds: bool
    """Whether embeddings are made at all."""


@dataclass(frozen=True, slots=True)
class Found:
    """What a search gave."""

    ids: list[tuple[str, float]]
    """Pictures and their likeness, most like first; the picture itself is the first."""
    by: Literal["embedding", "fingerprint"]
    note: str | None
    """What a person should know about the result."""


class Background:
    """One thread that works through a catalogue, and answers from what it has so far."""

    def __init__(self, catalogue: Catalogue, cache: Cache, embedder: Callable[[], Embedder] | None) -> None:
        """Prepare; `start` begins.

        Args:
            catalogue: pictures to work through.
            cache: gives what was computed in earlier runs, and keeps the rest.
            embedder: loads the model; called in the thread once all pictures have been looked at. None = never.
        """
        self._entries = catalogue.entries
        self._place = {entry.hash: at for at, entry in enumerate(catalogue.entries)}
        self._cache = cache
        self._load = embedder
        self._lock = threading.Lock()
        self._likeness: dict[str, Likeness] = {}
        self._vectors: dict[str, Vector] = {}
        self._unreadable: set[str] = set()
        self._stacks: list[list[str]] = []
        self._stack_version = 0
        self._note: str | None = None
        self._stop = threading.Event()
        self._thread = threading.Thread(target=self._run, name="curation-background", daemon=True)

    def start(self) -> None:
        """Begin."""
        self._thread.start()

    def stop(self) -> None:
        """End soon; what is done is kept."""
        self._stop.set()
        if self._thread.is_alive():
            self._thread.join(timeout=30)

    @property
    def progress(self) -> Progress:
        """How far the work is."""
        with self._lock:
            gone = len(self._unreadable)
            return Progress(
                total=len(self._entries),
                looked=len(self._likeness) + gone,
                embedded=len(self._vectors) + gone,
                stacks=self._stack_version,
                note=self._note,
                embeds=self._load is not None and self._note is None,
            )

    @property
    def stacks(self) -> list[list[str]]:
        """Ids of near-duplicates, the sharpest of each stack first."""
        with self._lock:
            return self._stacks

    def similar(self, entry: Entry) -> Found:
        """The pictures most like one: by the embedding of the main character when all have one, else by fingerprint.

        Raises:
            ImageError: the picture was not looked at yet and cannot be read any more.
        """
        with self._lock:
            done, note = len(self._vectors) + len(self._unreadable), self._note
            vectors = dict(self._vectors) if done >= len(self._entries) else {}
            likeness = dict(self._likeness)
        if entry.hash in vectors:
            hashes = list(vectors)
            scores = nearest_by_vector(np.stack([vectors[content] for content in hashes]), vectors[entry.hash])
            return Found(self._named(hashes, scores, entry), "embedding", None)
        if entry.hash not in likeness:
            likeness[entry.hash] = (fingerprint(load(entry.path)), 0.0)
        hashes = list(likeness)
        prints = np.array([likeness[content][0] for content in hashes], dtype=np.uint64)
        scores = nearest_by_fingerprint(prints, likeness[entry.hash][0])
        reason = note or ("" if self._load is None else f"embeddings: {done} of {len(self._entries)} so far")
        if len(likeness) + len(self._unreadable) < len(self._entries):
            reason = f"looked at {len(likeness)} of {len(self._entries)} so far"
        return Found(self._named(hashes, scores, entry), "fingerprint", reason or None)

    def _named(self, hashes: Sequence[str], scores: Floats, entry: Entry) -> list[tuple[str, float]]:
        ranked = [(hashes[at], float(scores[at])) for at in best(scores, FOUND_AT_MOST)]
        others = [(self._entries[self._place[content]].id, score) for content, score in ranked if content != entry.hash]
        return [(entry.id, 1.0), *others[: FOUND_AT_MOST - 1]]

    def _run(self) -> None:
        # The page comes first. On Linux niceness is a thread's own, and threads that this one starts inherit it.
        if sys.platform == "linux":
            with suppress(OSError):
                os.setpriority(os.PRIO_PROCESS, threading.get_native_id(), _NICE)
        try:
            self._look()
            self._embed()
        except OnModelError as error:
            with self._lock:
                self._note = str(error)

    def _look(self) -> None:
        known = self._cache.likenesses()
        with self._lock:
            self._likeness = {entry.hash: known[entry.hash] for entry in self._entries if entry.hash in known}
        self._restack()
        missing = [entry for entry in self._entries if entry.hash not in self._likeness]
        for part in _parts(missing):
            found: dict[str, Likeness] = {}
            for entry in part:
                if self._stop.is_set():
                    break
                image = self._read(entry)
                if image is not None:
                    found[entry.hash] = (fingerprint(image), sharpness(image))
                    # Decoded anyway, so the tile costs little now and scrolling waits for nothing later.
                    self._cache.warm(image, entry.hash, SIDES[0])
            self._cache.add_likenesses(found)
            with self._lock:
                self._likeness.update(found)
            if self._stop.is_set():
                return
        if missing:
            self._restack()

    def _restack(self) -> None:
        entries = [entry for entry in self._entries if entry.hash in self._likeness]
        if not entries:
            return
        prints = np.array([self._likeness[entry.hash][0] for entry in entries], dtype=np.uint64)
        sharp = np.array([self._likeness[entry.hash][1] for entry in entries], dtype=np.float32)
        stacks = stack(prints, sharp, [entry.group for entry in entries])
        with self._lock:
            self._stacks = [[entries[at].id for at in members] for members in stacks]
            self._stack_version += 1

    def _embed(self) -> None:
        if self._load is None or self._stop.is_set():
            return
        embedder = self._load()
        known = self._cache.vectors(embedder.key)
        with self._lock:
            self._vectors = {e.hash: known[_vector_key(e)] for e in self._entries if _vector_key(e) in known}
        missing = [entry for entry in self._entries if entry.hash not in self._vectors]
        for part in _parts([entry for entry in missing if entry.hash not in self._unreadable]):
            if self._stop.is_set():
                return
            read = [(entry, image) for entry in part if (image := self._read(entry)) is not None]
            if not read:
                continue
            vectors = embedder.embed([_crop(entry, image) for entry, image in read])
            made = [(entry, vector) for (entry, _), vector in zip(read, vectors, strict=True)]
            self._cache.add_vectors(embedder.key, [(_vector_key(entry), vector) for entry, vector in made])
            with self._lock:
                self._vectors.update((entry.hash, vector) for entry, vector in made)

    def _read(self, entry: Entry) -> RGB | None:
        """The picture, or None where it is gone or damaged since the catalogue was made."""
        try:
            return load(entry.path)
        except ImageError:
            with self._lock:
                self._unreadable.add(entry.hash)
            return None


def _parts(entries: Sequence[Entry]) -> Iterator[Sequence[Entry]]:
    return (entries[at : at + BATCH] for at in range(0, len(entries), BATCH))


def _main_box(entry: Entry) -> Box | None:
    main = entry.row.main_instance
    return None if main is None else Box(*main.box)


def _crop(entry: Entry, image: RGB) -> RGB:
    """What is embedded: the main character, or the whole picture where none was found."""
    box = _main_box(entry)
    if box is None or box.area <= 0:
        return image
    return square_crop(image, box)[0]


def _vector_key(entry: Entry) -> str:
    """Names what was embedded: another detector may have found another main character in the same picture."""
    box = _main_box(entry)
    return entry.hash if box is None else f"{entry.hash}:{','.join(f'{v:.1f}' for v in box.as_tuple())}"
