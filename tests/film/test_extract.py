"""Extraction as a whole, with a stand-in for the models: what it writes, resumes and refuses."""

import json
import random
import subprocess
import sys
import time
from collections.abc import Callable
from pathlib import Path

import numpy as np
import pyarrow.parquet as pq
import pytest

from onmodel.core.errors import UserError
from onmodel.core.files import file_hash, tree_hash
from onmodel.core.images import encode_png, load
from onmodel.core.vocabulary import ShotType
from onmodel.dataset.facts import Facts
from onmodel.dataset.folder import load_dataset
from onmodel.detection.convert import Detected
from onmodel.film.extract import STATE, ExtractConfig, Watch, extract
from onmodel.film.profile import Profile
from onmodel.film.records import ExtractionResult, read_lineage
from onmodel.film.run import local

from .made import LightLook, scene, write_film

KILLS = 5
CONFIG = ExtractConfig(part_s=1.0, span_s=0.2)
Run = Callable[..., ExtractionResult]


def asking(**scenes: object) -> Profile:
    return Profile.model_validate({"priority_scenes": scenes})


PROFILE = asking(full_body={"target": 4}, far={"target": 3})


@pytest.fixture(scope="session")
def film(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Four seconds of four shots, the light disc moving through each."""
    frames = [scene(seed, step=n * 2) for seed in (1, 2, 3, 4) for n in range(10)]
    return write_film(tmp_path_factory.mktemp("film") / "the film.mp4", frames)


@pytest.fixture
def run(film: Path, tmp_path: Path) -> Run:
    def go(profile: Profile = PROFILE, **options: object) -> ExtractionResult:
        given = {"config": CONFIG, **options}
        return extract([film], profile, tmp_path / "out", LightLook(), **given)  # pyright: ignore[reportArgumentType]

    return go


def test_what_an_extraction_leaves(run: Run, film: Path, tmp_path: Path) -> None:
    result = run()
    folder = tmp_path / "out"
    assert result.scenes["full_body"].found == 4
    assert result.pictures == 4
    assert (result.frames, result.shots) == (40, 4)
    dataset = load_dataset(folder)
    assert len(dataset.pictures) == 4
    lines = read_lineage(folder / "lineage.jsonl")
    assert {line["file"] for line in lines} == {p.path.name for p in dataset.pictures}
    for line in lines:
        assert line["film_hash"] == file_hash(film)
        assert line["file"] == f"the film_{round(line['time_s'] * 1000):09d}.png"
        assert line["shot"] == int(line["time_s"])
        assert "full_body" in line["scenes"]
        assert line["shot_type"] == "full_body"
        assert load(folder / line["file"]).shape == (72, 128, 3)
    assert all("full body" in picture.caption for picture in dataset.pictures)
    # Variety before the second best of one shot, where that is not much better.
    assert len({line["shot"] for line in lines}) >= 3
    assert not (folder / STATE).exists()


def test_facts_spare_a_second_look(run: Run, tmp_path: Path) -> None:
    run()
    facts = Facts.open(tmp_path / "out")
    look = LightLook()
    for picture in load_dataset(tmp_path / "out").pictures:
        known = facts.get((picture.hash, look.detector.hash, look.detector.config_hash))
        assert isinstance(known, Detected)
        assert known.decision.shot_type is ShotType.FULL_BODY
        assert known == look.detect([load(picture.path)])[0]


def test_every_candidate_is_accounted_for(run: Run, tmp_path: Path) -> None:
    result = run()
    rows = pq.read_table(tmp_path / "out" / "extraction.parquet").to_pylist()
    assert len(rows) == result.candidates
    assert sum(row["taken"] for row in rows) == result.pictures
    assert sum(row["dropped"] is not None for row in rows) == sum(result.dropped.values())
    assert all(row["why"] for row in rows)
    assert all("full_body: taken" in row["why"] for row in rows if row["taken"])
    assert [row["time_s"] for row in rows] == sorted(row["time_s"] for row in rows)
    (sentence,) = result.shortfalls
    assert sentence.startswith("far: 0 of 3 found; of the other frames looked at: ")
    page = (tmp_path / "out" / "extraction.html").read_text(encoding="utf-8")
    assert page.count("<figure>") == 4
    assert "3 missing" in page


def test_a_second_run_looks_at_nothing_and_another_profile_brings_it_up_to_date(run: Run, tmp_path: Path) -> None:
    first = run()
    seen: list[int] = []
    assert run(watch=Watch(begin=seen.append)) == first
    assert not seen
    fewer = run(asking(full_body={"target": 2}), watch=Watch(begin=seen.append))
    assert seen == [40]
    assert fewer.pictures == len(load_dataset(tmp_path / "out").pictures) == 2
    assert len(list((tmp_path / "out").glob("*.txt"))) == 2


def test_what_a_killed_run_left_half_written_is_removed(run: Run, tmp_path: Path) -> None:
    first = run()
    whole = tree_hash(tmp_path / "out")
    (tmp_path / "out" / ".the film_000000100.png.abc.part").write_bytes(b"half")
    (tmp_path / "out" / f"{STATE}.1.gone" / "part").mkdir(parents=True)
    assert run() == first
    assert tree_hash(tmp_path / "out") == whole
    # Killed between its frames and its table: worked again.
    (tmp_path / "out" / "extraction.parquet").unlink()
    (tmp_path / "out" / STATE).mkdir()
    assert run() == first
    assert tree_hash(tmp_path / "out") == whole


def test_the_same_bytes_however_many_parts_run_at_once(run: Run, film: Path, tmp_path: Path) -> None:
    run()
    extract([film], PROFILE, tmp_path / "two", LightLook(), config=CONFIG, runner=local(LightLook(), parts_at_once=2))
    assert tree_hash(tmp_path / "two") == tree_hash(tmp_path / "out")


def test_progress_is_told(run: Run) -> None:
    total: list[int] = []
    done: list[int] = []
    found: list[dict[str, tuple[int, int]]] = []
    run(watch=Watch(total.append, done.append, found.append))
    assert total == [40] == [sum(done)]
    assert len(found) == 4
    assert found[-1]["full_body"][0] >= 4
    assert [f["full_body"][0] for f in found] == sorted(f["full_body"][0] for f in found)


def test_it_can_stop_when_targets_are_met(run: Run) -> None:
    result = run(asking(full_body={"target": 1}), stop_when_met=True)
    assert result.frames < 40
    assert result.scenes["full_body"].found == 1


def test_constraints_hold(run: Run) -> None:
    tall = run(asking(full_body={"target": 9, "min_character_height_ratio": 0.9}))
    assert tall.pictures == 0
    assert tall.scenes["full_body"].refused["the character"] > 0
    assert "with too small a character" in tall.shortfalls[0]


def test_a_stranger_is_not_taken(run: Run, film: Path, tmp_path: Path) -> None:
    ours, stranger = tmp_path / "ours", tmp_path / "stranger"
    for folder, colour in ((ours, (250, 250, 250)), (stranger, (160, 160, 250))):
        folder.mkdir()
        for number in range(3):
            image = scene(number + 1, step=8)
            image[(image == 250).all(axis=2)] = colour
            (folder / f"{number}.png").write_bytes(encode_png(image))
    assert run(reference=ours).scenes["full_body"].found == 4
    other = run(reference=stranger)
    assert other.pictures == 0
    assert other.scenes["full_body"].refused["not our character"] > 0
    required = asking(full_body={"target": 4, "required_characters": ["stranger"]})
    both = run(required, reference=ours, profile_folder=tmp_path)
    assert both.pictures == 0
    assert both.scenes["full_body"].refused["stranger not seen"] > 0
    alternative = asking(full_body={"target": 4, "required_characters_alt": ["ours", "stranger"]})
    assert run(alternative, reference=ours, profile_folder=tmp_path).pictures == 4


def test_texts_only_order_what_fits(run: Run) -> None:
    plain = run(asking(full_body={"target": 40}))
    worded = run(asking(full_body={"target": 40, "keywords": ["a", "bbb"], "scene_types": ["a wood"]}))
    assert worded.scenes["full_body"].could == plain.scenes["full_body"].could


def test_a_folder_with_other_things_is_refused(run: Run, tmp_path: Path) -> None:
    (tmp_path / "out").mkdir()
    (tmp_path / "out" / "holiday.png").write_bytes(encode_png(np.zeros((8, 8, 3), np.uint8)))
    with pytest.raises(UserError, match=r"holds 1 files that no extraction made \(holiday\.png"):
        run()
    assert [p.name for p in (tmp_path / "out").iterdir()] == ["holiday.png"]


def test_a_film_given_twice_is_worked_once(run: Run, film: Path, tmp_path: Path) -> None:
    again = tmp_path / "copy.mp4"
    again.write_bytes(film.read_bytes())
    result = extract([film, again], PROFILE, tmp_path / "twice", LightLook(), config=CONFIG)
    assert (result.frames, result.films) == (40, (str(film),))


def test_films_of_one_name_are_told_apart(film: Path, tmp_path: Path) -> None:
    other = tmp_path / film.name
    write_film(other, [scene(seed, step=n * 2) for seed in (7, 8) for n in range(10)])
    extract([film, other], asking(full_body={"target": 30}), tmp_path / "out", LightLook(), config=CONFIG)
    lines = read_lineage(tmp_path / "out" / "lineage.jsonl")
    assert {line["film_hash"] for line in lines} == {file_hash(film), file_hash(other)}
    assert all(line["file"].startswith(f"the film-{line['film_hash'][:8]}_") for line in lines)


def test_a_run_that_is_killed_again_and_again_ends_as_one_that_was_not(shared_assets: Path, tmp_path: Path) -> None:
    small = shared_assets / "video" / "big_buck_bunny_10s_176p.mp4"
    script = Path(__file__).with_name("killed.py")

    def start(folder: str) -> "subprocess.Popen[str]":
        command = [sys.executable, str(script), str(small), str(tmp_path / folder)]
        return subprocess.Popen(command, stdout=subprocess.PIPE, text=True)

    def finished_parts() -> int:
        return len(list((tmp_path / "killed" / STATE).glob("*/rows.json")))

    assert start("whole").communicate()[0] == "finished\n"
    dice = random.Random(3)
    kept: list[int] = []
    for kill in range(KILLS):
        running = start("killed")
        # Each time within a later part: the wait is for parts, since a busy machine makes times mean nothing.
        while running.poll() is None and finished_parts() < kill:
            time.sleep(0.01)
        time.sleep(dice.uniform(0.0, 0.2))
        running.kill()
        running.communicate()
        kept.append(finished_parts())
    assert max(kept) > 0
    assert start("killed").communicate()[0] == "finished\n"
    assert tree_hash(tmp_path / "killed") == tree_hash(tmp_path / "whole")
    assert json.loads((tmp_path / "whole" / "lineage.jsonl").read_text(encoding="utf-8").splitlines()[0])["scenes"]
