"""What a run shows and keeps on the way: validation, curves, samples, checkpoints by step; and memory that is full."""

import sys
import types
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import pytest
import torch
from PIL import Image

from onmodel.core.errors import NotFoundError, ResourceError, UserError
from onmodel.evaluation.samples import load_samples
from onmodel.training import run, validation, writer
from onmodel.training.checkpoint import read_facts
from onmodel.training.config import TrainConfig
from onmodel.training.families import StableDiffusion
from onmodel.training.job import LOSS_CHART, SAMPLES, STATE, VALIDATION, read_metrics
from onmodel.training.worker import out_of_memory

from .conftest import MakeConfig
from .test_stages import KINDS, make_trainer


def test_validation_is_the_mean_over_fixed_noise_and_by_category(make_config: MakeConfig) -> None:
    config = make_config(training={"seed": 4})
    trainer = make_trainer(config)
    data = trainer._data  # pyright: ignore[reportPrivateUsage]
    kept = [1, 2, 3]
    for index in kept:
        object.__setattr__(data.pictures[index], "held_back", True)
    unet: Any = trainer.components["unet"]
    betas = torch.linspace(0.00085**0.5, 0.012**0.5, 1000, dtype=torch.float64) ** 2
    abar = torch.cumprod(1 - betas, 0)
    own: dict[int, float] = {}
    for index in kept:
        values: list[float] = []
        for level, step in enumerate((125, 375, 625, 875)):
            noise = validation.fixed_noise(data, index, level, 4)
            noisy = (abar[step].sqrt() * data.latents[index] + (1 - abar[step]).sqrt() * noise).float()
            text = data.conditioning[data.pictures[index].caption][None]
            with torch.no_grad():
                output = unet(noisy[None], torch.tensor([step]), text).sample[0]
            values.append(float((output - noise).square().mean()))
        own[index] = sum(values) / 4
    found = trainer.validate()
    assert found["all"] == pytest.approx(sum(own.values()) / 3, rel=1e-4)
    for name in ("close_up", "full_body", "complex_background"):
        inside = [own[index] for index in kept if name in KINDS[index % 4]]
        assert found[name] == pytest.approx(sum(inside) / len(inside), rel=1e-4)
    assert set(found) == {"all", "close_up", "full_body", "complex_background"}
    assert found == trainer.validate(), "the same weights give the same figures"


def test_a_chart_is_not_drawn_after_each_epoch_and_shows_all_steps_at_the_end(
    make_config: MakeConfig, monkeypatch: pytest.MonkeyPatch
) -> None:
    drawn: list[int] = []
    original = writer.write_loss_chart

    def counted(path: Path, steps: Sequence[Mapping[str, Any]]) -> None:
        drawn.append(len(steps))
        original(path, steps)

    monkeypatch.setattr(writer, "write_loss_chart", counted)
    monkeypatch.setattr(writer, "CHART_EVERY_S", 1e9)
    result = run.train(make_config(training={"max_train_epochs": 3, "save_every_n_epochs": 1}), num_workers=0)
    assert len(result.checkpoints) == 3
    assert drawn == [len(result.losses)]
    assert (result.trial_dir / LOSS_CHART).is_file()


def losses_in(folder: Path) -> list[dict[str, Any]]:
    return read_metrics(folder / VALIDATION)


def test_held_back_pictures_are_not_trained_on_and_are_looked_at_each_epoch(make_config: MakeConfig) -> None:
    config = make_config(data={"validation_split": 0.34}, training={"output_name": "held"})
    result = run.train(config, num_workers=0)
    assert len(result.losses) < 12
    lines = losses_in(result.trial_dir)
    assert [line["epoch"] for line in lines] == [0, 1, 2]
    assert [line["step"] for line in lines][-1] == len(result.losses)
    assert all(set(line["losses"]) == {"all"} for line in lines), "nobody analysed the set"
    watched = make_config(data={"validation_split": 0.34}, training={"output_name": "w", "validate_every_n_steps": 3})
    again = run.train(watched, num_workers=0)
    assert again.losses == result.losses, "looking changes nothing"
    assert all(line["step"] % 3 == 0 for line in losses_in(again.trial_dir))
    assert losses_in(again.trial_dir)[0]["losses"] == lines[0]["losses"]


