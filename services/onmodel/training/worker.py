"""What one training process does from first to last: load, encode, train, write. Knows nothing of Ray."""

from collections.abc import Callable
from dataclasses import replace
from functools import partial
from pathlib import Path
from typing import Any, Protocol

import torch

from onmodel.core.errors import ResourceError
from onmodel.training import checkpoint, network
from onmodel.training.config import TrainConfig
from onmodel.training.data import TrainingData, prepare
from onmodel.training.families import Family, make_family
from onmodel.training.job import STATE, Job
from onmodel.training.loop import Alone, StepReport, Trainer, Workers
from onmodel.training.lora_file import read_lora
from onmodel.training.masks import prepare_masks
from onmodel.training.pipeline import load_pipeline
from onmodel.training.store import ArrayCache, one_at_a_time
from onmodel.training.writer import Writer

PRECISIONS = {"no": torch.float32, "bf16": torch.bfloat16, "fp16": torch.float16}
"""Type of the base model's weights by `mixed_precision`."""


class Host(Protocol):
    """What a worker runs in."""

    workers: Workers
    device: torch.device

    def report(self, metrics: dict[str, Any]) -> None:
        """Tell the driver of a checkpoint; a barrier, so every worker calls it equally often."""
        ...


class OwnProcess:
    """This process as the only worker: a `Host`."""

    def __init__(self, on_epoch: Callable[[int], None] | None = None) -> None:
        """Args:
        on_epoch: called with each epoch that left a checkpoint.
        """
        self.workers: Workers = Alone()
        self.device = torch.device("cuda" if torch.cuda.is_available() else "cpu")
        self._on_epoch = on_epoch

    def report(self, metrics: dict[str, Any]) -> None:
        if self._on_epoch is not None:
            self._on_epoch(int(metrics["epoch"]))


def run_job(job: Job, host: Host) -> None:
    """Train `job` to its end; the files are written by the worker of rank 0.

    Raises:
        OnModelError: a wrong config or state, a loss that is not finite, a full disk or a full memory.
    """
    writer = Writer(job) if host.workers.rank == 0 else None
    try:
        _Run(job, host, writer).train()
    except (RuntimeError, MemoryError) as error:
        if not is_out_of_memory(error):
            raise
        raise ResourceError(out_of_memory(job.config, host.device.type)) from error
    finally:
        if writer is not None:
            writer.close()


class _Run:
    """One worker's run."""

    def __init__(self, job: Job, host: Host, writer: Writer | None) -> None:
        progress = writer.progress if writer is not None else _silent
        progress("loading the base model", 0, 0)
        self._job, self._host, self._writer = job, host, writer
        dtype = PRECISIONS[job.config.training.mixed_precision]
        base = job.config.model
        self._pipeline: Any = load_pipeline(
            base.pretrained_model_name_or_path, device=host.device, dtype=dtype, vae=base.vae
        )
        family = make_family(self._pipeline, job.config.model)
        # Before there is a network on the encoders: it is the base model's.
        family.model_hash()
        data = _prepare(job, host, family, progress)
        self._trainer = Trainer(job.config, family, data, host.workers, host.device, batch=job.batch)
        _start_from(job, family, self._trainer)
        self._validates = any(picture.held_back for picture in data.pictures)
        if writer is not None:
            writer.begin(family, data, self._trainer)

    def train(self) -> None:
        options = self._job.config.training
        if self._trainer.step == 0:
            if self._validates:
                self._validate(0)
            if options.sample_at_first:
                self._draw()
        self._trainer.run(self._on_step, self._on_epoch_end, last_stage=self._job.last_stage)

    def _on_step(self, report: StepReport) -> None:
        if self._writer is not None:
            self._writer.step(report)
        options, step = self._job.config.training, report.step
        if _due(step, options.validate_every_n_steps) and self._validates:
            self._validate(report.epoch)
        if _due(step, options.sample_every_n_steps):
            self._draw()

    def _on_epoch_end(self, epoch: int) -> None:
        options, trainer = self._job.config.training, self._trainer
        due = trainer.step == trainer.stage.last_step or _due(epoch, options.save_every_n_epochs)
        every = options.validate_every_n_epochs or (None if options.validate_every_n_steps else 1)
        if self._validates and _due(epoch, every):
            self._validate(epoch)
        if self._writer is not None:
            self._writer.epoch(epoch, due=due)
        if _due(epoch, options.sample_every_n_epochs):
            # After the epoch is on disk: drawing takes longest, and is what may fail.
            self._draw()
        if due:
            # Not every epoch: the driver takes reports up some times a second at most, and a worker waits for it.
            self._host.report({"epoch": epoch, "step": trainer.step})

    def _validate(self, epoch: int) -> None:
        losses = self._trainer.validate()
        if self._writer is not None:
            self._writer.validated(losses, epoch)

    def _draw(self) -> None:
        if self._writer is None or self._job.samples is None:
            return
        self._pipeline.to(self._host.device)
        self._writer.draw(self._pipeline)
        self._trainer.release_encoders()


