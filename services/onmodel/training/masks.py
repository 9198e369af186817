"""How much each place of a picture counts in the loss, at the size of its latents, cached by content.

A mask comes from `conditioning_data_dir` (a picture of the same name, its red channel), from the picture's own alpha
channel, or is the character that `onmodel analyze` found.
"""

import io
from collections.abc import Sequence
from dataclasses import replace
from pathlib import Path
from typing import TYPE_CHECKING

import numpy as np
import numpy.typing as npt
from PIL import Image, ImageOps

from onmodel.core import images
from onmodel.core.errors import ImageError, NotFoundError, UserError
from onmodel.core.files import content_hash, file_hash
from onmodel.core.images import SUFFIXES
from onmodel.core.masks import character_mask
from onmodel.training.config import DataSection
from onmodel.training.job import TrainingPicture

if TYPE_CHECKING:
    from torch import Tensor

    from onmodel.detection.convert import Detected

    # The driver checks masks; torch, and diffusers, which `data` needs, take seconds to import.
    from onmodel.training.data import Barrier, TrainingData
    from onmodel.training.store import ArrayCache

Values = npt.NDArray[np.uint8]
"""uint8 (height, width): 255 where the picture counts fully."""


def with_masks(pictures: Sequence[TrainingPicture], config: DataSection) -> list[TrainingPicture]:
    """The pictures, each with the hash of what its mask is made from; as they are without `masked_loss`.

    So a run is gone on with on the masks that it was begun with, and on no others.
    """
    if not config.masked_loss:
        return list(pictures)
    source = _Source(config)
    return [replace(picture, mask=source.hash(picture)) for picture in pictures]


def check_masks(data: DataSection, pictures: Sequence[TrainingPicture]) -> None:
    """Look whether the masks that `data` asks for can be had at all, before anything is started.

    Raises:
        NotFoundError: no such folder of masks.
        UserError: masks of the character, of a dataset that has not been analysed.
    """
    if not data.masked_loss:
        return
    if data.conditioning_data_dir is not None:
        if not Path(data.conditioning_data_dir).is_dir():
            raise NotFoundError(f"conditioning_data_dir {data.conditioning_data_dir}: no such folder; check the path")
        return
    folder = data.source.parent if data.source.is_file() else data.source
    if all(picture.alpha_mask for picture in pictures):
        return
    from onmodel.dataset.facts import Facts  # brings pyarrow along, which training without masks has no need of

    if not Facts.open(folder).models:
        raise UserError(
            f"`masked_loss`: where the character is in the pictures of {folder} is not known yet; run "
            f"`onmodel analyze {folder}` first, or give conditioning_data_dir or alpha_mask"
        )


def prepare_masks(
    data: "TrainingData",
    config: DataSection,
    cache: "ArrayCache",
    *,
    rank: int = 0,
    world_size: int = 1,
    barrier: "Barrier" = lambda: None,
) -> "list[Tensor | None] | None":
    """The mask of each picture of `data`: float32 (h, w) of its latents, 0 to 1; None where there is none.

    None for all without `masked_loss` and `alpha_mask`. A picture without a mask counts fully, as in sd-scripts.
    """
    from onmodel.training.store import kept_on_the_way

    if not (config.masked_loss or any(picture.alpha_mask for picture in data.pictures)):
        return None
    source = _Source(config)
    keys = [
        content_hash(f"{source.key(picture)} {bucket} {tuple(latents.shape)} {picture.mirrored}".encode())
        for picture, bucket, latents in zip(data.pictures, data.buckets, data.latents, strict=True)
    ]
    known = cache.section(content_hash(b"masks"))
    with kept_on_the_way(known):
        for index in range(rank, len(keys), world_size):
            if known.get(keys[index]) is None:
                size = (data.latents[index].shape[1], data.latents[index].shape[2])
                try:
                    mask = source.read(data.pictures[index])
                except ImageError as error:
                    data.problems.append(f"{error}; the picture is trained without a mask")
                    mask = None
                known.put(keys[index], _at_size(mask, data, index, size))
    known.flush()
    barrier()
    known.refresh()
    masks: list[Tensor | None] = []
    for key in keys:
        value = known.get(key)
        assert value is not None
        masks.append(value if value.numel() else None)
    return masks


