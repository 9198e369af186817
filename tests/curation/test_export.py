"""The written set: what is in it, what reads it, and what writing leaves alone."""

import json
from pathlib import Path

import pytest

from onmodel.core.errors import UserError
from onmodel.core.vocabulary import Attribute, ShotType
from onmodel.curation.export import SUMMARY, check_target, state_folder
from onmodel.curation.session import Session
from onmodel.dataset.analysis import analyze
from onmodel.dataset.facts import Facts
from onmodel.dataset.folder import load_dataset
from onmodel.dataset.labels import read_labels

from .made import MODEL, NoServices, ask, catalogue_of, fresh, ids, session_of


def lines(path: Path) -> list[dict[str, object]]:
    return [json.loads(line) for line in path.read_text(encoding="utf-8").splitlines()]


def test_the_kept_pictures_are_a_dataset_and_so_is_each_cluster(session: Session) -> None:
    zibo, other = ids(session.catalogue, "zibo"), ids(session.catalogue, "cluster_01")
    session.act(ask(session, "keep", [*zibo[:4], other[0]]))
    session.act(ask(session, "reject", zibo[4:6]))
    session.act(ask(session, "move", [other[0]], group="mirel"))
    session.act(ask(session, "label", zibo[:1], shot_type="medium"))
    session.act(ask(session, "label", zibo[1:2], add=["occlusion"]))
    done = session.write()
    out = session.output_dir
    assert done.groups == {"zibo": 4, "mirel": 1}
    dataset = load_dataset(out)
    assert len(dataset.pictures) == 5
    originals = {entry.hash: entry for entry in session.catalogue.entries}
    for picture in dataset.pictures:
        assert picture.caption == originals[picture.hash].row.caption
    analysis = analyze(dataset, NoServices(), facts=Facts.open(out), model=_model())  # pyright: ignore[reportArgumentType]
    rows = {row.hash: row for row in analysis.rows}
    first, second = (session.catalogue.entry(each) for each in zibo[:2])
    assert rows[first.hash].shot_type is ShotType.MEDIUM
    assert rows[second.hash].attributes == ("occlusion",)
    # The same of one cluster alone.
    cluster = load_dataset(out / "zibo")
    assert len(cluster.pictures) == 4
    assert read_labels(out / "zibo")[first.hash].file == first.path.name
    assert read_labels(out)[first.hash].file == f"zibo/{first.path.name}"
    analyze(cluster, NoServices(), facts=Facts.open(out / "zibo"), model=_model())  # pyright: ignore[reportArgumentType]
    told = {row["hash"]: row for row in lines(out / "lineage.jsonl")}
    assert told[first.hash]["source"] == first.file
    assert told[first.hash]["shot_type"] == "medium"
    assert told[session.catalogue.entry(other[0]).hash]["cluster"] == "cluster_01"
    summary = json.loads((out / SUMMARY).read_text(encoding="utf-8"))
    assert (summary["kept"], summary["rejected"], summary["corrected"]) == (5, 2, 2)
    assert summary["counts"]["medium"] == 1
    assert summary["undecided"] == len(session.catalogue.entries) - 7


def _model() -> object:
    from onmodel.common.convert import ModelInfo

    return ModelInfo("made", *MODEL)


def test_a_flat_folder_stays_flat_until_something_moves(made: Path, tmp_path: Path) -> None:
    with session_of(made / "cluster_01", tmp_path / "out") as session:
        each = ids(session.catalogue, "cluster_01")
        session.act(ask(session, "keep", each[:2]))
        session.write()
        assert len(list((tmp_path / "out").glob("*.png"))) == 2
        session.act(ask(session, "move", each[:1], group="other"))
        session.write()
        assert not list((tmp_path / "out").glob("*.png"))
        assert len(load_dataset(tmp_path / "out").pictures) == 2


def test_names_do_not_collide(made: Path, tmp_path: Path) -> None:
    folder = fresh(made, tmp_path / "set")
    with session_of(folder, tmp_path / "out") as session:
        every = [entry.id for entry in session.catalogue.entries]
        session.act(ask(session, "keep", every))
        session.act(ask(session, "move", every, group="all"))
        done = session.write()
        assert done.kept == len(every)
        written = load_dataset(tmp_path / "out").pictures
        assert {p.hash for p in written} == {entry.hash for entry in session.catalogue.entries}


