"""One trial in its folder: files, resuming, and what is refused."""

import contextlib
import json
import os
import shutil
import signal
import subprocess
import sys
import threading
import time
from pathlib import Path
from typing import Any

import psutil
import pytest
import ray
import torch

from onmodel.core.errors import NotFoundError, ResourceError, UserError
from onmodel.training import checkpoint, export, lora_file, ray_cluster, run
from onmodel.training.config import load_train_config, to_toml
from onmodel.training.families import base
from onmodel.training.job import METRICS, STATE, read_metrics
from onmodel.training.writer import Writer

from .conftest import MakeConfig
from .tiny import save_dataset


def weights(file: Path) -> dict[str, torch.Tensor]:
    import safetensors.torch

    return safetensors.torch.load_file(file)


def test_a_trial_leaves_what_it_promises(make_config: MakeConfig, tiny_dataset: Path) -> None:
    config = make_config(training={"max_train_epochs": 3, "save_every_n_epochs": 2})
    result = run.train(config, num_workers=0)
    folder = result.trial_dir
    assert folder == config.trial_dir.resolve()
    assert [path.name for path in result.checkpoints] == ["zork-000002.safetensors", "zork-000003.safetensors"]
    assert load_train_config(folder / "config.toml") == config
    assert {path.name for path in (folder / "peft").iterdir()} == {"zork-000002", "zork-000003"}
    lines = read_metrics(folder / METRICS)
    assert [line["step"] for line in lines] == list(range(1, 19))
    assert [line["loss"] for line in lines] == result.losses
    assert (folder / "loss.svg").read_text().startswith("<?xml")
    dataset = json.loads((folder / "dataset.json").read_text())
    assert dataset["path"] == str(tiny_dataset)
    assert len(dataset["pictures"]) == 6
    assert dataset["pictures"][0]["repeats"] == 2
    assert not [path.name for path in folder.iterdir() if path.name.startswith(".")]
    assert result.problems == []


def test_metadata_is_complete_and_true(make_config: MakeConfig) -> None:
    config = make_config(training={"max_train_epochs": 1, "seed": 9}, advanced={"min_snr_gamma": 5.0})
    metadata = lora_file.read_metadata(run.train(config, num_workers=0).checkpoints[-1])
    wanted = """ss_v2 ss_base_model_version ss_network_module ss_network_dim ss_network_alpha ss_network_args
        ss_output_name ss_session_id ss_seed ss_training_started_at ss_training_finished_at ss_learning_rate ss_unet_lr
        ss_text_encoder_lr ss_optimizer ss_lr_scheduler ss_lr_warmup_steps ss_max_train_steps ss_num_epochs ss_steps
        ss_epoch ss_num_train_images ss_gradient_checkpointing ss_gradient_accumulation_steps ss_mixed_precision
        ss_clip_skip ss_noise_offset ss_min_snr_gamma ss_cache_latents ss_sd_model_name ss_sd_model_hash ss_datasets
        ss_tag_frequency ss_dataset_dirs ss_bucket_info sshs_model_hash sshs_legacy_hash modelspec.sai_model_spec
        modelspec.architecture modelspec.implementation modelspec.title modelspec.resolution modelspec.date
        modelspec.prediction_type modelspec.trigger_phrase"""
    assert set(wanted.split()) <= metadata.keys()
    assert metadata["ss_network_dim"] == "4"
    assert metadata["ss_seed"] == "9"
    assert metadata["ss_num_train_images"] == "12"
    assert metadata["ss_steps"] == metadata["ss_max_train_steps"] == "6"
    assert metadata["modelspec.trigger_phrase"] == "zork boy"
    assert json.loads(metadata["ss_dataset_dirs"]) == {"2_zork boy": {"n_repeats": 2, "img_count": 6}}
    assert json.loads(metadata["ss_tag_frequency"])["2_zork boy"]["zork"] == 6
    assert json.loads(metadata["ss_datasets"])[0]["bucket_info"] == json.loads(metadata["ss_bucket_info"])
    buckets = json.loads(metadata["ss_bucket_info"])["buckets"].values()
    assert sorted((bucket["resolution"], bucket["count"]) for bucket in buckets) == [([64, 64], 6), ([80, 48], 6)]


