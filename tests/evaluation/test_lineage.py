"""Pictures, checkpoints and figures lead back to what they were made from, and what does not is said."""

import json
import shutil
from pathlib import Path

import numpy as np
import pytest
import torch
from PIL import Image
from safetensors.torch import save_file

from onmodel.core.errors import NotFoundError, UserError
from onmodel.core.files import file_hash, write_bytes
from onmodel.core.images import encode_png
from onmodel.evaluation.choice import choose, write_choice
from onmodel.evaluation.compare import compare
from onmodel.evaluation.lineage import Node, explain
from onmodel.evaluation.origin import fingerprint
from onmodel.evaluation.planned import DrawingModel, encode_picture, plan

from .conftest import small_suite
from .made import evaluation

METADATA = {
    "ss_epoch": "4",
    "ss_steps": "400",
    "ss_seed": "7",
    "ss_onmodel_version": "0.1.0",
    "ss_training_started_at": "1795696044.5",
    "ss_new_sd_model_hash": "ab" * 32,
}


def picture(path: Path, value: int = 90) -> Path:
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_bytes(encode_png(np.full((8, 8, 3), value, dtype=np.uint8)))
    return path


def lines(folder: Path, *rows: dict[str, object]) -> None:
    (folder / "lineage.jsonl").write_text("".join(json.dumps(row) + "\n" for row in rows), encoding="utf-8")


@pytest.fixture
def trial(tmp_path: Path) -> Path:
    """A film's frame, augmented once, trained on, and a test picture drawn of it."""
    frame = picture(tmp_path / "frames" / "frame.png")
    lines(frame.parent, {"file": "frame.png", "film": "film.mp4", "film_hash": "fe" * 32, "time_s": 12.5, "shot": 3})
    crop = picture(tmp_path / "set" / "1_boy" / "crop.png", 91)
    row = {"file": "1_boy/crop.png", "hash": file_hash(crop), "operation": "crop", "dataset": str(frame.parent)}
    lines(tmp_path / "set", {**row, "source": "frame.png", "source_hash": file_hash(frame)})
    base = tmp_path / "base"
    base.mkdir()
    (base / "model_index.json").write_text("{}")
    folder = tmp_path / "trial_1"
    folder.mkdir()
    (folder / "config.toml").write_text(f'[model]\npretrained_model_name_or_path = "{base}"\n[training]\nseed = 7\n')
    known = [{"path": str(crop), "hash": file_hash(crop)}]
    (folder / "dataset.json").write_text(json.dumps({"path": str(tmp_path / "set"), "pictures": known}))
    checkpoint = folder / "trial_1-000004.safetensors"
    save_file({"lora_unet_x.lora_down.weight": torch.zeros(1, 2)}, checkpoint, METADATA)
    model = DrawingModel(str(base), fingerprint(str(base)), checkpoint, file_hash(checkpoint), 0.8)
    suite = small_suite()
    drawn = plan(suite, suite.prompts(), model, folder / "evaluation")[0]
    write_bytes(drawn.path, encode_picture(Image.new("RGB", (8, 8)), drawn, model))
    return folder


def drawn_by(trial: Path) -> Path:
    return next((trial / "evaluation").rglob("*.png"))


def walk(node: Node) -> list[Node]:
    return [node, *(each for source in node.sources for each in walk(source))]


def test_a_test_picture_leads_back_to_the_film(trial: Path) -> None:
    node = explain(drawn_by(trial))
    assert node.facts["seed"] == "1"
    assert node.facts["LoRA scale"] == "0.8"
    assert [each.kind for each in walk(node)] == [
        "test picture",
        "base model",
        "checkpoint",
        "training config",
        "base model",
        "training set",
        "dataset",
        "dataset",
        "film",
    ]
    film = walk(node)[-1]
    assert (film.name, film.facts["SHA-256"]) == ("film.mp4", "fe" * 32)
    assert node.every_untraced() == []
    checkpoint = node.sources[1]
    assert (checkpoint.facts["epoch"], checkpoint.facts["seed"], checkpoint.facts["onmodel"]) == ("4", "7", "0.1.0")
    assert checkpoint.facts["started"] == "2026-11-26T12:27:24+00:00"


