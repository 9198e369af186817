"""Every step of docs/recipes.md but the download, and docs/real-pictures.md in small, in their order.

Of the recipes, models are of the families' structure with random weights: base model, sizes and steps alone are other
than the configs say. Pictures are a film's, looked at by the detector that both pages name. One pair of services looks
for all of them.
"""

import json
import shlex
from collections.abc import Generator
from pathlib import Path
from typing import Any

import pytest

from benchmarks import bench_real_pictures as real
from film.made import cut, cut_references
from onmodel.cli.main import load_verb
from onmodel.dataset.folder import load_dataset
from onmodel.detection.config import DetectorConfig
from onmodel.detection.weights import ENVIRONMENT
from onmodel.serving.local import open_services
from onmodel.training import run
from onmodel.training.config import TrainConfig, load_train_config, to_toml
from onmodel.training.lora_file import read_layers
from onmodel.training.pipeline import load_pipeline
from test_docs import shown
from training.tiny_models import MAKERS

ROOT = Path(__file__).parents[2]
CONFIGS = {"sd1": "trial_3_5.toml", "sdxl": "trial_sdxl.toml"}
CLOSE_UPS_S = (12.96, 15.72, 57.0, 58.5, 62.3, 115.4)
EXCERPT_S = (38.0, 46.0)
REAL_EXCERPT_S = (44.0, 62.0)
SCENARIOS = {"close_up": ["close-up of {trigger}, a {class}"], "full_body": ["full body of {trigger}, a {class}"]}
SUITE = {"name": "small", "seeds": [1, 2], "steps": 1, "width": 64, "height": 64, "scenarios": SCENARIOS}


class Runner:
    """Runs a page's lines in this process, with services that have its detector and the bundled scorer."""

    def __init__(self, address: str, film: Path) -> None:
        self.address, self.film = address, film

    def go(self, line: str, *more: str, **replaced: str) -> None:
        """One line in the current folder, models those of the services, words replaced. Raises as the verb does."""
        _, verb, *words = shlex.split(line)
        words += more
        for option in ("--scorer", "--scorer-pretrained", "--detector"):
            if option in words:
                place = words.index(option)
                del words[place : place + 2]
        command: Any = load_verb(verb)
        if any("--services" in parameter.opts for parameter in command.params) and "--plan" not in words:
            words += ["--services", self.address]
        command.main([replaced.get(word, word) for word in words], prog_name="onmodel", standalone_mode=False)


@pytest.fixture(scope="module")
def runner(shared_assets: Path) -> Generator[Runner]:
    """Services that look for all tests of this file, and the film."""
    with pytest.MonkeyPatch.context() as patch:
        patch.setenv(ENVIRONMENT, str(shared_assets / "detector"))
        with open_services(None, detector=DetectorConfig.preset("film")) as services:
            services.start("detection", "scoring")
            assert services.address is not None
            yield Runner(services.address, shared_assets / "video" / "big_buck_bunny_117s_720p.mp4")


def lines(page: str, *verbs: str) -> list[str]:
    """A page's lines of some verbs."""
    return [line for line in shown(ROOT / "docs" / page) if line.split()[1] in verbs]


def train(config: TrainConfig) -> list[Path]:
    """What `onmodel train` does with the config, without Ray."""
    return run.train(config, num_workers=0).checkpoints


def shots_of(folder: Path) -> list[str]:
    return [str(line["shot_type"]) for line in real.lineage(folder)]


