"""`onmodel extract` on a rendered film with the bundled models, on this machine and on a Ray cluster."""

import json
import shutil
from collections.abc import Generator
from pathlib import Path

import pytest

from onmodel.cli import extract as verb
from onmodel.core.errors import ServiceError, UserError
from onmodel.core.files import tree_hash
from onmodel.core.images import encode_png
from onmodel.dataset.facts import FILE, Facts
from onmodel.dataset.folder import load_dataset
from onmodel.film.records import read_lineage
from onmodel.toybox.character import HELD_OUT
from onmodel.toybox.dataset import reference_pictures
from onmodel.toybox.film import make_film, read_film_truth

PROFILE = {
    "priority_scenes": {
        "close_up": {"target": 8},
        "medium_shot": {"target": 8},
        "full_body": {"target": 8, "keywords": ["a character"]},
        "far": {"target": 8},
        "multi_character": {"target": 8},
        "complex_backgrounds": {"target": 8},
    }
}


@pytest.fixture(scope="module")
def world(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A folder with a rendered film of two characters, pictures of the first, and a profile."""
    folder = tmp_path_factory.mktemp("rendered")
    make_film(folder / "toys.mp4", [HELD_OUT["zibo"], HELD_OUT["mirel"]], seconds=14, seed=4)
    (folder / "zibo").mkdir()
    for number, drawn in enumerate(reference_pictures(HELD_OUT["zibo"], 4, 5, size=128)):
        (folder / "zibo" / f"{number}.png").write_bytes(encode_png(drawn.image))
    (folder / "profile.json").write_text(json.dumps(PROFILE), encoding="utf-8")
    # The camera hardly moves in a rendered take: less alike is a near-duplicate here.
    settings = "part_s = 4.0\n[sampling.quality]\nnear_duplicate_bits = 1\n[select]\nnear_duplicate_bits = 1\n"
    (folder / "settings.toml").write_text(settings, encoding="utf-8")
    return folder


@pytest.fixture(scope="module")
def extracted(world: Path) -> Path:
    verb.command(
        [world / "toys.mp4"],
        profile=world / "profile.json",
        output_dir=world / "out",
        reference=world / "zibo",
        config=world / "settings.toml",
    )
    return world / "out"


def test_what_is_taken_shows_ours_as_the_truth_says(world: Path, extracted: Path) -> None:
    truth = read_film_truth(world / "toys.mp4")
    lines = read_lineage(extracted / "lineage.jsonl")
    assert len(lines) >= 8
    ours = shot = 0
    for line in lines:
        shown = truth.at(line["time_s"]).truth
        ours += any(person.name == "zibo" and person.visible_pixels > 0 for person in shown.characters)
        shot += shown.shot_type.value == line["shot_type"]
    assert ours >= 0.9 * len(lines)
    assert shot >= 0.75 * len(lines)
    assert all(picture.caption.startswith("zibo") for picture in load_dataset(extracted).pictures)


def test_the_result_is_printed(world: Path, extracted: Path, capsys: pytest.CaptureFixture[str]) -> None:
    def again(json: bool) -> str:
        verb.command(
            [world / "toys.mp4"],
            profile=world / "profile.json",
            output_dir=extracted,
            reference=world / "zibo",
            config=world / "settings.toml",
            json=json,
        )
        return capsys.readouterr().out

    text = again(False)
    assert "medium_shot" in text
    assert "contact sheet: " in text
    answer = json.loads(again(True))
    assert answer["pictures"] == len(load_dataset(extracted).pictures)
    assert Facts.open(extracted).path == extracted / FILE


def test_what_is_missing_on_the_command_line_is_named(world: Path, tmp_path: Path) -> None:
    with pytest.raises(UserError, match="no profile is given"):
        verb.command([world / "toys.mp4"], output_dir=tmp_path / "out")
    with pytest.raises(UserError, match="no film is given"):
        verb.command(profile=world / "profile.json", output_dir=tmp_path / "out")
    with pytest.raises(UserError, match="no folder is given"):
        verb.command([world / "toys.mp4"], profile=world / "profile.json")
    with pytest.raises(UserError, match="unknown key `span`; did you mean `span_s`"):
        (tmp_path / "s.toml").write_text("span = 1\n")
        verb.command(
            [world / "toys.mp4"], profile=world / "profile.json", output_dir=tmp_path / "o", config=tmp_path / "s.toml"
        )


@pytest.fixture
def cluster(monkeypatch: pytest.MonkeyPatch) -> Generator[str]:
    """A Ray cluster of two cores, named by RAY_ADDRESS."""
    import ray

    from onmodel.serving.private_ray import private_folder, start_private_ray

    folder = private_folder()
    start_private_ray(folder, num_cpus=2, object_store_bytes=100 * 2**20)
    address = ray.get_runtime_context().gcs_address
    monkeypatch.setenv("RAY_ADDRESS", address)
    yield address
    ray.shutdown()
    shutil.rmtree(folder, ignore_errors=True)


@pytest.mark.ray
def test_a_cluster_gives_the_same_bytes(world: Path, extracted: Path, cluster: str, tmp_path: Path) -> None:
    verb.command(
        [world / "toys.mp4"],
        profile=world / "profile.json",
        output_dir=tmp_path / "out",
        reference=world / "zibo",
        config=world / "settings.toml",
    )
    assert tree_hash(tmp_path / "out") == tree_hash(extracted)


def test_a_cluster_that_does_not_answer_is_said(world: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    from onmodel.film.look import LookConfig
    from onmodel.film.ray_data import over_cluster

    monkeypatch.setenv("RAY_ADDRESS", "127.0.0.1:9")
    with pytest.raises(ServiceError, match=r"RAY_ADDRESS=127\.0\.0\.1:9: no Ray cluster answers there"):
        next(over_cluster(LookConfig())([object()], print))  # pyright: ignore[reportArgumentType]