def _due(number: int, every: int | None) -> bool:
    return every is not None and number % every == 0


def _silent(what: str, done: int, total: int) -> None:
    """Progress of a worker that is not the first."""


def _prepare(job: Job, host: Host, family: Family, progress: Callable[[str, int, int], None]) -> TrainingData:
    """Latents, captions and masks; one run at a time, as its first worker sees to."""

    def waiting(seconds: int) -> None:
        progress("waiting for another run that encodes pictures", seconds, 0)

    with one_at_a_time(job.cache_dir if host.workers.rank == 0 else None, waiting):
        host.workers.barrier()
        return _encode(job, host, family, progress)


def _encode(job: Job, host: Host, family: Family, progress: Callable[[str, int, int], None]) -> TrainingData:
    captions = not job.config.network.trains_text
    # Without a folder to share, each worker encodes everything for itself.
    shared = job.cache_dir is not None
    place = {
        "rank": host.workers.rank if shared else 0,
        "world_size": host.workers.world_size if shared else 1,
    }
    cache, options, barrier = ArrayCache(job.cache_dir), job.config.data, host.workers.barrier
    encode = partial(prepare, family=family, config=options, cache=cache, barrier=barrier, progress=progress, **place)
    data = encode(job.pictures, encode_captions=captions)
    data.masks = prepare_masks(data, options, cache, barrier=barrier, **place)
    if any(picture.flip_aug for picture in data.pictures):
        turned = [replace(picture, mirrored=True) for picture in data.pictures]
        data.mirrored = encode(turned, encode_captions=False)
        data.mirrored.masks = prepare_masks(data.mirrored, options, cache, barrier=barrier, **place)
    family.release_encoders(captions=captions)
    return data


def _start_from(job: Job, family: Family, trainer: Trainer) -> None:
    """Take up the state in the trial's folder, or else begin, with the weights of a LoRA file where one is named.

    Looked for here and not by the driver: a worker that is started in place of one that died comes by here again.
    """
    if checkpoint.read_facts(job.trial_dir / STATE) is not None:
        trainer.load_state(checkpoint.load_state(job.trial_dir / STATE))
        return
    if job.config.network.network_weights is not None:
        file = Path(job.config.network.network_weights)
        weights = read_lora(file, trainer.components, family.naming)
        network.write_weights(trainer.components, weights, str(file))
    if job.first_stage:
        trainer.start_at(job.first_stage)


def is_out_of_memory(error: BaseException) -> bool:
    """Whether a device's or the machine's memory was full."""
    full = ("out of memory", "can't allocate memory", "not enough memory")
    return isinstance(error, (torch.OutOfMemoryError, MemoryError)) or any(part in str(error).lower() for part in full)


def out_of_memory(config: TrainConfig, device: str) -> str:
    """What to change in `config`, the cheapest first."""
    training, width, height = config.training, *config.data.size
    advice: list[str] = []
    if not config.advanced.gradient_checkpointing:
        advice.append("set gradient_checkpointing = true")
    if training.mixed_precision == "no" and device == "cuda":
        advice.append('set mixed_precision = "bf16"')
    if training.train_batch_size > 1:
        half = max(1, training.train_batch_size // 2)
        steps = -(-training.train_batch_size // half) * training.gradient_accumulation_steps
        advice.append(
            f"lower train_batch_size from {training.train_batch_size} to {half} "
            f"(with gradient_accumulation_steps = {steps} for the same steps)"
        )
    advice.append(f"lower resolution from {width}x{height}")
    where = "the GPU's memory" if device == "cuda" else "the memory"
    return f"{where} is full; {', or '.join(advice)}"
