"""The files of a trial while it runs; the first worker alone writes them."""

import json
import shutil
import time
from collections import deque
from collections.abc import Mapping, Sequence
from dataclasses import asdict
from pathlib import Path
from uuid import uuid4

from onmodel.core.files import write_text
from onmodel.training import checkpoint, export, network
from onmodel.training.chart import write_loss_chart
from onmodel.training.data import TrainingData
from onmodel.training.families import Family
from onmodel.training.job import (
    LOSS_CHART,
    METRICS,
    OWNER,
    PEFT,
    PROBLEMS,
    PROGRESS,
    SAMPLES,
    STAGES,
    STATE,
    VALIDATION,
    Job,
    TakenOverError,
    read_metrics,
)
from onmodel.training.logs import Log, open_logs
from onmodel.training.loop import StepReport, Trainer
from onmodel.training.metadata import Session, lora_metadata
from onmodel.training.resuming import checkpoints, epoch_of

STATE_EVERY_S = 20.0
"""A killed run loses about this much; in no case takes keeping states more than a fiftieth of the time."""
CHART_EVERY_S = 20.0
"""Between a stage's ends, and at most a fiftieth of the time: drawing it takes longer than an epoch of few pictures,
and training waits."""
RATE_STEPS = 20
"""Optimizer steps over which images a second are counted."""


def _not_before(start: float, every_s: float) -> float:
    """When what began at `start` and has just ended is due again, so that it takes a fiftieth of the time at most."""
    now = time.monotonic()
    return now + max(every_s, 50 * (now - start))


