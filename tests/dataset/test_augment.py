"""The derived set: what is made, where it came from, and that the originals stay as they are."""

import json
from pathlib import Path

import numpy as np
import pytest

from onmodel.core.errors import UserError
from onmodel.core.files import tree_hash
from onmodel.core.images import load
from onmodel.core.vocabulary import Attribute, Box, ShotType
from onmodel.dataset.analysis import Analysis, InstanceRow, Row, analyze
from onmodel.dataset.augment import LINEAGE, augment
from onmodel.dataset.captions import PHRASES, segments
from onmodel.dataset.crops import CropConfig, can_widen, crop_window, cropped_attributes, cut
from onmodel.dataset.folder import load_dataset

from .conftest import Trial

CROP = CropConfig(min_side=24, resolution=96)


@pytest.fixture
def analysis(trial: Trial) -> Analysis:
    return analyze(trial.dataset, trial.services())


def lineage(folder: Path) -> list[dict[str, object]]:
    return [json.loads(line) for line in (folder / LINEAGE).read_text(encoding="utf-8").splitlines()]


def test_the_set_is_nearer_to_the_ranges(trial: Trial, analysis: Analysis, tmp_path: Path) -> None:
    before = tree_hash(trial.path)
    result = augment(trial.dataset, analysis, tmp_path / "out", target_size=100, crop=CROP)
    assert tree_hash(trial.path) == before
    assert result.before["medium"] == 0
    assert result.after["medium"] > 10
    assert result.after["full_body"] >= result.before["full_body"]
    assert result.copied == 20
    assert set(result.derived) <= {"crop medium", "crop close_up", "widen far"}
    assert any("multi-character" in s and "cannot make it" in s for s in result.unreachable)


def test_every_picture_says_where_it_came_from(trial: Trial, analysis: Analysis, tmp_path: Path) -> None:
    out = tmp_path / "out"
    result = augment(trial.dataset, analysis, out, target_size=100, crop=CROP)
    rows = lineage(out)
    made = load_dataset(out)
    assert len(rows) == len(made.pictures) == result.pictures
    by_file = {made.relative(p): p for p in made.pictures}
    known = {row.file: row for row in analysis.rows}
    for row in rows:
        picture = by_file[str(row["file"])]
        assert picture.hash == row["hash"]
        assert picture.caption == row["caption"]
        assert picture.repeats == row["repeats"]
        assert row["source_hash"] == known[str(row["source"])].hash
        if row["operation"] == "copy":
            assert row["hash"] == row["source_hash"]
        assert row["caption_before"] == known[str(row["source"])].caption
    assert result.shown == sum(p.repeats for p in made.pictures)


def test_captions_name_the_new_framing_and_keep_the_trigger_first(
    trial: Trial, analysis: Analysis, tmp_path: Path
) -> None:
    augment(trial.dataset, analysis, tmp_path / "out", target_size=100, crop=CROP)
    for row in lineage(tmp_path / "out"):
        shot = ShotType(str(row["shot_type"]))
        if shot is ShotType.UNCLASSIFIED:
            continue
        parts = segments(str(row["caption"]))
        assert parts[0] == "zibo"
        assert parts[1] == "a teenage boy"
        assert parts[2] in PHRASES[shot]
        others = {phrase for kind, phrases in PHRASES.items() if kind is not shot for phrase in phrases}
        assert not others & set(parts)


def test_crops_show_what_they_say(trial: Trial, analysis: Analysis) -> None:
    """Against the renderer's truth: the head is in whole, the feet are not."""
    rng = np.random.default_rng(0)
    tried = 0
    for row in analysis.rows:
        if row.shot_type is not ShotType.FULL_BODY:
            continue
        for shot in (ShotType.MEDIUM, ShotType.CLOSE_UP):
            window = crop_window(row, shot, CROP, rng)
            assert window is not None
            person = trial.truth[row.file].characters[0]
            assert person.face_box is not None
            assert window.intersection(person.face_box) >= 0.85 * person.face_box.area
            assert window.y1 < person.box.y1
            assert 0 <= window.x0 < window.x1 <= row.width
            assert 0 <= window.y0 < window.y1 <= row.height
            share = person.face_box.height / window.height
            assert (share > 0.5) == (shot is ShotType.CLOSE_UP)
            tried += 1
    assert tried >= 8


def test_too_few_pixels_give_no_crop(analysis: Analysis) -> None:
    strict = CropConfig(min_side=120)
    full = [row for row in analysis.rows if row.shot_type is ShotType.FULL_BODY]
    assert all(crop_window(row, ShotType.CLOSE_UP, strict, np.random.default_rng(0)) is None for row in full)


