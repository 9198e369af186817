"""Arrays by key in a few files that are read back by memory map, shared by several workers and runs.

A section (all latents of one autoencoder and bucket setting, all embeddings of one text encoder) is a folder of
segments. A segment is a safetensors file with `keys`, uint8 (n, 32), SHA-256 digests, and `values`, (n, …), arrays of
one shape and type. Segments are written whole and never changed, so readers need no lock; what one process adds
becomes a segment an array shape, and where many small ones gather they are joined.
"""

import contextlib
import itertools
from collections.abc import Callable, Generator
from dataclasses import dataclass
from pathlib import Path
from typing import Any
from uuid import uuid4

import numpy as np
import numpy.typing as npt
import safetensors
import torch
from filelock import FileLock, Timeout
from safetensors.torch import save_file
from torch import Tensor

from onmodel.core.files import write_aside

Array = npt.NDArray[Any]
SEGMENT_BYTES = 64 * 2**20
"""What is added is kept in memory up to this, an array shape, before it becomes a segment."""
JOIN_ABOVE = 16
"""With more segments of one array shape than this, they are joined into one."""


@dataclass(frozen=True)
class _Segment:
    file: Path
    keys: Tensor
    """uint8 (n, 32)."""
    values: Tensor
    """(n, …), pages of the file that are read when they are used."""


class ArrayCache:
    """Arrays by key, 64 hex digits: in segments when a folder is given, else in memory."""

    def __init__(self, folder: Path | None) -> None:
        self._folder = folder
        self._sections: dict[str, ArrayCache] = {}
        self._segments: dict[Path, _Segment | None] = {}
        self._index: dict[bytes, tuple[_Segment, int]] = {}
        self._added: dict[str, dict[bytes, Array]] = {}
        self._kept: dict[bytes, Array] = {}
        self.refresh()

    def section(self, name: str) -> "ArrayCache":
        """The cache of one kind of arrays; `name` is 64 hex digits."""
        if name not in self._sections:
            self._sections[name] = ArrayCache(None if self._folder is None else self._folder / name[:32])
        return self._sections[name]

    def refresh(self) -> None:
        """See what other processes have added."""
        for section in self._sections.values():
            section.refresh()
        if self._folder is None:
            return
        # Again where files vanish on the way: another process joins them, and the new one holds what they held.
        while any(self._take_up(file) for file in sorted(self._folder.glob("*.safetensors"))):
            pass

    def _take_up(self, file: Path) -> bool:
        """Know what a file holds, a damaged one nothing. Whether it has vanished."""
        if file in self._segments:
            return False
        try:
            segment = self._segments[file] = _open(file)
        except FileNotFoundError:
            return True
        if segment is not None:
            digests = segment.keys.numpy().tobytes()
            rows = range(len(segment.keys))
            self._index.update({digests[32 * row : 32 * row + 32]: (segment, row) for row in rows})
        return False

    def get(self, key: str) -> Tensor | None:
        """The array of `key`, or None; one in a damaged file counts as absent. Not to be written to."""
        digest = bytes.fromhex(key)
        if digest in self._index:
            segment, row = self._index[digest]
            return segment.values[row]
        if digest in self._kept:
            return torch.from_numpy(self._kept[digest])
        return None

    def put(self, key: str, value: Array) -> None:
        """Keep `value` under `key`; on disk after `flush`, or when much has come together.

        Raises:
            ResourceError: the disk is full.
        """
        self._kept[bytes.fromhex(key)] = value
        if self._folder is None:
            return
        shape = f"{value.dtype}-{'x'.join(map(str, value.shape))}"
        added = self._added.setdefault(shape, {})
        added[bytes.fromhex(key)] = value
        if len(added) * value.nbytes >= SEGMENT_BYTES:
            self._write(shape, added)
            del self._added[shape]
            self.refresh()

    def flush(self) -> None:
        """Write what was added. Raises as `put`."""
        for section in self._sections.values():
            section.flush()
        for shape, added in list(self._added.items()):
            self._write(shape, added)
            del self._added[shape]
        self.refresh()

    def _write(self, shape: str, added: dict[bytes, Array]) -> None:
        assert self._folder is not None
        old = [file for file, segment in self._segments.items() if segment is not None and _shape_of(file) == shape]
        joined = (
            [found for file in old if (found := self._segments[file]) is not None] if len(old) >= JOIN_ABOVE else []
        )
        keys = torch.frombuffer(bytearray(b"".join(added)), dtype=torch.uint8).view(-1, 32)
        values = torch.from_numpy(np.stack(list(added.values())))
        tensors = {
            "keys": torch.cat([*(segment.keys for segment in joined), keys]),
            "values": torch.cat([*(segment.values for segment in joined), values]),
        }
        with write_aside(self._folder / f"{shape}-{uuid4().hex}.safetensors") as aside:
            save_file(tensors, aside)
        for digest in added:
            del self._kept[digest]
        for segment in joined:
            # Who has it open keeps its pages; the digests are found in the new file by whoever comes.
            segment.file.unlink(missing_ok=True)
            del self._segments[segment.file]


def _shape_of(file: Path) -> str:
    return file.stem.rpartition("-")[0]


def _open(file: Path) -> _Segment | None:
    """A segment, mapped rather than read; None for a damaged one. Raises FileNotFoundError."""
    try:
        with safetensors.safe_open(file, framework="pt") as opened:
            return _Segment(file, opened.get_tensor("keys"), opened.get_tensor("values"))
    except FileNotFoundError:
        raise
    except (safetensors.SafetensorError, OSError):
        return None


@contextlib.contextmanager
def kept_on_the_way(cache: ArrayCache) -> Generator[None]:
    """Write what the block added, also when it is interrupted: what was encoded is not encoded again."""
    try:
        yield
    finally:
        cache.flush()


@contextlib.contextmanager
def one_at_a_time(folder: Path | None, waiting: Callable[[int], None]) -> Generator[None]:
    """Hold `folder` for the block: of several runs on the same pictures one encodes, the others then find it done.

    The lock goes with its process, however that ends. Without a folder nothing is shared and nobody waits.

    Args:
        waiting: called once a second of waiting, with the seconds.
    """
    if folder is None:
        yield
        return
    folder.mkdir(parents=True, exist_ok=True)
    lock = FileLock(folder / ".lock")
    for seconds in itertools.count(1):
        try:
            lock.acquire(timeout=1)
            break
        except Timeout:
            waiting(seconds)
    try:
        yield
    finally:
        lock.release()
