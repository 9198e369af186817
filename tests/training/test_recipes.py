"""Every step of docs/recipes.md but the download, in its order and on its config files.

Models are of the families' structure with random weights: base model, sizes and steps alone are other than the configs
say. Pictures are a film's, looked at by the detector of the recipe.
"""

import json
import os
import shlex
import shutil
import sys
from collections.abc import Callable, Generator
from pathlib import Path
from typing import Any

import pytest

from onmodel.cli.main import load_verb
from onmodel.dataset.folder import load_dataset
from onmodel.detection.config import DetectorConfig
from onmodel.detection.weights import ENVIRONMENT
from onmodel.scoring.config import ScorerConfig
from onmodel.serving.local import open_services
from onmodel.training import run
from onmodel.training.config import load_train_config, to_toml
from onmodel.training.lora_file import read_layers
from onmodel.training.pipeline import load_pipeline

sys.path.insert(0, str(Path(__file__).parents[1]))
from film.made import cut, cut_references
from test_docs import shown

ROOT = Path(__file__).parents[2]
PAGE = ROOT / "docs" / "recipes.md"
REFERENCES = ROOT / "tests" / "film" / "rabbit_references.json"
CLOSE_UPS_S = (12.96, 15.72, 57.0, 58.5, 62.3, 115.4)
EXCERPT_S = (38.0, 50.0)
CONFIGS = {"sd1": "trial_3_5.toml", "sdxl": "trial_sdxl.toml"}
SUITE = {
    "name": "small",
    "seeds": [1, 2],
    "steps": 1,
    "width": 64,
    "height": 64,
    "scenarios": {"close_up": ["close-up of {trigger}, a {class}"], "full_body": ["full body of {trigger}"]},
}


class Recipe:
    """A folder in which the page's lines are run, with services that have its detector and a small CLIP."""

    def __init__(self, folder: Path, address: str) -> None:
        self.folder, self.address = folder, address
        self.lines = [line for line in shown(PAGE) if line.split()[1] != "doctor"]

    def go(self, line: str, **replaced: str) -> None:
        """One line, models from the services and words replaced; paths are the folder's. Raises as the verb does."""
        _, verb, *words = shlex.split(line)
        for option in ("--scorer", "--scorer-pretrained", "--detector"):
            if option in words:
                place = words.index(option)
                del words[place : place + 2]
        command: Any = load_verb(verb)
        if any("--services" in parameter.opts for parameter in command.params) and "--plan" not in words:
            words += ["--services", self.address]
        command.main([replaced.get(word, word) for word in words], prog_name="onmodel", standalone_mode=False)

    def before(self, verb: str) -> list[str]:
        """The lines before the first of a verb."""
        first = next(index for index, line in enumerate(self.lines) if line.split()[1] == verb)
        return self.lines[:first]

    def of(self, *verbs: str) -> list[str]:
        """The lines of verbs."""
        return [line for line in self.lines if line.split()[1] in verbs]


@pytest.fixture(scope="module")
def recipe(shared_assets: Path, clip_folder: Path, tmp_path_factory: pytest.TempPathFactory) -> Generator[Recipe]:
    """The page up to its merged set, run once for both families."""
    folder = tmp_path_factory.mktemp("recipe")
    film = shared_assets / "video" / "big_buck_bunny_117s_720p.mp4"
    frames = {"references": [{"time_s": time, "box": [0, 0, 1280, 720]} for time in CLOSE_UPS_S]}
    (folder / "frames.json").write_text(json.dumps(frames))
    for picture in cut_references(folder / "frames.json", film, folder / "my_character").iterdir():
        picture.with_suffix(".txt").write_text("zibo, close-up")
    cut_references(REFERENCES, film, folder / "references")
    cut(film, folder / "film.mp4", *EXCERPT_S)
    (folder / "suite.json").write_text(json.dumps(SUITE))
    before = Path.cwd()
    os.chdir(folder)
    with pytest.MonkeyPatch.context() as patch:
        patch.setenv(ENVIRONMENT, str(shared_assets / "detector"))
        scorer = ScorerConfig(model=f"local-dir:{clip_folder}")
        with open_services(None, detector=DetectorConfig.preset("film"), scorer=scorer) as services:
            services.start("detection", "scoring")
            assert services.address is not None
            made = Recipe(folder, services.address)
            for line in made.before("train"):
                made.go(line)
            yield made
    os.chdir(before)


def write_config(name: str, family: str, base: Path, data: str) -> Path:
    """A copy of the family's config as the page says, with the small base model, and small in sizes and steps."""
    config = load_train_config(ROOT / "configs" / "training" / CONFIGS[family]).with_changes(
        model={"pretrained_model_name_or_path": str(base)},
        optimizer={"lr_warmup_steps": 1},
        training={"output_name": name, "max_train_epochs": 2, "save_every_n_epochs": 1, "output_dir": f"runs_{family}"},
        data={
            "train_data_dir": data,
            "resolution": 64,
            "min_bucket_reso": 32,
            "max_bucket_reso": 128,
            "bucket_reso_steps": 16,
        },
    )
    path = Path(f"{name}_{family}.toml")
    path.write_text(to_toml(config))
    return path


def test_the_film_fills_what_the_pictures_lack(recipe: Recipe) -> None:
    merged = load_dataset(recipe.folder / "final")
    shots = [str(line["shot_type"]) for line in _lines(recipe.folder / "frames" / "lineage.jsonl")]
    assert shots.count("full_body") >= len(shots) / 2 > 0
    assert len(merged.pictures) > len(load_dataset(recipe.folder / "my_character").pictures)
    assert all(picture.caption.startswith("zibo, a boy") for picture in merged.pictures)


def _lines(file: Path) -> list[dict[str, Any]]:
    return [json.loads(line) for line in file.read_text(encoding="utf-8").splitlines()]


@pytest.mark.ray
@pytest.mark.timeout(600)
@pytest.mark.parametrize("family", CONFIGS)
def test_the_rest_of_the_recipe(family: str, recipe: Recipe, tiny_base: Callable[[str], Path]) -> None:
    sets = {"before": "captioned", "after": "final"}
    wanted = [Path(line.split()[2]).stem for line in recipe.of("train")]
    assert wanted == list(sets)
    for name in wanted:
        config = load_train_config(write_config(name, family, tiny_base(family), sets[name]))
        result = run.train(config, num_workers=0)
        assert len(result.checkpoints) == 2
    runs = {f"runs/{name}": f"runs_{family}/{name}" for name in sets}
    for line in recipe.of("evaluate", "compare", "diagnose"):
        recipe.go(line, **runs, character="suite.json", **{"0.6,0.8,1.0": "0.8,1.0"})
    trial = Path(f"runs_{family}/after")
    assert (trial / "evaluation" / "choice.json").is_file() or list(trial.rglob("*choice.json"))
    assert Path("comparison.html").stat().st_size > 10_000
    shutil.move("comparison.html", f"comparison_{family}.html")
    last = max(trial.glob("after-*.safetensors"))
    layers, _ = read_layers(last)
    assert all(key.startswith("lora_unet_") for key in layers), "as ComfyUI and the web UI read them"
    pipeline: Any = load_pipeline(str(tiny_base(family)))
    pipeline.load_lora_weights(str(last))
    assert pipeline.get_active_adapters()
