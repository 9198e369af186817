"""What is to be evaluated, and the drawing of the pictures that are missing for it."""

import os
import sys
from collections.abc import Sequence
from dataclasses import dataclass, replace
from itertools import pairwise
from pathlib import Path
from typing import TYPE_CHECKING, Any

from onmodel.core.errors import UserError
from onmodel.core.images import SUFFIXES
from onmodel.core.imports import collector_paused
from onmodel.core.progress import bar
from onmodel.evaluation.planned import DrawingModel, Planned, drawing_model, missing, plan
from onmodel.evaluation.record import Evaluation
from onmodel.evaluation.suite import TestSuite
from onmodel.evaluation.trial import Trial

if TYPE_CHECKING:
    # Where every picture is there nothing is drawn, and what draws takes ten seconds to import.
    from onmodel.evaluation.generate import Encoded
    from onmodel.training.pipeline import LoadedLora


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


def strangers_in(folder: Path, evaluations: Sequence[Evaluation] = ()) -> list[Path]:
    """What base models drew for the prompts of evaluations in `folder`, else of `evaluations`, wherever that lies.

    Trials that were evaluated together share the base model's pictures, which lie with the first.
    """
    elsewhere = {Path(e.base_pictures) for e in evaluations if e.base_pictures is not None}
    return sorted(folder.glob("base-*/*.png")) or sorted(f for other in elsewhere for f in other.glob("*.png"))


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
        base = drawing_model(trial.base, vae=trial.vae, clip_skip=trial.clip_skip)
        strangers: list[Planned] = []
        if not options.impostors:
            shared = next((r for r in roots if (r / base.label).is_dir()), roots[0])
            strangers = plan(suite, prompts, base, shared)
        for scale in scales:
            model = drawing_model(trial.base, trial.checkpoint, scale, vae=trial.vae, clip_skip=trial.clip_skip)
            planned = plan(suite, prompts, model, root)
            tasks.append(Task(trial, model, root / model.label, tuple(planned), tuple(strangers)))
    for first, second in pairwise(sorted(tasks, key=lambda t: t.folder)):
        if first.folder == second.folder:
            raise UserError(
                f"{first.trial.checkpoint} and {second.trial.checkpoint} would both be written to {first.folder}; "
                "give each another name, or leave --output-dir out"
            )
    return tasks


Work = list[tuple[DrawingModel, list[Planned]]]
"""Pictures that are missing, by the model that draws them."""


def missing_work(tasks: Sequence[Task]) -> Work:
    """What is missing of all tasks, models of one base one after the other, the base's own pictures first."""
    alone = [replace(task.model, lora=None, lora_hash=None, scale=1.0) for task in tasks]
    work: Work = []
    loads = list(dict.fromkeys((model.base, model.vae) for model in alone))
    for base in sorted(dict.fromkeys(alone), key=lambda model: loads.index((model.base, model.vae))):
        own = [task for task, model in zip(tasks, alone, strict=True) if model == base]
        strangers = next((task.strangers for task in own if task.strangers), ())
        work.append((base, missing(strangers)))
        work += [(task.model, missing(task.pictures)) for task in own]
    return [(model, pictures) for model, pictures in work if pictures]


def draw(tasks: Sequence[Task], suite: TestSuite, options: Options) -> int:
    """Draw what is missing of all tasks; returns how many pictures were drawn.

    Where this process drives a Ray cluster of several workers, RAY_ADDRESS names a cluster, or this machine has several
    GPUs, pictures are drawn there in parallel; else here.
    """
    work = missing_work(tasks)
    total = sum(len(pictures) for _, pictures in work)
    if not total:
        return 0
    with bar("Drawing test pictures", total) as progress:
        if spread_pays(options.device):
            from onmodel.evaluation.ray_draw import draw_over_cluster

            draw_over_cluster(work, suite, options.device, options.batch_size, progress.advance)
            return total
        with collector_paused():
            from onmodel.evaluation.generate import generate

        pipelines = Pipelines(options.device)
        for model, pictures in work:
            generate(
                pictures,
                suite,
                model,
                pipelines.get(model),
                batch_size=options.batch_size,
                encoded=pipelines.encoded(suite),
                advance=lambda count, label=model.label: progress.advance(count, label),
            )
    return total


def spread_pays(device: str) -> bool:
    """Whether there is more to draw with than this process alone."""
    named = bool(os.environ.get("RAY_ADDRESS"))
    # A process that is part of a cluster has imported Ray; there is no need to do so to find out.
    if "ray" in sys.modules:
        from onmodel.evaluation.ray_draw import Place, place

        where = place()
        if where is not Place.OUTSIDE:
            return where is Place.DRIVER_OF_SEVERAL or (named and where is not Place.WITHIN)
    if named:
        return True
    with collector_paused():
        import torch

    return device in ("auto", "cuda") and torch.cuda.device_count() > 1


class Pipelines:
    """Keeps the last base model loaded, and what its text encoders made of prompts: checkpoints change both seldom."""

    def __init__(self, device: str) -> None:
        import torch

        self._device = ("cuda" if torch.cuda.is_available() else "cpu") if device == "auto" else device
        self._base: tuple[str, str | None] | None = None
        self._pipeline: Any = None
        self._lora: LoadedLora | None = None
        self._encoded: dict[str, Encoded] = {}
        self._texts = ""

    def get(self, model: DrawingModel) -> Any:
        """The model's pipeline with its LoRA on it."""
        import torch

        with collector_paused():
            from onmodel.training.pipeline import LoadedLora, load_pipeline

        if self._lora is not None:
            self._lora.undo()
            self._lora = None
        if self._base != (model.base, model.vae):
            self._pipeline = None
            self._encoded.clear()
            dtype = torch.float16 if self._device.startswith("cuda") else torch.float32
            self._pipeline = load_pipeline(model.base, device=self._device, dtype=dtype, vae=model.vae)
            self._base = (model.base, model.vae)
        if model.lora is not None:
            self._lora = LoadedLora(self._pipeline, model.lora, model.scale)
        # A LoRA on the text encoder has embeddings of its own; every other one shares the base model's.
        own = f"{model.lora_hash} {model.scale}" if self._lora and self._lora.changes_text else ""
        self._texts = f"{own} {model.clip_skip}"
        return self._pipeline

    def encoded(self, suite: TestSuite) -> "Encoded":
        """What the text encoders of the last pipeline made of prompts so far, for `generate` to use and add to."""
        return self._encoded.setdefault(f"{self._texts} {suite.guidance_scale > 1} {suite.negative_prompt}", {})