def test_crops_are_enlarged_within_bounds() -> None:
    image = np.zeros((100, 100, 3), np.uint8)
    assert cut(image, Box(0, 0, 40, 50), CropConfig(resolution=64)).shape == (80, 64, 3)
    assert cut(image, Box(0, 0, 20, 20), CropConfig(resolution=512, max_upscale=2.0)).shape == (40, 40, 3)
    assert cut(image, Box(0, 0, 100, 100), CropConfig(resolution=64)).shape == (100, 100, 3)


def test_attributes_leave_with_what_they_are_about() -> None:
    row = Row(
        file="a.png", hash="0", width=200, height=100, shot_type=ShotType.FULL_BODY, main=0,
        attributes=("complex_background", "multi_character", "occlusion"),
        instances=(
            InstanceRow(box=(20, 5, 60, 95), confidence=0.9, label="c", face=(28, 5, 52, 30)),
            InstanceRow(box=(120, 5, 160, 95), confidence=0.9, label="c"),
        ),
        occluders=((20, 70, 60, 98),),
    )  # fmt: skip
    assert cropped_attributes(row, Box(10, 0, 70, 50)) == {"complex_background"}
    assert cropped_attributes(row, Box(0, 0, 200, 90)) == set(row.attributes)


def test_far_shots_come_from_plain_ones_alone(trial: Trial, analysis: Analysis, tmp_path: Path) -> None:
    for row in analysis.rows:
        if can_widen(row):
            assert row.shot_type is ShotType.FULL_BODY
            assert Attribute.COMPLEX_BACKGROUND not in row.attributes
    augment(trial.dataset, analysis, tmp_path / "out", target_size=100, crop=CROP)
    widened = [row for row in lineage(tmp_path / "out") if row["operation"] == "widen"]
    assert widened
    for row in widened:
        picture = load(tmp_path / "out" / str(row["file"]))
        source = next(r for r in analysis.rows if r.file == row["source"])
        assert picture.shape == (source.height, source.width, 3)


def test_the_same_seed_makes_the_same_set(trial: Trial, analysis: Analysis, tmp_path: Path) -> None:
    for name in ("one", "two"):
        augment(trial.dataset, analysis, tmp_path / name, target_size=80, crop=CROP, seed=4)
    assert tree_hash(tmp_path / "one") == tree_hash(tmp_path / "two")


def test_originals_are_never_written_into(trial: Trial, analysis: Analysis, tmp_path: Path) -> None:
    for place in (trial.path, trial.path / "inside", trial.path.parent):
        with pytest.raises(UserError, match="stays untouched"):
            augment(trial.dataset, analysis, place)
    foreign = tmp_path / "elsewhere"
    foreign.mkdir()
    (foreign / "thesis.doc").write_text("precious", encoding="utf-8")
    with pytest.raises(UserError, match="no derived set of ours"):
        augment(trial.dataset, analysis, foreign)
    assert (foreign / "thesis.doc").exists()


def test_an_old_derived_set_is_replaced_whole(trial: Trial, analysis: Analysis, tmp_path: Path) -> None:
    out = tmp_path / "out"
    augment(trial.dataset, analysis, out, target_size=80, crop=CROP)
    (out / "stale.txt").write_text("left over", encoding="utf-8")
    augment(trial.dataset, analysis, out, target_size=80, crop=CROP)
    assert not (out / "stale.txt").exists()


def test_an_analysis_of_other_pictures_is_refused(trial: Trial, analysis: Analysis, tmp_path: Path) -> None:
    victim = trial.path / sorted(trial.truth)[0]
    data = victim.read_bytes()
    victim.write_bytes(data + b"\0")
    with pytest.raises(UserError, match="has changed since the analysis"):
        augment(trial.dataset, analysis, tmp_path / "out")
    victim.unlink()
    with pytest.raises(UserError, match="is gone since the analysis"):
        augment(trial.dataset, analysis, tmp_path / "out")
    assert not (tmp_path / "out").exists()


def test_interrupting_leaves_nothing_half_written(trial: Trial, analysis: Analysis, tmp_path: Path) -> None:
    def stop(count: int) -> None:
        raise KeyboardInterrupt

    with pytest.raises(KeyboardInterrupt):
        augment(trial.dataset, analysis, tmp_path / "new" / "out", advance=stop)
    assert list((tmp_path / "new").iterdir()) == []
