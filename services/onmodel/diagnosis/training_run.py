"""What a trial folder says of its training: how long, how often each picture was shown, at what rate and rank."""

import json
from pathlib import Path
from typing import Any

from onmodel.core.errors import UserError
from onmodel.diagnosis.facts import Fact, exact
from onmodel.training.config import TrainConfig, load_train_config
from onmodel.training.job import CONFIG, DATASET, METRICS, read_metrics
from onmodel.training.stages import resolve_stages

FEWEST_STEPS = 4
"""Steps of a tenth of the run from which its mean loss is worth naming: a step's own is noisy."""


def read_config(trial_dir: Path) -> TrainConfig | None:
    """The trial's resolved config; None where the folder is not one of `onmodel train`."""
    path = trial_dir / CONFIG
    return load_train_config(path) if path.is_file() else None


def training_facts(trial_dir: Path) -> dict[str, Fact]:
    """`training.steps`, `.showings`, `.pictures`, `.rank`, `.learning_rate` (the highest of the stages), `.loss_rise`.

    Empty where the folder holds no trial of `onmodel train`.
    """
    config = read_config(trial_dir)
    if config is None:
        return {}
    facts = {
        "training.rank": exact(config.network.network_dim),
        "training.learning_rate": exact(max(s.config.optimizer.learning_rate for s in resolve_stages(config))),
    }
    losses = [float(step["loss"]) for step in read_metrics(trial_dir / METRICS)]
    steps, tenth = len(losses), len(losses) // 10
    if tenth >= FEWEST_STEPS:
        first, last = (sum(part) / tenth for part in (losses[:tenth], losses[-tenth:]))
        facts["training.loss_rise"] = exact(last / max(first, 1e-12), tenth)
    shown = _pictures(trial_dir / DATASET)
    if steps and shown:
        batch = config.training.train_batch_size * config.training.gradient_accumulation_steps
        facts |= {
            "training.steps": exact(steps),
            "training.pictures": exact(shown),
            "training.showings": exact(steps * batch / shown, shown),
        }
    return facts


def _pictures(path: Path) -> int:
    """Different pictures that were trained on, however often an epoch repeats each."""
    if not path.is_file():
        return 0
    try:
        rows: list[dict[str, Any]] = json.loads(path.read_text(encoding="utf-8"))["pictures"]
        return sum(not row.get("held_back", False) and not row.get("is_reg", False) for row in rows)
    except (OSError, ValueError, KeyError, TypeError, AttributeError):
        raise UserError(f"{path}: not a list of training pictures; mend or remove it") from None
