"""The loss curve of a trial as an SVG."""

from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import numpy as np

from onmodel.core.files import write_aside

SMOOTHING = 0.9
"""Weight of the past in the smoothed curve: a single step's loss says little, its timestep decides it."""


def write_loss_chart(path: Path, steps: Sequence[Mapping[str, Any]]) -> None:
    """Draw loss, its moving mean and the learning rate over the optimizer steps.

    Nothing is written for no steps, or where matplotlib is missing: a machine that only trains has no need of it.
    """
    if not steps:
        return
    try:
        from matplotlib.figure import Figure
    except ImportError:
        return

    x = [step["step"] for step in steps]
    y = np.array([step["loss"] for step in steps])
    figure = Figure(figsize=(8, 4), layout="constrained")
    axes = figure.subplots()
    axes.plot(x, y, color="#9db8d9", linewidth=0.8, label="loss")
    axes.plot(x, _smooth(y), color="#1f4e8c", linewidth=1.6, label="moving mean")
    axes.set_xlabel("optimizer step")
    axes.set_ylabel("loss")
    axes.set_ylim(bottom=0)
    rates = axes.twinx()
    rates.plot(x, [step["learning_rate"] for step in steps], color="#c77d2e", linewidth=1, linestyle="--")
    rates.set_ylabel("learning rate", color="#c77d2e")
    rates.set_ylim(bottom=0)
    axes.legend(loc="upper right", frameon=False)
    with write_aside(path) as aside:
        figure.savefig(aside, format="svg", metadata={"Date": None})


def _smooth(values: np.ndarray) -> np.ndarray:
    """Exponential moving mean without the start's bias towards 0."""
    smoothed = np.empty_like(values, dtype=float)
    mean, weight = 0.0, 0.0
    for index, value in enumerate(values):
        mean = SMOOTHING * mean + (1 - SMOOTHING) * float(value)
        weight = SMOOTHING * weight + (1 - SMOOTHING)
        smoothed[index] = mean / weight
    return smoothed