@pytest.fixture(scope="module")
def recipe(runner: Runner, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The folder in which the recipe was followed up to its merged set, which is the same for both families."""
    folder = tmp_path_factory.mktemp("recipe")
    frames = {"references": [{"time_s": time, "box": [0, 0, 1280, 720]} for time in CLOSE_UPS_S]}
    (folder / "frames.json").write_text(json.dumps(frames))
    for picture in sorted(cut_references(folder / "frames.json", runner.film, folder / "my_character").iterdir()):
        picture.with_suffix(".txt").write_text("zibo, close-up")
    cut_references(real.REFERENCES, runner.film, folder / "references")
    cut_references(real.STRANGERS, runner.film, folder / "strangers")
    cut(runner.film, folder / "film.mp4", *EXCERPT_S)
    (folder / "suite.json").write_text(json.dumps(SUITE))
    with pytest.MonkeyPatch.context() as patch:
        patch.chdir(folder)
        for line in lines("recipes.md", "analyze", "augment", "extract", "cluster", "curate", "caption", "merge"):
            runner.go(line)
            if "--plan" in line:
                # Edited, as the data engine's page says: few pictures, so few frames are looked at.
                scenes = {name: {"target": 4} for name in ("medium_shot", "full_body", "far")}
                Path("profile.json").write_text(json.dumps({"priority_scenes": scenes}))
    return folder


@pytest.mark.ray
@pytest.mark.timeout(600)
def test_a_film_fills_what_own_pictures_lack(recipe: Path) -> None:
    frames, merged = shots_of(recipe / "frames"), load_dataset(recipe / "final")
    assert frames.count("full_body") >= len(frames) / 2 > 0
    assert len(merged.pictures) > len(CLOSE_UPS_S)
    assert all(picture.caption.startswith("zibo, a boy") for picture in merged.pictures)


def in_small(family: str, base: Path, name: str, data: str) -> TrainConfig:
    """The family's config as the page says to copy it, with a small base model and few steps."""
    return load_train_config(ROOT / "configs" / "training" / CONFIGS[family]).with_changes(
        model={"pretrained_model_name_or_path": str(base)},
        optimizer={"lr_warmup_steps": 1},
        training={"output_name": name, "max_train_epochs": 2, "save_every_n_epochs": 1},
        data={
            "train_data_dir": data,
            "resolution": 64,
            "min_bucket_reso": 32,
            "max_bucket_reso": 128,
            "bucket_reso_steps": 16,
        },
    )


@pytest.mark.ray
@pytest.mark.timeout(600)
@pytest.mark.parametrize("family", CONFIGS)
def test_a_family_is_trained_compared_and_loads_elsewhere(
    family: str, recipe: Path, runner: Runner, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.chdir(tmp_path)
    base = MAKERS[family](tmp_path / "base")
    sets = {"before.toml": "captioned", "after.toml": "final"}
    assert [line.split()[2] for line in lines("recipes.md", "train")] == list(sets)
    for file, data in sets.items():
        Path(file).write_text(to_toml(in_small(family, base, Path(file).stem, str(recipe / data))))
        assert len(train(load_train_config(Path(file)))) == 2
    replaced = {"character": str(recipe / "suite.json"), "references": str(recipe / "references")}
    for line in lines("recipes.md", "evaluate", "compare", "diagnose"):
        # Random weights draw no character, so strangers are given.
        runner.go(line, "--impostors", str(recipe / "strangers"), **replaced, **{"0.6,0.8,1.0": "0.8,1.0"})
    assert list(Path("runs/after").rglob("choice.json"))
    assert Path("comparison.html").stat().st_size > 10_000
    last = max(Path("runs/after").glob("after-*.safetensors"))
    layers, metadata = read_layers(last)
    # The names by which ComfyUI, the web UI and diffusers know the layers.
    assert all(key.startswith("lora_unet_") for key in layers)
    assert metadata["ss_output_name"] == "after"
    pipeline: Any = load_pipeline(str(base))
    pipeline.load_lora_weights(str(last))
    assert pipeline.get_active_adapters()


@pytest.mark.ray
@pytest.mark.timeout(600)
def test_the_page_on_real_pictures_in_small(runner: Runner, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """A few seconds of the film, two steps, two prompts; otherwise the page as it stands."""
    real.prepare(tmp_path, runner.film)
    (tmp_path / "film.mp4").unlink()
    cut(runner.film, tmp_path / "film.mp4", *REAL_EXCERPT_S)
    profile = json.loads((tmp_path / "profile.json").read_text())
    for scene in profile["priority_scenes"].values():
        scene["target"] = 6
    (tmp_path / "profile.json").write_text(json.dumps(profile))
    suite = json.loads((tmp_path / "suite.json").read_text())
    suite |= {"seeds": [1, 2], "steps": 1, "scenarios": {n: suite["scenarios"][n][:1] for n in SCENARIOS}}
    (tmp_path / "suite.json").write_text(json.dumps(suite))
    monkeypatch.chdir(tmp_path)
    for line in real.steps():
        verb = line.split()[1]
        if line.startswith(real.HELD_BACK):
            first = min(entry["shot"] for entry in real.lineage(tmp_path / "captioned"))
            real.hold_back(tmp_path, frozenset({first}))
            assert list((tmp_path / "held_back").iterdir())
        elif verb == "train":
            config = load_train_config(tmp_path / line.split()[2])
            train(config.with_changes(training={"max_train_steps": 2}))
        else:
            runner.go(line)
    shots = {name: shots_of(tmp_path / f"set_{name}") for name in real.TRIALS}
    share = {name: found.count("close_up") / len(found) for name, found in shots.items()}
    assert share["close_ups"] > share["balanced"]
    assert (tmp_path / "comparison.json").is_file()
    assert list((tmp_path / "runs").rglob("diagnosis.json"))
