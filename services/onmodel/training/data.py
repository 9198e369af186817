"""Pictures and captions encoded once, in batches, and kept for every later trial on them.

The cache is keyed by content: the picture's bytes (or the caption), the weights that encode it, and the bucket
settings. See `store` for its files.
"""

from collections.abc import Callable, Iterator, Sequence
from concurrent.futures import Future, ThreadPoolExecutor
from dataclasses import dataclass, field
from typing import Protocol, TypeVar

import torch
from torch import Tensor

from onmodel.core import images
from onmodel.core.buckets import Size, nearest_bucket
from onmodel.core.errors import ImageError, UserError
from onmodel.core.files import content_hash
from onmodel.training.buckets import bucket_sizes, cut_to_bucket
from onmodel.training.config import DataSection
from onmodel.training.families import Family
from onmodel.training.job import TrainingPicture
from onmodel.training.store import ArrayCache, kept_on_the_way

Item = TypeVar("Item")

CAPTIONS_AT_ONCE = 64
DECODED_AT_ONCE = 32
"""Pictures decoded at a time, while as many are encoded, so that memory does not grow with the dataset."""


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
    """float32 (C, h, w) of each picture, pages of the cache's files."""
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
    latents_of = cache.section(settings)
    keys = [content_hash(picture.view.encode()) for picture in pictures]
    # Shares go by place among all keys: what is missing changes while other workers fill the cache.
    share = list(dict(zip(keys, pictures, strict=True)).items())[rank::world_size]
    missing = {key: picture for key, picture in share if latents_of.get(key) is None}
    with kept_on_the_way(latents_of):
        broken = _encode_pictures(missing, family, config, latents_of, progress)
    # The hash reads all of the text encoders' weights: once.
    texts = cache.section(family.caption_hash()) if encode_captions else cache
    caption_keys = _encode_captions(pictures, family, texts, rank, world_size) if encode_captions else {}
    cache.flush()
    barrier()
    cache.refresh()

    data = TrainingData([], [], [], {})
    for key, picture in zip(keys, pictures, strict=True):
        latents = latents_of.get(key)
        if latents is None:
            data.problems.append(broken.get(key, f"{picture.path}: cannot be read; replace or remove it"))
            continue
        data.pictures.append(picture)
        data.latents.append(latents)
        data.buckets.append((latents.shape[2] * family.pixels_per_latent, latents.shape[1] * family.pixels_per_latent))
    if not data.pictures:
        raise UserError(f"none of the {len(pictures)} pictures can be read: {'; '.join(data.problems[:3])}")
    for caption, key in caption_keys.items():
        value = texts.get(key)
        assert value is not None
        data.conditioning[caption] = value
    return data


def _encode_pictures(
    missing: dict[str, TrainingPicture], family: Family, config: DataSection, cache: ArrayCache, progress: Progress
) -> dict[str, str]:
    """Encode `missing` into the cache; returns a sentence for each key whose picture cannot be read."""
    broken: dict[str, str] = {}
    sizes = bucket_sizes(config)
    done = 0
    with ThreadPoolExecutor(max_workers=4, thread_name_prefix="decode") as pool:
        for chunk, cuts in _cut_ahead(list(missing.items()), sizes, pool):
            by_bucket: dict[Size, list[tuple[str, Tensor]]] = {}
            for (key, _), cut in zip(chunk, cuts, strict=True):
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


def _cut_ahead(
    items: Sequence[tuple[str, TrainingPicture]], sizes: Sequence[Size], pool: ThreadPoolExecutor
) -> Iterator[tuple[Sequence[tuple[str, TrainingPicture]], list[Tensor | ImageError]]]:
    """Some pictures at a time with their pixels; while one lot is encoded the next is decoded."""
    ahead: tuple[Sequence[tuple[str, TrainingPicture]], list[Future[Tensor | ImageError]]] | None = None
    for chunk in _chunks(items, DECODED_AT_ONCE):
        begun = [pool.submit(_cut, picture, sizes) for _, picture in chunk]
        if ahead is not None:
            yield ahead[0], [future.result() for future in ahead[1]]
        ahead = (chunk, begun)
    if ahead is not None:
        yield ahead[0], [future.result() for future in ahead[1]]


def _cut(picture: TrainingPicture, sizes: Sequence[Size]) -> Tensor | ImageError:
    try:
        image = images.load(picture.path)
    except ImageError as error:
        return error
    pixels = cut_to_bucket(image, nearest_bucket(image.shape[1], image.shape[0], sizes))
    return pixels.flip(2) if picture.mirrored else pixels


def _encode_captions(
    pictures: Sequence[TrainingPicture], family: Family, texts: ArrayCache, rank: int, world_size: int
) -> dict[str, str]:
    """Encode the captions that the cache lacks; returns the cache key of each caption, the empty one included."""
    captions = sorted({"", *(caption for picture in pictures for caption in picture.captions)})
    keys = {caption: content_hash(caption.encode()) for caption in captions}
    missing = [caption for caption in captions[rank::world_size] if texts.get(keys[caption]) is None]
    with kept_on_the_way(texts):
        for batch in _chunks(missing, CAPTIONS_AT_ONCE):
            with torch.no_grad():
                encoded = family.encode_captions(batch).float().cpu().numpy()
            for caption, value in zip(batch, encoded, strict=True):
                texts.put(keys[caption], value.copy())
    return keys


def _chunks(items: Sequence[Item], size: int) -> Iterator[Sequence[Item]]:
    for start in range(0, len(items), size):
        yield items[start : start + size]
