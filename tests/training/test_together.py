"""Where parts of training meet: stages with averages and dropouts, validation and mixes beside regularisation."""

from collections.abc import Callable
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from PIL import Image

from onmodel.core.errors import UserError
from onmodel.training import network, run
from onmodel.training.config import load_train_config, to_toml
from onmodel.training.job import CaptionRules, TrainingPicture
from onmodel.training.mix import solve_mixes
from onmodel.training.pictures import dataset_hash, load_pictures
from onmodel.training.stages import resolve_stages
from onmodel.training.store import ArrayCache

from .conftest import MakeConfig
from .running import run_to
from .test_sources import prepared
from .test_stages import analysed, make_trainer, same, staged
from .test_watching import losses_in
from .tiny import save_dataset


def test_averages_and_scales_are_gone_on_with_bit_for_bit_in_any_stage(make_config: MakeConfig, tmp_path: Path) -> None:
    stages: list[dict[str, Any]] = [
        {"name": "free", "epochs": 1, "optimizer_type": "AdamWScheduleFree", "network_dropout": 0.2},
        {"name": "prodigy", "steps": 4, "optimizer_type": "Prodigy", "learning_rate": 1.0, "lr_scheduler": "cosine"},
        {"name": "last", "steps": 3, "scale_weight_norms": 0.5, "loss_type": "huber", "huber_schedule": "constant"},
    ]
    config = staged(make_config(), stages, ema=True, ema_decay=0.9)
    whole = make_trainer(config)
    _, end = run_to(whole)
    for stop in (2, whole.stages[0].last_step, whole.stages[1].first_step + 1, whole.total_steps - 1):
        _, state = run_to(make_trainer(config), stop)
        torch.save(state, tmp_path / "state.pt")
        again = make_trainer(config)
        again.load_state(torch.load(tmp_path / "state.pt", weights_only=True))
        _, after = run_to(again)
        assert same(after["lora"], end["lora"])
        shadows = [each["update"]["average"]["shadow_params"] for each in (after, end)]
        assert same(*shadows)


def test_a_stage_starts_from_what_a_schedule_free_one_before_has_averaged(make_config: MakeConfig) -> None:
    stages: list[dict[str, Any]] = [
        {"name": "free", "steps": 4, "optimizer_type": "AdamWScheduleFree", "learning_rate": 1e-2},
        {"name": "still", "steps": 1, "optimizer_type": "SGD", "learning_rate": 1e-30},
    ]
    trainer = make_trainer(staged(make_config(), stages))
    run_to(trainer, 4)
    live = trainer.state()["lora"]
    with trainer.evaluating():
        averaged = trainer.state()["lora"]
    assert not same(live, averaged)
    _, end = run_to(trainer)
    assert same(end["lora"], averaged)


def test_what_a_later_stage_has_wrong_is_said_before_the_first_step(make_config: MakeConfig) -> None:
    late: list[dict[str, Any]] = [
        {"scale_v_pred_loss_like_noise_pred": True},
        {"lr_scheduler": "warmup_stable_decay", "lr_warmup_steps": 3, "lr_decay_steps": 3},
    ]
    for changes, said in zip(late, ("predicts noise", "3 \\+ 3 steps of the run's 4"), strict=True):
        with pytest.raises(UserError, match=said):
            make_trainer(staged(make_config(), [{"name": "a", "steps": 1}, {"name": "b", "steps": 4, **changes}]))


def test_a_stage_sets_the_networks_dropouts(make_config: MakeConfig) -> None:
    stages = [{"name": "a", "steps": 1}, {"name": "b", "steps": 1, "network_dropout": 0.5}]
    trainer = make_trainer(staged(make_config(), stages))

    def rates() -> set[float]:
        modules = trainer.components["unet"].modules()
        return {module.p for module in modules if isinstance(module, torch.nn.Dropout) and module.p}

    run_to(trainer, 1)
    assert rates() == set()
    run_to(trainer)
    assert rates() == {0.5}
    changes = {"network_module": "lycoris.kohya", "network_args": ["algo=loha", "rank_dropout=0.1"]}
    config = staged(make_config(network=changes), [{"name": "a", "steps": 1, "rank_dropout": 0.3}])
    assert resolve_stages(config)[0].config.network.spec.rank_dropout == 0.3
    with pytest.raises(UserError, match="rank_dropout"):
        staged(make_config(), [{"name": "a", "steps": 1, "rank_dropout": 0.3}])


def test_captions_encoded_beforehand_cannot_lose_tags_in_one_stage(make_config: MakeConfig) -> None:
    stages = [{"name": "a", "steps": 1, "caption_tag_dropout_rate": 0.3}]
    with pytest.raises(UserError, match="encoded before the first stage"):
        staged(make_config(), stages)
    config = staged(make_config(network={"network_train_unet_only": False}), stages)
    assert resolve_stages(config)[0].config.data.caption_tag_dropout_rate == 0.3


def test_a_key_is_without_effect_only_where_no_stage_uses_it(make_config: MakeConfig, tmp_path: Path) -> None:
    def said(stages: list[dict[str, Any]]) -> list[str]:
        config = staged(make_config(advanced={"huber_c": 0.3}), stages)
        (tmp_path / "c.toml").write_text(to_toml(config))
        told: list[str] = []
        assert load_train_config(tmp_path / "c.toml", told.append) == config
        return told

    plain = {"name": "a", "steps": 1}
    assert "`huber_c` (for huber and smooth_l1)" in said([plain])[0]
    assert said([plain, {"name": "b", "steps": 1, "loss_type": "huber"}]) == []
    assert "`huber_scale`" in said([plain | {"loss_type": "huber"}, {"name": "b", "steps": 1, "huber_scale": 2.0}])[0]


