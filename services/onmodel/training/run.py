"""One trial from a config: the folder it lives in, what it goes on from, and what came of it."""

import json
import shutil
import time
from collections.abc import Callable
from dataclasses import asdict, dataclass, replace
from pathlib import Path

from onmodel.core.errors import InternalError, NotFoundError, UserError
from onmodel.core.files import remove_asides, user_cache, write_text
from onmodel.core.imports import collector_paused
from onmodel.core.progress import console
from onmodel.training.base_kind import without_effect
from onmodel.training.checkpoint import copy_state
from onmodel.training.config import TrainConfig, load_train_config, to_toml
from onmodel.training.follow import following
from onmodel.training.job import (
    CONFIG,
    DATASET,
    METRICS,
    OWNER,
    PEFT,
    PROBLEMS,
    PROGRESS,
    SAMPLES,
    STAGES,
    STATE,
    Job,
    Samples,
    TakenOverError,
    TrainingPicture,
    read_metrics,
)
from onmodel.training.locate import locate_model, locate_vae
from onmodel.training.logs import chosen
from onmodel.training.masks import check_masks, with_masks
from onmodel.training.mix import solve_mixes
from onmodel.training.optimizers import check_optimizer
from onmodel.training.pictures import dataset_hash, load_pictures
from onmodel.training.resuming import Start, checkpoints, find_start
from onmodel.training.sources import with_dataset_config
from onmodel.training.stages import resolve_stages, stage_index

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
    config: TrainConfig,
    *,
    num_workers: int = 1,
    resume: Path | None = None,
    epochs: int | None = None,
    stage: str | None = None,
    max_failures: int = 3,
    samples: Samples | None = None,
    on_epoch: Callable[[int], None] | None = None,
) -> TrialResult:
    """Train one trial, shown on standard error as it goes; a killed one of the same name goes on where it was.

    Args:
        num_workers: Ray Train workers; 0 trains in this process, without Ray.
        resume: a trial folder or its `state` folder to go on from, or a LoRA `.safetensors` to start from; None: what
            the config's `resume` says.
        epochs: in place of the config's `max_train_epochs`, or of the epochs of `stage`.
        stage: train this one alone, from the end of the one before.
        max_failures: how often workers that died are started again, from the last state.
        samples: what the config's `sample_prompts` names.
        on_epoch: called with each epoch that left a checkpoint, in the process that trains: with `num_workers` 0 alone.

    Raises:
        UserError, NotFoundError: a wrong config, dataset, base model or state; a loss that is not finite.
        ResourceError: no disk space or memory, or more workers than the cluster can have.
    """
    if num_workers < 0:
        raise UserError(f"--num-workers {num_workers}: must be at least 1")
    if config.training.sample_prompts is not None and samples is None:
        raise InternalError("`sample_prompts` is set, and nothing was given that draws them")
    if epochs is not None:
        config = with_epochs(config, epochs, stage)
    config, resume = _weights_or_state(with_dataset_config(config), resume)
    alone = None if stage is None else stage_index(config, stage)
    pictures = checked_pictures(config)
    content = dataset_hash(pictures)
    trial_dir = config.trial_dir.resolve()
    base = config.model.pretrained_model_name_or_path
    if idle := without_effect(config.model):
        _say(f"no effect with the base model {base}: {'; '.join(idle)}")
    for found, solved in zip(resolve_stages(config), solve_mixes(config, pictures), strict=True):
        if found.mix != "original":
            _say(f"stage {found.name}: {solved.describe()}")
    from_weights = alone is not None and config.network.network_weights is not None
    start = find_start(config, resume, content, None if from_weights and not trial_dir.exists() else alone)
    if start.facts is not None:
        _say(f"{trial_dir}: the trial {_going_on(config, start)}")
    if not start.finished:
        job = Job(
            config=config,
            trial_dir=trial_dir,
            pictures=tuple(pictures),
            dataset_hash=content,
            cache_dir=_cache_of(config),
            started=time.time(),
            batch=start.facts.batch if start.facts else config.training.train_batch_size * max(1, num_workers),
            first_stage=alone or 0,
            last_stage=alone,
            samples=samples,
        )
        remove_asides(*_written(trial_dir))
        _write_facts(job)
        _take_up(start, trial_dir / STATE)
        _run(job, num_workers, max_failures, on_epoch)
    return read_trial(trial_dir)


