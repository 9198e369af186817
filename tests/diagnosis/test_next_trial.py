"""The next trial's config is this one's with what a finding changes, and nothing else."""

import json
from pathlib import Path
from typing import Any

import pytest

from onmodel.core.config import validate
from onmodel.core.errors import UserError
from onmodel.diagnosis.next_trial import next_config
from onmodel.diagnosis.rules import Change
from onmodel.diagnosis.training_run import training_facts
from onmodel.training.config import TrainConfig, to_toml


def config(**sections: Any) -> TrainConfig:
    value: dict[str, Any] = {
        "model": {"pretrained_model_name_or_path": "toybox"},
        "network": {"network_dim": 16, "network_alpha": 8.0},
        "optimizer": {"learning_rate": 1e-3},
        "training": {"max_train_epochs": 10, "output_name": "trial"},
        "data": {"train_data_dir": "data"},
    }
    return validate(TrainConfig, {**value, **sections}, "test")


def test_keys_are_set_and_multiplied_with_their_types() -> None:
    made = next_config(
        config(),
        [
            Change(key="network.network_dim", times=0.5, least=4),
            Change(key="network.network_alpha", times=0.1, least=2),
            Change(key="optimizer.learning_rate", times=0.5),
            Change(key="training.max_train_epochs", times=0.25, least=1),
            Change(key="training.max_train_steps", times=4.0),
            Change(key="data.train_data_dir", set="other"),
        ],
        "trial_2",
    )
    assert (made.network.network_dim, made.network.network_alpha) == (8, 2.0)
    assert made.optimizer.learning_rate == pytest.approx(5e-4)
    assert (made.training.max_train_epochs, made.training.max_train_steps) == (2, None)
    assert (made.data.train_data_dir, made.training.output_name) == ("other", "trial_2")
    assert made.model == config().model


def test_a_length_goes_into_the_stages() -> None:
    stages = [{"name": "a", "epochs": 6}, {"name": "b", "epochs": 6}, {"name": "c", "epochs": 4}]
    staged = config(training={"output_name": "trial"}, stage=stages)
    longer = next_config(staged, [Change(key="training.max_train_epochs", times=4.0)], "t")
    assert [s.epochs for s in longer.stage] == [24, 24, 16]
    cut = next_config(staged, [Change(key="training.max_train_epochs", set=8)], "t")
    assert [(s.name, s.epochs) for s in cut.stage] == [("a", 6), ("b", 2)]


def test_an_epoch_to_end_at_takes_the_place_of_steps() -> None:
    by_steps = config(training={"max_train_steps": 500, "output_name": "trial"})
    made = next_config(by_steps, [Change(key="training.max_train_epochs", set=3)], "t")
    assert (made.training.max_train_epochs, made.training.max_train_steps) == (3, None)


def test_a_change_that_no_config_can_take_is_refused() -> None:
    with pytest.raises(UserError, match="next trial t"):
        next_config(config(), [Change(key="network.network_rank", set=4)], "t")


def test_a_loss_that_rose_is_told_from_one_that_fell(tmp_path: Path) -> None:
    for name, losses in (("fell", [0.08] * 40 + [0.06] * 40), ("rose", [0.1] * 40 + [0.8] * 40), ("short", [0.1] * 9)):
        folder = tmp_path / name
        folder.mkdir()
        (folder / "config.toml").write_text(to_toml(config()))
        (folder / "metrics.jsonl").write_text("".join(json.dumps({"loss": loss}) + "\n" for loss in losses))
    assert training_facts(tmp_path / "fell")["training.loss_rise"].value == pytest.approx(0.75)
    assert training_facts(tmp_path / "rose")["training.loss_rise"].value == pytest.approx(8.0)
    assert "training.loss_rise" not in training_facts(tmp_path / "short")
    assert training_facts(tmp_path / "nothing") == {}
