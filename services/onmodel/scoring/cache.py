"""Embeddings kept between runs, keyed by the picture's content and the model that made them."""

import sqlite3
import threading
from collections.abc import Callable, Iterable, Sequence
from pathlib import Path
from types import TracebackType
from typing import Self

import numpy as np

from onmodel.core.errors import ImageError, UserError
from onmodel.core.files import content_hash
from onmodel.scoring.convert import Vector

Embed = Callable[[Sequence[bytes]], Sequence[Vector | ImageError]]

_SCHEMA = """
create table if not exists embeddings (
    model text not null, picture text not null, vector blob not null, primary key (model, picture)
) without rowid
"""
_ASK_AT_ONCE = 500
"""SQLite takes at most 999 parameters a statement in its older builds."""


class EmbeddingCache:
    """A SQLite file of vectors. Safe to use from several threads and processes; close it or use it as a context."""

    def __init__(self, path: Path) -> None:
        """Open or create the file. Raises UserError when it cannot be, or is something else."""
        self.path = path
        self._lock = threading.Lock()
        try:
            path.parent.mkdir(parents=True, exist_ok=True)
            self._database = sqlite3.connect(path, timeout=30.0, check_same_thread=False)
            with self._database:
                # Readers do not wait for a writer, and a killed run leaves a whole file.
                self._database.execute("pragma journal_mode=wal")
                self._database.execute(_SCHEMA)
        except (OSError, sqlite3.Error) as error:
            raise UserError(
                f"{path}: cannot be used as an embedding cache ({error}); remove it or choose another"
            ) from None

    def embed_images(self, images: Sequence[bytes], model: str, embed: Embed) -> list[Vector | ImageError]:
        """A vector or error per picture: stored ones from the file, the rest from `embed`, each content once.

        Args:
            images: encoded pictures.
            model: names what makes the vectors, e.g. its hash and config hash.
            embed: called at most once, with pictures that are not stored; for instance `client.embed_images`.
                Not called when nothing is missing. Its errors are handed on and not stored.
        """
        keys = [content_hash(image) for image in images]
        known: dict[str, Vector | ImageError] = {**self._load(model, dict.fromkeys(keys))}
        missing = {key: image for key, image in zip(keys, images, strict=True) if key not in known}
        if missing:
            fresh = dict(zip(missing, embed(list(missing.values())), strict=True))
            self._store(model, {key: v for key, v in fresh.items() if not isinstance(v, ImageError)})
            known.update(fresh)
        return [known[key] for key in keys]

    def _load(self, model: str, keys: Iterable[str]) -> dict[str, Vector]:
        wanted = list(keys)
        found: dict[str, Vector] = {}
        with self._lock:
            for at in range(0, len(wanted), _ASK_AT_ONCE):
                part = wanted[at : at + _ASK_AT_ONCE]
                marks = ",".join("?" * len(part))
                rows = self._database.execute(
                    f"select picture, vector from embeddings where model = ? and picture in ({marks})", (model, *part)
                )
                found |= {picture: np.frombuffer(vector, "<f4").astype(np.float32) for picture, vector in rows}
        return found

    def _store(self, model: str, vectors: dict[str, Vector]) -> None:
        rows = [(model, picture, vector.astype("<f4").tobytes()) for picture, vector in vectors.items()]
        with self._lock, self._database:
            self._database.executemany("insert or ignore into embeddings values (?, ?, ?)", rows)

    def close(self) -> None:
        """Close the file."""
        with self._lock:
            self._database.close()

    def __enter__(self) -> Self:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self.close()