def test_a_killed_run_goes_on_and_ends_as_if_never_killed(
    make_config: MakeConfig, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    whole = run.train(make_config(training={"max_train_epochs": 3}), num_workers=0)
    config = make_config(training={"max_train_epochs": 3, "output_name": "killed"})
    original = Writer.step

    def dies(self: Any, report: Any) -> None:
        original(self, report)
        if report.step == 9:
            raise KeyboardInterrupt

    with monkeypatch.context() as patch, pytest.raises(KeyboardInterrupt):
        patch.setattr(Writer, "step", dies)
        run.train(config, num_workers=0)
    folder = config.trial_dir
    assert len(read_metrics(folder / METRICS)) == 9
    assert not [path.name for path in folder.rglob("*.part*")]
    # What a process leaves that had no time to clear up.
    (folder / "peft" / ".killed-000002.abc.part").mkdir(parents=True)
    (folder / ".killed-000002.safetensors.abc.part").write_text("half")
    resumed = run.train(config, num_workers=0)
    assert not [path.name for path in folder.rglob("*.part*")]
    assert resumed.losses == whole.losses
    mine, theirs = weights(resumed.checkpoints[-1]), weights(whole.checkpoints[-1])
    assert mine.keys() == theirs.keys()
    assert all(torch.equal(mine[key], theirs[key]) for key in mine)


def test_a_finished_run_is_not_run_again(make_config: MakeConfig, monkeypatch: pytest.MonkeyPatch) -> None:
    first = run.train(make_config(), num_workers=0)
    monkeypatch.setattr(run, "_run", None)
    assert run.train(make_config(), num_workers=0) == first


def test_a_name_that_is_taken_is_refused(make_config: MakeConfig, tmp_path: Path) -> None:
    run.train(make_config(), num_workers=0)
    with pytest.raises(UserError, match="another config is there"):
        run.train(make_config(training={"seed": 5}), num_workers=0)
    other = save_dataset(tmp_path / "other", count=3)
    moved = make_config(data={"train_data_dir": str(other)})
    with pytest.raises(UserError, match="other pictures"):
        run.train(moved, num_workers=0)
    stray = make_config(training={"output_name": "stray"})
    stray.trial_dir.mkdir()
    (stray.trial_dir / "notes.txt").write_text("mine")
    with pytest.raises(UserError, match="no trial folder"):
        run.train(stray, num_workers=0)
    assert [path.name for path in stray.trial_dir.iterdir()] == ["notes.txt"]


def test_changed_pictures_under_the_same_name_are_refused(make_config: MakeConfig, tmp_path: Path) -> None:
    data = save_dataset(tmp_path / "changing")
    config = make_config(data={"train_data_dir": str(data)})
    run.train(config, num_workers=0)
    next(data.rglob("*.txt")).write_text("another caption")
    with pytest.raises(UserError, match="other pictures or captions"):
        run.train(config, num_workers=0)


def test_resume_takes_a_state_or_a_lora_file(make_config: MakeConfig, tmp_path: Path) -> None:
    first = run.train(make_config(), num_workers=0)
    copied = run.train(make_config(training={"output_name": "copy"}), num_workers=0, resume=first.trial_dir)
    assert copied.losses == [], "the state was at the run's end, so no step was left to take"
    start = first.checkpoints[-1]
    fresh = make_config(training={"output_name": "fresh", "max_train_epochs": 1}, optimizer={"learning_rate": 1e-12})
    again = run.train(fresh, num_workers=0, resume=start)
    assert load_train_config(again.trial_dir / "config.toml").network.network_weights == str(start)
    mine, theirs = weights(again.checkpoints[-1]), weights(start)
    assert all(torch.allclose(mine[key], theirs[key], atol=1e-8) for key in theirs)
    with pytest.raises(NotFoundError, match="holds no training state"):
        run.train(make_config(training={"output_name": "x"}), num_workers=0, resume=tmp_path)
    with pytest.raises(UserError, match="another config"):
        run.train(make_config(training={"output_name": "y", "seed": 3}), num_workers=0, resume=first.trial_dir)
    wrong_rank = make_config(training={"output_name": "z"}, network={"network_dim": 8})
    with pytest.raises(UserError, match="network_dim"):
        run.train(wrong_rank, num_workers=0, resume=start)


def test_a_broken_picture_is_left_out_and_told(make_config: MakeConfig, tmp_path: Path) -> None:
    data = save_dataset(tmp_path / "broken")
    (data / "2_zork boy" / "empty.png").write_bytes(b"")
    (data / "2_zork boy" / "text.jpg").write_text("not a picture")
    result = run.train(make_config(data={"train_data_dir": str(data)}), num_workers=0)
    assert len(result.problems) == 2
    assert len(result.losses) == 12


def test_a_damaged_state_is_a_sentence(make_config: MakeConfig) -> None:
    config = make_config()
    result = run.train(config, num_workers=0)
    facts = result.trial_dir / STATE / checkpoint.FACTS
    facts.write_text(facts.read_text().replace('"step": 12', '"step": 6'))
    (result.trial_dir / STATE / checkpoint.TENSORS).write_bytes(b"broken")
    with pytest.raises(UserError, match="damaged"):
        run.train(config, num_workers=0)


def test_a_missing_model_or_dataset_starts_nothing(make_config: MakeConfig, tmp_path: Path) -> None:
    config = make_config(model={"pretrained_model_name_or_path": str(tmp_path / "absent")})
    with pytest.raises(NotFoundError, match="absent"):
        run.train(config)
    config = make_config(data={"train_data_dir": str(tmp_path / "nothing")})
    with pytest.raises(NotFoundError, match="nothing"):
        run.train(config)
    assert not config.trial_dir.exists()


def test_a_full_disk_leaves_no_half_checkpoint(make_config: MakeConfig, monkeypatch: pytest.MonkeyPatch) -> None:
    def full(path: Path, data: bytes) -> None:
        raise ResourceError(f"{path}: cannot be written (No space left on device); free some disk space")

    monkeypatch.setattr(export, "write_bytes", full)
    config = make_config()
    with pytest.raises(ResourceError, match="disk space"):
        run.train(config, num_workers=0)
    assert not list(config.trial_dir.glob("*.safetensors"))
    assert not (config.trial_dir / STATE).exists()


def test_other_masks_are_another_dataset(make_config: MakeConfig, tmp_path: Path) -> None:
    masks = save_dataset(tmp_path / "masks") / "2_zork boy"
    config = make_config(data={"masked_loss": True, "conditioning_data_dir": str(masks)})
    run.train(config, num_workers=0)
    shutil.copytree(masks, tmp_path / "moved")
    moved = make_config(data={"masked_loss": True, "conditioning_data_dir": str(tmp_path / "moved")})
    run.train(moved, num_workers=0)
    shutil.copyfile(tmp_path / "moved" / "02.png", tmp_path / "moved" / "00.png")
    with pytest.raises(UserError, match="other pictures"):
        run.train(moved, num_workers=0)


def test_weights_are_hashed_once(make_config: MakeConfig, monkeypatch: pytest.MonkeyPatch) -> None:
    hashed: list[str] = []
    original = base.weights_hash

    def counted(*modules: torch.nn.Module) -> str:
        hashed.extend(type(module).__name__ for module in modules)
        return original(*modules)

    monkeypatch.setattr(base, "weights_hash", counted)
    config = make_config(data={"flip_aug": True}, network={"network_train_unet_only": False})
    name = lora_file.read_metadata(run.train(config, num_workers=0).checkpoints[-1])["ss_new_sd_model_hash"]
    assert sorted(hashed) == ["AutoencoderKL", "CLIPTextModel"]
    plain = run.train(make_config(training={"output_name": "plain", "max_train_epochs": 1}), num_workers=0)
    assert lora_file.read_metadata(plain.checkpoints[-1])["ss_new_sd_model_hash"] == name, "the base's alone"


def test_a_moved_dataset_is_the_same_dataset(make_config: MakeConfig, tiny_dataset: Path, tmp_path: Path) -> None:
    first = run.train(make_config(), num_workers=0)
    shutil.copytree(tiny_dataset, tmp_path / "moved")
    again = run.train(make_config(data={"train_data_dir": str(tmp_path / "moved")}), num_workers=0)
    assert again.losses == first.losses


@pytest.mark.ray
@pytest.mark.timeout(600)
@pytest.mark.parametrize("workers", [1, 2])
def test_workers_train_what_one_process_trains_and_a_killed_one_costs_the_steps_since_the_last_state(
    workers: int, make_config: MakeConfig, capsys: pytest.CaptureFixture[str]
) -> None:
    length = {"max_train_epochs": 6, "save_every_n_epochs": 2, "save_every_n_steps": 5, "log_with": "none"}
    alone = run.train(make_config(training={"train_batch_size": 4, **length}), num_workers=0)
    config = make_config(training={"output_name": "killed", "train_batch_size": 4 // workers, **length})
    # Several workers make what all of them need (latents) side by side.
    shutil.rmtree(run.cache_dir(), ignore_errors=True)
    title = "ray::_train" if workers == 1 else "RayTrainWorker"
    killed: list[int] = []

    def kill_one() -> None:
        deadline = time.monotonic() + 300
        while len(read_metrics(config.trial_dir / METRICS)) < 6 and time.monotonic() < deadline:
            time.sleep(0.02)
        for child in psutil.Process().children(recursive=True):
            with contextlib.suppress(psutil.Error):
                if not killed and title in " ".join(child.cmdline()):
                    child.kill()
                    killed.append(child.pid)

    killer = threading.Thread(target=kill_one)
    killer.start()
    together = run.train(config, num_workers=workers)
    killer.join()
    assert killed
    said = "another starts" if workers == 1 else "2 start again"
    assert f"a training worker died; {said} from the last state" in capsys.readouterr().err
    assert together.losses[:12] == pytest.approx(alone.losses[:12], rel=1e-4)
    assert together.losses == pytest.approx(alone.losses, rel=1e-3)
    # Sums in another order drift apart: tighter after two epochs than after six.
    for place, (atol, rtol) in {0: (1e-3, 1e-2), -1: (2e-3, 2e-2)}.items():
        mine, theirs = weights(together.checkpoints[place]), weights(alone.checkpoints[place])
        for key in theirs:
            torch.testing.assert_close(mine[key], theirs[key], atol=atol, rtol=rtol)
    assert not (together.trial_dir / ".ray").exists()
    assert to_toml(config) == (together.trial_dir / "config.toml").read_text()


@pytest.mark.ray
def test_what_cannot_be_trained_is_a_sentence_on_a_cluster_too(make_config: MakeConfig, tmp_path: Path) -> None:
    bad = make_config(training={"output_name": "bad"}, model={"v_parameterization": True})
    damaged = tmp_path / "damaged.safetensors"
    damaged.write_bytes(b"no lora")
    with ray_cluster.cluster():
        with pytest.raises(ResourceError, match="lower --num-workers"):
            run.train(bad, num_workers=1000)
        with pytest.raises(UserError, match=r"damaged\.safetensors"):
            run.train(bad, num_workers=1, resume=damaged)
    assert not ray.is_initialized()


@pytest.mark.ray
@pytest.mark.timeout(900)
def test_ctrl_c_leaves_nothing_running_and_nothing_half_written(make_config: MakeConfig, tmp_path: Path) -> None:
    config = make_config(training={"max_train_epochs": 100_000})
    (tmp_path / "config.toml").write_text(to_toml(config))
    command = [sys.executable, "-m", "onmodel", "train", str(tmp_path / "config.toml")]
    # A process inherits that its parent ignores the signal, as shells make background jobs do.
    inherited = signal.signal(signal.SIGINT, signal.default_int_handler)
    with (tmp_path / "log.txt").open("w") as log:
        process = subprocess.Popen(command, stdout=log, stderr=log, start_new_session=True)
    signal.signal(signal.SIGINT, inherited)
    try:
        deadline = time.monotonic() + 600
        while len(read_metrics(config.trial_dir / METRICS)) < 3:
            assert process.poll() is None, (tmp_path / "log.txt").read_text()
            assert time.monotonic() < deadline, (tmp_path / "log.txt").read_text()
            time.sleep(0.2)
        started = psutil.Process(process.pid).children(recursive=True)
        assert started, "Ray runs in processes of its own"
        # As a terminal does it: to the whole group.
        os.killpg(process.pid, signal.SIGINT)
        assert process.wait(timeout=120) == 130, (tmp_path / "log.txt").read_text()
        last = (tmp_path / "log.txt").read_text().splitlines()[-1]
        assert last == "onmodel: stopped; what was finished is kept"
        assert "SIGTERM handler" not in (tmp_path / "log.txt").read_text(), "another Ray was started"
    finally:
        process.kill()
    _, alive = psutil.wait_procs(started, timeout=120)
    assert [left for left in alive if left.status() != psutil.STATUS_ZOMBIE] == []
    assert not [path for path in config.trial_dir.rglob("*") if path.name.startswith(".")]
