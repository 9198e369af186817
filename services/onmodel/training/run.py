"""One trial from a config: the folder it lives in, what may be resumed, and what came of it."""

import json
import os
import time
from collections.abc import Iterable
from dataclasses import asdict, dataclass, replace
from pathlib import Path

from onmodel.core.errors import NotFoundError, UserError
from onmodel.core.files import content_hash, write_text
from onmodel.core.progress import console
from onmodel.training.checkpoint import StateFacts, read_facts
from onmodel.training.config import TrainConfig, load_train_config, to_toml
from onmodel.training.follow import following
from onmodel.training.job import (
    CONFIG,
    DATASET,
    METRICS,
    PROBLEMS,
    PROGRESS,
    STATE,
    Job,
    TrainingPicture,
    read_metrics,
)
from onmodel.training.locate import locate_model
from onmodel.training.masks import check_masks
from onmodel.training.optimizers import check_optimizer
from onmodel.training.sources import training_pictures, with_dataset_config

SCHEMA_VERSION = 1


@dataclass(frozen=True)
class TrialResult:
    """A finished trial."""

    trial_dir: Path
    checkpoints: list[Path]
    """sd-scripts files, by epoch."""
    losses: list[float]
    """Loss of each optimizer step."""
    problems: list[str]
    """One sentence for each picture that could not be read and was left out."""


def train(
    config: TrainConfig, *, num_workers: int = 1, resume: Path | None = None, epochs: int | None = None
) -> TrialResult:
    """Train one trial, shown on standard error as it goes; a killed one of the same name goes on where it was.

    Args:
        num_workers: Ray Train workers; 0 trains in this process, without Ray.
        resume: a trial folder or its `state` folder to go on from, or a LoRA `.safetensors` to start from.
        epochs: in place of the config's `max_train_epochs`.

    Raises:
        UserError, NotFoundError: a wrong config, dataset, base model or state; a loss that is not finite.
        ResourceError: no disk space, or more workers than the cluster can have.
    """
    if num_workers < 0:
        raise UserError(f"--num-workers {num_workers}: must be at least 1")
    if epochs is not None:
        config = config.with_changes(training={"max_train_epochs": epochs})
    if resume is not None and resume.suffix == ".safetensors":
        config = config.with_changes(network={"network_weights": str(resume)})
        resume = None
    locate_model(config.model.pretrained_model_name_or_path)
    if config.network.network_weights and not Path(config.network.network_weights).exists():
        raise NotFoundError(f"{config.network.network_weights}: no such LoRA file; check the path")
    config = with_dataset_config(config)
    check_optimizer(config.optimizer.optimizer_type, config.optimizer.optimizer_args)
    pictures = training_pictures(config)
    check_masks(config.data, pictures)
    dataset_hash = _dataset_hash(pictures)
    trial_dir = config.trial_dir.resolve()
    own = _own_state(config, trial_dir, dataset_hash)
    if own is not None:
        going_on = "is finished already" if own.finished else f"goes on after step {own.step} of {own.total_steps}"
        console.print(f"{trial_dir}: the trial {going_on}", highlight=False, soft_wrap=True)
    if own is None or not own.finished:
        state = trial_dir / STATE if own is not None else _given_state(config, resume, dataset_hash)
        job = Job(
            config=config,
            trial_dir=trial_dir,
            pictures=tuple(pictures),
            dataset_hash=dataset_hash,
            cache_dir=cache_dir() if config.data.cache_latents_to_disk else None,
            resume=state,
            started=time.time(),
        )
        _write_facts(job)
        _run(job, num_workers)
    return read_trial(trial_dir)


def _run(job: Job, num_workers: int) -> None:
    try:
        with following(job.trial_dir, job.config.training.output_name):
            if num_workers == 0:
                from onmodel.training.worker import run_job

                run_job(job, _InProcess())
                return
            from onmodel.training import ray_train

            with ray_train.cluster():
                ray_train.fit(job, num_workers)
    finally:
        (job.trial_dir / PROGRESS).unlink(missing_ok=True)


class _InProcess:
    """This process as a training worker."""

    def __init__(self) -> None:
        import torch

        from onmodel.training.loop import Alone, Workers

        self.workers: Workers = Alone()
        self.device = torch.device("cuda" if torch.cuda.is_available() else "cpu")

    def report(self, metrics: dict[str, object]) -> None:
        return


