"""Which checkpoint, at which strength? The Pareto front of identity, prompt fidelity and memorisation, and one of it.

A checkpoint trained for longer, or taken at a higher LoRA scale, looks more like the character, listens less to the
prompt and comes nearer to its training pictures. Whatever is worse than another in one of the three and better in none
is out: the rest is the front. Of the front the one nearest to the ideal point is recommended, that is, to the best of
each figure taken together (compromise programming: Zeleny, "Compromise programming", 1973), where identity, which a
character model is for, counts as much as the other two together.
"""

import math
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import numpy.typing as npt

from onmodel.core.config import Config, load
from onmodel.core.errors import UserError
from onmodel.core.files import write_text
from onmodel.evaluation.metrics import METRICS, Figure, number
from onmodel.evaluation.record import Evaluation
from onmodel.evaluation.statistics import Verdict, paired

CHOICE_FILE = "choice.json"
OBJECTIVES: dict[str, float] = {"identity": 2.0, "prompt_fidelity": 1.0, "memorisation": 1.0}
"""What is weighed, and how much its squared distance counts."""
RESAMPLES = 1000
SURE, LIKELY = 0.8, 0.5
"""Shares of resamples from which a choice is called sure, or likely."""

Array = npt.NDArray[np.float64]
Mask = npt.NDArray[np.bool_]


class Candidate(Config):
    """One checkpoint at one strength."""

    checkpoint: str
    """File name."""
    epoch: int | None
    scale: float
    figures: dict[str, float]
    """Mean over every prompt, by objective; those that all candidates have."""
    on_front: bool
    distance: float
    """From the ideal point, 0 is best in everything."""
    chosen: float
    """Share of resamples of the prompts in which this one is recommended."""

    @property
    def name(self) -> str:
        """As shown: "trial-000004 at 0.8"."""
        return f"{self.checkpoint.removesuffix('.safetensors')} at {self.scale:g}"


class ScenarioFront(Config):
    """The front in one scenario alone. Numbers are positions in `Choice.candidates`."""

    front: tuple[int, ...]
    best: int
    """The one nearest to this scenario's ideal point."""


class Against(Config):
    """One figure of the recommended candidate, less the runner-up's, prompt by prompt."""

    metric: str
    difference: float | None
    low: float | None
    high: float | None
    prompts: int
    verdict: Verdict
    """Of the recommended one."""


class Choice(Config):
    """Which of a trial's evaluated checkpoints and strengths to use; the content of `choice.json`."""

    schema_version: int = 1
    trial: str
    trial_folder: str
    suite: str
    objectives: tuple[str, ...]
    candidates: tuple[Candidate, ...]
    """By epoch, then name, then scale."""
    scenarios: dict[str, ScenarioFront]
    recommended: int
    runner_up: int
    """The next nearest to the ideal point."""
    against: tuple[Against, ...]
    reason: str
    """Why, in a sentence."""
    confidence: str
    """How sure it is, in a sentence."""

    @property
    def best(self) -> Candidate:
        """The recommended one."""
        return self.candidates[self.recommended]


def dominated(points: Array) -> Mask:
    """Which of the points (n, k), higher is better, another one matches in everything and beats in something: (n,)."""
    matches = (points[:, None] >= points[None]).all(axis=2)
    beats = (points[:, None] > points[None]).any(axis=2)
    return np.asarray((matches & beats).any(axis=0), dtype=np.bool_)


def distances(points: Array, noise: Array, weights: Array) -> Array:
    """Weighted Euclidean distance of points (…, n, k), higher is better, from the best of each column: (…, n).

    Columns are put on a scale of their own range over the points, so that no unit rules; but `noise` (k,), what such a
    figure is uncertain by, is the least range: figures that hardly differ are not blown up to count in full. Moving a
    point up in any column brings it nearer, so a dominated one is never the nearest.
    """
    best = points.max(axis=-2, keepdims=True)
    span = np.maximum(best - points.min(axis=-2, keepdims=True), noise)
    # A range of nothing without noise: the column says nothing, and 0 over 1 is 0.
    return np.sqrt((weights * ((best - points) / np.where(span > 0, span, 1.0)) ** 2).sum(axis=-1))


