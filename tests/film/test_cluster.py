"""`onmodel cluster` on rendered pictures of four characters, with the bundled models."""

import json
import shutil
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow.parquet as pq
import pytest
from sklearn.metrics import adjusted_rand_score

from onmodel.cli import cluster as verb
from onmodel.core.errors import NotFoundError, UserError
from onmodel.core.files import content_hash
from onmodel.core.images import encode_png
from onmodel.core.vocabulary import Box, Detections, Instance, ShotType
from onmodel.dataset.derived import read_lineage
from onmodel.dataset.facts import Facts
from onmodel.dataset.folder import load_dataset
from onmodel.dataset.labels import Label, read_labels, write_labels
from onmodel.detection.config import DetectorConfig
from onmodel.film.cluster import ClusterConfig, Looking, cluster
from onmodel.film.cluster_output import OUTLIERS, PAGE, TABLE, write
from onmodel.film.signatures import Signature, SignatureConfig, Signatures, cut
from onmodel.scoring.config import ScorerConfig
from onmodel.toybox.backdrop import Backdrop
from onmodel.toybox.character import HELD_OUT, Character, random_character
from onmodel.toybox.dataset import reference_pictures
from onmodel.toybox.render import Truth, render
from onmodel.toybox.scene import FRAMED, Scene, random_scene

EACH = 16


def cast() -> list[Character]:
    rng = np.random.default_rng(77)
    return [HELD_OUT["zibo"], HELD_OUT["mirel"], *(random_character(rng) for _ in range(2))]


@dataclass(frozen=True)
class World:
    folder: Path
    truth: dict[str, Truth]
    """By file name."""
    references: Path
    """Three pictures of the first character."""


def looking() -> Looking:
    return Looking(DetectorConfig.preset("toybox"), ScorerConfig())


def rows_of(folder: Path) -> list[dict[str, Any]]:
    return pq.read_table(folder / TABLE).to_pylist()


@pytest.fixture(scope="module")
def world(tmp_path_factory: pytest.TempPathFactory) -> World:
    """Pictures of each character, every fourth in company, an empty place, a pair of shoes, a torn file."""
    home = tmp_path_factory.mktemp("cluster")
    folder, references = home / "set", home / "zibo"
    folder.mkdir()
    references.mkdir()
    truth: dict[str, Truth] = {}
    people = cast()
    for k in range(len(people) * EACH):
        who = k % len(people)
        turn = k // len(people)
        drawn = render(
            random_scene(
                np.random.default_rng([77, k]), character=people[who], shot_type=FRAMED[turn % 3], occlusion=False,
                multi_character=turn % 4 == 3, others=[p for p in people if p is not people[who]],
            )
        )  # fmt: skip
        name = f"p_{k:03d}.png"
        (folder / name).write_bytes(encode_png(drawn.image))
        (folder / name).with_suffix(".txt").write_text(f"picture {k}\n", encoding="utf-8")
        truth[name] = drawn.truth
    empty = render(Scene(ShotType.UNCLASSIFIED, (), (), Backdrop("gradient", 3)))
    (folder / "empty.png").write_bytes(encode_png(empty.image))
    shoes = random_scene(np.random.default_rng(0), character=people[1], shot_type=ShotType.UNCLASSIFIED)
    (folder / "shoes.png").write_bytes(encode_png(render(shoes).image))
    (folder / "torn.png").write_bytes(encode_png(empty.image)[:200])
    for k, picture in enumerate(reference_pictures(people[0], 3, 5)):
        (references / f"{k}.png").write_bytes(encode_png(picture.image))
    lines = [json.dumps({"file": name, "film": "film.mp4", "shot": k}) for k, name in enumerate(truth)]
    (folder / "lineage.jsonl").write_text("\n".join(lines) + "\n", encoding="utf-8")
    label = Label(file="p_000.png", hash=content_hash((folder / "p_000.png").read_bytes()), shot_type=ShotType.FAR)
    write_labels(folder, [label])
    return World(folder, truth, references)