def test_a_derived_picture_leads_to_its_source(trial: Path) -> None:
    node = explain(trial.parent / "set" / "1_boy" / "crop.png")
    assert (node.kind, node.facts["operation"]) == ("dataset picture", "crop")
    assert [each.kind for each in walk(node)] == ["dataset picture", "dataset picture", "film"]
    assert walk(node)[-1].facts["at"] == "12.50 s"


def test_a_trial_folder_is_its_last_checkpoint(trial: Path) -> None:
    assert explain(trial) == explain(trial / "trial_1-000004.safetensors")


def test_what_is_gone_or_changed_is_said(trial: Path) -> None:
    drawn = drawn_by(trial)
    picture(trial.parent / "set" / "1_boy" / "crop.png", 1)
    (said,) = explain(drawn).every_untraced()
    assert said.startswith("1 of its 1 pictures were changed since, as ")
    (trial.parent / "base" / "model_index.json").write_text("{ }")
    assert "its files are others by now" in explain(drawn).every_untraced()
    shutil.rmtree(trial.parent / "set")
    assert any("no longer there" in line for line in explain(drawn).every_untraced())
    save_file({"lora_unet_x.lora_down.weight": torch.ones(1, 2)}, trial / "trial_1-000004.safetensors", METADATA)
    assert any("another file by now" in line for line in explain(drawn).every_untraced())
    (trial / "trial_1-000004.safetensors").unlink()
    assert any("none of the folders above" in line for line in explain(drawn).every_untraced())


def test_an_original_and_a_foreign_checkpoint_say_what_is_not_known(tmp_path: Path) -> None:
    (said,) = explain(picture(tmp_path / "own.png")).untraced
    assert said.startswith("nothing was written down")
    save_file({"lora_unet_x.lora_down.weight": torch.zeros(1, 2)}, tmp_path / "other.safetensors")
    found = explain(tmp_path / "other.safetensors").every_untraced()
    assert any("does not say that OnModel trained it" in line for line in found)
    assert any("which pictures it was trained on is not known" in line for line in found)


def test_figures_lead_to_checkpoints(trial: Path) -> None:
    first = evaluation("trial_1", {}).model_copy(
        update={
            "trial_folder": str(trial),
            "checkpoint_hash": file_hash(trial / "trial_1-000004.safetensors"),
            "base": str(trial.parent / "base"),
            "base_hash": fingerprint(str(trial.parent / "base")),
        }
    )
    file = trial / "evaluation" / "evaluation.json"
    file.write_text(first.model_dump_json())
    node = explain(file)
    assert node.facts["detector and scorer"] == "made up"
    assert node.every_untraced() == []
    second = first.model_copy(update={"scale": 0.8, "checkpoint_hash": "0" * 64})
    choice = write_choice(choose([first, second]), trial / "evaluation")
    assert [each.kind for each in explain(choice).sources] == ["checkpoint"]
    page = trial / "comparison.json"
    page.write_text(compare([first, second]).model_dump_json())
    assert [each.kind for each in explain(page).sources] == ["evaluation", "evaluation"]
    assert any("another file by now" in line for line in explain(page).every_untraced())


def test_what_has_no_lineage_is_refused(tmp_path: Path) -> None:
    with pytest.raises(NotFoundError, match="no such file"):
        explain(tmp_path / "none.png")
    (tmp_path / "notes.md").write_text("x")
    with pytest.raises(UserError, match="give a picture"):
        explain(tmp_path / "notes.md")
    (tmp_path / "other.json").write_text("{}")
    with pytest.raises(UserError, match="comparison of OnModel"):
        explain(tmp_path / "other.json")