@dataclass(frozen=True)
class _Measured:
    """Values (candidates, prompts, objectives), higher is better, NaN where a prompt has none."""

    values: Array
    noise: Array
    """(objectives,): half a 95 % interval of the middle candidate."""


def choose(evaluations: Sequence[Evaluation]) -> Choice:
    """Recommend one of several evaluations of one trial by one suite. Their order does not matter.

    Raises:
        UserError: fewer than two, of different trials or suites, or without identity.
    """
    given = sorted(evaluations, key=lambda e: (e.epoch if e.epoch is not None else math.inf, e.checkpoint, e.scale))
    _check(given)
    names = tuple(n for n in OBJECTIVES if all(e.overall[n].mean is not None for e in given))
    if "identity" not in names:
        raise UserError(f"{given[0].trial}: its identity could not be measured, so no checkpoint can be recommended")
    weights = np.array([OBJECTIVES[name] for name in names])
    overall = _measured([e.overall for e in given], names)
    means = _means(overall.values)
    far = distances(means, overall.noise, weights)
    nearest = [int(n) for n in np.argsort(far, kind="stable")]
    chosen = _chosen(given, overall, names, weights)
    out = dominated(means)
    candidates = tuple(
        Candidate(
            checkpoint=e.checkpoint,
            epoch=e.epoch,
            scale=e.scale,
            figures={name: _mean(e.overall[name]) for name in names},
            on_front=not out[n],
            distance=round(float(far[n]), 6),
            chosen=round(float(chosen[n]), 4),
        )
        for n, e in enumerate(given)
    )
    first, second = nearest[:2]
    against = tuple(_against(given[first], given[second], name) for name in names)
    return Choice(
        trial=given[0].trial,
        trial_folder=given[0].trial_folder,
        suite=given[0].suite,
        objectives=names,
        candidates=candidates,
        scenarios=_scenarios(given, names, weights),
        recommended=first,
        runner_up=second,
        against=against,
        reason=_reason(candidates, first, names),
        confidence=_confidence(candidates, first, second, against),
    )


def _check(given: Sequence[Evaluation]) -> None:
    if len(given) < 2:
        raise UserError("a choice needs at least two checkpoints or LoRA scales; evaluate more of the trial")
    first = given[0]
    seen = {(first.checkpoint, first.scale)}
    for other in given[1:]:
        if other.trial_folder != first.trial_folder:
            raise UserError(f"{other.trial} is another trial than {first.trial}; compare trials with onmodel compare")
        if (other.suite, other.seeds, other.prompts) != (first.suite, first.seeds, first.prompts):
            raise UserError(
                f"{other.checkpoint} at {other.scale:g} was evaluated with another suite than {first.checkpoint} at "
                f"{first.scale:g}; evaluate both with one"
            )
        if (other.checkpoint, other.scale) in seen:
            raise UserError(f"{other.checkpoint} at {other.scale:g} is given twice; name it once")
        seen.add((other.checkpoint, other.scale))


def _sign(name: str) -> float:
    return 1.0 if METRICS[name].higher_is_better else -1.0


def _mean(figure: Figure) -> float:
    assert figure.mean is not None
    return figure.mean


def _measured(figures: Sequence[dict[str, Figure]], names: Sequence[str]) -> _Measured:
    values = np.stack([np.stack([_sign(n) * np.array(f[n].numbers) for n in names], axis=1) for f in figures])
    halves = [[float(np.diff(f[n].ends)[0]) / 2 for n in names] for f in figures]
    return _Measured(values, np.median(np.array(halves), axis=0))


def _means(values: Array) -> Array:
    """Mean over the prompts, the last axis but one, of what is measured; 0 where nothing is."""
    known = ~np.isnan(values)
    return np.where(known, values, 0.0).sum(axis=-2) / np.maximum(known.sum(axis=-2), 1)


