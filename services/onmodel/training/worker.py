"""What one training process does from first to last: load, encode, train, write. Knows nothing of Ray."""

import json
import time
from collections.abc import Callable
from dataclasses import asdict, replace
from pathlib import Path
from typing import Any, Protocol

import torch

from onmodel.core.errors import UserError
from onmodel.core.files import content_hash, write_text
from onmodel.training import checkpoint, export, network
from onmodel.training.chart import write_loss_chart
from onmodel.training.data import ArrayCache, TrainingData, prepare
from onmodel.training.families import Family, StableDiffusion
from onmodel.training.job import LOSS_CHART, METRICS, PROBLEMS, PROGRESS, STATE, Job, read_metrics
from onmodel.training.loop import StepReport, Trainer, Workers
from onmodel.training.masks import prepare_masks
from onmodel.training.metadata import Session, lora_metadata
from onmodel.training.pipeline import load_pipeline

STATE_EVERY_S = 20.0
"""A killed run loses at most this and an epoch; short epochs do not each wait for the disk."""


PRECISIONS = {"no": torch.float32, "bf16": torch.bfloat16, "fp16": torch.float16}
"""Type of the base model's weights by `mixed_precision`."""


class Host(Protocol):
    """What a worker runs in."""

    workers: Workers
    device: torch.device

    def report(self, metrics: dict[str, Any]) -> None:
        """Tell the driver of a checkpoint; a barrier, so every worker calls it equally often."""
        ...


def run_job(job: Job, host: Host) -> None:
    """Train `job` to its end; the files are written by the worker of rank 0. Raises OnModelError."""
    writer = _Writer(job) if host.workers.rank == 0 else None
    progress = writer.progress if writer is not None else _silent
    progress("loading the base model", 0, 0)
    dtype = PRECISIONS[job.config.training.mixed_precision]
    pipeline = load_pipeline(job.config.model.pretrained_model_name_or_path, device=host.device, dtype=dtype)
    family = StableDiffusion(pipeline, job.config.model.v_parameterization)
    data = _prepare(job, host, family, progress)
    trainer = Trainer(job.config, family, data, host.workers, host.device)
    _start_from(job, host, trainer)
    if writer is not None:
        writer.begin(family, data, trainer, host.workers.world_size)

    def on_step(report: StepReport) -> None:
        if writer is not None:
            writer.step(report)

    def on_epoch_end(epoch: int) -> None:
        last = trainer.step >= trainer.total_steps
        due = last or epoch % job.config.training.save_every_n_epochs == 0
        if writer is not None:
            writer.epoch(epoch, due=due)
        if due:
            # Not every epoch: the driver takes reports up some times a second at most, and a worker waits for it.
            host.report({"epoch": epoch, "step": trainer.step})

    trainer.run(on_step, on_epoch_end)


def _silent(what: str, done: int, total: int) -> None:
    """Progress of a worker that is not the first."""


def _prepare(job: Job, host: Host, family: Family, progress: Callable[[str, int, int], None]) -> TrainingData:
    captions = job.config.network.network_train_unet_only
    # Without a folder to share, each worker encodes everything for itself.
    shared = job.cache_dir is not None
    cache, share = (
        ArrayCache(job.cache_dir),
        {
            "rank": host.workers.rank if shared else 0,
            "world_size": host.workers.world_size if shared else 1,
        },
    )
    barrier = host.workers.barrier
    options, pictures = job.config.data, job.pictures
    data = prepare(
        pictures, family, options, cache, encode_captions=captions, barrier=barrier, progress=progress, **share
    )
    data.masks = prepare_masks(data, options, cache, barrier=barrier, **share)
    if any(picture.flip_aug for picture in data.pictures):
        turned = [replace(picture, mirrored=True) for picture in data.pictures]
        mirrored = prepare(
            turned, family, options, cache, encode_captions=False, barrier=barrier, progress=progress, **share
        )
        mirrored.masks = prepare_masks(mirrored, options, cache, barrier=barrier, **share)
        data.mirrored = mirrored
    family.release_encoders(captions=captions)
    return data