def cache_dir() -> Path:
    """Where encoded pictures and captions are kept: `ONMODEL_CACHE`, or the user's cache folder."""
    home = os.environ.get("ONMODEL_CACHE")
    base = Path(home) if home else Path(os.environ.get("XDG_CACHE_HOME") or Path.home() / ".cache") / "onmodel"
    return base / "training"


def _dataset_hash(pictures: Iterable[TrainingPicture]) -> str:
    """Hash of what is trained on: contents, captions and repeats, in order; paths do not count."""
    facts = [
        [p.hash, p.caption, p.repeats, *p.variants, p.weight, p.is_reg, p.flip_aug, p.alpha_mask, asdict(p.rules)]
        for p in pictures
    ]
    return content_hash(json.dumps(facts).encode())


def _own_state(config: TrainConfig, trial_dir: Path, dataset_hash: str) -> StateFacts | None:
    """The state of an earlier run of this very trial, or None when the trial is new.

    Raises:
        UserError: the folder belongs to a trial with another config or dataset, or to something else.
    """
    name = config.training.output_name
    advice = "give another output_name, or remove the folder"
    if not trial_dir.exists() or not any(trial_dir.iterdir()):
        return None
    if not (trial_dir / CONFIG).is_file():
        raise UserError(f"{trial_dir}: exists and is no trial folder; {advice}")
    facts = read_facts(trial_dir / STATE)
    if facts is None and not _checkpoints(trial_dir, name):
        return None  # a run that was stopped before its first epoch ended has nothing to lose
    if load_train_config(trial_dir / CONFIG).identity != config.identity:
        raise UserError(f"{trial_dir}: a trial named {name!r} with another config is there; {advice}")
    try:
        known = json.loads((trial_dir / DATASET).read_text(encoding="utf-8"))["dataset_hash"]
    except (OSError, ValueError, KeyError):
        raise UserError(f"{trial_dir / DATASET}: missing or damaged; {advice}") from None
    if known != dataset_hash:
        raise UserError(f"{trial_dir}: a trial named {name!r} on other pictures or captions is there; {advice}")
    return facts


def _checkpoints(trial_dir: Path, name: str) -> list[Path]:
    """The sd-scripts files of the trial, by epoch."""
    return sorted(trial_dir.glob(f"{name}-[0-9][0-9][0-9][0-9][0-9][0-9].safetensors"))


def _given_state(config: TrainConfig, resume: Path | None, dataset_hash: str) -> Path | None:
    """The state folder that `resume` names. Raises UserError when it is of another config or dataset."""
    if resume is None:
        return None
    folder = resume / STATE if (resume / STATE).is_dir() else resume
    facts = read_facts(folder)
    if facts is None:
        raise NotFoundError(
            f"{resume}: holds no training state; give a trial folder, its `{STATE}` folder, or a LoRA .safetensors"
        )
    for what, same in (("config", facts.identity == config.identity), ("dataset", facts.dataset_hash == dataset_hash)):
        if not same:
            raise UserError(
                f"{resume}: the state is of a run with another {what}, so it cannot be gone on with exactly; "
                "give one of its .safetensors to start a new run from its weights"
            )
    return folder.resolve()


def _write_facts(job: Job) -> None:
    """The resolved config and the dataset's facts, before anything else is written."""
    config = job.config
    write_text(job.trial_dir / CONFIG, to_toml(config))
    facts = {
        "schema_version": SCHEMA_VERSION,
        "path": str(config.data.source.resolve()),
        "dataset_hash": job.dataset_hash,
        # The pool follows from the rest, and is long.
        "pictures": [{**asdict(replace(picture, pool=())), "path": str(picture.path)} for picture in job.pictures],
    }
    write_text(job.trial_dir / DATASET, json.dumps(facts, ensure_ascii=False, indent=1))


def read_trial(trial_dir: Path) -> TrialResult:
    """What a trial folder holds. Raises NotFoundError when it is none."""
    if not (trial_dir / CONFIG).is_file():
        raise NotFoundError(f"{trial_dir}: not a trial folder (no {CONFIG}); check the path")
    name = load_train_config(trial_dir / CONFIG).training.output_name
    problems = trial_dir / PROBLEMS
    return TrialResult(
        trial_dir=trial_dir,
        checkpoints=_checkpoints(trial_dir, name),
        losses=[float(step["loss"]) for step in read_metrics(trial_dir / METRICS)],
        problems=json.loads(problems.read_text(encoding="utf-8")) if problems.is_file() else [],
    )
