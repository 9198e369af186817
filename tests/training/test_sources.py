"""Which pictures a config trains on, from folders and dataset TOMLs: captions, weights, regularisation, mirroring."""

import json
from pathlib import Path

import numpy as np
import pytest
import torch
from PIL import Image

from onmodel.core.errors import NotFoundError, UserError
from onmodel.core.vocabulary import Box, Decision, Detections, Instance, ShotType
from onmodel.dataset.facts import Facts
from onmodel.detection.convert import Detected
from onmodel.training import run
from onmodel.training.config import TrainConfig
from onmodel.training.data import ArrayCache, TrainingData, prepare
from onmodel.training.families import StableDiffusion
from onmodel.training.gather import gather
from onmodel.training.masks import check_masks, prepare_masks
from onmodel.training.objective import resized_mask
from onmodel.training.pipeline import load_pipeline
from onmodel.training.sources import regular_repeats, training_pictures, with_dataset_config

from .conftest import MakeConfig
from .tiny import save_dataset


def with_toml(make_config: MakeConfig, folder: Path, text: str) -> TrainConfig:
    file = folder / "dataset.toml"
    file.write_text(text)
    return make_config(data={"train_data_dir": None, "dataset_config": str(file), "shuffle_caption": False})


@pytest.fixture
def two_sets(tmp_path: Path) -> Path:
    save_dataset(tmp_path / "own", count=3)
    save_dataset(tmp_path / "class", count=2)
    return tmp_path


SUBSETS = """
[general]
shuffle_caption = true
keep_tokens = 1
cache_info = true
[[datasets]]
resolution = 96
batch_size = 3
[[datasets.subsets]]
image_dir = "own/2_zork boy"
num_repeats = 4
flip_aug = true
caption_dropout_rate = 0.25
caption_prefix = "zork,"
[[datasets.subsets]]
image_dir = "class/2_zork boy"
is_reg = true
class_tokens = "boy"
shuffle_caption = false
"""


def test_a_dataset_toml_says_how_each_subset_is_trained(make_config: MakeConfig, two_sets: Path) -> None:
    told: list[str] = []
    config = with_dataset_config(with_toml(make_config, two_sets, SUBSETS), told.append)
    assert len(told) == 1
    assert "`cache_info`" in told[0]
    assert (config.data.size, config.training.train_batch_size) == ((96, 96), 3)
    assert with_dataset_config(config) == config
    pictures = training_pictures(config.with_changes(data={"prior_loss_weight": 0.5}))
    own, regular = pictures[:3], pictures[3:]
    assert [picture.repeats for picture in own] == [4, 4, 4]
    assert all(p.rules.shuffle_caption and p.flip_aug and p.rules.caption_dropout_rate == 0.25 for p in own)
    assert own[0].caption == "zork, zork, standing in the street"
    assert len(set(own[0].pool)) == 2
    assert [picture.repeats for picture in regular] == [6, 6]
    assert all(p.is_reg and p.weight == 0.5 and not p.rules.shuffle_caption and not p.flip_aug for p in regular)


@pytest.mark.parametrize(
    ("old", "new", "said"),
    [
        ("keep_tokens = 1", "keep_token = 1", "did you mean `keep_tokens`"),
        ("keep_tokens = 1", 'keep_tokens = "1"', "keep_tokens"),
        ("keep_tokens = 1", "color_aug = true", "`color_aug` cannot be had"),
        ('image_dir = "own/2_zork boy"', 'image_dir = "nowhere"', "nowhere does not exist"),
        ("is_reg = true", "is_reg = true\nresolution = 64", "differ in `resolution`"),
        ("num_repeats = 4", "is_reg = true", "regularisation pictures alone"),
    ],
)
def test_a_wrong_dataset_toml_is_refused(
    old: str, new: str, said: str, make_config: MakeConfig, two_sets: Path
) -> None:
    with pytest.raises(UserError, match=said):
        training_pictures(with_dataset_config(with_toml(make_config, two_sets, SUBSETS.replace(old, new, 1))))


def test_regularisation_pictures_balance_the_others() -> None:
    assert regular_repeats([1, 1, 1], 7) == [3, 2, 2]
    assert regular_repeats([4, 1], 5) == [4, 1]
    assert regular_repeats([1] * 5, 3) == [1, 1, 1, 0, 0]
    assert regular_repeats([], 3) == []


def test_a_folder_of_regularisation_pictures(make_config: MakeConfig, tmp_path: Path) -> None:
    reg = save_dataset(tmp_path / "reg", count=2)
    for file in reg.rglob("*.txt"):
        file.unlink()
    config = make_config(data={"reg_data_dir": str(reg), "prior_loss_weight": 0.25})
    pictures = training_pictures(config)
    assert [(p.caption, p.repeats, p.weight) for p in pictures if p.is_reg] == [("zork boy", 6, 0.25)] * 2
    result = run.train(config.with_changes(training={"max_train_epochs": 1}), num_workers=0)
    assert len(result.losses) == 12


def test_weights_come_from_metadata_and_count_in_the_loss(make_config: MakeConfig, tmp_path: Path) -> None:
    folder = save_dataset(tmp_path / "set", count=3, sizes=((64, 64),))
    rows = [{"file_name": f"2_zork boy/0{index}.png", "text": "zork", "loss_weight": index} for index in range(3)]
    (folder / "metadata.jsonl").write_text("\n".join(json.dumps(row) for row in rows))
    config = make_config(data={"train_data_dir": str(folder)}, training={"train_batch_size": 6, "max_train_epochs": 1})
    assert [picture.weight for picture in training_pictures(config)] == [0, 1, 2]
    zero = "\n".join(json.dumps({**row, "loss_weight": 0}) for row in rows)
    (folder / "metadata.jsonl").write_text(zero)
    assert run.train(config, num_workers=0).losses == [0.0]
    (folder / "metadata.jsonl").write_text(zero.replace('"loss_weight": 0', '"loss_weight": "much"'))
    with pytest.raises(UserError, match=r"`loss_weight` of .* is 'much'"):
        training_pictures(config)


