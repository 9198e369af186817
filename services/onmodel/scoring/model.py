"""CLIP as arrays in, arrays out, through open_clip. No Ray, no wire format."""

import difflib
import hashlib
import logging
from collections.abc import Callable, Sequence
from typing import Any, Protocol

import numpy as np
import numpy.typing as npt
import open_clip
import torch
from PIL import Image
from torchvision.transforms import Compose, Normalize

from onmodel.core.errors import NotFoundError, OnModelError, ResourceError, UserError, first_line
from onmodel.core.images import RGB
from onmodel.scoring.config import ScorerConfig

__all__ = ["ClipModel", "Embeddings", "Scorer", "ScorerConfig", "load_scorer"]

Embeddings = npt.NDArray[np.float32]
"""float32 (count, width); rows have unit length."""
Pixels = npt.NDArray[np.uint8]
"""uint8 (side, side, 3) RGB: one picture scaled and cropped to the model's input."""


class Scorer(Protocol):
    """Puts pictures and texts into one space."""

    @property
    def name(self) -> str:
        """The model for a person."""
        ...

    @property
    def hash(self) -> str:
        """SHA-256 that names the weights."""
        ...

    @property
    def config_hash(self) -> str:
        """SHA-256 of the preprocessing."""
        ...

    def prepare(self, image: RGB) -> Pixels:
        """Scale and crop one picture. Safe from several threads."""
        ...

    def embed_pixels(self, pixels: Sequence[Pixels]) -> Embeddings:
        """Embed prepared pictures, all in one batch."""
        ...

    def embed_images(self, images: Sequence[RGB]) -> Embeddings:
        """Embed pictures of any sizes: float32 (len(images), width), unit rows."""
        ...

    def embed_texts(self, texts: Sequence[str]) -> Embeddings:
        """Embed texts: float32 (len(texts), width), unit rows. Longer ones are cut at the model's context."""
        ...


class ClipModel:
    """An open_clip model with its own preprocessing and tokenizer."""

    def __init__(
        self,
        model: Any,
        transform: Compose,
        tokenizer: Callable[[list[str]], torch.Tensor],
        *,
        name: str,
        weights_hash: str,
        device: torch.device,
        batch_size: int,
    ) -> None:
        self.name = name
        self.hash = weights_hash
        self._model = model.eval().to(device)
        self._tokenizer = tokenizer
        self._device = device
        self._batch_size = batch_size
        # open_clip's transform ends in ToTensor and Normalize. What comes before them works on one picture
        # of any size; those two are done on the whole batch at once.
        *geometry, _, normalize = transform.transforms
        assert isinstance(normalize, Normalize)
        self._geometry = geometry
        self._mean = torch.tensor(normalize.mean, device=device).view(1, 3, 1, 1) * 255.0
        self._deviation = torch.tensor(normalize.std, device=device).view(1, 3, 1, 1) * 255.0
        self.config_hash = hashlib.sha256(repr(transform).encode()).hexdigest()

    def prepare(self, image: RGB) -> Pixels:
        """Scale and crop one picture as open_clip does: uint8 (side, side, 3)."""
        picture: Any = Image.fromarray(image)
        for step in self._geometry:
            picture = step(picture)
        return np.asarray(picture, dtype=np.uint8)

    def embed_pixels(self, pixels: Sequence[Pixels]) -> Embeddings:
        """Embed prepared pictures, in one batch."""
        with torch.inference_mode():
            batch = torch.from_numpy(np.stack(pixels)).to(self._device)
            batch = batch.permute(0, 3, 1, 2).to(torch.float32).sub_(self._mean).div_(self._deviation)
            return _unit_rows(self._model.encode_image(batch))

    def embed_images(self, images: Sequence[RGB]) -> Embeddings:
        """Embed pictures of any sizes, batch by batch."""
        return self._in_batches([self.prepare(image) for image in images], self.embed_pixels)

    def embed_texts(self, texts: Sequence[str]) -> Embeddings:
        """Embed texts, batch by batch."""
        return self._in_batches(list(texts), self._embed_text_batch)

    def _embed_text_batch(self, texts: Sequence[str]) -> Embeddings:
        with torch.inference_mode():
            return _unit_rows(self._model.encode_text(self._tokenizer(list(texts)).to(self._device)))

    def _in_batches(self, items: Sequence[Any], embed: Callable[[Sequence[Any]], Embeddings]) -> Embeddings:
        parts = [embed(items[at : at + self._batch_size]) for at in range(0, len(items), self._batch_size)]
        return np.concatenate(parts) if parts else np.zeros((0, 0), np.float32)


