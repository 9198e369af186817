"""Figures per scenario from what was seen in the pictures (DESIGN: metrics), each with count and 95 % interval.

A figure never takes the prompt's label for the answer: the label is the question, the picture holds the answer.
"""

import math
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from enum import StrEnum

import numpy as np
import numpy.typing as npt

from onmodel.core.config import Config
from onmodel.evaluation.identity import RECOGNISED
from onmodel.evaluation.observe import Seen
from onmodel.evaluation.proportions import stability
from onmodel.evaluation.statistics import interval
from onmodel.scoring.metrics import cosines, pairwise_cosine_mean


class Outcome(StrEnum):
    """What became of one picture, the first of these that holds."""

    UNREADABLE = "unreadable"
    NO_CHARACTER = "no character"
    ALONE = "companion missing"
    OTHER_FRAMING = "not as asked"
    SEVERAL_OURS = "companion looks like ours"
    NOT_OURS = "not recognised"
    RIGHT = "right"


@dataclass(frozen=True, slots=True)
class Metric:
    """What a figure is called and how it is read."""

    label: str
    meaning: str
    percent: bool = True
    """Shown in per cent; else as a raw cosine."""
    higher_is_better: bool = True
    is_share: bool = False
    """Every picture counts 0 or 1."""


METRICS: dict[str, Metric] = {
    "on_model": Metric(
        "On model",
        "Pictures that came out right: a character is found, framed as asked, and recognised as ours; with a companion "
        "asked for, both are there and exactly one is ours.",
        is_share=True,
    ),
    "identity": Metric(
        "Identity",
        "How much the character is ours: 0 % is what the base model draws without the LoRA, 100 % is two reference "
        "pictures of the character. No character counts 0.",
    ),
    "consistency": Metric(
        "Consistency",
        "How alike the character is between variations of one prompt: mean cosine of its crops' image embeddings.",
    ),
    "consistency_whole": Metric("Whole-picture consistency", "The same for whole pictures, background included."),
    "robustness": Metric(
        "Multi-character robustness",
        "Pictures with two characters or more in which exactly one is recognised as ours. A missing companion fails.",
        is_share=True,
    ),
    "background_independence": Metric(
        "Background independence",
        "Identity of the character with its surroundings greyed out, on busy backgrounds.",
    ),
    "occlusion_handling": Metric(
        "Occlusion handling",
        "Identity of the part that nothing hides, against reference pictures hidden in the same places.",
    ),
    "proportions": Metric(
        "Proportions",
        "How near the head's size for the body is to the references': 100 % is theirs in every variation, 80 % a head "
        "a fifth too large or too small. Measured where the character is seen from head to feet.",
    ),
    "found": Metric("Character found", "Pictures in which the detector finds a character.", is_share=True),
    "framing": Metric(
        "Framed as asked",
        "Pictures that the detector puts into the category that was asked for.",
        is_share=True,
    ),
    "count_right": Metric(
        "Count right",
        "Pictures with as many characters as asked: one, or with a companion two or more.",
        is_share=True,
    ),
    "prompt_fidelity": Metric(
        "Prompt fidelity", "CLIP-T: cosine of picture and prompt, the trigger word left out.", percent=False
    ),
    "memorisation": Metric(
        "Nearest training picture",
        "Cosine of a picture and the most similar training picture; near 1 means copies.",
        percent=False,
        higher_is_better=False,
    ),
}


@dataclass(frozen=True, slots=True)
class Target:
    """A figure that a good model passes."""

    scenario: str
    metric: str
    least: float


TARGETS: tuple[Target, ...] = (
    Target("close_up", "consistency", 0.90),
    Target("full_body", "consistency", 0.75),
    Target("multi_character", "robustness", 0.70),
    Target("complex_background", "background_independence", 0.70),
    Target("occlusion", "occlusion_handling", 0.65),
)
AVERAGE_TARGET = 0.80
HEADLINE = "on_model"
"""The figure that a scenario's verdict is about."""
IDENTITY = "identity"
ALL = "all"
"""Stands for every scenario together."""
_ONLY_IN = {t.metric: t.scenario for t in TARGETS if t.metric != "consistency"}


