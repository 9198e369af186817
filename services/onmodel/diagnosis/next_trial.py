"""The next trial's training config: this one's, with what a finding changes."""

from collections.abc import Iterable
from typing import Any

from onmodel.core.config import validate
from onmodel.diagnosis.rules import Change
from onmodel.training.config import TrainConfig

LENGTHS = {"max_train_epochs": "epochs", "max_train_steps": "steps"}
"""Keys of [training] that say how long a run is, and what a stage calls them."""


def next_config(config: TrainConfig, changes: Iterable[Change], name: str) -> TrainConfig:
    """`config` under another `output_name`, with changes applied in their order.

    Of a run in stages, a length that is multiplied is so in every stage, and an epoch to end at cuts the stages.
    What a config leaves unset is not multiplied.

    Raises:
        UserError: a change that the config cannot take, such as an unknown key.
    """
    value = config.model_dump()
    value["training"]["output_name"] = name
    value["training"]["resume"] = None
    for change in changes:
        section, key = change.key.split(".")
        if section == "training" and key in LENGTHS and value["stage"]:
            value["stage"] = _stages(value["stage"], change, LENGTHS[key])
        elif change.times is None:
            value[section][key] = change.set
            _replaces(value, section, key)
        elif value[section].get(key) is not None:
            value[section][key] = _scaled(value[section][key], change)
    return validate(TrainConfig, value, f"the next trial {name}")


def _replaces(value: dict[str, Any], section: str, key: str) -> None:
    """What a key that is set puts out of force."""
    if (section, key) == ("data", "train_data_dir"):
        value["data"]["dataset_config"] = None
    if (section, key) == ("training", "max_train_epochs"):
        value["training"]["max_train_steps"] = None


def _scaled(number: float, change: Change) -> float | int:
    assert change.times is not None
    scaled = number * change.times
    if change.least is not None:
        scaled = max(scaled, change.least)
    return round(scaled) if isinstance(number, int) else float(scaled)


def _stages(stages: Iterable[dict[str, Any]], change: Change, key: str) -> list[dict[str, Any]]:
    if change.times is not None:
        return [
            {**stage, key: _scaled(stage[key], change)} if stage.get(key) is not None else stage for stage in stages
        ]
    kept: list[dict[str, Any]] = []
    left = int(change.set or 1)
    for stage in stages:
        epochs = stage.get("epochs")
        if epochs is None or left <= 0:
            break
        kept.append({**stage, "epochs": min(epochs, left)})
        left -= epochs
    return kept or list(stages)
