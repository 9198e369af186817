"""Figures of the experiment's pictures: by the probe, which knows the truth of renders, and by `onmodel evaluate`."""

import json
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt

from onmodel.core.config import Config, validate
from onmodel.core.errors import UserError
from onmodel.core.files import write_text
from onmodel.core.images import load
from onmodel.core.progress import bar
from onmodel.core.vocabulary import CATEGORIES
from onmodel.evaluation.planned import DrawingModel, Planned, missing, plan
from onmodel.evaluation.record import Evaluation
from onmodel.evaluation.suite import TestSuite
from onmodel.evaluation.tasks import Options, Task, pictures_in
from onmodel.evaluation.trial import Trial
from onmodel.experiments.make import Made, model_of, read_made
from onmodel.experiments.plan import Layout, Settings, TrialPlan, Unit, prompts_in, suite_for, trials_of
from onmodel.experiments.probe import PROBE, Probe, load_probe
from onmodel.experiments.truth import asked_framing, on_model
from onmodel.toybox.character import HELD_OUT

PRODUCT = ("on_model", "identity", "consistency", "found", "framing", "memorisation")
"""The product's figures that are kept, by scenario."""


class PictureFigure(Config):
    """One picture, by truth."""

    character: str
    seed: int
    trial: str
    """Kind of the trial: a strategy, or a point of a curve."""
    scenario: str
    prompt: int
    variation: int
    on_model: bool
    people: int
    product: str | None = None
    """What `onmodel evaluate` says became of it; None where the product was not asked."""
    identity: float | None = None
    """By the product; None where it found no character."""


class ScenarioFigure(Config):
    """One scenario of a trial, by the product."""

    character: str
    seed: int
    trial: str
    scenario: str
    figures: dict[str, float | None]


@dataclass(frozen=True, slots=True)
class Figures:
    """All figures of an experiment."""

    pictures: tuple[PictureFigure, ...]
    scenarios: tuple[ScenarioFigure, ...]
    facts: dict[str, Any]
    """What they were measured with."""


def judge(settings: Settings, layout: Layout, probe: Path | None) -> Figures:
    """Judge every trial that is whole, and write `figures.jsonl`.

    Args:
        probe: the probe's folder; None = the bundled one.

    Raises:
        UserError: no trial is whole, or pictures of one are missing.
        NotFoundError: no probe is there.
    """
    made = [(trial, found) for trial in trials_of(settings) if (found := read_made(layout, trial)) is not None]
    if not made:
        raise UserError(f"{layout.work}: no trial is made yet; run the step make first")
    tasks = {trial.name: task_of(settings, layout, trial, found) for trial, found in made}
    reader = load_probe(probe or PROBE)
    pictures = tuple(_by_truth([trial for trial, _ in made], tasks, reader))
    scenarios: list[ScenarioFigure] = []
    measured_with: str | None = None
    # The curves are of the truth alone.
    if not settings.dose:
        evaluations, measured_with = _by_product(settings, layout, [trial for trial, _ in made], tasks)
        scenarios = [row for (trial, _), found in zip(made, evaluations, strict=True) for row in _rows(trial, found)]
        said = [row for evaluation in evaluations for row in evaluation.pictures]
        pictures = tuple(
            picture.model_copy(update={"product": row.outcome, "identity": row.identity})
            for picture, row in zip(pictures, said, strict=True)
        )
    first = made[0][1]
    facts: dict[str, Any] = {
        "measured_with": measured_with,
        "renders": _renders(layout, list(dict.fromkeys(trial.unit for trial, _ in made)), reader),
        "base_hash": first.base_hash,
        "devices": sorted({found.device for _, found in made}),
        "versions": first.versions,
        "training_s": round(sum(found.training_s for _, found in made), 1),
        "drawing_s": round(sum(found.drawing_s for _, found in made), 1),
    }
    figures = Figures(pictures, tuple(scenarios), facts)
    rows: list[dict[str, Any]] = [{"kind": "facts", **facts}]
    rows += [{"kind": "picture", **row.model_dump()} for row in figures.pictures]
    rows += [{"kind": "scenario", **row.model_dump()} for row in figures.scenarios]
    write_text(layout.judged, "".join(json.dumps(row) + "\n" for row in rows))
    return figures


def read_figures(layout: Layout) -> Figures:
    """What `judge` wrote. Raises UserError where it has not."""
    if not layout.judged.is_file():
        raise UserError(f"{layout.judged}: is missing; run the step judge first")
    rows: list[dict[str, Any]] = [json.loads(line) for line in layout.judged.read_text(encoding="utf-8").splitlines()]
    kinds: dict[str, list[dict[str, Any]]] = {"facts": [], "picture": [], "scenario": []}
    for row in rows:
        kinds[row.pop("kind")].append(row)
    source = str(layout.judged)
    return Figures(
        tuple(validate(PictureFigure, row, source) for row in kinds["picture"]),
        tuple(validate(ScenarioFigure, row, source) for row in kinds["scenario"]),
        kinds["facts"][0],
    )


