"""Several rendered sets put together: the mix, one of each, the best of them, and everything that goes with them."""

import json
import re
import shutil
import tomllib
from collections import Counter
from collections.abc import Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

import pyarrow as pa
import pyarrow.parquet as pq
import pytest
from PIL import Image

from onmodel.core.errors import UserError
from onmodel.core.files import file_hash, tree_hash
from onmodel.core.vocabulary import CATEGORIES, ShotType
from onmodel.dataset.analysis import Analysis, analyze
from onmodel.dataset.composition import Composition
from onmodel.dataset.folder import Dataset, load_dataset
from onmodel.dataset.labels import Label, read_labels, write_labels
from onmodel.dataset.merge import MergeConfig, merge
from onmodel.dataset.merged import MergeReport
from onmodel.dataset.programme import ProgrammeConfig
from onmodel.dataset.recaption import CaptionConfig, write_captions
from onmodel.dataset.recommended import load_recommended
from onmodel.toybox.character import HELD_OUT
from onmodel.toybox.dataset import Shares, make_dataset, read_truth
from onmodel.toybox.render import Truth

from .world import Exact, Services

# What may stand in an sd-scripts dataset config, of what its documentation lists.
GENERAL = {"caption_extension", "enable_bucket", "bucket_reso_steps", "min_bucket_reso", "max_bucket_reso"}
SUBSET = {"image_dir", "num_repeats", "class_tokens"}


@dataclass(frozen=True)
class Sets:
    """Two sets of the same character: close-ups mostly, and everything else."""

    trial: Path
    frames: Path
    truths: dict[str, Truth]
    """By content hash."""

    def load(self) -> list[Dataset]:
        return [load_dataset(self.trial), load_dataset(self.frames)]

    def analyses(self, datasets: Sequence[Dataset] | None = None) -> list[Analysis]:
        return [analyze(dataset, Services(Exact(self.truths))) for dataset in datasets or self.load()]