def number(value: float | None, metric: str) -> str:
    """A figure as shown: per cent, or a cosine with two digits."""
    if value is None:
        return "–"
    return f"{100 * value:.0f} %" if METRICS[metric].percent else f"{value:.2f}"


class Figure(Config):
    """One metric in one scenario. `values` holds one number a prompt (None: no picture to measure), for pairing."""

    mean: float | None
    low: float | None
    high: float | None
    count: int
    """Pictures measured."""
    values: tuple[float | None, ...]

    @property
    def numbers(self) -> list[float]:
        """`values` with NaN where a prompt has none."""
        return [math.nan if value is None else value for value in self.values]

    @property
    def ends(self) -> tuple[float, float]:
        """Of the interval; the mean itself where there is none. Of a figure that was measured."""
        assert self.mean is not None
        return (self.mean if self.low is None else self.low, self.mean if self.high is None else self.high)


@dataclass(frozen=True, slots=True)
class Judged:
    """One picture of a scenario with everything that the figures are made of."""

    prompt: int
    scenario: str
    seen: Seen | None
    """None: the picture could not be read."""
    identities: tuple[float, ...]
    """Of each character, the main one first."""
    centre: float
    visible: float
    fidelity: float
    nearest: float
    usual_head: float = math.nan
    """The references' head-to-body for this framing; NaN where they say nothing."""
    recognised: float = RECOGNISED
    """Identity from which a character counts as ours."""

    @property
    def main(self) -> float:
        """Identity of the character, the one of those in the picture that is most like it.

        That another one is there as well is a matter of the count, which has a figure of its own.
        """
        if not self.identities:
            return math.nan
        if self.scenario == "occlusion" and not math.isnan(self.visible):
            return self.visible
        return max(self.identities)

    @property
    def ours(self) -> int:
        """How many of the characters are recognised as ours."""
        return sum(i >= self.recognised for i in self.identities)

    @property
    def outcome(self) -> Outcome:
        """What became of the picture."""
        if self.seen is None:
            return Outcome.UNREADABLE
        if not self.identities:
            return Outcome.NO_CHARACTER
        if self.scenario == "multi_character":
            if self.seen.characters < 2 or len(self.identities) < 2:
                return Outcome.ALONE
            return {0: Outcome.NOT_OURS, 1: Outcome.RIGHT}.get(self.ours, Outcome.SEVERAL_OURS)
        if self.scenario not in self.seen.decision.categories:
            return Outcome.OTHER_FRAMING
        return Outcome.RIGHT if self.main >= self.recognised else Outcome.NOT_OURS


def _zero_when_missing(judged: Judged, value: float) -> float:
    """A vanished character scores as a stranger; a character that cannot be scored does not count."""
    return 0.0 if not judged.identities else value


def _count_right(judged: Judged) -> float:
    if judged.seen is None:
        return math.nan
    return float((judged.seen.characters >= 2) if judged.scenario == "multi_character" else judged.seen.characters == 1)


def _framing(judged: Judged) -> float:
    if judged.seen is None:
        return math.nan
    return float(bool(judged.identities) and judged.scenario in judged.seen.decision.categories)


_PER_PICTURE: dict[str, Callable[[Judged], float]] = {
    "on_model": lambda j: math.nan if j.seen is None else float(j.outcome is Outcome.RIGHT),
    "identity": lambda j: math.nan if j.seen is None else _zero_when_missing(j, j.main),
    "robustness": lambda j: math.nan if j.seen is None else float(j.outcome is Outcome.RIGHT),
    "background_independence": lambda j: math.nan if j.seen is None else _zero_when_missing(j, j.centre),
    "occlusion_handling": lambda j: math.nan if j.seen is None else _zero_when_missing(j, j.visible),
    "found": lambda j: math.nan if j.seen is None else float(bool(j.identities)),
    "framing": _framing,
    "count_right": _count_right,
    "prompt_fidelity": lambda j: j.fidelity,
    "memorisation": lambda j: j.nearest,
}