class Writer:
    """Checkpoints, states, metrics, curves and pictures of one run.

    A machine that is cut off from its cluster is given up for dead and may live: its worker trains on where a second
    one has begun in its place, both into one folder. Who begins last owns the folder, and the other stops before it
    writes again. Raises TakenOverError there.
    """

    def __init__(self, job: Job) -> None:
        self._job = job
        self._owner = uuid4().hex
        write_text(job.trial_dir / OWNER, self._owner)
        self._options = job.config.training
        self._name = job.config.training.output_name
        self._last_progress = 0.0
        self._logs: list[Log] = []
        self._times: deque[tuple[float, int]] = deque(maxlen=RATE_STEPS + 1)

    def progress(self, what: str, done: int, total: int) -> None:
        """Note what is going on for the driver's bar; at most some times a second."""
        now = time.monotonic()
        if done not in (0, total) and now - self._last_progress < 0.2:
            return
        self._last_progress = now
        write_text(self._job.trial_dir / PROGRESS, json.dumps({"what": what, "done": done, "total": total}))

    def begin(self, family: Family, data: TrainingData, trainer: Trainer) -> None:
        """Called once, before the first step."""
        self._check_owner()
        self._family, self._data, self._trainer = family, data, trainer
        self._session = Session(
            id=int(self._job.started * 1000) & 0xFFFFFFFF,
            started=self._job.started,
            model_hash=family.model_hash(),
        )
        if data.problems:
            write_text(self._job.trial_dir / PROBLEMS, json.dumps(data.problems, ensure_ascii=False, indent=1))
        for name in (METRICS, VALIDATION):
            self._cut(self._job.trial_dir / name, trainer.step)
        self._remove_later(trainer)
        self._logs = open_logs(self._job.config, self._job.trial_dir, trainer.step)
        self._next_state = time.monotonic() + STATE_EVERY_S
        self._next_chart = time.monotonic() + CHART_EVERY_S
        self._times.append((time.monotonic(), 0))
        self.progress("training", trainer.step, trainer.total_steps)

    def _remove_later(self, trainer: Trainer) -> None:
        """Remove what an earlier run left of steps that are taken now, another way or again."""
        folder, name = self._job.trial_dir, self._name
        over = sum(end <= trainer.step for plan in trainer.stages for end in plan.ends)
        for file in checkpoints(folder, name):
            if epoch_of(file) > over:
                remove_checkpoint(file)
        for file in folder.glob(f"{name}-step{'[0-9]' * 8}.safetensors"):
            if int(file.stem[-8:]) > trainer.step:
                remove_checkpoint(file)
        for plan in trainer.stages:
            if plan.last_step > trainer.step:
                shutil.rmtree(folder / STAGES / plan.stage.name, ignore_errors=True)

    def _cut(self, file: Path, step: int) -> None:
        """Forget steps after `step`, which a resumed run takes again."""
        kept = [line for line in read_metrics(file) if line["step"] <= step]
        if kept or file.name == METRICS:
            write_text(file, "".join(json.dumps(line) + "\n" for line in kept))
        else:
            file.unlink(missing_ok=True)

    def _check_owner(self) -> None:
        try:
            owner = (self._job.trial_dir / OWNER).read_text(encoding="utf-8")
        except FileNotFoundError:
            owner = ""
        if owner != self._owner:
            raise TakenOverError(
                f"{self._job.trial_dir}: another process trains this trial since, so this one has stopped; wait for it"
            )

    def _append(self, name: str, line: Mapping[str, object]) -> None:
        with (self._job.trial_dir / name).open("a", encoding="utf-8") as stream:
            stream.write(json.dumps(line) + "\n")

    def _log(self, values: Mapping[str, float]) -> None:
        for log in self._logs:
            log.scalars(values, self._trainer.step)

    def step(self, report: StepReport) -> None:
        """One line in the metrics at once, for whoever follows the run; checkpoint and state where they are due."""
        self._check_owner()
        line = {**asdict(report), "total_steps": self._trainer.total_steps, "time": round(time.time(), 3)}
        del line["ends_epoch"]
        self._append(METRICS, line)
        self._times.append((time.monotonic(), report.pictures))
        passed = max(self._times[-1][0] - self._times[0][0], 1e-9)
        rate = sum(pictures for _, pictures in list(self._times)[1:]) / passed
        rates = {f"learning_rate/{name}": value for name, value in report.rates.items()}
        curves = {"loss": report.loss, "grad_norm": report.grad_norm, "images_per_second": rate, **rates}
        self._log({**curves, "epoch": report.epoch})
        every = self._options.save_every_n_steps
        due = every is not None and report.step % every == 0
        if due:
            self._checkpoint(f"{self._name}-step{report.step:08d}", report.epoch)
            self._prune_steps(report.step)
        # At an epoch's end the state waits for the epoch's checkpoint: it says that all up to it has been written.
        if not report.ends_epoch and (due or time.monotonic() > self._next_state):
            self._save_state()

    def epoch(self, epoch: int, *, due: bool) -> None:
        """Checkpoint when due, chart now and then, and the full state; a finished stage's state is kept."""
        self._check_owner()
        trainer, folder = self._trainer, self._job.trial_dir
        plan = trainer.stage
        self._log({f"mix/{name}": share for name, share in plan.shares(epoch - 1).items()})
        if due:
            self._checkpoint(f"{self._name}-{epoch:06d}", epoch)
            self._prune_epochs(epoch)
            if trainer.step == plan.last_step or time.monotonic() > self._next_chart:
                self._draw_chart()
        if self._job.config.stage and trainer.step == plan.last_step:
            self._save_state(folder / STAGES / plan.stage.name)
        every = self._options.save_every_n_steps
        if due or (every is not None and trainer.step % every == 0) or time.monotonic() > self._next_state:
            self._save_state()

    def _checkpoint(self, name: str, epoch: int) -> None:
        folder = self._job.trial_dir
        with self._trainer.evaluating():
            weights = network.read_weights(self._trainer.components)
        export.write_peft(folder / PEFT / name, weights, self._job.config.network.spec)
        export.write_lora(folder / f"{name}.safetensors", weights, self._family.naming, self._metadata(epoch))
        if self._options.save_state:
            self._save_state(folder / f"{name}-state")

    def _draw_chart(self) -> None:
        folder, start = self._job.trial_dir, time.monotonic()
        write_loss_chart(folder / LOSS_CHART, read_metrics(folder / METRICS))
        self._next_chart = _not_before(start, CHART_EVERY_S)

    def _save_state(self, folder: Path | None = None) -> None:
        trainer, job = self._trainer, self._job
        start = time.monotonic()
        facts = checkpoint.StateFacts(
            step=trainer.step,
            total_steps=trainer.total_steps,
            stage=trainer.stage.index,
            stage_end=trainer.stage.last_step,
            identity=job.config.through(trainer.stage.index).identity,
            dataset_hash=job.dataset_hash,
            batch=trainer.batch,
        )
        checkpoint.save_state(folder or job.trial_dir / STATE, facts, trainer.state())
        self._next_state = _not_before(start, STATE_EVERY_S)

    def _prune_epochs(self, epoch: int) -> None:
        keep = self._options.save_last_n_epochs
        if keep is not None:
            files = checkpoints(self._job.trial_dir, self._name)
            for file in [file for file in files if epoch_of(file) <= epoch][:-keep]:
                remove_checkpoint(file)

    def _prune_steps(self, step: int) -> None:
        keep = self._options.save_last_n_steps
        for file in self._job.trial_dir.glob(f"{self._name}-step{'[0-9]' * 8}.safetensors"):
            if keep is not None and int(file.stem[-8:]) <= step - keep:
                remove_checkpoint(file)

    def validated(self, losses: Mapping[str, float], epoch: int) -> None:
        """Losses of the held-back pictures, in all and by category."""
        self._check_owner()
        self._append(VALIDATION, {"step": self._trainer.step, "epoch": epoch, "losses": dict(losses)})
        self._log({f"validation/{name}": value for name, value in losses.items()})

    def draw(self, pipeline: object) -> None:
        """Draw the sample pictures with the network as it is."""
        if self._job.samples is None:
            return
        folder, step = self._job.trial_dir / SAMPLES, self._trainer.step
        self.progress("drawing samples", 0, 0)
        with self._trainer.evaluating():
            files: Sequence[Path] = self._job.samples.draw(
                pipeline, folder, f"{self._name}-step{step:08d}", self._job.config.model.clip_skip
            )
        for log in self._logs:
            log.pictures(files, step)
        self.progress("training", step, self._trainer.total_steps)

    def close(self) -> None:
        """Send what the logs still hold."""
        for log in self._logs:
            log.close()

    def _metadata(self, epoch: int) -> dict[str, str]:
        return lora_metadata(
            self._trainer.stage.config,
            self._family,
            self._data,
            self._session,
            epoch=epoch,
            step=self._trainer.step,
            total_steps=self._trainer.total_steps,
            stage_steps=self._trainer.stage.steps,
            steps_per_epoch=self._trainer.steps_per_epoch,
            epochs=self._trainer.epochs,
            stage=self._trainer.stage.stage.name,
            finished=time.time(),
        )


def remove_checkpoint(file: Path) -> None:
    """Remove an sd-scripts file with its PEFT copy and its state."""
    file.unlink(missing_ok=True)
    for folder in (file.parent / PEFT / file.stem, file.with_name(f"{file.stem}-state")):
        shutil.rmtree(folder, ignore_errors=True)
