"""Encoding pictures and captions: once, by content, and around broken pictures."""

from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from PIL import Image

from onmodel.core.errors import UserError
from onmodel.core.files import file_hash
from onmodel.training.data import TrainingData, prepare
from onmodel.training.families import StableDiffusion
from onmodel.training.job import TrainingPicture
from onmodel.training.pipeline import load_pipeline
from onmodel.training.store import ArrayCache

from .conftest import MakeConfig


class Counting(StableDiffusion):
    """Counts what is encoded."""

    def __init__(self, pipeline: Any) -> None:
        super().__init__(pipeline)
        self.pictures = 0
        self.captions: list[str] = []
        self.batches: list[int] = []

    def encode_pictures(self, pixels: torch.Tensor) -> torch.Tensor:
        self.pictures += len(pixels)
        self.batches.append(len(pixels))
        return super().encode_pictures(pixels)

    def encode_captions(self, captions: Sequence[str]) -> torch.Tensor:
        self.captions += captions
        return super().encode_captions(captions)


@pytest.fixture
def family(tiny_pipeline: Path) -> Counting:
    return Counting(load_pipeline(str(tiny_pipeline)))


def pictures(folder: Path, captions: Sequence[str] = ("zork", "a boy")) -> list[TrainingPicture]:
    files = sorted(folder.rglob("*.png"))
    return [TrainingPicture(f, captions[i % len(captions)], 1 + i % 2, file_hash(f)) for i, f in enumerate(files)]


def test_second_time_encodes_nothing_and_gives_the_same(
    family: Counting, tiny_dataset: Path, make_config: MakeConfig, tmp_path: Path
) -> None:
    given = pictures(tiny_dataset)
    config = make_config(data={"vae_batch_size": 2}).data
    first = prepare(given, family, config, ArrayCache(tmp_path / "cache"))
    assert family.pictures == 6
    assert max(family.batches) == 2
    assert sorted(family.captions) == ["", "a boy", "zork"]
    assert sorted(set(first.buckets)) == [(64, 64), (80, 48)]
    second = prepare(given, family, config, ArrayCache(tmp_path / "cache"))
    assert family.pictures == 6
    assert len(family.captions) == 3
    assert all(torch.equal(a, b) for a, b in zip(first.latents, second.latents, strict=True))
    assert all(torch.equal(first.conditioning[key], second.conditioning[key]) for key in first.conditioning)
    assert first.repeats == [1, 2, 1, 2, 1, 2]


def test_cache_is_keyed_by_content_model_and_size(
    family: Counting, tiny_pipeline: Path, tiny_dataset: Path, make_config: MakeConfig, tmp_path: Path
) -> None:
    given, cache = pictures(tiny_dataset), tmp_path / "cache"
    config = make_config()
    prepare(given, family, config.data, ArrayCache(cache))
    copied = tmp_path / "renamed.png"
    copied.write_bytes(given[0].path.read_bytes())
    prepare([TrainingPicture(copied, "zork", 1, file_hash(copied))], family, config.data, ArrayCache(cache))
    assert family.pictures == 6, "the same bytes under another name are known"
    prepare(given, family, config.with_changes(data={"resolution": 96}).data, ArrayCache(cache))
    assert family.pictures == 12, "another size is encoded anew"
    pipeline = load_pipeline(str(tiny_pipeline))
    with torch.no_grad():
        next(pipeline.vae.parameters()).add_(1e-3)
    other = Counting(pipeline)
    prepare(given, other, config.data, ArrayCache(cache))
    assert other.pictures == 6, "another autoencoder encodes anew"


def test_latents_are_scaled_means_in_the_bucket_of_the_picture(
    family: Counting, tiny_dataset: Path, make_config: MakeConfig
) -> None:
    given = pictures(tiny_dataset)
    data = prepare(given, family, make_config().data, ArrayCache(None))
    image = np.asarray(Image.open(given[0].path).convert("RGB"), dtype=np.float32) / 127.5 - 1
    vae = family._pipeline.vae  # pyright: ignore[reportPrivateUsage]
    with torch.no_grad():
        mean = vae.encode(torch.from_numpy(image).permute(2, 0, 1)[None]).latent_dist.mean[0]
    torch.testing.assert_close(data.latents[0], mean * vae.config.scaling_factor, atol=1e-5, rtol=1e-4)


def test_conditioning_is_what_the_pipeline_draws_from(
    family: Counting, tiny_dataset: Path, make_config: MakeConfig
) -> None:
    data = prepare(pictures(tiny_dataset), family, make_config().data, ArrayCache(None))
    pipeline = family._pipeline  # pyright: ignore[reportPrivateUsage]
    for caption in ("zork", ""):
        ids = pipeline.tokenizer(caption, padding="max_length", max_length=16, return_tensors="pt").input_ids
        with torch.no_grad():
            expected = pipeline.text_encoder(ids)[0][0]
        torch.testing.assert_close(data.conditioning[caption], expected)


def test_a_broken_picture_is_named_and_left_out(
    family: Counting, tiny_dataset: Path, make_config: MakeConfig, tmp_path: Path
) -> None:
    broken = tmp_path / "broken.png"
    broken.write_bytes((sorted(tiny_dataset.rglob("*.png"))[0]).read_bytes()[:60])
    absent = TrainingPicture(tmp_path / "absent.png", "zork", 1, "0" * 64)
    given = [TrainingPicture(broken, "zork", 1, file_hash(broken)), absent, *pictures(tiny_dataset)]
    data = prepare(given, family, make_config().data, ArrayCache(None))
    assert len(data.pictures) == 6
    assert len(data.problems) == 2
    assert "broken.png" in data.problems[0]
    assert "absent.png" in data.problems[1]
    with pytest.raises(UserError, match=r"none of the 2 pictures"):
        prepare(given[:2], family, make_config().data, ArrayCache(None))


@pytest.mark.parametrize("first", [0, 1])
def test_workers_share_the_encoding_whoever_comes_first(
    first: int, family: Counting, tiny_dataset: Path, make_config: MakeConfig, tmp_path: Path
) -> None:
    given, config = pictures(tiny_dataset), make_config().data
    alone = prepare(given, family, config, ArrayCache(tmp_path / "alone"))
    family.pictures = 0
    second: list[TrainingData] = []

    def worker(rank: int, barrier: Callable[[], None]) -> TrainingData:
        cache = ArrayCache(tmp_path / "shared")
        return prepare(given, family, config, cache, rank=rank, world_size=2, barrier=barrier)

    # The first to come encodes all its share before the second even looks, and waits for it.
    def meet() -> None:
        second.append(worker(1 - first, lambda: None))

    data = worker(first, meet)
    assert family.pictures == 6
    for mine, theirs, reference in zip(data.latents, second[0].latents, alone.latents, strict=True):
        assert torch.equal(mine, theirs)
        torch.testing.assert_close(mine, reference, atol=1e-5, rtol=1e-4)
    assert data.conditioning.keys() == second[0].conditioning.keys() == alone.conditioning.keys()