def test_regularisation_is_outside_mixes_and_held_back_pictures(make_config: MakeConfig, tmp_path: Path) -> None:
    folder = analysed(tmp_path / "set")
    regular = save_dataset(tmp_path / "reg", count=3, sizes=((64, 64),))
    places = {"train_data_dir": str(folder), "reg_data_dir": str(regular), "prior_loss_weight": 0.5}
    config = staged(make_config(data=places), [{"name": "a", "epochs": 1, "mix": {"full_body": 60.0}}])
    pictures = load_pictures(config)
    solved = solve_mixes(config, pictures)[0]
    assert solved.shares["full_body"] == pytest.approx(60, abs=0.05)
    for picture, shown in zip(pictures, solved.showings, strict=True):
        assert not picture.is_reg or shown == picture.repeats
    own = sum(picture.repeats for picture in pictures if not picture.is_reg)
    assert solved.showings.sum() == pytest.approx(2 * own)
    result = run.train(config, num_workers=0)
    assert len(result.losses) >= own
    held = load_pictures(make_config(data={**places, "validation_split": 0.34}))
    assert [picture.held_back for picture in held if not picture.is_reg].count(True) == 2
    assert not any(picture.held_back for picture in held if picture.is_reg)
    shown = [sum(p.repeats for p in held if p.is_reg == regular) for regular in (False, True)]
    assert shown[0] == shown[1], "as many regularisation pictures as are trained on"


def test_validation_looks_at_plain_captions_and_averaged_weights(make_config: MakeConfig) -> None:
    shuffled = {"validation_split": 0.34, "shuffle_caption": True, "caption_tag_dropout_rate": 0.5}
    plain = run.train(make_config(data={"validation_split": 0.34}), num_workers=0)
    other = run.train(
        make_config(data=shuffled, training={"output_name": "other", "ema": True, "ema_decay": 0.99}), num_workers=0
    )
    before, after = losses_in(plain.trial_dir), losses_in(other.trial_dir)
    assert before[0]["losses"] == after[0]["losses"], "the same captions before the first step, whatever is shuffled"
    assert before[-1]["losses"] != after[-1]["losses"]


def test_a_flow_model_is_validated(tiny_base: Callable[[str], Path], make_config: MakeConfig) -> None:
    config = make_config(
        model={"pretrained_model_name_or_path": str(tiny_base("flux"))},
        data={"validation_split": 0.34},
        training={"max_train_epochs": 1},
    )
    lines = losses_in(run.train(config, num_workers=0).trial_dir)
    assert [line["epoch"] for line in lines] == [0, 1]
    assert all(np.isfinite(line["losses"]["all"]) for line in lines)


def test_masks_are_kept_and_read_back(make_config: MakeConfig, tmp_path: Path) -> None:
    from onmodel.training.masks import prepare_masks

    folder = save_dataset(tmp_path / "set", count=2, sizes=((64, 64),))
    (tmp_path / "masks").mkdir()
    Image.new("RGB", (64, 64), (128, 0, 0)).save(tmp_path / "masks" / "00.png")
    masks = {"masked_loss": True, "conditioning_data_dir": str(tmp_path / "masks")}
    config = make_config(data={"train_data_dir": str(folder), **masks})
    data, _ = prepared(config)
    first = prepare_masks(data, config.data, ArrayCache(tmp_path / "cache"))
    files = sorted((tmp_path / "cache").rglob("*.safetensors"))
    assert files
    again = prepare_masks(data, config.data, ArrayCache(tmp_path / "cache"))
    assert sorted((tmp_path / "cache").rglob("*.safetensors")) == files
    assert first is not None
    assert again is not None
    assert first[0] is not None
    assert again[0] is not None
    assert torch.equal(first[0], again[0])
    assert first[1] is None
    assert again[1] is None


def test_what_decides_how_a_picture_is_trained_is_in_the_datasets_hash(tmp_path: Path) -> None:
    plain = TrainingPicture(tmp_path / "a.png", "zork", 1, "ab")
    changes: list[dict[str, Any]] = [
        {"caption": "a"}, {"repeats": 2}, {"hash": "cd"}, {"variants": ("x",)}, {"categories": ("x",)},
        {"weight": 0.5}, {"is_reg": True}, {"flip_aug": True}, {"alpha_mask": True},
        {"rules": CaptionRules(shuffle_caption=True)},
    ]  # fmt: skip
    hashes = {dataset_hash([replace(plain, **change)]) for change in ({}, *changes)}
    assert len(hashes) == len(changes) + 1
    assert dataset_hash([plain]) == dataset_hash([replace(plain, path=tmp_path / "elsewhere.png")])


def test_every_kind_of_network_takes_every_kind_of_step(make_config: MakeConfig) -> None:
    """Max-norm, an average and a scheduler of their own on layers that are no plain LoRA."""
    for args in (["algo=lokr", "factor=2"], ["dora_wd=True"]):
        kind: dict[str, Any] = {"network_module": "lycoris.kohya", "network_args": args}
        config = make_config(
            network=kind,
            optimizer={"scale_weight_norms": 0.05, "learning_rate": 0.1, "optimizer_type": "Lion"},
            training={"ema": True, "output_name": args[0].replace("=", "-"), "max_train_epochs": 1},
        )
        trainer = make_trainer(config)
        run_to(trainer, 2)
        unet = trainer.components["unet"]
        assert network.scale_norms(unet, 1.0).max() <= 0.05 * 1.001