def _start_from(job: Job, host: Host, trainer: Trainer) -> None:
    """Take up the full state, or the weights of a LoRA file, that the job names."""
    if job.resume is not None:
        facts = checkpoint.read_facts(job.resume)
        if facts is not None and facts.world_size != host.workers.world_size:
            raise UserError(
                f"{job.resume}: the run had {facts.world_size} worker(s), and its steps can only be gone on with by as "
                f"many; give --num-workers {facts.world_size}"
            )
        trainer.load_state(checkpoint.load_state(job.resume))
    elif job.config.network.network_weights is not None:
        file = Path(job.config.network.network_weights)
        network.write_weights(trainer.components, export.read_lora(file, trainer.components), str(file))


class _Writer:
    """The files of a trial while it runs."""

    def __init__(self, job: Job) -> None:
        self._job = job
        self._name = job.config.training.output_name
        self._last_progress = 0.0
        self._last_state = time.monotonic()

    def progress(self, what: str, done: int, total: int) -> None:
        """Note what is going on for the driver's bar; at most some times a second."""
        now = time.monotonic()
        if done not in (0, total) and now - self._last_progress < 0.2:
            return
        self._last_progress = now
        write_text(self._job.trial_dir / PROGRESS, json.dumps({"what": what, "done": done, "total": total}))

    def begin(self, family: Family, data: TrainingData, trainer: Trainer, world_size: int) -> None:
        """Called once, before the first step."""
        self._family, self._data, self._trainer, self._world_size = family, data, trainer, world_size
        self._session = Session(
            id=int(self._job.started * 1000) & 0xFFFFFFFF,
            started=self._job.started,
            model_hash=content_hash((family.picture_hash() + family.caption_hash()).encode()),
        )
        if data.problems:
            write_text(self._job.trial_dir / PROBLEMS, json.dumps(data.problems, ensure_ascii=False, indent=1))
        self._cut_metrics(trainer.step)
        self.progress("training", trainer.step, trainer.total_steps)

    def _cut_metrics(self, step: int) -> None:
        """Forget steps after `step`, which a resumed run takes again."""
        file = self._job.trial_dir / METRICS
        kept = [line for line in read_metrics(file) if line["step"] <= step]
        write_text(file, "".join(json.dumps(line) + "\n" for line in kept))

    def step(self, report: StepReport) -> None:
        """One line in the metrics, at once, for whoever follows the run."""
        line = {**asdict(report), "total_steps": self._trainer.total_steps, "time": round(time.time(), 3)}
        with (self._job.trial_dir / METRICS).open("a", encoding="utf-8") as stream:
            stream.write(json.dumps(line) + "\n")

    def epoch(self, epoch: int, *, due: bool) -> None:
        """Checkpoint and chart when due; the full state then too, and else when the last one has grown old."""
        trainer, folder = self._trainer, self._job.trial_dir
        if due:
            with trainer.update.exported():
                weights = network.read_weights(trainer.components)
            name = f"{self._name}-{epoch:06d}"
            export.write_peft(folder / "peft" / name, weights)
            export.write_lora(folder / f"{name}.safetensors", weights, self._metadata(epoch))
            write_loss_chart(folder / LOSS_CHART, read_metrics(folder / METRICS))
        if due or time.monotonic() - self._last_state > STATE_EVERY_S:
            # Last: a state says that everything up to it has been written.
            config = self._job.config
            facts = checkpoint.StateFacts(
                trainer.step, trainer.total_steps, config.identity, self._job.dataset_hash, self._world_size
            )
            checkpoint.save_state(folder / STATE, facts, trainer.state())
            self._last_state = time.monotonic()

    def _metadata(self, epoch: int) -> dict[str, str]:
        return lora_metadata(
            self._job.config,
            self._family,
            self._data,
            self._session,
            epoch=epoch,
            step=self._trainer.step,
            total_steps=self._trainer.total_steps,
            steps_per_epoch=self._trainer.steps_per_epoch,
            finished=time.time(),
        )
