"""Pictures and captions encoded once, in batches, and kept for every later trial on them.

The cache is keyed by content: the picture's bytes (or the caption), the weights that encode it, and the bucket
settings. It holds one `.npy` file an entry, written whole, so that several workers and several runs may share it.
"""

from collections.abc import Callable, Iterator, Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass, field
from pathlib import Path
from typing import Protocol, TypeVar

import numpy as np
import numpy.typing as npt
import torch
from torch import Tensor

from onmodel.core import images
from onmodel.core.buckets import Size, nearest_bucket
from onmodel.core.errors import ImageError, UserError
from onmodel.core.files import content_hash, write_aside
from onmodel.training.buckets import bucket_sizes, cut_to_bucket
from onmodel.training.config import DataSection
from onmodel.training.families import Family
from onmodel.training.job import TrainingPicture

Item = TypeVar("Item")

CAPTIONS_AT_ONCE = 64
DECODED_AT_ONCE = 64
"""Pictures held decoded in memory at a time, so that memory does not grow with the dataset."""


class Barrier(Protocol):
    """Waits until every worker has come here."""

    def __call__(self) -> None: ...


@dataclass
class TrainingData:
    """Latents and conditioning in memory, by picture."""

    pictures: list[TrainingPicture]
    """The readable ones."""
    buckets: list[Size]
    """Bucket of each picture: width and height in pixels."""
    latents: list[Tensor]
    """float32 (C, h, w) of each picture."""
    conditioning: dict[str, Tensor]
    """(tokens, width) of each caption, the empty one included; empty when the text encoder is trained."""
    problems: list[str] = field(default_factory=list)
    """One sentence for each picture that was left out."""
    mirrored: "TrainingData | None" = None
    """The same pictures with left and right changed over, where some are shown so."""
    masks: "list[Tensor | None] | None" = None
    """float32 (h, w), 0 to 1, of each picture that has one; None where none has."""

    @property
    def repeats(self) -> list[int]:
        """How often each picture is shown in an epoch."""
        return [picture.repeats for picture in self.pictures]


class ArrayCache:
    """Arrays by key: on disk when a folder is given, and always in memory."""

    def __init__(self, folder: Path | None) -> None:
        self._folder = folder
        self._memory: dict[str, npt.NDArray[np.float32]] = {}

    def _path(self, key: str) -> Path | None:
        return self._folder / key[:2] / f"{key}.npy" if self._folder is not None else None

    def get(self, key: str) -> npt.NDArray[np.float32] | None:
        """The array of `key`, or None; a damaged file counts as absent."""
        if key not in self._memory:
            path = self._path(key)
            if path is None or not path.is_file():
                return None
            try:
                self._memory[key] = np.load(path, allow_pickle=False)
            except (OSError, ValueError):
                return None
        return self._memory[key]

    def put(self, key: str, value: npt.NDArray[np.float32]) -> None:
        """Keep `value` under `key`. Raises ResourceError when the disk is full."""
        self._memory[key] = value
        path = self._path(key)
        if path is not None:
            with write_aside(path) as aside, aside.open("wb") as stream:
                np.save(stream, value, allow_pickle=False)


Progress = Callable[[str, int, int], None]
"""Called with what is being done, how many are done, and how many there are."""