@pytest.fixture(scope="module")
def clustered(world: World, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """What the command writes about them."""
    out = tmp_path_factory.mktemp("clusters") / "out"
    verb.command(world.folder, out, reference=[f"zibo={world.references}"])
    return out


def names(world: World, rows: list[dict[str, Any]]) -> list[str | None]:
    """Who each row's instance is."""
    found: list[str | None] = []
    for row in rows:
        people = [c for c in world.truth[row["file"]].characters if c.visible_box is not None]
        box = Box(*row["box"])
        best = max(people, key=lambda c: box.iou(c.visible_box or box))
        assert best.visible_box is not None
        found.append(best.name if best.visible_box.iou(box) > 0.3 else None)
    return found


def test_clusters_are_the_characters(world: World, clustered: Path) -> None:
    rows = [r for r in rows_of(clustered) if r["instance"] is not None and r["file"] in world.truth]
    who = names(world, rows)
    known = [(name, row["cluster"]) for name, row in zip(who, rows, strict=True) if name and row["cluster"]]
    assert adjusted_rand_score(*zip(*known, strict=True)) >= 0.95
    assert len(known) >= 0.75 * len(rows)
    assert len({cluster for _, cluster in known}) == 4
    # The named one is who the references show, and nobody else is.
    assert {name for name, cluster in known if cluster == "zibo"} == {"zibo"}
    assert sum(name == "zibo" and cluster != "zibo" for name, cluster in known) == 0


def test_the_folders_are_datasets_with_facts(world: World, clustered: Path) -> None:
    rows = rows_of(clustered)
    folders = {p.name for p in clustered.iterdir() if p.is_dir()}
    assert folders == {row["target"].split("/")[0] for row in rows}
    pictures = 0
    for name in folders:
        dataset = load_dataset(clustered / name)
        facts = Facts.open(dataset.path)
        pictures += len(dataset.pictures)
        for picture in dataset.pictures:
            assert facts.get((picture.hash, *looking().detector)) is not None
            source = world.folder / picture.path.name
            assert picture.path.samefile(source)
            assert picture.caption == (f"picture {int(source.stem[2:])}" if source.name in world.truth else "")
        lineage = read_lineage(dataset.path)
        assert set(lineage) == {p.path.name for p in dataset.pictures} & set(world.truth)
        assert all(line["film"] == "film.mp4" for line in lineage.values())
    assert pictures == len(world.truth) + 2


def test_main_characters_decide_the_folder(clustered: Path) -> None:
    rows = rows_of(clustered)
    for row in rows:
        if row["main"]:
            assert row["target"] == f"{row['cluster'] or OUTLIERS}/{row['file']}"
        assert row["outlier"] == (row["cluster"] is None) == (row["reason"] is not None)
        assert row["similarity"] is None or -1 <= row["similarity"] <= 1
    (empty,) = [row for row in rows if row["file"] == "empty.png" and row["instance"] is None] or [None]
    assert empty is not None and empty["target"] == "outliers/empty.png"
    assert empty["reason"] == "no character found"
    sizes = [sum(row["cluster"] == name for row in rows) for name in dict.fromkeys(r["cluster"] for r in rows)]
    assert max(sizes) >= EACH - 4


def test_corrected_labels_go_along(clustered: Path) -> None:
    (row,) = [row for row in rows_of(clustered) if row["file"] == "p_000.png" and row["main"]]
    assert row["shot_type"] == "far"
    label = next(iter(read_labels((clustered / row["target"]).parent).values()))
    assert (label.file, label.shot_type) == ("p_000.png", ShotType.FAR)


def test_the_page_shows_every_cluster(clustered: Path) -> None:
    page = (clustered / PAGE).read_text(encoding="utf-8")
    assert "zibo <small>" in page
    assert page.count("data:image/jpeg;base64,") >= 4 * 8
    assert "torn.png" in page and "<script" not in page


def test_a_second_run_looks_at_nothing_and_says_the_same(world: World, clustered: Path, tmp_path: Path) -> None:
    before = {p.name: p.read_bytes() for p in world.folder.iterdir()}
    again = looking()
    found = cluster(load_dataset(world.folder), again, ClusterConfig(), references={"zibo": world.references})
    assert "look" not in vars(again)
    write(found, load_dataset(world.folder), tmp_path / "out", again.detector)
    assert rows_of(tmp_path / "out") == rows_of(clustered)
    assert (tmp_path / "out" / PAGE).read_bytes() == (clustered / PAGE).read_bytes()
    assert {p.name: p.read_bytes() for p in world.folder.iterdir()} == before


@pytest.mark.parametrize(
    ("options", "reason"),
    [
        ({"min_size": 60}, "smaller than 60 pixels"),
        ({"aspect_ratio": "0.5-0.9"}, "of another shape than 0.5 to 0.9"),
        ({"use_face_detection": True}, "without a face"),
    ],
)
def test_filters_leave_out_and_say_why(
    world: World, tmp_path: Path, capsys: pytest.CaptureFixture[str], options: Mapping[str, Any], reason: str
) -> None:
    out = tmp_path / "out"
    verb.command(world.folder, out, json=True, **options)
    result = json.loads(capsys.readouterr().out)
    left = [row for row in rows_of(out) if row["reason"] == reason]
    assert result["refused"] == {reason: len(left)}
    assert left
    for row in rows_of(out):
        if row["box"] is not None and row["reason"] != reason:
            box = Box(*row["box"])
            assert min(box.width, box.height) >= options.get("min_size", 0)
            assert 0.5 <= box.width / box.height <= 0.9 or "aspect_ratio" not in options
            assert row["face"] is not None or "use_face_detection" not in options


def test_nobody_of_that_size(world: World, tmp_path: Path) -> None:
    verb.command(world.folder, tmp_path / "out", min_size=500)
    assert {p.name for p in (tmp_path / "out").iterdir()} == {OUTLIERS, TABLE, PAGE}


def test_what_is_not_ours_is_not_replaced(world: World, clustered: Path, tmp_path: Path) -> None:
    def refuse(out: Path, match: str) -> None:
        with pytest.raises(UserError, match=match):
            verb.command(world.folder, out)

    refuse(world.folder, "which is to be clustered; give another --output-dir")
    refuse(world.folder.parent, "which is to be clustered")
    (tmp_path / "diary.txt").write_text("kept")
    refuse(tmp_path, r"holds diary\.txt, which clustering did not make")
    refuse(tmp_path / "diary.txt", "is a file")
    shutil.copytree(clustered, tmp_path / "copy")
    (tmp_path / "copy" / "curation.sqlite").write_bytes(b"decisions")
    refuse(tmp_path / "copy", r"holds curation\.sqlite")
    assert (tmp_path / "diary.txt").read_text() == "kept"


def test_wrong_options_are_named(world: World, tmp_path: Path) -> None:
    def refuse(error: type[UserError], match: str, **options: Any) -> None:
        with pytest.raises(error, match=match):
            verb.command(world.folder, tmp_path / "out", **options)

    refuse(UserError, "--aspect-ratio 2.0-0.5: give two numbers", aspect_ratio="2.0-0.5")
    refuse(UserError, "--aspect-ratio wide: give two numbers", aspect_ratio="wide")
    refuse(UserError, "--reference zibo: give a name and a folder", reference=["zibo"])
    refuse(UserError, "the name a is given twice", reference=[f"a={world.references}", f"a={world.folder}"])
    refuse(UserError, "outliers cannot be a cluster's folder", reference=[f"outliers={world.references}"])
    refuse(NotFoundError, "no such folder of reference pictures", reference=["a=nowhere"])
    settings = tmp_path / "c.toml"
    settings.write_text("min_sise = 3\n")
    refuse(UserError, r"c\.toml: unknown key `min_sise`; did you mean `min_size`", config=settings)
    assert not (tmp_path / "out").exists()


def test_pictures_of_one_name_are_told_apart(world: World, tmp_path: Path) -> None:
    for folder in ("5_a", "1_b"):
        (tmp_path / "set" / folder).mkdir(parents=True)
    shutil.copy(world.folder / "p_000.png", tmp_path / "set" / "5_a" / "x.png")
    shutil.copy(world.folder / "p_001.png", tmp_path / "set" / "1_b" / "x.png")
    verb.command(tmp_path / "set", tmp_path / "out")
    written = sorted(p.name for p in (tmp_path / "out").rglob("*.png"))
    assert written == ["x.png", "x_2.png"]


@pytest.mark.parametrize("outlined", [True, False])
def test_colours_are_the_character_s_not_the_place_s(outlined: bool) -> None:
    config = SignatureConfig()
    people = cast()
    colours: dict[int, list[np.ndarray]] = {0: [], 1: []}
    for who in colours:
        for k, busy in enumerate((False, True, True)):
            drawn = render(
                random_scene(
                    np.random.default_rng([5, k]), character=people[who], shot_type=FRAMED[k], occlusion=False,
                    multi_character=False, complex_background=busy,
                ), 160,
            )  # fmt: skip
            main = drawn.truth.characters[0]
            assert main.visible_box is not None
            found = Detections(160, 160, (Instance(main.visible_box, 1.0, "character", main.face_box),))
            made = cut(drawn.image, found, 0, config, outlined=outlined)
            assert made.crop.shape == made.head.shape == (224, 224, 3)
            colours[who].append(np.concatenate([made.head_colours, made.chest_colours]))
    same = min(float(a @ b) for rows in colours.values() for a in rows for b in rows)
    other = max(float(a @ b) for a in colours[0] for b in colours[1])
    assert same > other + 0.2


def test_signatures_are_kept_by_picture_box_and_model(tmp_path: Path) -> None:
    rng = np.random.default_rng(1)
    parts = [rng.random(8).astype(np.float32) for _ in range(4)]
    key = ("a" * 64, (1.25, 2.0, 30.123456789, 40.0))
    store = Signatures.open(tmp_path / "s.parquet", "model 1")
    store.put(key, Signature(*parts))
    kept = store.get(key)
    store.save()
    again = Signatures.open(tmp_path / "s.parquet", "model 1").get(key)
    assert kept is not None and again is not None
    assert (again.crop == kept.crop).all()
    assert np.allclose(again.chest_colours, parts[3], atol=1e-3)
    assert Signatures.open(tmp_path / "s.parquet", "model 2").get(key) is None
    assert store.get(("b" * 64, key[1])) is None
    (tmp_path / "s.parquet").write_bytes(b"torn")
    torn = Signatures.open(tmp_path / "s.parquet", "model 1")
    assert torn.note is not None and "made anew" in torn.note


def test_a_vector_without_a_part_compares_by_those_it_has() -> None:
    config = SignatureConfig()
    rng = np.random.default_rng(2)
    parts = [row / np.linalg.norm(row) for row in rng.normal(size=(4, 16))]
    whole = Signature(*(p.astype(np.float32) for p in parts))
    half = Signature(whole.crop, whole.head, whole.head_colours, np.zeros(16, np.float32))
    assert whole.complete and not half.complete
    assert np.linalg.norm(whole.vector(config)) == pytest.approx(1)
    assert half.vector(config) @ whole.vector(config) == pytest.approx(1, abs=1e-6)