def task_of(settings: Settings, layout: Layout, trial: TrialPlan, made: Made) -> Task:
    """A trial as an evaluation sees it; its checkpoint need not be there, its hash is known.

    Raises UserError where pictures are missing.
    """
    character = trial.unit.character
    suite, root = suite_for(settings, character), layout.pictures(character)
    model = model_of(layout, trial, made)
    alone = DrawingModel("toybox", made.base_hash)
    prompts = prompts_in(suite, trial.scenarios)
    task = Task(
        trial=Trial(
            name=trial.name,
            checkpoint=layout.trial(trial) / made.checkpoint,
            base="toybox",
            trigger=character,
            training_pictures=_pictures_of(layout.sets(trial.unit) / trial.dataset),
            dataset=layout.sets(trial.unit) / trial.dataset,
            step=made.steps,
        ),
        model=model,
        folder=root / model.label,
        pictures=tuple(plan(suite, prompts, model, root)),
        strangers=() if settings.dose else tuple(plan(suite, prompts, alone, root)),
    )
    lost = [*missing(task.pictures), *missing(task.strangers)]
    if lost:
        raise UserError(f"{lost[0].path}: and {len(lost) - 1} more are missing or of another model; run the step make")
    return task


def _pictures_of(folder: Path) -> tuple[Path, ...]:
    return pictures_in(folder, "training") if folder.is_dir() else ()


def _by_truth(trials: Sequence[TrialPlan], tasks: dict[str, Task], reader: Probe) -> Iterator[PictureFigure]:
    with bar("Reading pictures", len(trials)) as shown:
        for trial in trials:
            pictures = tasks[trial.name].pictures
            who = HELD_OUT[trial.unit.character]
            for picture, people in zip(pictures, reader.read(_stack(pictures)), strict=True):
                yield PictureFigure(
                    character=trial.unit.character,
                    seed=trial.unit.seed,
                    trial=trial.kind,
                    scenario=picture.prompt.scenario,
                    prompt=picture.prompt.index,
                    variation=picture.variation,
                    on_model=on_model(people, who, picture.prompt.scenario, asked_framing(picture.text)),
                    people=len(people),
                )
            shown.advance(1, trial.name)


def _stack(pictures: Sequence[Planned]) -> npt.NDArray[np.uint8]:
    return np.stack([load(picture.path) for picture in pictures])


def _renders(layout: Layout, units: Sequence[Unit], reader: Probe) -> dict[str, float]:
    """By framing, the share of the held-back renders that the probe takes for on model: more no trial can reach."""
    found: dict[str, list[bool]] = {}
    for unit in units:
        files = sorted(layout.held_back(unit).glob("*.png"))
        for file, people in zip(files, reader.read(np.stack([load(file) for file in files])), strict=True):
            framing = asked_framing(file.with_suffix(".txt").read_text(encoding="utf-8"))
            if framing is not None:
                right = on_model(people, HELD_OUT[unit.character], framing.value)
                found.setdefault(framing.value, []).append(right)
    return {name: round(float(np.mean(found[name])), 4) for name in CATEGORIES if name in found}


def _by_product(
    settings: Settings, layout: Layout, trials: Sequence[TrialPlan], tasks: dict[str, Task]
) -> tuple[list[Evaluation], str]:
    """What `onmodel evaluate` says of each trial, picture for picture in the order of its task; and what measured."""
    from onmodel.cli.measuring import measuring
    from onmodel.evaluation.evaluate import measure

    found: list[Evaluation] = []
    with measuring(None, "toybox", None, "toybox", None) as (services, measured_with):
        for trial in trials:
            suite: TestSuite = suite_for(settings, trial.unit.character)
            references = pictures_in(layout.held_back(trial.unit), "reference")
            options = Options(references=references, measured_with=measured_with)
            found += measure([tasks[trial.name]], suite, options, services)
    return found, measured_with


def _rows(trial: TrialPlan, evaluation: Evaluation) -> Iterator[ScenarioFigure]:
    for scenario, figures in evaluation.scenarios.items():
        kept = {name: figures[name].mean for name in PRODUCT if name in figures}
        yield ScenarioFigure(
            character=trial.unit.character,
            seed=trial.unit.seed,
            trial=trial.kind,
            scenario=scenario,
            figures={name: None if mean is None else round(mean, 4) for name, mean in kept.items()},
        )
