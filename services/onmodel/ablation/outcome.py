"""What came of an ablation: of each variant its losses and figures, against the first; `ablation.json` and the page."""

from collections.abc import Sequence
from pathlib import Path
from typing import Any

from onmodel import __version__
from onmodel.ablation.measuring import Measured, Measuring
from onmodel.ablation.record import Rung, Status
from onmodel.ablation.variant import Task, training_loss, validation_loss
from onmodel.ablation.variants import Ablation
from onmodel.core.config import Config
from onmodel.core.files import write_text
from onmodel.evaluation.compare import Comparison, compare, met
from onmodel.evaluation.metrics import ALL, HEADLINE
from onmodel.evaluation.observe import Looking
from onmodel.evaluation.report import write_report
from onmodel.evaluation.statistics import Verdict
from onmodel.training.job import METRICS, read_metrics
from onmodel.training.resuming import checkpoints

OUTCOME = "ablation.json"
REPORT = "report.html"
SCHEMA_VERSION = 1


class VariantOutcome(Config):
    """One variant, and how it compares with the first."""

    name: str
    overrides: dict[str, Any]
    """What it changes of the base, by `<table>.<key>`."""
    status: Status
    reason: str | None
    trial_dir: str
    checkpoint: str | None
    """The last one, of a finished variant."""
    steps: int
    epochs: int
    threads: int
    train_loss: float | None
    """Mean over the last epoch."""
    val_loss: float | None
    """Of the held-back pictures at the end; None where none are held back."""
    val_loss_difference: float | None
    """To the first variant; below 0 is better."""
    rungs: tuple[Rung, ...]
    """Of a search: its metric on the way."""
    on_model: dict[str, float]
    """Share of pictures that came out right, by scenario and for `all`; empty without an evaluation."""
    targets_met: int | None
    targets: int | None
    verdict: Verdict | None
    """On all pictures, paired with the first variant's; None for the first itself and without an evaluation."""


class Outcome(Config):
    """The content of `ablation.json`."""

    schema_version: int = SCHEMA_VERSION
    onmodel_version: str = __version__
    name: str
    first: str | None
    """The finished variant that the others are compared with; of a search, the best."""
    metric: str | None
    """Of a search."""
    verdict: str | None
    """In sentences; None without an evaluation."""
    report: str | None
    variants: tuple[VariantOutcome, ...]
    """In the file's order; of a search the best first."""

    @property
    def failed(self) -> tuple[VariantOutcome, ...]:
        """Those that were not trained to their end for a reason of their own."""
        return tuple(each for each in self.variants if each.status not in (Status.FINISHED, Status.STOPPED))


def outcome_of(
    ablation: Ablation, tasks: Sequence[Task], measuring: Measuring | None = None, services: Looking | None = None
) -> Outcome:
    """Gather what the trials left, evaluating the finished ones first where `measuring` says how.

    Raises:
        UserError: of the evaluation.
        ServiceError: a service does not answer.
    """
    search = ablation.settings.search
    rows = [_plain(ablation, task) for task in tasks]
    if search is not None:
        rows = _best_first(rows, higher=search.higher_is_better)
    finished = [row for row in rows if row.status is Status.FINISHED and row.checkpoint is not None]
    measured: dict[str, Measured] = {}
    if measuring is not None and finished:
        found = measuring.evaluate([Path(row.checkpoint or "") for row in finished], services)
        measured = {row.name: each for row, each in zip(finished, found, strict=True)}
    comparison = compare([each.evaluation for each in measured.values()]) if len(measured) > 1 else None
    report = ablation.folder / REPORT
    if comparison is not None:
        folders = {name: each.folder for name, each in zip(comparison.models, measured.values(), strict=True)}
        write_report(comparison, folders, report, title=ablation.settings.ablation.name)
    first = finished[0] if finished else None
    names = dict(zip(measured, comparison.models, strict=True)) if comparison else {}
    return Outcome(
        name=ablation.settings.ablation.name,
        first=first.name if first else None,
        metric=search.metric if search else None,
        verdict=comparison.verdict if comparison else None,
        report=str(report) if comparison else None,
        variants=tuple(
            _compared(row, first, measured.get(row.name), comparison, names.get(row.name, "")) for row in rows
        ),
    )


def _plain(ablation: Ablation, task: Task) -> VariantOutcome:
    """A variant without its evaluation."""
    record = task.read()
    folder = task.config.trial_dir
    steps = read_metrics(folder / METRICS)
    files = checkpoints(folder, task.config.training.output_name)
    overrides = next(each.overrides for each in ablation.variants if each.name == task.name)
    return VariantOutcome(
        name=task.name,
        overrides=overrides,
        status=record.status,
        reason=record.reason,
        trial_dir=str(folder),
        checkpoint=str(files[-1]) if files and record.status is Status.FINISHED else None,
        steps=len(steps),
        epochs=int(steps[-1]["epoch"]) if steps else 0,
        threads=record.threads,
        train_loss=training_loss(folder),
        val_loss=validation_loss(folder),
        val_loss_difference=None,
        rungs=record.rungs,
        on_model={},
        targets_met=None,
        targets=None,
        verdict=None,
    )


def _best_first(rows: Sequence[VariantOutcome], *, higher: bool) -> list[VariantOutcome]:
    """By how far they came, then by the metric there."""

    def rank(row: VariantOutcome) -> tuple[bool, int, float]:
        last = row.rungs[-1] if row.rungs else Rung(epoch=0, value=None)
        worth = float("-inf") if last.value is None else (last.value if higher else -last.value)
        return (row.status is Status.FINISHED, last.epoch, worth)

    return sorted(rows, key=rank, reverse=True)


def _compared(
    row: VariantOutcome,
    first: VariantOutcome | None,
    measured: Measured | None,
    comparison: Comparison | None,
    shown: str,
) -> VariantOutcome:
    changes: dict[str, Any] = {}
    if first is not None and row is not first and row.status is Status.FINISHED:
        if row.val_loss is not None and first.val_loss is not None:
            changes["val_loss_difference"] = row.val_loss - first.val_loss
        pair = comparison.pair(shown, ALL) if comparison is not None else None
        changes["verdict"] = pair.verdict if pair is not None else None
    if measured is not None:
        blocks = {**measured.evaluation.scenarios, ALL: measured.evaluation.overall}
        means = {name: figures[HEADLINE].mean for name, figures in blocks.items()}
        changes["on_model"] = {name: mean for name, mean in means.items() if mean is not None}
        changes["targets_met"], changes["targets"] = met(measured.evaluation)
    return row.model_copy(update=changes)


def write_outcome(ablation: Ablation, outcome: Outcome) -> Path:
    """Write `ablation.json` whole; its path. Raises as `write_text`."""
    path = ablation.folder / OUTCOME
    write_text(path, outcome.model_dump_json(indent=1) + "\n")
    return path