def scalars(folder: Path) -> dict[str, list[tuple[int, float]]]:
    """What the event files of a folder hold, by tag."""
    from tensorboardX.proto import event_pb2

    messages: Any = event_pb2
    found: dict[str, list[tuple[int, float]]] = {}
    for file in sorted(folder.glob("events.*")):
        data, at = file.read_bytes(), 0
        while at < len(data):
            size = int.from_bytes(data[at : at + 8], "little")
            event: Any = messages.Event.FromString(data[at + 12 : at + 12 + size])
            at += 16 + size
            for value in event.summary.value:
                found.setdefault(value.tag, []).append((event.step, value.simple_value))
    return found


def test_curves_are_in_tensorboard(make_config: MakeConfig) -> None:
    config = make_config(data={"validation_split": 0.2}, network={"network_train_unet_only": False})
    result = run.train(config, num_workers=0)
    found = scalars(result.trial_dir / "tensorboard")
    assert [value for _, value in found["loss"]] == pytest.approx(result.losses)
    assert [step for step, _ in found["loss"]] == list(range(1, len(result.losses) + 1))
    assert {"learning_rate/unet", "learning_rate/text_encoder", "grad_norm", "images_per_second"} <= found.keys()
    assert {"validation/all", "mix/close_up"} <= found.keys()
    none = run.train(make_config(training={"output_name": "none", "log_with": "none"}), num_workers=0)
    assert not (none.trial_dir / "tensorboard").exists()


def test_wandb_is_logged_to_where_it_is_installed_and_asked_for_where_not(
    make_config: MakeConfig, monkeypatch: pytest.MonkeyPatch
) -> None:
    config = make_config(training={"log_with": "wandb", "max_train_epochs": 1, "log_tracker_name": "mine"})
    with pytest.raises(UserError, match="wandb is not installed; run `pip install wandb`"):
        run.train(config, num_workers=0)
    logged: list[tuple[dict[str, float], int]] = []
    begun: dict[str, Any] = {}

    class Run:
        def log(self, values: dict[str, float], step: int) -> None:
            logged.append((values, step))

        def finish(self) -> None:
            begun["finished"] = True

    module: Any = types.ModuleType("wandb")
    module.__spec__ = types.SimpleNamespace(name="wandb")
    module.init = lambda **options: begun.update(options) or Run()
    monkeypatch.setitem(sys.modules, "wandb", module)
    result = run.train(config, num_workers=0)
    assert (begun["project"], begun["name"], begun["finished"]) == ("mine", "zork", True)
    assert [values["loss"] for values, _ in logged if "loss" in values] == result.losses


