"""Evaluations and analyses with chosen numbers."""

from collections.abc import Mapping, Sequence
from pathlib import Path

from onmodel.common.convert import ModelInfo
from onmodel.core.vocabulary import CATEGORIES, ShotType
from onmodel.dataset.analysis import Analysis, InstanceRow, Row, summarize
from onmodel.dataset.folder import Dataset
from onmodel.diagnosis.facts import Fact
from onmodel.evaluation.metrics import METRICS, TARGETS, Figure, target_results
from onmodel.evaluation.record import Evaluation, PictureRow
from onmodel.evaluation.statistics import interval

PROMPTS = 5


def figure(values: Sequence[float]) -> Figure:
    """One value a prompt."""
    found = interval(values)
    assert found is not None
    return Figure(mean=found.mean, low=found.low, high=found.high, count=2 * len(values), values=tuple(values))


def evaluation(
    rates: Mapping[str, float] | float,
    *,
    epoch: int = 4,
    scale: float = 1.0,
    nearest: float = 0.5,
    trial: str = "trial",
    folder: Path = Path("runs/trial"),
) -> Evaluation:
    """Every figure of a scenario is about its rate."""
    given = rates if isinstance(rates, Mapping) else dict.fromkeys(CATEGORIES, rates)
    own = {s: given.get(s, 0.9) for s in CATEGORIES}
    spread = [0.02 * (n - PROMPTS // 2) for n in range(PROMPTS)]
    only = {t.metric: t.scenario for t in TARGETS if t.metric != "consistency"}
    scenarios = {
        s: {m: figure([rate + d for d in spread]) for m in METRICS if only.get(m, s) == s} for s, rate in own.items()
    }
    overall = {m: figure([r + d for r in own.values() for d in spread]) for m in METRICS if m not in only}
    rows = tuple(
        PictureRow(
            file=f"img_{n:03d}.png", scenario=s, prompt=n, variation=0, outcome="right", shot_type="full_body",
            attributes=(), characters=1, identity=0.8, head_to_body=None, fidelity=0.3, memorisation=nearest,
        )
        for n, s in enumerate(s for s in CATEGORIES for _ in range(PROMPTS))
    )  # fmt: skip
    return Evaluation(
        key="k", trial=trial, trial_folder=str(folder), dataset=None, checkpoint=f"{trial}-{epoch:06d}.safetensors",
        checkpoint_hash="ab" * 32, epoch=epoch, step=10 * epoch, stage=None, scale=scale, base="toybox",
        base_hash="cd" * 32, vae=None, suite="toybox", steps=4, guidance_scale=3.0, seeds=(1, 2), trigger="zibo",
        prompts=tuple(r.scenario for r in rows), measured_with="m", calibration=None, base_pictures=None,
        references_head_to_body={},
        warnings=(), targets=tuple(target_results(scenarios)), scenarios=scenarios, overall=overall, pictures=rows,
    )  # fmt: skip


def analysis(
    captions: Mapping[str, int], shots: Mapping[ShotType, int] | None = None, folder: Path = Path("data/my set")
) -> Analysis:
    """Rows with these captions so often, shot types in turn as often as said, each with one character."""
    said = [text for text, count in captions.items() for _ in range(count)]
    seen = [shot for shot, count in (shots or {ShotType.CLOSE_UP: len(said)}).items() for _ in range(count)]
    person = InstanceRow(box=(10.0, 10.0, 50.0, 60.0), confidence=0.9, label="character")
    rows = tuple(
        Row(
            file=f"{n:03d}.png", hash=f"{n:064x}", caption=text, width=64, height=64, main=0, instances=(person,),
            shot_type=seen[n % len(seen)], reason="made up",
        )
        for n, text in enumerate(said)
    )  # fmt: skip
    return summarize(Dataset(folder, ()), rows, ModelInfo("made", "0" * 64, "1" * 64))


def fact(value: float, width: float = 0.0, at: str = "trial-000002.safetensors") -> Fact:
    """A number with its interval about it."""
    return Fact(value=value, low=value - width, high=value + width, count=20, at=at)