def _unit_rows(features: torch.Tensor) -> Embeddings:
    return torch.nn.functional.normalize(features.float(), dim=-1).cpu().numpy()


def load_scorer(config: ScorerConfig) -> ClipModel:
    """Load the model that `config` names.

    Raises:
        NotFoundError: no such model, tag or file, or it would have to be fetched and cannot be.
        UserError: an architecture without weights, or files that are not such a model.
        ResourceError: the device is not there.
    """
    device = _device(config.device)
    folder = config.folder()
    source = f"local-dir:{folder}" if folder else config.model
    pretrained = None if folder or source.startswith("hf-hub:") else _pretrained(config)
    # open_clip logs each of its steps on the root logger.
    previous = logging.getLogger().level
    logging.getLogger().setLevel(logging.ERROR)
    try:
        model, _, transform = open_clip.create_model_and_transforms(source, pretrained=pretrained, device=device)
        tokenizer = open_clip.get_tokenizer(source)
    except OnModelError:
        raise
    except Exception as error:
        # Loaders of many formats raise nearly anything; all of it is about the files that the user named.
        raise _load_error(config, error) from error
    finally:
        logging.getLogger().setLevel(previous)
    assert isinstance(transform, Compose)
    name = config.model if pretrained is None else f"{config.model} ({config.pretrained})"
    return ClipModel(
        model,
        transform,
        tokenizer,
        name=name,
        weights_hash=config.hash,
        device=device,
        batch_size=config.batch_size,
    )


def _device(name: str) -> torch.device:
    if name == "auto":
        return torch.device("cuda" if torch.cuda.is_available() else "cpu")
    try:
        device = torch.device(name)
    except RuntimeError:
        raise UserError(f"device `{name}` is not one; use auto, cpu or cuda") from None
    if device.type == "cuda" and (device.index or 0) >= torch.cuda.device_count():
        raise ResourceError(f"device {name}: this machine shows no such GPU; use --device cpu or auto")
    return device


def _pretrained(config: ScorerConfig) -> str:
    known = open_clip.list_models()
    if config.model not in known:
        near = difflib.get_close_matches(config.model, known, n=1)
        hint = f"did you mean `{near[0]}`?" if near else "see open_clip.list_models()"
        raise NotFoundError(f"scorer model `{config.model}`: no folder and no open_clip architecture; {hint}")
    checkpoint = config.checkpoint()
    if checkpoint is not None:
        return str(checkpoint)
    tags = open_clip.list_pretrained_tags_by_model(config.model)
    if config.pretrained is None or config.pretrained not in tags:
        listed = ", ".join(tags) or "none published: give a checkpoint file"
        problem = "no weights are named" if config.pretrained is None else f"no tag `{config.pretrained}`"
        raise UserError(f"scorer model {config.model}: {problem}; set `pretrained` to one of: {listed}")
    return config.pretrained


def _load_error(config: ScorerConfig, error: Exception) -> OnModelError:
    reason = first_line(error)
    # The hub client's errors of a missing network are many classes from several libraries.
    modules = {kind.__module__.split(".")[0] for kind in type(error).__mro__}
    if modules & {"huggingface_hub", "requests", "urllib3", "httpx", "urllib"} or isinstance(error, OSError):
        return NotFoundError(
            f"scorer model {config.model}: its weights are not on this machine and could not be fetched ({reason}); "
            "connect once, or set `model` to a folder saved by open_clip"
        )
    return UserError(f"scorer model {config.model}: cannot be loaded ({reason}); check that its files are whole")
