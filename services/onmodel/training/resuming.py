"""Where a run goes on: from its own state, from another one's, from the stage before, or nowhere."""

import json
from dataclasses import dataclass
from pathlib import Path

from onmodel.core.errors import NotFoundError, UserError
from onmodel.training.checkpoint import StateFacts, read_facts
from onmodel.training.config import TrainConfig, load_train_config
from onmodel.training.job import CONFIG, DATASET, STAGES, STATE


@dataclass(frozen=True)
class Start:
    """How a run begins."""

    source: Path | None
    """Folder of the state that it goes on from; None: it begins anew."""
    facts: StateFacts | None
    """Of that state."""
    finished: bool = False
    """Nothing is left to do."""


def find_start(config: TrainConfig, resume: Path | None, dataset_hash: str, stage: int | None) -> Start:
    """Decide where a run of `config`, or of the one stage at place `stage`, begins.

    Args:
        resume: a trial folder, or a state's folder, to go on from where the trial has no state of its own.

    Raises:
        UserError, NotFoundError: the trial's folder is another trial's; the state does not fit; the stage before is
            not finished.
    """
    trial_dir = config.trial_dir.resolve()
    own = _own_state(config, trial_dir, dataset_hash, stage)
    if own is not None:
        done = own.finished if stage is None else own.stage_finished
        return Start(trial_dir / STATE, own, done)
    if resume is not None:
        folder, facts = _given_state(config, resume, dataset_hash, stage)
        return Start(folder, facts)
    if stage:
        return _after(config, stage - 1, trial_dir / STAGES / config.stage[stage - 1].name, dataset_hash)
    return Start(None, None)


def _own_state(config: TrainConfig, trial_dir: Path, dataset_hash: str, stage: int | None) -> StateFacts | None:
    """The state of an earlier run of this very trial (or stage), or None when there is nothing to go on with.

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
    if facts is None and not checkpoints(trial_dir, name):
        return None  # a run that was stopped before its first state has nothing to lose
    try:
        known = json.loads((trial_dir / DATASET).read_text(encoding="utf-8"))["dataset_hash"]
    except (OSError, ValueError, KeyError):
        raise UserError(f"{trial_dir / DATASET}: missing or damaged; {advice}") from None
    if stage is not None:
        # What a stage ends with depends on no later one; run again with other settings, it replaces what there is.
        fits = facts is not None and facts.stage == stage and facts.belongs_to(config, dataset_hash)
        return facts if fits else None
    if load_train_config(trial_dir / CONFIG).identity != config.identity:
        raise UserError(f"{trial_dir}: a trial named {name!r} with another config is there; {advice}")
    if known != dataset_hash:
        raise UserError(f"{trial_dir}: a trial named {name!r} on other pictures or captions is there; {advice}")
    return facts


def _given_state(config: TrainConfig, resume: Path, dataset_hash: str, stage: int | None) -> tuple[Path, StateFacts]:
    """The state folder that `resume` names. Raises UserError when it is of another config or dataset."""
    folder = resume / STATE if (resume / STATE).is_dir() else resume
    facts = read_facts(folder)
    if facts is None:
        raise NotFoundError(
            f"{resume}: holds no training state; give a trial folder, its `{STATE}` folder, or a LoRA .safetensors"
        )
    for what, same in (
        ("config", facts.identity == config.through(facts.stage).identity),
        ("dataset", facts.dataset_hash == dataset_hash),
    ):
        if not same:
            raise UserError(
                f"{resume}: the state is of a run with another {what}, so it cannot be gone on with exactly; "
                "give one of its .safetensors to start a new run from its weights"
            )
    if stage is not None and not (facts.stage == stage or (facts.stage == stage - 1 and facts.stage_finished)):
        at = config.stage[facts.stage].name
        raise UserError(
            f"{resume}: the state stands at step {facts.step} in stage `{at}`, and stage `{config.stage[stage].name}` "
            "starts from the end of the one before it; give the state of that stage's end"
        )
    return folder.resolve(), facts


def _after(config: TrainConfig, before: int, folder: Path, dataset_hash: str) -> Start:
    """A stage that starts from the end of the one before."""
    name, wanted = config.stage[before].name, config.stage[before + 1].name
    facts = read_facts(folder)
    if facts is None or not facts.stage_finished:
        raise UserError(
            f"stage `{wanted}` starts from the end of stage `{name}`, and {folder} holds no state; run that first with "
            f"`--stage {name}`, or give a LoRA with `--resume FILE.safetensors`"
        )
    if not facts.belongs_to(config, dataset_hash):
        raise UserError(
            f"stage `{wanted}` starts from the end of stage `{name}`, and {folder} is of another config or dataset; "
            f"run `--stage {name}` again, or give another output_name"
        )
    return Start(folder, facts)


def epoch_of(checkpoint: Path) -> int:
    """The epoch that a file of `checkpoints` was written after."""
    return int(checkpoint.stem[-6:])


def checkpoints(trial_dir: Path, name: str) -> list[Path]:
    """The sd-scripts files of the trial, by epoch."""
    return sorted(trial_dir.glob(f"{name}-{'[0-9]' * 6}.safetensors"))