def prepare(
    pictures: Sequence[TrainingPicture],
    family: Family,
    config: DataSection,
    cache: ArrayCache,
    *,
    encode_captions: bool = True,
    rank: int = 0,
    world_size: int = 1,
    barrier: Barrier = lambda: None,
    progress: Progress = lambda what, done, total: None,
) -> TrainingData:
    """Encode what the cache does not hold yet, each worker its share, and gather everything.

    A picture that cannot be read is left out and named in `problems`.

    Raises:
        UserError: no picture can be read.
    """
    settings = content_hash(f"{family.picture_hash()} {bucket_sizes(config)}".encode())
    keys = [content_hash(f"{picture.view} {settings}".encode()) for picture in pictures]
    # Shares go by place among all keys: what is missing changes while other workers fill the cache.
    share = list(dict(zip(keys, pictures, strict=True)).items())[rank::world_size]
    missing = {key: picture for key, picture in share if cache.get(key) is None}
    broken = _encode_pictures(missing, family, config, cache, progress)
    caption_keys = _encode_captions(pictures, family, cache, rank, world_size) if encode_captions else {}
    barrier()

    data = TrainingData([], [], [], {})
    for key, picture in zip(keys, pictures, strict=True):
        latents = cache.get(key)
        if latents is None:
            data.problems.append(broken.get(key, f"{picture.path}: cannot be read; replace or remove it"))
            continue
        data.pictures.append(picture)
        data.latents.append(torch.from_numpy(latents))
        data.buckets.append((latents.shape[2] * family.pixels_per_latent, latents.shape[1] * family.pixels_per_latent))
    if not data.pictures:
        raise UserError(f"none of the {len(pictures)} pictures can be read: {'; '.join(data.problems[:3])}")
    for caption, key in caption_keys.items():
        value = cache.get(key)
        assert value is not None
        data.conditioning[caption] = torch.from_numpy(value)
    return data


def _encode_pictures(
    missing: dict[str, TrainingPicture], family: Family, config: DataSection, cache: ArrayCache, progress: Progress
) -> dict[str, str]:
    """Encode `missing` into the cache; returns a sentence for each key whose picture cannot be read."""
    broken: dict[str, str] = {}
    sizes = bucket_sizes(config)
    done = 0
    with ThreadPoolExecutor(max_workers=4, thread_name_prefix="decode") as pool:
        for chunk in _chunks(list(missing.items()), DECODED_AT_ONCE):
            by_bucket: dict[Size, list[tuple[str, Tensor]]] = {}
            for (key, _), cut in zip(chunk, pool.map(lambda item: _cut(item[1], sizes), chunk), strict=True):
                if isinstance(cut, ImageError):
                    broken[key] = str(cut)
                else:
                    by_bucket.setdefault((cut.shape[2], cut.shape[1]), []).append((key, cut))
            for group in by_bucket.values():
                for batch in _chunks(group, config.vae_batch_size):
                    latents = family.encode_pictures(torch.stack([pixels for _, pixels in batch])).cpu().numpy()
                    for (key, _), value in zip(batch, latents, strict=True):
                        cache.put(key, value.copy())
            done += len(chunk)
            progress("encoding pictures", done, len(missing))
    return broken


def _cut(picture: TrainingPicture, sizes: Sequence[Size]) -> Tensor | ImageError:
    try:
        image = images.load(picture.path)
    except ImageError as error:
        return error
    pixels = cut_to_bucket(image, nearest_bucket(image.shape[1], image.shape[0], sizes))
    return pixels.flip(2) if picture.mirrored else pixels


def _encode_captions(
    pictures: Sequence[TrainingPicture], family: Family, cache: ArrayCache, rank: int, world_size: int
) -> dict[str, str]:
    """Encode the captions that the cache lacks; returns the cache key of each caption, the empty one included."""
    weights = family.caption_hash()
    captions = sorted({"", *(caption for picture in pictures for caption in picture.captions)})
    keys = {caption: content_hash(f"{weights} {caption}".encode()) for caption in captions}
    missing = [caption for caption in captions[rank::world_size] if cache.get(keys[caption]) is None]
    for batch in _chunks(missing, CAPTIONS_AT_ONCE):
        with torch.no_grad():
            encoded = family.encode_captions(batch).float().cpu().numpy()
        for caption, value in zip(batch, encoded, strict=True):
            cache.put(keys[caption], value.copy())
    return keys


def _chunks(items: Sequence[Item], size: int) -> Iterator[Sequence[Item]]:
    for start in range(0, len(items), size):
        yield items[start : start + size]
