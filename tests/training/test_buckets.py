"""Buckets by sd-scripts' rule, and epochs that drop nothing."""

from collections import Counter

import numpy as np
import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st

from onmodel.core.buckets import nearest_bucket
from onmodel.training.buckets import batches_per_epoch, bucket_sizes, cut_to_bucket, plan_epoch, seeded
from onmodel.training.config import DataSection


def test_sizes_at_512_are_those_of_sd_scripts() -> None:
    sizes = bucket_sizes(DataSection(train_data_dir="x", resolution=512))
    landscape = [(512, 512), (576, 448), (640, 384), (704, 320), (768, 320), (832, 256), (896, 256), (960, 256)]
    assert set(landscape) | {(1024, 256)} <= set(sizes)
    assert {(h, w) for w, h in sizes} == set(sizes)
    assert all(w % 64 == h % 64 == 0 and w * h <= 512 * 512 and min(w, h) >= 256 for w, h in sizes)


def test_sizes_for_the_bundled_world() -> None:
    data = DataSection(train_data_dir="x", resolution=96, min_bucket_reso=64, max_bucket_reso=128, bucket_reso_steps=32)
    assert bucket_sizes(data) == [(64, 128), (96, 96), (128, 64)]


def test_without_buckets_there_is_one_size() -> None:
    data = DataSection(train_data_dir="x", resolution=[640, 384], enable_bucket=False)
    assert bucket_sizes(data) == [(640, 384)]


def test_nearest_ratio_treats_wide_and_tall_alike() -> None:
    sizes = [(64, 128), (96, 96), (128, 64)]
    assert nearest_bucket(100, 100, sizes) == (96, 96)
    assert nearest_bucket(180, 100, sizes) == (128, 64)
    assert nearest_bucket(100, 180, sizes) == (64, 128)


@pytest.mark.parametrize("shape", [(96, 96), (200, 100), (50, 400), (7, 9)])
def test_cut_covers_the_bucket_and_keeps_the_middle(shape: tuple[int, int]) -> None:
    image = np.zeros((*shape, 3), dtype=np.uint8)
    image[..., 0] = 255
    cut = cut_to_bucket(image, (128, 64))
    assert cut.shape == (3, 64, 128)
    assert cut.dtype == torch.float32
    torch.testing.assert_close(cut[0], torch.ones(64, 128))
    torch.testing.assert_close(cut[1], -torch.ones(64, 128))


def test_cut_of_the_same_size_changes_no_pixel() -> None:
    image = np.random.default_rng(0).integers(0, 256, (64, 96, 3), dtype=np.uint8)
    back = ((cut_to_bucket(image, (96, 64)) + 1) * 127.5).round().byte().permute(1, 2, 0).numpy()
    assert (back == image).all()


@given(
    st.lists(st.tuples(st.sampled_from([(64, 64), (96, 48), (48, 96)]), st.integers(1, 5)), min_size=1, max_size=30),
    st.integers(1, 7),
    st.integers(0, 3),
)
def test_an_epoch_shows_every_picture_as_often_as_it_repeats(
    pictures: list[tuple[tuple[int, int], int]], batch: int, epoch: int
) -> None:
    buckets, repeats = [p[0] for p in pictures], [p[1] for p in pictures]
    batches = plan_epoch(buckets, repeats, batch, seed=3, epoch=epoch)
    shown = Counter(index for one in batches for index in one.pictures)
    assert shown == Counter(dict(enumerate(repeats)))
    assert all(len({buckets[index] for index in one.pictures}) == 1 for one in batches)
    assert all(0 < len(one.pictures) <= batch for one in batches)
    assert len(batches) == batches_per_epoch(buckets, repeats, batch)


def test_epochs_differ_and_repeat_with_their_seed() -> None:
    buckets, repeats = [(64, 64)] * 20, [1] * 20
    first = plan_epoch(buckets, repeats, 4, seed=3, epoch=0)
    assert first == plan_epoch(buckets, repeats, 4, seed=3, epoch=0)
    assert first != plan_epoch(buckets, repeats, 4, seed=3, epoch=1)
    assert first != plan_epoch(buckets, repeats, 4, seed=4, epoch=0)


def test_seeds_from_near_parts_are_unrelated() -> None:
    draws = {tuple(torch.rand(3, generator=seeded(a, b)).tolist()) for a in range(20) for b in range(20)}
    assert len(draws) == 400