def _chosen(given: Sequence[Evaluation], overall: _Measured, names: Sequence[str], weights: Array) -> Array:
    """How often each is recommended when the prompts of each scenario are drawn again: shares (candidates,)."""
    rng = np.random.default_rng(0)
    # Overall values stand scenario by scenario, as the suite has its prompts.
    sizes = [len(figures[names[0]].values) for figures in given[0].scenarios.values()]
    starts = np.cumsum([0, *sizes[:-1]])
    drawn = np.concatenate(
        [start + rng.integers(size, size=(RESAMPLES, size)) for start, size in zip(starts, sizes, strict=True)], axis=1
    )
    means = np.stack([_means(overall.values[:, prompts]) for prompts in drawn])
    nearest = distances(means, overall.noise, weights).argmin(axis=1)
    return np.bincount(nearest, minlength=len(given)) / RESAMPLES


def _scenarios(given: Sequence[Evaluation], names: Sequence[str], weights: Array) -> dict[str, ScenarioFront]:
    found: dict[str, ScenarioFront] = {}
    for scenario in given[0].scenarios:
        if any(e.scenarios[scenario][n].mean is None for e in given for n in names):
            continue  # nothing readable of one of them: there is nothing to compare
        measured = _measured([e.scenarios[scenario] for e in given], names)
        means = _means(measured.values)
        front = tuple(int(n) for n in np.flatnonzero(~dominated(means)))
        found[scenario] = ScenarioFront(front=front, best=int(distances(means, measured.noise, weights).argmin()))
    return found


def _against(best: Evaluation, second: Evaluation, name: str) -> Against:
    before, after = second.overall[name].numbers, best.overall[name].numbers
    found = paired(before, after, higher_is_better=METRICS[name].higher_is_better)
    interval = found.difference
    return Against(
        metric=name,
        difference=interval.mean if interval else None,
        low=interval.low if interval else None,
        high=interval.high if interval else None,
        prompts=interval.count if interval else 0,
        verdict=found.verdict,
    )


def _reason(candidates: Sequence[Candidate], first: int, names: Sequence[str]) -> str:
    best = candidates[first]
    parts: list[str] = []
    for name in names:
        top = max((c.figures[name] for c in candidates), key=lambda value: _sign(name) * value)
        value = best.figures[name]
        word = "the best" if METRICS[name].higher_is_better else "the lowest"
        other = word if value == top else f"{word} is {number(top, name)}"
        parts.append(f"{METRICS[name].label.lower()} {number(value, name)} ({other})")
    front = sum(c.on_front for c in candidates)
    left = "" if "memorisation" in names else " Memorisation is left out: the training pictures are not known."
    return (
        f"{best.name} comes nearest to the best of every figure among {front} of {len(candidates)} that no other beats "
        f"in all: {', '.join(parts)}.{left}"
    )


def _confidence(candidates: Sequence[Candidate], first: int, second: int, against: Sequence[Against]) -> str:
    share = candidates[first].chosen
    word = "Sure" if share >= SURE else "Likely" if share >= LIKELY else "Hardly decided"
    by = [f"{METRICS[a.metric].label.lower()} {a.verdict.value}" for a in against]
    return (
        f"{word}: chosen again in {100 * share:.0f} of 100 draws of the prompts. Against the runner-up, "
        f"{candidates[second].name}: {', '.join(by)}."
    )


def write_choice(choice: Choice, folder: Path, whose: str = "") -> Path:
    """Write `choice.json` into `folder`, the one that holds the evaluations' folders; returns its path.

    Args:
        whose: stands before the name, where several trials share the folder.
    """
    path = folder / (f"{whose}-{CHOICE_FILE}" if whose else CHOICE_FILE)
    write_text(path, choice.model_dump_json(indent=1) + "\n")
    return path


def read_choice(path: Path) -> Choice:
    """Read a `choice.json`. Raises NotFoundError or UserError."""
    return load(Choice, path)