def _at_size(values: Values | None, data: "TrainingData", index: int, size: tuple[int, int]) -> npt.NDArray[np.float32]:
    """A mask cut as its picture was and brought to the latents' size; empty for none."""
    from onmodel.training.buckets import cut_to_bucket
    from onmodel.training.objective import resized_mask

    if values is None:
        return np.zeros(0, dtype=np.float32)
    cut = cut_to_bucket(np.repeat(values[..., None], 3, axis=2), data.buckets[index])[0] / 2 + 0.5
    if data.pictures[index].mirrored:
        cut = cut.flip(1)
    return resized_mask(cut, size).clamp(0, 1).numpy()


class _Source:
    """Where masks come from."""

    def __init__(self, config: DataSection) -> None:
        self._config = config
        self._folder = Path(config.conditioning_data_dir) if config.conditioning_data_dir else None
        self._files: dict[str, Path] = {}
        if self._folder is not None:
            self._files = {f.stem: f for f in sorted(self._folder.iterdir()) if f.suffix.lower() in SUFFIXES}
        self._found: dict[str, Detected] = {}
        if config.masked_loss and self._folder is None:
            self._found = known_instances(config.source)

    def key(self, picture: TrainingPicture) -> str:
        """What the mask depends on, before it is cut to size."""
        return f"mask {picture.hash} {picture.mask or self.hash(picture)} {picture.alpha_mask}"

    def hash(self, picture: TrainingPicture) -> str:
        """Of the mask's file, or of what the analysis found; empty for a picture that has neither."""
        if self._folder is not None:
            file = self._files.get(picture.path.stem)
            return "" if file is None else file_hash(file)
        found = self._found.get(picture.hash)
        return "" if found is None else content_hash(str(found).encode())

    def read(self, picture: TrainingPicture) -> Values | None:
        """The mask at the picture's own size, or None."""
        if self._folder is not None and self._config.masked_loss:
            file = self._files.get(picture.path.stem)
            return None if file is None else images.load(file)[..., 0]
        if picture.alpha_mask:
            return alpha_of(picture.path)
        found = self._found.get(picture.hash)
        if found is None or found.decision.main is None:
            return None
        return _character(images.load(picture.path), found)


def known_instances(source: Path) -> "dict[str, Detected]":
    """What the last analysis of a dataset found, by content hash of the picture."""
    from onmodel.dataset.facts import Facts
    from onmodel.detection.convert import Detected

    facts = Facts.open(source.parent if source.is_file() else source)
    if not facts.models:
        return {}
    model = facts.models[0]
    return {key[0]: found for key, found in facts.items() if key[1:] == model and isinstance(found, Detected)}


def _character(image: images.RGB, found: "Detected") -> Values | None:
    main = found.decision.main
    assert main is not None
    detections = found.detections
    others = [other.box for index, other in enumerate(detections.instances) if index != main]
    mask = character_mask(image, detections.instances[main], others=others, occluders=detections.occluders)
    return None if mask is None else (mask * np.uint8(255)).astype(np.uint8)


def alpha_of(path: Path) -> Values | None:
    """The alpha channel of a picture file at the size it is trained at, or None where it has none.

    Raises:
        ImageError: it cannot be read.
    """
    try:
        with Image.open(io.BytesIO(images.read_bytes(path))) as image:
            upright = ImageOps.exif_transpose(image)
            if not upright.has_transparency_data:
                return None
            return np.asarray(upright.convert("RGBA"), dtype=np.uint8)[..., 3]
    except (OSError, ValueError, Image.DecompressionBombError) as error:
        raise ImageError(f"{path}: its alpha channel cannot be read ({error}); save the picture anew") from None