def checked_pictures(config: TrainConfig) -> list[TrainingPicture]:
    """The pictures of `config`, after a look at all that can be found wrong with it before anything is started.

    Raises:
        UserError, NotFoundError: a wrong dataset, base model, optimizer, logger or LoRA file to start from.
    """
    locate_model(config.model.pretrained_model_name_or_path)
    if config.model.vae is not None:
        locate_vae(config.model.vae)
    if config.network.network_weights and not Path(config.network.network_weights).exists():
        raise NotFoundError(f"{config.network.network_weights}: no such LoRA file; check the path")
    chosen(config)
    for each in resolve_stages(config):
        check_optimizer(each.config.optimizer.optimizer_type, each.config.optimizer.optimizer_args)
    pictures = load_pictures(config, _cache_of(config))
    check_masks(config.data, pictures)
    return with_masks(pictures, config.data)


def _cache_of(config: TrainConfig) -> Path | None:
    return cache_dir() if config.data.cache_latents_to_disk else None


def with_epochs(config: TrainConfig, epochs: int, stage: str | None) -> TrainConfig:
    """`config` with another number of epochs. Raises UserError where it has stages and none is named."""
    if not config.stage:
        return config.with_changes(training={"max_train_epochs": epochs, "max_train_steps": None})
    if stage is None:
        names = ", ".join(each.name for each in config.stage)
        raise UserError(f"--epochs {epochs}: the config has stages ({names}); say which one with --stage NAME")
    index = stage_index(config, stage)
    changed = config.stage[index].model_copy(update={"epochs": epochs, "steps": None})
    return config.model_copy(update={"stage": (*config.stage[:index], changed, *config.stage[index + 1 :])})


def _weights_or_state(config: TrainConfig, resume: Path | None) -> tuple[TrainConfig, Path | None]:
    """A LoRA file to resume from becomes the config's `network_weights`: a new run from it, and said so."""
    if resume is None and config.training.resume is not None:
        resume = Path(config.training.resume)
    if resume is None or resume.suffix != ".safetensors":
        return config, resume
    _say(f"{resume}: LoRA weights without a training state; a new run starts from them")
    return config.with_changes(network={"network_weights": str(resume)}), None


def _going_on(config: TrainConfig, start: Start) -> str:
    facts = start.facts
    assert facts is not None
    inside = f" (stage {config.stage[facts.stage].name})" if config.stage else ""
    if start.finished:
        return "is finished already"
    return f"goes on after step {facts.step} of {facts.total_steps}{inside}, {facts.batch} pictures a step"


def _take_up(start: Start, state: Path) -> None:
    """Put the state that a run goes on from where its workers look for it."""
    if start.source is None:
        shutil.rmtree(state, ignore_errors=True)
    elif start.source != state:
        copy_state(start.source, state)


def _say(text: str) -> None:
    console.print(text, highlight=False, soft_wrap=True, markup=False)


def _run(job: Job, num_workers: int, max_failures: int, on_epoch: Callable[[int], None] | None) -> None:
    taken_over = False
    try:
        with following(job.trial_dir, job.config.training.output_name):
            if num_workers == 0:
                with collector_paused():
                    from onmodel.training.worker import OwnProcess, run_job

                run_job(job, OwnProcess(on_epoch))
                return
            from onmodel.training.ray_cluster import cluster

            with cluster() as private:
                if private and num_workers == 1:
                    from onmodel.training import ray_alone

                    ray_alone.fit(job, max_failures=max_failures, say=_say)
                    return
                with collector_paused():
                    from onmodel.training import ray_train

                ray_train.fit(job, num_workers, max_failures=max_failures, say=_say)
    except TakenOverError:
        taken_over = True
        raise
    finally:
        if not taken_over:
            for name in (PROGRESS, OWNER):
                (job.trial_dir / name).unlink(missing_ok=True)
            # Workers of a run that was interrupted are killed, maybe while they write.
            remove_asides(*_written(job.trial_dir))


def _written(trial_dir: Path) -> tuple[Path, ...]:
    """The folders that a run writes into."""
    return (trial_dir, *(trial_dir / name for name in (PEFT, SAMPLES, STAGES, STATE)))


def cache_dir() -> Path:
    """Where encoded pictures and captions are kept."""
    return user_cache() / "training"


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
        checkpoints=checkpoints(trial_dir, name),
        losses=[float(step["loss"]) for step in read_metrics(trial_dir / METRICS)],
        problems=json.loads(problems.read_text(encoding="utf-8")) if problems.is_file() else [],
    )