def test_lineage_of_the_film_is_told_on(made: Path, tmp_path: Path) -> None:
    folder = fresh(made, tmp_path / "set")
    name = min(p.name for p in (folder / "zibo").glob("*.png"))
    row = {"file": name, "film": "bunny.mp4", "time_s": 12.5, "shot": 3, "shot_type": "far"}
    (folder / "zibo" / "lineage.jsonl").write_text(json.dumps(row) + "\nnot json at all", encoding="utf-8")
    with session_of(folder, tmp_path / "out") as session:
        session.act(ask(session, "keep", ids(session.catalogue, "zibo")))
        session.write()
        assert "film" not in lines(tmp_path / "out" / "lineage.jsonl")[0]
        (folder / "zibo" / "lineage.jsonl").write_text(json.dumps(row), encoding="utf-8")
        session.write()
        told = {row["source"]: row for row in lines(tmp_path / "out" / "lineage.jsonl")}[f"zibo/{name}"]
        assert (told["film"], told["time_s"], told["file"]) == ("bunny.mp4", 12.5, f"zibo/{name}")


def test_writing_again_replaces_the_set_and_never_the_decisions(session: Session) -> None:
    zibo = ids(session.catalogue, "zibo")
    session.act(ask(session, "keep", zibo))
    session.write()
    session.act(ask(session, "reject", zibo[1:]))
    assert session.write().kept == 1
    assert session.store.path.is_file()
    assert session.store.path.parent == state_folder(session.output_dir)
    assert session.counts()["kept"] == 1
    assert len(load_dataset(session.output_dir).pictures) == 1


def test_pictures_that_are_gone_or_changed_are_named(made: Path, tmp_path: Path) -> None:
    folder = fresh(made, tmp_path / "set")
    with session_of(folder, tmp_path / "out") as session:
        entries = session.catalogue.entries
        session.act(ask(session, "keep", [entry.id for entry in entries[:3]]))
        entries[0].path.unlink()
        entries[1].path.write_bytes(entries[2].path.read_bytes())
        done = session.write()
        assert done.kept == 1
        assert "cannot be read" in done.skipped[0]
        assert "has changed since it was decided on" in done.skipped[1]
        entries[2].path.unlink()
        with pytest.raises(UserError, match="none of the 3 kept pictures can be read"):
            session.write()
        assert len(load_dataset(tmp_path / "out").pictures) == 1


def test_nothing_kept_writes_nothing(session: Session) -> None:
    session.act(ask(session, "reject", ids(session.catalogue, "zibo")))
    with pytest.raises(UserError, match="no picture is kept yet"):
        session.write()
    assert not session.output_dir.exists()


def test_places_that_are_not_ours(made: Path, tmp_path: Path) -> None:
    for place in (made, made / "out", made.parent):
        with pytest.raises(UserError, match="lies in or around the pictures"):
            check_target(made, place)
    (tmp_path / "held").mkdir()
    check_target(made, tmp_path / "held")
    (tmp_path / "held" / "thesis.tex").write_text("years of work")
    with pytest.raises(UserError, match="is no curated set of ours"):
        check_target(made, tmp_path / "held")
    with pytest.raises(UserError, match="is no curated set of ours"), session_of(made, tmp_path / "held"):
        pass
    assert (tmp_path / "held" / "thesis.tex").is_file()


def test_an_earlier_sets_corrections_stay_true(session: Session, tmp_path: Path) -> None:
    zibo = ids(session.catalogue, "zibo")
    session.act(ask(session, "keep", zibo[:2]))
    session.act(ask(session, "label", zibo[:1], shot_type="far", add=["complex_background"]))
    session.write()
    entry = session.catalogue.entry(zibo[0])
    with session_of(session.output_dir, tmp_path / "second") as second:
        again = second.catalogue.entry(zibo[0])
        assert again.row.shot_type is ShotType.FAR
        second.act(ask(second, "keep", [zibo[0]]))
        second.act(ask(second, "label", [zibo[0]], remove=["complex_background"]))
        second.write()
    label = read_labels(tmp_path / "second")[entry.hash]
    assert label.shot_type is ShotType.FAR
    assert Attribute.COMPLEX_BACKGROUND not in (label.attributes or ())
    assert catalogue_of(tmp_path / "second").entry(zibo[0]).row.attributes == ()
