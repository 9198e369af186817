"""What is to be evaluated, and the drawing of the pictures that are missing for it."""

from collections.abc import Sequence
from dataclasses import dataclass, replace
from itertools import pairwise
from pathlib import Path
from typing import Any

from onmodel.core.errors import UserError
from onmodel.core.images import SUFFIXES
from onmodel.core.progress import bar
from onmodel.evaluation import generate
from onmodel.evaluation.generate import DrawingModel, Planned
from onmodel.evaluation.suite import TestSuite
from onmodel.evaluation.trial import Trial


@dataclass(frozen=True, slots=True)
class Options:
    """How to evaluate, beside what and with which suite."""

    references: tuple[Path, ...] = ()
    """Held-back pictures of the character; empty takes the trial's own training pictures."""
    impostors: tuple[Path, ...] = ()
    """Pictures of other characters; empty lets the base model draw the same prompts without the LoRA."""
    measured_with: str = ""
    """Names detector and scorer settings; part of the key."""
    device: str = "auto"
    batch_size: int | None = None


@dataclass(frozen=True, slots=True)
class Task:
    """One checkpoint at one scale with its pictures, made or not."""

    trial: Trial
    model: DrawingModel
    folder: Path
    """Holds the pictures and `evaluation.json`."""
    pictures: tuple[Planned, ...]
    strangers: tuple[Planned, ...]
    """The base model's pictures of the same prompts; empty where impostors are given."""


def pictures_in(path: Path, what: str) -> tuple[Path, ...]:
    """Picture files below a folder, or the one file. Raises UserError where there is none."""
    found = sorted(f for f in path.rglob("*") if f.suffix.lower() in SUFFIXES) if path.is_dir() else [path]
    if not found or not found[0].is_file():
        raise UserError(f"{path}: no {what} pictures there; give a folder of png, jpg or webp files")
    return tuple(found)


def make_tasks(
    trials: Sequence[Trial],
    suite: TestSuite,
    options: Options,
    *,
    scales: Sequence[float] = (1.0,),
    output_dir: Path | None = None,
) -> list[Task]:
    """Plan every checkpoint at every scale. Nothing is drawn yet.

    Args:
        output_dir: holds one folder a checkpoint; None puts them into each trial's own `evaluation` folder.

    Raises:
        UserError: two checkpoints would share a folder, no trigger word is known, or a scale is out of range.
    """
    tasks: list[Task] = []
    roots = [output_dir or trial.evaluation_folder for trial in trials]
    for trial, root in zip(trials, roots, strict=True):
        prompts = suite.prompts(trial.trigger)
        base = generate.drawing_model(trial.base, vae=trial.vae, clip_skip=trial.clip_skip)
        strangers: list[Planned] = []
        if not options.impostors:
            shared = next((r for r in roots if (r / base.label).is_dir()), roots[0])
            strangers = generate.plan(suite, prompts, base, shared)
        for scale in scales:
            model = generate.drawing_model(
                trial.base, trial.checkpoint, scale, vae=trial.vae, clip_skip=trial.clip_skip
            )
            planned = generate.plan(suite, prompts, model, root)
            tasks.append(Task(trial, model, root / model.label, tuple(planned), tuple(strangers)))
    for first, second in pairwise(sorted(tasks, key=lambda t: t.folder)):
        if first.folder == second.folder:
            raise UserError(
                f"{first.trial.checkpoint} and {second.trial.checkpoint} would both be written to {first.folder}; "
                "give each another name, or leave --output-dir out"
            )
    return tasks


def draw(tasks: Sequence[Task], suite: TestSuite, options: Options) -> int:
    """Draw what is missing of all tasks, base models' pictures first; returns how many pictures were drawn."""
    work: list[tuple[DrawingModel, list[Planned]]] = []
    for task in tasks:
        if task.strangers and not any(m.lora is None and m.base == task.model.base for m, _ in work):
            alone = replace(task.model, lora=None, lora_hash=None, scale=1.0)
            work.append((alone, generate.missing(task.strangers)))
    work += [(task.model, generate.missing(task.pictures)) for task in tasks]
    total = sum(len(pictures) for _, pictures in work)
    if not total:
        return 0
    pipelines = _Pipelines(options.device)
    with bar("Drawing test pictures", total) as progress:
        for model, pictures in work:
            if pictures:
                pipeline = pipelines.get(model)
                generate.generate(
                    pictures,
                    suite,
                    model,
                    pipeline,
                    batch_size=options.batch_size,
                    advance=lambda count, label=model.label: progress.advance(count, label),
                )
    return total


class _Pipelines:
    """Keeps the last base model loaded: checkpoints of one base follow each other."""

    def __init__(self, device: str) -> None:
        import torch

        self._device = ("cuda" if torch.cuda.is_available() else "cpu") if device == "auto" else device
        self._base: tuple[str, str | None] | None = None
        self._pipeline: Any = None

    def get(self, model: DrawingModel) -> Any:
        import torch

        from onmodel.training.pipeline import load_lora, load_pipeline, unload_lora

        if self._base != (model.base, model.vae):
            self._pipeline = None
            dtype = torch.float16 if self._device.startswith("cuda") else torch.float32
            self._pipeline = load_pipeline(model.base, device=self._device, dtype=dtype, vae=model.vae)
            self._base = (model.base, model.vae)
        if model.lora is None:
            unload_lora(self._pipeline)
        else:
            load_lora(self._pipeline, model.lora, model.scale)
        return self._pipeline
