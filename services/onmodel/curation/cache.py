"""What is computed from pictures for the page, kept between runs: thumbnails, fingerprints, embeddings.

All of it can be made again, so a damaged file is simply replaced.
"""

import sqlite3
import threading
from collections.abc import Iterable, Mapping
from contextlib import suppress
from pathlib import Path

import numpy as np
import numpy.typing as npt

from onmodel.core.errors import OnModelError, UserError
from onmodel.core.files import write_bytes
from onmodel.core.images import RGB, decode, read_bytes, thumbnail_jpeg

SIDES = (256, 512, 1600)
"""Longer sides of thumbnails in pixels: a tile, a tile on a dense screen, the large view."""
Vector = npt.NDArray[np.float32]
"""float32 (width,), unit length."""
Likeness = tuple[int, float]
"""64-bit fingerprint and sharpness of a picture, see `core.likeness`."""

_SCHEMA = """
create table if not exists likeness (
    picture text primary key, fingerprint text not null, sharpness real not null
) without rowid;
create table if not exists vectors (
    model text not null, picture text not null, vector blob not null, primary key (model, picture)
) without rowid;
"""


class Cache:
    """A folder of thumbnails and a SQLite file of numbers. Safe from several threads."""

    def __init__(self, folder: Path) -> None:
        """Open or create the folder. Raises UserError when it cannot be written."""
        self._folder = folder
        self._lock = threading.RLock()
        path = folder / "cache.sqlite"
        try:
            folder.mkdir(parents=True, exist_ok=True)
            try:
                self._database = _open(path)
            except sqlite3.DatabaseError:
                for ending in ("", "-wal", "-shm"):
                    path.with_name(path.name + ending).unlink(missing_ok=True)
                self._database = _open(path)
        except (OSError, sqlite3.Error) as error:
            raise UserError(f"{path}: cannot be written ({error}); choose another --output-dir") from None

    def likenesses(self) -> dict[str, Likeness]:
        """Content hash -> fingerprint and sharpness, of all pictures ever looked at."""
        with self._lock:
            rows = self._database.execute("select picture, fingerprint, sharpness from likeness").fetchall()
        return {picture: (int(fingerprint, 16), sharpness) for picture, fingerprint, sharpness in rows}

    def add_likenesses(self, found: Mapping[str, Likeness]) -> None:
        """Keep fingerprints and sharpness."""
        rows = [(picture, f"{fingerprint:016x}", sharpness) for picture, (fingerprint, sharpness) in found.items()]
        with self._lock, self._database:
            self._database.executemany("insert or replace into likeness values (?, ?, ?)", rows)

    def vectors(self, model: str) -> dict[str, Vector]:
        """Key -> embedding, of all that a model ever embedded."""
        with self._lock:
            rows = self._database.execute("select picture, vector from vectors where model = ?", (model,)).fetchall()
        return {picture: np.frombuffer(vector, "<f4").astype(np.float32) for picture, vector in rows}

    def add_vectors(self, model: str, found: Iterable[tuple[str, Vector]]) -> None:
        """Keep embeddings of a model by key."""
        rows = [(model, picture, vector.astype("<f4").tobytes()) for picture, vector in found]
        with self._lock, self._database:
            self._database.executemany("insert or replace into vectors values (?, ?, ?)", rows)

    def thumbnail(self, path: Path, content: str, side: int) -> bytes:
        """JPEG bytes of a picture, longer side `side` (one of `SIDES`) at most; made once.

        Raises:
            ImageError: the picture is gone or damaged, and no thumbnail of it was made before.
        """
        with suppress(OSError):
            return self._kept(content, side).read_bytes()
        return self.warm(decode(read_bytes(path), path.name), content, side)

    def warm(self, image: RGB, content: str, side: int) -> bytes:
        """Make and keep the thumbnail of a decoded picture."""
        data = thumbnail_jpeg(image, side, quality=85)
        # A full disk makes the page slower, not useless.
        with suppress(OnModelError):
            write_bytes(self._kept(content, side), data)
        return data

    def _kept(self, content: str, side: int) -> Path:
        return self._folder / "thumbnails" / str(side) / content[:2] / f"{content}.jpg"

    def close(self) -> None:
        """Close the file."""
        with self._lock:
            self._database.close()


def _open(path: Path) -> sqlite3.Connection:
    database = sqlite3.connect(path, timeout=30.0, check_same_thread=False)
    try:
        database.execute("pragma journal_mode=wal")
        database.execute("pragma synchronous=normal")
        database.executescript(_SCHEMA)
        (checked,) = database.execute("pragma quick_check(1)").fetchone()
        if checked != "ok":
            raise sqlite3.DatabaseError(checked)
    except BaseException:
        database.close()
        raise
    return database