@pytest.fixture(scope="session")
def rendered(tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("sets")
    few = Shares(close_up=0.6, full_body=0.2, complex_background=0.2)
    many = Shares(medium=0.4, full_body=0.2, far=0.2, multi_character=0.4, occlusion=0.2, complex_background=0.3)
    make_dataset(folder / "trial", HELD_OUT["zibo"], 15, few, 21, size=96, trigger="zibo")
    make_dataset(folder / "frames", HELD_OUT["zibo"], 20, many, 22, size=96, trigger="zibo")
    return folder


@pytest.fixture
def sets(rendered: Path, tmp_path: Path) -> Sets:
    truths: dict[str, Truth] = {}
    for name in ("trial", "frames"):
        shutil.copytree(rendered / name, tmp_path / name)
        for file, truth in read_truth(tmp_path / name).items():
            truths[file_hash(tmp_path / name / file)] = truth
        (tmp_path / name / "toybox_truth.jsonl").unlink()
    return Sets(tmp_path / "trial", tmp_path / "frames", truths)


MIX = Composition.model_validate({"close_up": 7, "medium": 6, "full_body": 5, "far": 3, "multi_character": 5})


def lines(path: Path) -> list[dict[str, Any]]:
    return [json.loads(line) for line in path.read_text(encoding="utf-8").splitlines()]


def counted(report: MergeReport) -> dict[str, int]:
    return {name: report.categories[name].got for name in CATEGORIES}


def test_the_mix_is_met_and_a_second_analysis_computes_nothing(sets: Sets, tmp_path: Path) -> None:
    datasets, analyses, out = sets.load(), sets.analyses(), tmp_path / "out"
    before = [tree_hash(sets.trial), tree_hash(sets.frames)]
    report = merge(datasets, analyses, MIX, out)
    assert [tree_hash(sets.trial), tree_hash(sets.frames)] == before
    assert (report.shortfalls, report.commands, report.proven) == ((), (), True)
    got = counted(report)
    assert {name: got[name] for name in ("close_up", "medium", "full_body", "far")} == {
        "close_up": 7, "medium": 6, "full_body": 5, "far": 3,
    }  # fmt: skip
    assert got["multi_character"] >= 5
    services = Services(Exact(sets.truths))
    again = analyze(load_dataset(out), services)
    assert services.detection.asked == 0
    assert again.counts == got
    assert again.unclassified == 0
    assert MergeReport.model_validate_json((out / "merge.json").read_text(encoding="utf-8")) == report
    places = len(report.duplicates) + len(report.dropped) + len(report.unreadable) + report.pictures
    assert places == sum(len(dataset.pictures) for dataset in datasets)


def test_trainers_read_the_set_as_folders_and_as_a_config(sets: Sets, tmp_path: Path) -> None:
    out = tmp_path / "out"
    merge(sets.load(), sets.analyses(), MIX, out, MergeConfig(class_tokens="zibo boy"))
    folder, config = load_dataset(out), load_dataset(out / "dataset.toml")
    assert [picture.path for picture in folder.pictures] == [picture.path for picture in config.pictures]
    assert [(p.caption, p.repeats, p.class_tokens) for p in folder.pictures] == [
        (p.caption, p.repeats, p.class_tokens) for p in config.pictures
    ]
    assert {picture.path.parent.name for picture in folder.pictures} == {"1_zibo boy"}
    assert all(picture.caption.startswith("zibo") for picture in folder.pictures)
    table = tomllib.loads((out / "dataset.toml").read_text(encoding="utf-8"))
    assert set(table) == {"general", "datasets"}
    assert set(table["general"]) == GENERAL
    (only,) = table["datasets"]
    assert set(only) == {"resolution", "subsets"}
    assert table["general"]["min_bucket_reso"] <= only["resolution"] <= table["general"]["max_bucket_reso"]
    assert all(set(subset) == SUBSET for subset in only["subsets"])
    # sd-scripts reads a relative image_dir from where it is started.
    assert all(Path(subset["image_dir"]).is_absolute() for subset in only["subsets"])


def test_an_image_folder_of_hugging_face(sets: Sets, tmp_path: Path) -> None:
    out = tmp_path / "out"
    merge(sets.load(), sets.analyses(), MIX, out)
    rows = lines(out / "metadata.jsonl")
    held = {path.relative_to(out).as_posix() for path in out.rglob("*.png")}
    # Every picture has one row and every row one picture, with the same columns; otherwise the loader refuses the set.
    assert sorted(row["file_name"] for row in rows) == sorted(held)
    assert {tuple(row) for row in rows} == {("file_name", "text", "shot_type", "attributes")}
    captions = {p.path.relative_to(out).as_posix(): p.caption for p in load_dataset(out).pictures}
    assert {row["file_name"]: row["text"] for row in rows} == captions


def test_every_picture_says_where_it_came_from(sets: Sets, tmp_path: Path) -> None:
    out = tmp_path / "out"
    report = merge(sets.load(), sets.analyses(), MIX, out)
    rows = lines(out / "lineage.jsonl")
    assert len(rows) == report.pictures
    for row in rows:
        assert row["hash"] == file_hash(out / row["file"]) == file_hash(Path(row["dataset"]) / row["source"])
        assert row["operation"] == "copy"
    taken = Counter(row["dataset"] for row in rows)
    assert {source.path: source.taken for source in report.sources} == dict(taken)


def test_copies_are_taken_once_and_the_best_of_near_ones_is(sets: Sets, tmp_path: Path) -> None:
    close = next(row.file for row in sets.analyses()[0].rows if row.shot_type is ShotType.CLOSE_UP)
    shutil.copy(sets.trial / close, sets.frames / "same.png")
    (sets.trial / close).with_suffix(".txt").unlink()
    (sets.frames / "same.txt").write_text("zibo, written on the copy\n", encoding="utf-8")
    # A worse copy of another picture: half the size, blurred by scaling.
    other = next(row.file for row in sets.analyses()[1].rows if row.shot_type is ShotType.FAR)
    small = Image.open(sets.frames / other).resize((48, 48))
    small.save(sets.trial / "small.png")
    truth = sets.truths[file_hash(sets.frames / other)]
    sets.truths[file_hash(sets.trial / "small.png")] = replace(truth)
    report = merge(sets.load(), sets.analyses(), MIX, tmp_path / "out")
    said = {(each.file, each.kept_file, each.why.split(" (")[0]) for each in report.duplicates}
    assert ("same.png", close, "the same file") in said
    assert ("small.png", other, "looks the same") in said
    copies = [line for line in lines(tmp_path / "out" / "lineage.jsonl") if line["source"] == close]
    assert all(line["caption"] == "zibo, written on the copy" for line in copies)
    keep_all = merge(
        sets.load(), sets.analyses(), MIX, tmp_path / "out", MergeConfig(near_duplicate_bits=-1), dry_run=True
    )
    assert {each.why for each in keep_all.duplicates} == {"the same file"}


def test_what_a_person_said_counts_and_goes_along(sets: Sets, tmp_path: Path) -> None:
    rows = sets.analyses()[0].rows
    unknown = [row for row in rows if row.shot_type is ShotType.UNCLASSIFIED]
    labels = [Label(file=row.file, hash=str(row.hash), shot_type=ShotType.MEDIUM) for row in unknown]
    write_labels(sets.trial, labels)
    out, wanted = tmp_path / "out", Composition.model_validate({"medium": 8 + len(labels)})
    report = merge(sets.load(), sets.analyses(), wanted, out)
    assert report.categories["medium"].got == 8 + len(labels)
    assert set(read_labels(out)) == {label.hash for label in labels}
    again = analyze(load_dataset(out), Services(Exact(sets.truths)))
    assert again.counts["medium"] == 8 + len(labels)


def test_likeness_to_the_character_decides(sets: Sets, tmp_path: Path) -> None:
    """From `clusters.parquet` above the folder, as `cluster` writes it, and from lineage, as `extract` does."""
    rows = [row for row in sets.analyses()[0].rows if row.shot_type is ShotType.CLOSE_UP]
    liked = {row.file for row in rows[:3]}
    table = [
        {"target": f"trial/{row.file}", "main": True, "similarity": 0.9 if row.file in liked else 0.2 + 0.01 * place}
        for place, row in enumerate(rows)
    ]
    pq.write_table(pa.Table.from_pylist([*table, {"target": None, "main": True, "similarity": None}]), tmp_path / "c")
    (tmp_path / "c").rename(sets.trial.parent / "clusters.parquet")
    wanted = Composition.model_validate({"close_up": 3})
    config = MergeConfig(programme=ProgrammeConfig(diversity=0))
    merge(sets.load(), sets.analyses(), wanted, tmp_path / "one", config)
    assert {line["source"] for line in lines(tmp_path / "one" / "lineage.jsonl")} == liked
    (sets.trial.parent / "clusters.parquet").unlink()
    lineage = [{"file": row.file, "identity": 0.8 if row.file not in liked else 0.1} for row in rows]
    (sets.trial / "lineage.jsonl").write_text("".join(json.dumps(line) + "\n" for line in lineage), encoding="utf-8")
    merge(sets.load(), sets.analyses(), wanted, tmp_path / "two", config)
    assert not {line["source"] for line in lines(tmp_path / "two" / "lineage.jsonl")} & liked


def test_one_shot_of_a_film_does_not_crowd_out_the_others(sets: Sets, tmp_path: Path) -> None:
    rows = [row for row in sets.analyses()[1].rows if row.shot_type is ShotType.MEDIUM]
    lineage = [
        {"file": row.file, "film": "a.mp4", "film_hash": "f" * 64, "shot": 3 if place < 5 else place, "time_s": place}
        for place, row in enumerate(rows)
    ]
    (sets.frames / "lineage.jsonl").write_text("".join(json.dumps(line) + "\n" for line in lineage), encoding="utf-8")
    wanted = Composition.model_validate({"medium": len(rows) - 4})
    merge(sets.load(), sets.analyses(), wanted, tmp_path / "out", MergeConfig(programme=ProgrammeConfig(diversity=9)))
    taken = lines(tmp_path / "out" / "lineage.jsonl")
    assert Counter(line["shot"] for line in taken)[3] == 1
    assert all(line["film"] == "a.mp4" for line in taken)


def test_what_nobody_asks_for_is_still_said_to_be_there(sets: Sets, tmp_path: Path) -> None:
    report = merge(sets.load(), sets.analyses(), Composition.model_validate({"far": 1}), tmp_path / "out", dry_run=True)
    shots = Counter(shot for _, shot in set(_rows(sets)))
    assert report.categories["medium"].available == shots["medium"] > 0
    assert report.categories["medium"].got == 0


def _rows(sets: Sets) -> list[tuple[str, str]]:
    """Content and shot type of every picture."""
    return [(row.hash or "", row.shot_type.value) for analysis in sets.analyses() for row in analysis.rows]


def test_what_is_short_is_named_with_the_commands_that_fill_it(sets: Sets, tmp_path: Path) -> None:
    wanted = Composition.model_validate({"close_up": 40, "far": 6, "occlusion": 30})
    report = merge(sets.load(), sets.analyses(), wanted, tmp_path / "out")
    assert report.categories["far"].shortfall == 6 - report.categories["far"].available > 0
    assert any(re.fullmatch(r"close-up: \d+ of 40, \d+ missing; the sets hold no more", s) for s in report.shortfalls)
    verbs = [command.split()[1] for command in report.commands]
    assert verbs == ["analyze", "augment", "extract"]
    # Analysed against what merge wrote, the set lacks what the composition lacks, which is what a plan asks for.
    ranges = load_recommended(tmp_path / "out" / "recommended.json")
    again = analyze(load_dataset(tmp_path / "out"), Services(Exact(sets.truths)), recommended=ranges)
    short = {name: line.shortfall for name, line in report.categories.items() if name in CATEGORIES}
    assert {name: result.deficit_at_target for name, result in again.categories.items()} == short
    film_only = merge(
        sets.load(), sets.analyses(), Composition.model_validate({"far": 20}), tmp_path / "far", dry_run=True
    )
    assert [command.split()[1] for command in film_only.commands] == ["analyze", "extract"]
    assert not (tmp_path / "far").exists()


def test_repeats_balance_what_is_short(sets: Sets, tmp_path: Path) -> None:
    wanted = Composition.model_validate({"close_up": 9, "far": 12})
    plain = merge(sets.load(), sets.analyses(), wanted, tmp_path / "out", dry_run=True)
    assert plain.shown == plain.pictures
    report = merge(sets.load(), sets.analyses(), wanted, tmp_path / "out", MergeConfig(max_repeats=4))
    assert report.shown > report.pictures == plain.pictures
    ideal = 100 * 12 / 21
    assert abs(report.categories["far"].shown - ideal) < abs(plain.categories["far"].shown - ideal)
    made = load_dataset(tmp_path / "out")
    assert sum(picture.repeats for picture in made.pictures) == report.shown
    assert report.repeats == dict(Counter(picture.path.parent.name for picture in made.pictures))
    assert load_dataset(tmp_path / "out" / "dataset.toml").pictures == made.pictures


def test_caption_variants_and_missing_captions(sets: Sets, tmp_path: Path) -> None:
    close = [row.file for row in sets.analyses()[0].rows if row.shot_type is ShotType.CLOSE_UP]
    (sets.trial / close[0]).with_suffix(".txt").write_text("zibo, one\nzibo, two\n", encoding="utf-8")
    (sets.trial / close[1]).with_suffix(".txt").unlink()
    wanted = Composition.model_validate({"close_up": len(close)})
    report = merge(sets.load(), sets.analyses(), wanted, tmp_path / "out", MergeConfig(near_duplicate_bits=-1))
    assert report.without_caption == 1
    made = {line["source"]: tmp_path / "out" / line["file"] for line in lines(tmp_path / "out" / "lineage.jsonl")}
    assert made[close[0]].with_suffix(".txt").read_text(encoding="utf-8") == "zibo, one\nzibo, two\n"
    # sd-scripts refuses an empty caption file and takes the class tokens where there is none.
    assert not made[close[1]].with_suffix(".txt").exists()
    table = tomllib.loads((tmp_path / "out" / "dataset.toml").read_text(encoding="utf-8"))
    assert table["general"]["enable_wildcard"] is True


def test_a_merged_set_merges_again_and_keeps_what_was_known(sets: Sets, tmp_path: Path) -> None:
    crop = {
        "file": "toy_0000.png",
        "operation": "crop",
        "source": "a.png",
        "source_hash": "e" * 64,
        "box": [0, 0, 9, 9],
    }
    (sets.trial / "lineage.jsonl").write_text(json.dumps(crop) + "\n", encoding="utf-8")
    everything = Composition.model_validate({"total": 99, **{name: {"max": 99} for name in CATEGORIES[:4]},
                                             "unclassified": {"max": 99}})  # fmt: skip
    merge(sets.load(), sets.analyses(), everything, tmp_path / "one")
    first = load_dataset(tmp_path / "one")
    report = merge([first], sets.analyses([first]), everything, tmp_path / "two")
    assert report.pictures == len(first.pictures)
    made = [line["made"] for line in lines(tmp_path / "two" / "lineage.jsonl") if "made" in line]
    assert made == [{"operation": "crop", "source": "a.png", "source_hash": "e" * 64, "box": [0, 0, 9, 9]}]


def test_the_same_sets_make_the_same_set(sets: Sets, tmp_path: Path) -> None:
    out = tmp_path / "out"
    hashes: list[str] = []
    for _ in range(2):
        merge(sets.load(), sets.analyses(), MIX, out)
        hashes.append(tree_hash(out))
        (out / "stale.txt").write_text("left over", encoding="utf-8")
    assert hashes[0] == hashes[1]


def test_broken_pictures_are_counted(sets: Sets, tmp_path: Path) -> None:
    (sets.trial / "broken.png").write_bytes(b"not a picture")
    report = merge(sets.load(), sets.analyses(), MIX, tmp_path / "out")
    assert [(left.file, "not a picture" in left.why) for left in report.unreadable] == [("broken.png", True)]
    assert report.shortfalls == ()


def test_what_cannot_be_merged_is_refused(sets: Sets, tmp_path: Path) -> None:
    datasets, analyses = sets.load(), sets.analyses()
    with pytest.raises(UserError, match="is given twice"):
        merge([datasets[0], load_dataset(sets.trial)], [analyses[0]] * 2, MIX, tmp_path / "out")
    for place in (sets.trial, sets.frames / "inside", tmp_path):
        with pytest.raises(UserError, match=r"stays untouched|no merged set"):
            merge(datasets, analyses, MIX, place)
    foreign = tmp_path / "extracted"
    foreign.mkdir()
    (foreign / "lineage.jsonl").write_text("", encoding="utf-8")
    with pytest.raises(UserError, match="is no merged set"):
        merge(datasets, analyses, MIX, foreign)
    with pytest.raises(UserError, match=r"can be taken: 8 since no medium shot .* since no full body"):
        merge(datasets[1:], analyses[1:], Composition.model_validate({"close_up": 3}), tmp_path / "out")
    with pytest.raises(UserError, match="become a folder's name"):
        try:
            MergeConfig(class_tokens="../up")
        except ValueError as error:
            raise UserError(str(error)) from None
    victim = sets.trial / next(row.file for row in analyses[0].rows if row.shot_type is ShotType.CLOSE_UP)
    everything = Composition.model_validate({"close_up": 99})
    victim.write_bytes(victim.read_bytes() + b"\0")
    with pytest.raises(UserError, match="changed while it was merged"):
        merge(datasets, analyses, everything, tmp_path / "out", MergeConfig(near_duplicate_bits=-1))
    assert not (tmp_path / "out").exists()


def test_interrupting_leaves_nothing(sets: Sets, tmp_path: Path) -> None:
    def stop(count: int) -> None:
        raise KeyboardInterrupt

    with pytest.raises(KeyboardInterrupt):
        merge(sets.load(), sets.analyses(), MIX, tmp_path / "new" / "out", advance=stop)
    assert not (tmp_path / "new").exists()


def test_corrections_and_the_film_survive_new_captions(sets: Sets, tmp_path: Path) -> None:
    """`caption` between `curate` and `merge` loses nothing that a person or a film said."""
    (analysis,) = sets.analyses([load_dataset(sets.trial)])
    row = analysis.rows[0]
    write_labels(sets.trial, [Label(file=row.file, hash=str(row.hash), shot_type=ShotType.FAR)])
    line = {
        "file": row.file,
        "film_hash": "f" * 64,
        "shot": 3,
        "identity": 0.7,
        "operation": "crop",
        "source_hash": "e",
    }
    (sets.trial / "lineage.jsonl").write_text(json.dumps(line) + "\n", encoding="utf-8")
    dataset = load_dataset(sets.trial)
    rows = {row.file: row for row in sets.analyses([dataset])[0].rows}
    write_captions(dataset, rows, tmp_path / "captioned", CaptionConfig())
    captioned = load_dataset(tmp_path / "captioned")
    report = merge([captioned], sets.analyses([captioned]), Composition.model_validate({"far": 1}), tmp_path / "out")
    assert report.pictures == 1
    (made,) = lines(tmp_path / "out" / "lineage.jsonl")
    assert (made["film_hash"], made["shot"], made["identity"]) == ("f" * 64, 3, 0.7)
    assert made["made"]["source_hash"] == "e"