def test_mlflow_gets_settings_curves_and_pictures_and_no_call_that_is_too_large(
    make_config: MakeConfig, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    calls: list[tuple[str, Any]] = []
    module: Any = types.ModuleType("mlflow")
    module.__spec__ = types.SimpleNamespace(name="mlflow")
    module.set_experiment = lambda name: calls.append(("experiment", name))
    module.start_run = lambda run_name: calls.append(("run", run_name))
    module.log_params = lambda values: calls.append(("params", values))
    module.log_metrics = lambda values, step: calls.append(("metrics", (values, step)))
    module.log_artifact = lambda file, artifact_path: calls.append(("artifact", (Path(file), artifact_path)))
    module.end_run = lambda: calls.append(("end", None))
    monkeypatch.setitem(sys.modules, "mlflow", module)
    suite = tmp_path / "suite.json"
    suite.write_text(SUITE + '{"close_up": ["zork"]}}')
    keys = {"log_with": "mlflow", "max_train_epochs": 1, "sample_prompts": str(suite), "sample_every_n_epochs": 1}
    result = run.train(make_config(training=keys), num_workers=0, samples=load_samples(str(suite), "zork"))
    assert [calls[0], calls[1], calls[-1]] == [("experiment", "onmodel"), ("run", "zork"), ("end", None)]
    params = [value for name, value in calls if name == "params"]
    assert max(map(len, params)) <= 100
    settings = {key: value for batch in params for key, value in batch.items()}
    assert settings["network.network_dim"] == 4
    assert settings["advanced.loss_type"] == "l2"
    metrics = [value for name, value in calls if name == "metrics"]
    assert [(values["loss"], step) for values, step in metrics if "loss" in values] == [
        (loss, step + 1) for step, loss in enumerate(result.losses)
    ]
    pictures = [value for name, value in calls if name == "artifact"]
    assert [(file.name, folder) for file, folder in pictures] == [("zork-step00000006_close_up.png", "samples")]


SUITE = '{"name": "s", "steps": 2, "seeds": [1, 2], "width": 64, "height": 64, "scenarios": '


def test_samples_are_drawn_and_change_nothing(make_config: MakeConfig, tmp_path: Path) -> None:
    suite = tmp_path / "suite.json"
    suite.write_text(SUITE + '{"close_up": ["{trigger} close up", "b"], "far": ["{trigger} in the forest"]}}')
    plain = run.train(make_config(training={"output_name": "plain"}), num_workers=0)
    keys = {"sample_prompts": str(suite), "sample_every_n_epochs": 1, "sample_at_first": True, "output_name": "drawn"}
    drawn = run.train(make_config(training=keys), num_workers=0, samples=load_samples(str(suite), "zork"))
    names = sorted(path.name for path in (drawn.trial_dir / SAMPLES).iterdir())
    assert names == [f"drawn-step{step:08d}_{name}.png" for step in (0, 6, 12) for name in ("close_up", "far")]
    assert drawn.losses == plain.losses
    first, last = (Image.open(drawn.trial_dir / SAMPLES / names[place]) for place in (0, 4))
    assert first.size == (64, 64)
    assert first.tobytes() != last.tobytes(), "the network has changed"


def test_prompt_lines_are_those_of_sd_scripts(tmp_path: Path) -> None:
    file = tmp_path / "prompts.txt"
    file.write_text("# some\nzork {here}, a boy --n ugly, bad --w 64 --h 96 --d 7 --l 2.5 --s 3\n\nzork\n")
    first, second = load_samples(str(file)).samples
    assert (first.prompt.text, first.seed, first.suite.negative_prompt) == ("zork {here}, a boy", 7, "ugly, bad")
    assert (first.suite.width, first.suite.height, first.suite.guidance_scale, first.suite.steps) == (64, 96, 2.5, 3)
    assert (second.prompt.text, second.name) == ("zork", "p004")
    file.write_text("zork --w wide")
    with pytest.raises(UserError, match="line 1: --w 'wide' is no number"):
        load_samples(str(file))
    file.write_text("zork --x 1")
    with pytest.raises(UserError, match="option --x"):
        load_samples(str(file))
    with pytest.raises(NotFoundError, match=r"nothing\.txt"):
        load_samples(str(tmp_path / "nothing.txt"))
    with pytest.raises(NotFoundError, match="no such file or suite"):
        load_samples("toybux")


def names_in(config: TrainConfig, pattern: str) -> list[str]:
    return sorted(path.name for path in config.trial_dir.glob(pattern))


def test_checkpoints_by_step_and_only_the_newest(make_config: MakeConfig) -> None:
    keys = {"save_every_n_steps": 4, "save_last_n_steps": 4, "save_last_n_epochs": 1, "save_state": True}
    config = make_config(training=keys)
    run.train(config, num_workers=0)
    assert names_in(config, "*.safetensors") == ["zork-000002.safetensors", "zork-step00000012.safetensors"]
    assert names_in(config, "*-state") == ["zork-000002-state", "zork-step00000012-state"]
    assert sorted(path.name for path in (config.trial_dir / "peft").iterdir()) == ["zork-000002", "zork-step00000012"]
    kept = read_facts(config.trial_dir / "zork-000002-state")
    assert kept is not None
    assert kept.finished
    other = make_config(training={"output_name": "plain"})
    resumed = make_config(training={"output_name": "resumed", "save_every_n_steps": 5})
    run.train(make_config(training=keys | {"output_name": "again", "save_last_n_steps": 100}), num_workers=0)
    start = config.trial_dir.parent / "again" / "zork-step00000008-state"
    start = start.with_name(start.name.replace("zork", "again"))
    whole = run.train(other, num_workers=0)
    rest = run.train(resumed, num_workers=0, resume=start)
    assert rest.losses == whole.losses[8:]


def test_the_config_may_say_what_is_resumed(make_config: MakeConfig, capsys: pytest.CaptureFixture[str]) -> None:
    first = run.train(make_config(), num_workers=0)
    again = make_config(training={"output_name": "b", "resume": str(first.checkpoints[-1])})
    run.train(again, num_workers=0)
    assert "LoRA weights without a training state; a new run starts from them" in capsys.readouterr().err
    more = make_config(training={"output_name": "c", "resume": str(first.trial_dir / STATE)})
    assert run.train(more, num_workers=0).losses == []


def test_full_memory_says_what_to_change(make_config: MakeConfig, monkeypatch: pytest.MonkeyPatch) -> None:
    def full(self: StableDiffusion, *parts: Any) -> None:
        raise RuntimeError("DefaultCPUAllocator: can't allocate memory: you tried to allocate 9 bytes")

    monkeypatch.setattr(StableDiffusion, "predict", full)
    with pytest.raises(ResourceError, match="the memory is full; set gradient_checkpointing = true, or lower train_"):
        run.train(make_config(), num_workers=0)
    config = make_config(training={"train_batch_size": 5}, advanced={"gradient_checkpointing": True})
    said = out_of_memory(config, "cuda")
    assert "from 5 to 2 (with gradient_accumulation_steps = 3" in said
    assert 'mixed_precision = "bf16"' in said
    assert "gradient_checkpointing" not in said


def contents(pictures: Sequence[Any]) -> list[str]:
    return [picture.hash for picture in pictures if picture.held_back]


def test_what_is_held_back_is_spread_over_the_kinds_and_stays(make_config: MakeConfig) -> None:
    from onmodel.training.job import TrainingPicture
    from onmodel.training.pictures import hold_back

    config = make_config(data={"validation_split": 0.1})
    pictures = [
        TrainingPicture(
            Path(f"{i}.png"), "", 3, f"{i % 190:064x}", categories=("far",) if i % 190 < 40 else ("medium",)
        )
        for i in range(200)
    ]
    kept = [picture for picture in hold_back(pictures, config) if picture.held_back]
    assert len({picture.hash for picture in kept}) == 19
    assert sum("far" in picture.categories for picture in kept) in (4, 5, 6)
    assert all(picture.repeats == 0 for picture in kept)
    assert set(contents(hold_back(pictures[::-1], config))) == {picture.hash for picture in kept}
    other = make_config(data={"validation_split": 0.1, "validation_seed": 9})
    assert set(contents(hold_back(pictures, other))) != {picture.hash for picture in kept}


def test_hashes_are_kept_for_files_that_did_not_change(
    make_config: MakeConfig, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    import os

    from onmodel.dataset.folder import Picture
    from onmodel.training.pictures import load_pictures

    from .tiny import save_dataset

    data = save_dataset(tmp_path / "set")
    for file in data.rglob("*.png"):
        os.utime(file, (1e9, 1e9))
    read: list[Path] = []
    original = Picture.bytes

    def counted(self: Picture) -> bytes:
        read.append(self.path)
        return original(self)

    monkeypatch.setattr(Picture, "bytes", counted)
    config = make_config(data={"train_data_dir": str(data)})
    first = load_pictures(config, tmp_path / "cache")
    assert len(read) == 6
    assert load_pictures(config, tmp_path / "cache") == first
    assert len(read) == 6
    changed = read[0]
    changed.write_bytes(read[1].read_bytes())
    again = load_pictures(config, tmp_path / "cache")
    assert read[6:] == [changed]
    assert again[0].hash == first[1].hash
