"""A checkpoint tells its base model, trigger and training pictures, whoever trained it."""

import json
from pathlib import Path

import numpy as np
import pytest
from safetensors.numpy import save_file

from onmodel.core.errors import NotFoundError, UserError
from onmodel.evaluation.choice import choose, write_choice
from onmodel.evaluation.tasks import Options, make_tasks, pictures_in
from onmodel.evaluation.trial import EVALUATION_FOLDER, Which, guess_trigger, open_trial, open_trials

from .conftest import small_suite
from .test_choice import spread


def lora(path: Path, **metadata: str) -> Path:
    path.parent.mkdir(parents=True, exist_ok=True)
    save_file({"lora_unet_x.lora_down.weight": np.zeros((2, 2), dtype=np.float32)}, path, metadata=metadata)
    return path


def trial_folder(folder: Path) -> Path:
    for epoch in (2, 4):
        lora(folder / f"{folder.name}-{epoch:06d}.safetensors")
    (folder / "config.toml").write_text('[model]\npretrained_model_name_or_path = "toybox"\n')
    picture = folder.parent / "set" / "a.png"
    picture.parent.mkdir(exist_ok=True)
    picture.write_bytes(b"x")
    rows = [{"path": str(picture)}, {"path": str(picture.with_name("gone.png"))}]
    (folder / "dataset.json").write_text(json.dumps({"path": str(picture.parent), "pictures": rows}))
    return folder


def test_a_trial_folder_gives_its_last_checkpoint(tmp_path: Path) -> None:
    trial = open_trial(trial_folder(tmp_path / "trial_1"))
    assert trial.checkpoint.name == "trial_1-000004.safetensors"
    assert (trial.name, trial.base, trial.trigger) == ("trial_1", "toybox", None)
    assert trial.dataset == tmp_path / "set"
    assert trial.training_pictures == (tmp_path / "set" / "a.png",), "pictures that are gone are left out"


def test_all_checkpoints_of_a_trial_or_the_recommended_one(tmp_path: Path) -> None:
    folder = trial_folder(tmp_path / "trial_1")
    lora(folder / "trial_1-000002.safetensors", ss_epoch="2", ss_steps="20", ss_onmodel_stage="balanced")
    every = open_trials(folder, Which.ALL)
    assert [t.checkpoint.name for t in every] == ["trial_1-000002.safetensors", "trial_1-000004.safetensors"]
    assert [(t.epoch, t.step, t.stage) for t in every] == [(2, 20, "balanced"), (None, None, None)]
    assert [t.checkpoint for t in open_trials(every[0].checkpoint, Which.ALL)] == [every[0].checkpoint]
    with pytest.raises(UserError, match="--checkpoints all"):
        open_trials(folder, Which.BEST)
    rows = np.array([[0.2, 0.3, 0.8], [0.9, 0.3, 0.7]])
    first, second = (e.model_copy(update={"trial_folder": str(folder)}) for e in spread(rows))
    named = second.model_copy(update={"checkpoint": "trial_1-000002.safetensors"})
    (folder / EVALUATION_FOLDER).mkdir()
    write_choice(choose([first, named]), folder / EVALUATION_FOLDER)
    assert [t.checkpoint.name for t in open_trials(folder, Which.BEST)] == ["trial_1-000002.safetensors"]


def test_a_foreign_lora_needs_what_it_does_not_say(tmp_path: Path) -> None:
    file = lora(
        tmp_path / "someones.safetensors", ss_tag_frequency='{"10_zibo": {"zibo": 9, "close-up": 4, "a boy": 9}}'
    )
    with pytest.raises(UserError, match="--base"):
        open_trial(file)
    trial = open_trial(file, base="some/model")
    assert (trial.name, trial.base, trial.trigger) == ("someones", "some/model", "zibo")
    assert open_trial(file, base="x", trigger="other").trigger == "other"


@pytest.mark.parametrize(
    ("tags", "word"),
    [
        (None, None),
        ("not json", None),
        ("[1]", None),
        ('{"a": {"standing": 2, "plain background": 9}}', None),
        ('{"a": {"zibo": 5, "x y": 9}, "b": {"zibo": 5}}', "zibo"),
    ],
)
def test_the_trigger_is_the_word_of_most_captions(tags: str | None, word: str | None) -> None:
    assert guess_trigger(tags) == word


def test_what_is_no_checkpoint_is_refused(tmp_path: Path) -> None:
    with pytest.raises(NotFoundError, match="no such checkpoint"):
        open_trial(tmp_path / "none.safetensors")
    with pytest.raises(UserError, match=r"no \.safetensors checkpoint"):
        open_trial(tmp_path)
    broken = tmp_path / "broken.safetensors"
    broken.write_bytes(b"\x00" * 20)
    with pytest.raises(UserError, match="cannot be read as a safetensors file"):
        open_trial(broken)
    save_file({"weight": np.zeros(2, dtype=np.float32)}, tmp_path / "whole.safetensors")
    with pytest.raises(UserError, match="no LoRA weights"):
        open_trial(tmp_path / "whole.safetensors")
    with pytest.raises(UserError, match="no reference pictures"):
        pictures_in(tmp_path, "reference")


def test_pictures_of_checkpoints_and_scales_have_their_own_folders(tmp_path: Path) -> None:
    base = tmp_path / "base.safetensors"
    base.write_bytes(b"weights")
    first = open_trial(lora(tmp_path / "a" / "one.safetensors"), base=str(base))
    second = open_trial(lora(tmp_path / "b" / "one.safetensors"), base=str(base))
    tasks = make_tasks([first, second], small_suite(), Options(), scales=[0.5, 1.0])
    assert len({t.folder for t in tasks}) == 4
    assert tasks[0].folder == tmp_path / "a" / "evaluation" / "one@0.50"
    assert tasks[0].strangers == tasks[2].strangers, "the base model draws once for all"
    with pytest.raises(UserError, match="both be written"):
        make_tasks([first, second], small_suite(), Options(), output_dir=tmp_path / "together")