def _consistency(pictures: Sequence[Judged], whole: bool) -> tuple[float, int]:
    """Mean pairwise cosine between the variations of one prompt, and how many pictures took part."""
    rows = [j.seen.whole if whole else j.seen.crops[0] for j in pictures if j.seen and (whole or j.seen.crops)]
    return (pairwise_cosine_mean(np.stack(rows)), len(rows)) if len(rows) >= 2 else (math.nan, 0)


def _per_prompt(name: str, pictures: Sequence[Judged]) -> tuple[float, int]:
    if name in ("consistency", "consistency_whole"):
        return _consistency(pictures, name == "consistency_whole")
    if name == "proportions":
        whole = [(j.seen.head_to_body, j.usual_head) for j in pictures if j.seen and j.seen.head_to_body is not None]
        value = stability(whole)
        return value, 0 if math.isnan(value) else len(whole)
    values = [v for v in map(_PER_PICTURE[name], pictures) if not math.isnan(v)]
    return (sum(values) / len(values), len(values)) if values else (math.nan, 0)


def figure(name: str, by_prompt: Mapping[int, Sequence[Judged]]) -> Figure:
    """One metric over prompts, each given as its pictures."""
    parts = [_per_prompt(name, pictures) for pictures in by_prompt.values()]
    count = sum(n for _, n in parts)
    found = interval([value for value, _ in parts], share_of=count if METRICS[name].is_share else None)
    values = tuple(None if math.isnan(value) else round(value, 6) for value, _ in parts)
    if found is None:
        return Figure(mean=None, low=None, high=None, count=0, values=values)
    # Two prompts that differ stretch the interval beyond what cosines and shares can be.
    low, high = max(min(-1.0, found.mean), found.low), min(max(1.0, found.mean), found.high)
    return Figure(mean=round(found.mean, 6), low=round(low, 6), high=round(high, 6), count=count, values=values)


def figures(pictures: Sequence[Judged], scenario: str | None = None) -> dict[str, Figure]:
    """Every metric of one scenario, or with None over all of them (without those that belong to one scenario)."""
    chosen = [j for j in pictures if scenario is None or j.scenario == scenario]
    by_prompt: dict[int, list[Judged]] = {}
    for judged in chosen:
        by_prompt.setdefault(judged.prompt, []).append(judged)
    names = [name for name in METRICS if name not in _ONLY_IN or _ONLY_IN[name] == scenario]
    return {name: figure(name, by_prompt) for name in names}


class TargetResult(Config):
    """One target and whether it is met; `sure` when the whole interval is on that side."""

    scenario: str
    metric: str
    target: float
    value: float | None
    low: float | None
    high: float | None
    met: bool | None
    sure: bool


def target_results(scenarios: Mapping[str, Mapping[str, Figure]]) -> list[TargetResult]:
    """The targets of the scenarios that were tested, then their average as `all`.

    One suite gives the same targets whatever was drawn: what could not be measured, since no character was found for
    one, has no value.
    """
    results: list[TargetResult] = []
    for target in TARGETS:
        if target.scenario not in scenarios:
            continue
        found = scenarios[target.scenario].get(target.metric)
        value, low, high = (None, None, None) if found is None else (found.mean, found.low, found.high)
        results.append(_result(target.scenario, target.metric, target.least, value, low, high))
    if len(results) == len(TARGETS):
        values = [min(1.0, max(0.0, r.value)) for r in results if r.value is not None]
        average = sum(values) / len(values) if len(values) == len(TARGETS) else None
        results.append(_result("all", "average", AVERAGE_TARGET, average, None, None))
    return results


def _result(
    scenario: str, metric: str, least: float, value: float | None, low: float | None, high: float | None
) -> TargetResult:
    met = None if value is None else value > least
    sure = low is not None and high is not None and (low > least or high < least)
    return TargetResult(
        scenario=scenario, metric=metric, target=least, value=value, low=low, high=high, met=met, sure=sure
    )


def nearest_cosine(rows: npt.NDArray[np.float32], known: npt.NDArray[np.float32]) -> npt.NDArray[np.float64]:
    """Cosine of each row (n, D) to the most similar of `known` (m, D): float64 (n,), NaN where `known` is empty."""
    return cosines(rows, known).max(axis=1) if len(known) else np.full(len(rows), np.nan)
