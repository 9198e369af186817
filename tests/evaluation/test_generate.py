"""Pictures depend on prompt and seed alone, carry their origin, and are drawn only where missing."""

from pathlib import Path
from typing import Any

import numpy as np
import pytest
from PIL import Image

from onmodel.core.errors import ResourceError, UserError
from onmodel.core.images import load
from onmodel.evaluation import generate
from onmodel.evaluation.origin import read_origin
from onmodel.evaluation.planned import DrawingModel, drawing_model, missing, plan
from onmodel.evaluation.suite import TestSuite

from .conftest import small_suite

BASE = DrawingModel("tiny", "0" * 64)


def lora(tmp_path: Path, content: bytes = b"lora", scale: float = 1.0) -> DrawingModel:
    file = tmp_path / "trial-000002.safetensors"
    file.write_bytes(content)
    return DrawingModel("tiny", "0" * 64, file, content.hex().ljust(64, "0"), scale)


def draw_all(suite: TestSuite, model: DrawingModel, folder: Path, pipeline: Any, batch_size: int) -> list[np.ndarray]:
    pictures = plan(suite, suite.prompts(), model, folder)
    generate.generate(pictures, suite, model, pipeline, batch_size=batch_size)
    return [load(p.path) for p in pictures]


def test_a_picture_does_not_depend_on_its_batch(tmp_path: Path, suite: TestSuite, tiny_pipeline: Any) -> None:
    one = draw_all(suite, BASE, tmp_path / "one", tiny_pipeline, 1)
    many = draw_all(suite, BASE, tmp_path / "many", tiny_pipeline, 5)
    assert len(one) == len(many) == 12
    for a, b in zip(one, many, strict=True):
        assert np.abs(a.astype(int) - b.astype(int)).max() <= 1
    assert np.abs(one[0].astype(int) - one[1].astype(int)).max() > 10, "two seeds give two pictures"


def test_names_and_text_of_pictures(tmp_path: Path, suite: TestSuite, tiny_pipeline: Any) -> None:
    model = lora(tmp_path, scale=0.8)
    draw_all(suite, model, tmp_path / "evaluation", tiny_pipeline, 12)
    path = tmp_path / "evaluation" / "trial-000002@0.80" / "img_003_p001_v01.png"
    origin = read_origin(path)
    assert origin is not None
    assert origin["prompt"] == "portrait of zibo"
    assert (origin["seed"], origin["scale"], origin["lora_hash"]) == (2, 0.8, model.lora_hash)
    with Image.open(path) as image:
        assert image.info["parameters"].startswith("portrait of zibo\nNegative prompt:")


def test_only_what_is_missing_is_drawn(tmp_path: Path, suite: TestSuite, tiny_pipeline: Any) -> None:
    draw_all(suite, BASE, tmp_path, tiny_pipeline, 12)
    pictures = plan(suite, suite.prompts(), BASE, tmp_path)
    assert missing(pictures) == []
    pictures[3].path.unlink()
    pictures[5].path.write_bytes(pictures[5].path.read_bytes()[:200])  # cut short
    assert [p.path for p in missing(pictures)] == [pictures[3].path, pictures[5].path]
    other = plan(suite, suite.prompts(), DrawingModel("tiny", "1" * 64), tmp_path)
    assert len(missing(other)) == 12, "another base model draws its own"


def test_added_prompts_and_seeds_keep_what_was_drawn(tmp_path: Path, suite: TestSuite, tiny_pipeline: Any) -> None:
    draw_all(suite, BASE, tmp_path, tiny_pipeline, 12)
    scenarios = suite.scenarios.model_dump()
    scenarios["close_up"] = ("a new prompt of {trigger}", *scenarios["close_up"])
    grown = small_suite(scenarios=scenarios, seeds=[3, 1, 2])
    pictures = plan(grown, grown.prompts(), BASE, tmp_path)
    rest = missing(pictures)
    assert len(pictures) == 21
    assert {(p.prompt.index, p.variation) for p in rest} == {(0, 0), (0, 1), (0, 2), *((i, 0) for i in range(1, 7))}
    generate.generate(rest, grown, BASE, tiny_pipeline)
    assert missing(pictures) == []


def test_models_start_from_the_same_noise(tmp_path: Path, suite: TestSuite) -> None:
    prompts = suite.prompts()
    seeds = [p.noise_seed for p in plan(suite, prompts, lora(tmp_path), tmp_path)]
    assert seeds == [p.noise_seed for p in plan(suite, prompts, BASE, tmp_path)]
    assert len(set(seeds)) == len(seeds)


def test_a_full_disk_leaves_no_half_picture(
    tmp_path: Path, suite: TestSuite, tiny_pipeline: Any, monkeypatch: pytest.MonkeyPatch
) -> None:
    def full(self: Path, data: bytes) -> int:
        raise OSError(28, "No space left on device")

    monkeypatch.setattr(Path, "write_bytes", full)
    with pytest.raises(ResourceError, match="No space left"):
        draw_all(suite, BASE, tmp_path, tiny_pipeline, 12)
    assert [f for f in tmp_path.rglob("*") if f.is_file()] == []


def test_a_scale_out_of_range_is_refused() -> None:
    with pytest.raises(UserError, match="between 0 and 2"):
        drawing_model("toybox-of-no-size", scale=3.0)
