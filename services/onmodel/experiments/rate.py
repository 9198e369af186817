"""The learning rate of the bundled UNet that answers to 1e-4: found once, on a character of base training.

A rank-16 LoRA on a balanced set of that character is trained at several rates, as many steps as each trial takes; the
rate with the least loss on pictures that were held back is the base rate of all trials. No held-out character is
looked at, and no picture is drawn.
"""

import json
import shutil
from pathlib import Path
from typing import Final

import numpy as np

from onmodel.core.config import Config, load, load_whole, validate
from onmodel.core.files import file_hash, folder_aside, write_text
from onmodel.dataset.labels import Label, write_labels
from onmodel.experiments.plan import Layout, Settings, training_value
from onmodel.toybox.character import random_character
from onmodel.toybox.dataset import BALANCED_SHARES, TRUTH_FILE, make_dataset
from onmodel.toybox.models import MODEL_SIDE
from onmodel.training.config import TrainConfig

RATES: Final[tuple[float, ...]] = (3e-4, 6e-4, 1e-3, 2e-3)
SEED: Final[int] = 900
TRIGGER: Final[str] = "lumo"
HELD_BACK: Final[float] = 0.25
RATE_FILE: Final[str] = "rate.json"


class Rate(Config):
    """What a rate came to; the chosen one is the content of `rate.json`."""

    rate: float
    loss: float
    """Of the held-back pictures, at the end."""


def folder_of(layout: Layout) -> Path:
    """The set that rates are tried on; it travels with the others."""
    return layout.work / "sets" / "rate"


def render_rate_set(settings: Settings, layout: Layout) -> None:
    """Render the set where it is not there."""
    folder = folder_of(layout)
    if not folder.is_dir():
        who = random_character(np.random.default_rng(SEED))
        with folder_aside(folder) as aside:
            truths = make_dataset(
                aside, who, settings.pictures, BALANCED_SHARES, SEED, size=MODEL_SIDE, trigger=TRIGGER
            )  # fmt: skip
            (aside / TRUTH_FILE).unlink()
            # Pictures are held back evenly over the categories; that needs to be known of them, and no more.
            labels = [
                Label(
                    file=file.name,
                    hash=file_hash(file),
                    shot_type=truth.shot_type,
                    attributes=tuple(sorted(truth.attributes)),
                )
                for file, truth in zip(sorted(aside.glob("*.png")), truths, strict=True)
            ]
            write_labels(aside, labels)


def try_rate(settings: Settings, layout: Layout, rate: float) -> Rate:
    """Train at one rate, and write down what it came to. Raises as `train`."""
    from onmodel.training.job import VALIDATION, read_metrics
    from onmodel.training.run import train

    scratch = layout.work / ".training" / f"rate_{rate:g}"
    value = training_value(settings, "rate", scratch, folder_of(layout), SEED)
    value["optimizer"]["learning_rate"] = rate
    value["training"]["validate_every_n_steps"] = settings.steps
    value["data"]["validation_split"] = HELD_BACK
    result = train(validate(TrainConfig, value, "rate"), num_workers=0)
    last = read_metrics(result.trial_dir / VALIDATION)[-1]
    found = Rate(rate=rate, loss=round(float(last["losses"]["all"]), 6))
    write_text(_file(layout, rate), found.model_dump_json() + "\n")
    shutil.rmtree(scratch, ignore_errors=True)
    return found


def _file(layout: Layout, rate: float) -> Path:
    return layout.work / "rates" / f"{rate:g}.json"


def tried(layout: Layout, rate: float) -> Rate | None:
    """What a rate came to, where it was tried."""
    return load_whole(Rate, _file(layout, rate))


def choose(layout: Layout) -> Rate:
    """The rate with the least loss of those that were tried, written to `rate.json`."""
    found = [rate for each in RATES if (rate := tried(layout, each)) is not None]
    best = min(found, key=lambda each: each.loss)
    write_text(layout.work / RATE_FILE, json.dumps(best.model_dump()) + "\n")
    return best


def with_rate(settings: Settings, layout: Layout) -> Settings:
    """`settings` with the rate that was chosen, or as they are where none was."""
    file = layout.work / RATE_FILE
    return settings.model_copy(update={"learning_rate": load(Rate, file).rate}) if file.is_file() else settings
