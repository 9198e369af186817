"""How a trial's figures move with its epochs and with the LoRA's strength, from all evaluations that lie beside each
other."""

from collections.abc import Callable, Mapping, Sequence
from pathlib import Path
from typing import Literal

from onmodel.core.config import Config
from onmodel.evaluation.metrics import ALL, Figure
from onmodel.evaluation.record import Evaluation, evaluations_in

SHOWN = ("on_model", "identity", "prompt_fidelity", "memorisation")
"""Figures that have curves."""


class Span(Config):
    """A mean with its 95 % interval."""

    mean: float
    low: float
    high: float


class Point(Config):
    """One evaluation on a curve."""

    x: float
    """Epoch, or the LoRA's strength."""
    figures: dict[str, dict[str, Span]]
    """Scenario (and `all`) -> figure; those that were not measured are left out."""


class Curve(Config):
    """One trial's evaluations in the order of `by`."""

    model: str
    """As the comparison calls it."""
    by: Literal["epoch", "scale"]
    points: tuple[Point, ...]


def siblings(folder: Path) -> list[Evaluation]:
    """Evaluations of this version in folders beside `folder`, its own too; damaged ones are left out."""
    return evaluations_in(folder.parent)


def curves(compared: Mapping[str, Evaluation], others: Mapping[str, Sequence[Evaluation]]) -> tuple[Curve, ...]:
    """Curves of each compared model that has two points or more.

    Args:
        compared: by the comparison's model name.
        others: evaluations that may belong to each; those of another trial, suite or measuring are passed over.
    """
    found: list[Curve] = []
    drawn: set[tuple[str, float]] = set()
    for name, e in compared.items():
        alike = [o for o in others.get(name, ()) if _same_question(e, o)]
        # Two checkpoints of one trial lie on the same curve of epochs.
        if (e.trial_folder, e.scale) not in drawn:
            drawn.add((e.trial_folder, e.scale))
            found += _curve(name, "epoch", [o for o in alike if o.scale == e.scale and o.epoch is not None], _epoch)
        same = [o for o in alike if o.checkpoint_hash == e.checkpoint_hash]
        found += _curve(name, "scale", same, lambda o: o.scale)
    return tuple(found)


def _same_question(one: Evaluation, other: Evaluation) -> bool:
    def facts(e: Evaluation) -> tuple[object, ...]:
        return (e.trial, e.base_hash, e.suite, e.prompts, e.seeds, e.steps, e.guidance_scale, e.measured_with)

    return facts(one) == facts(other)


def _epoch(e: Evaluation) -> float:
    return float(e.epoch or 0)


def _curve(
    model: str, by: Literal["epoch", "scale"], found: Sequence[Evaluation], x: Callable[[Evaluation], float]
) -> list[Curve]:
    at = {x(e): e for e in found}
    if len(at) < 2:
        return []
    points = tuple(Point(x=place, figures=_spans(at[place])) for place in sorted(at))
    return [Curve(model=model, by=by, points=points)]


def _spans(e: Evaluation) -> dict[str, dict[str, Span]]:
    blocks = {**e.scenarios, ALL: e.overall}
    return {name: {m: span for m in SHOWN if (span := _span(block[m])) is not None} for name, block in blocks.items()}


def _span(figure: Figure) -> Span | None:
    if figure.mean is None:
        return None
    low, high = figure.ends
    return Span(mean=figure.mean, low=low, high=high)