def test_prefix_suffix_and_another_ending(make_config: MakeConfig, tmp_path: Path) -> None:
    folder = save_dataset(tmp_path / "set", count=1)
    next(folder.rglob("*.txt")).with_suffix(".words").write_text("other words")
    config = make_config(
        data={
            "train_data_dir": str(folder),
            "caption_extension": ".words",
            "caption_prefix": "a",
            "caption_suffix": "z",
        }
    )
    assert training_pictures(config)[0].captions == ("a other words z",)


def prepared(config: TrainConfig) -> tuple[TrainingData, StableDiffusion]:
    family = StableDiffusion(load_pipeline(config.model.pretrained_model_name_or_path))
    return prepare(training_pictures(config), family, config.data, ArrayCache(None)), family


def test_mirrored_latents_are_of_the_mirrored_picture(make_config: MakeConfig, tmp_path: Path) -> None:
    from dataclasses import replace

    folder = save_dataset(tmp_path / "set", count=2, sizes=((64, 64),))
    config = make_config(data={"train_data_dir": str(folder), "flip_aug": True})
    data, family = prepared(config)
    turned = [replace(picture, mirrored=True) for picture in data.pictures]
    data.mirrored = prepare(turned, family, config.data, ArrayCache(None), encode_captions=False)
    pixels = np.asarray(Image.open(data.pictures[0].path).transpose(Image.Transpose.FLIP_LEFT_RIGHT), dtype=np.float32)
    wanted = family.encode_pictures(torch.from_numpy(pixels / 127.5 - 1).permute(2, 0, 1)[None])[0]
    torch.testing.assert_close(data.mirrored.latents[0], wanted, atol=1e-5, rtol=1e-4)
    generator = torch.Generator().manual_seed(0)
    drawn = [gather(data, [0], generator).latents[0] for _ in range(200)]
    mirrored = sum(torch.equal(latents, data.mirrored.latents[0]) for latents in drawn)
    assert mirrored + sum(torch.equal(latents, data.latents[0]) for latents in drawn) == 200
    assert 75 < mirrored < 125


def test_masks_of_a_folder_and_of_the_alpha_channel(make_config: MakeConfig, tmp_path: Path) -> None:
    folder = save_dataset(tmp_path / "set", count=2, sizes=((64, 64),))
    left = np.zeros((64, 64, 3), dtype=np.uint8)
    left[:, :32] = 255
    (tmp_path / "masks").mkdir()
    Image.fromarray(left).save(tmp_path / "masks" / "00.png")
    config = make_config(
        data={
            "train_data_dir": str(folder),
            "masked_loss": True,
            "conditioning_data_dir": str(tmp_path / "masks"),
        }
    )
    data, _ = prepared(config)
    masks = prepare_masks(data, config.data, ArrayCache(None))
    assert masks is not None
    assert masks[1] is None
    assert masks[0] is not None
    torch.testing.assert_close(masks[0], torch.tensor([1.0] * 4 + [0.0] * 4).expand(8, 8))

    image = Image.open(data.pictures[1].path)
    image.putalpha(Image.fromarray(left[..., 0]))
    image.save(data.pictures[1].path)
    config = make_config(data={"train_data_dir": str(folder), "alpha_mask": True})
    data, _ = prepared(config)
    masks = prepare_masks(data, config.data, ArrayCache(None))
    assert masks is not None
    assert masks[0] is None
    assert masks[1] is not None
    torch.testing.assert_close(masks[1], torch.tensor([1.0] * 4 + [0.0] * 4).expand(8, 8))
    assert run.train(config, num_workers=0).problems == []


def test_masks_of_the_character_that_analysis_found(make_config: MakeConfig, tmp_path: Path) -> None:
    folder = save_dataset(tmp_path / "set", count=1, sizes=((64, 64),))
    config = make_config(data={"train_data_dir": str(folder), "masked_loss": True})
    with pytest.raises(UserError, match=r"onmodel analyze .*set"):
        check_masks(config.data, training_pictures(config))
    with pytest.raises(UserError, match="onmodel analyze"):
        run.train(config, num_workers=0)
    facts = Facts.open(folder)
    outline = ((8.0, 8.0), (40.0, 8.0), (40.0, 56.0), (8.0, 56.0))
    found = Instance(Box(8, 8, 40, 56), 0.9, "character", outline=outline)
    decision = Decision(ShotType.FULL_BODY, frozenset(), 0, "")
    picture = training_pictures(config)[0]
    facts.put((picture.hash, "m", "c"), Detected(Detections(64, 64, (found,), ()), decision))
    facts.save()
    check_masks(config.data, [picture])
    data, _ = prepared(config)
    masks = prepare_masks(data, config.data, ArrayCache(None))
    assert masks is not None
    assert masks[0] is not None
    drawn = torch.zeros(64, 64)
    drawn[8:57, 8:41] = 1
    torch.testing.assert_close(masks[0], resized_mask(drawn, (8, 8)), atol=0.02, rtol=0)
    missing = make_config(data={"masked_loss": True, "conditioning_data_dir": str(tmp_path / "absent")})
    with pytest.raises(NotFoundError, match="absent"):
        check_masks(missing.data, [picture])
