"""What is read from a folder of clusters, a flat folder, an sd-scripts folder and an earlier export."""

from pathlib import Path

import pyarrow as pa
import pyarrow.parquet as pq
import pytest

from onmodel.core.errors import ImageError, NotFoundError, UserError
from onmodel.core.files import content_hash
from onmodel.core.vocabulary import ShotType
from onmodel.curation.export import export
from onmodel.curation.store import State
from onmodel.dataset.facts import Facts
from onmodel.dataset.labels import Label, write_labels

from .made import CLUSTERS, MODEL, catalogue_of, fresh


def test_folders_are_clusters(made: Path) -> None:
    catalogue = catalogue_of(made)
    assert catalogue.nested
    assert catalogue.groups == ("zibo", "cluster_01", "outliers")
    assert len(catalogue.entries) == sum(CLUSTERS.values()) + 2
    assert [entry.group for entry in catalogue.entries] == sorted(
        (entry.group for entry in catalogue.entries), key=catalogue.groups.index
    )
    first = catalogue.entries[0]
    assert first.file.startswith("zibo/")
    assert (first.row.width, first.row.height) == (96, 96)
    assert first.row.caption or first.file.startswith("zibo/near")
    assert catalogue.entry(first.id) is first
    with pytest.raises(NotFoundError, match="no such picture"):
        catalogue.entry("../../etc/passwd")


def test_a_flat_folder_is_one_group(made: Path) -> None:
    catalogue = catalogue_of(made / "cluster_01")
    assert not catalogue.nested
    assert catalogue.groups == ("cluster_01",)


def test_repeat_folders_are_groups_of_one_dataset(made: Path, tmp_path: Path) -> None:
    folder = fresh(made, tmp_path / "set")
    (folder / "outliers").rename(folder / "10_tokko")
    facts = folder / "10_tokko" / "onmodel.parquet"
    facts.rename(folder / "onmodel.parquet")
    for other in ("zibo", "cluster_01"):
        for file in (folder / other).iterdir():
            file.unlink()
    catalogue = catalogue_of(folder)
    assert catalogue.groups == ("10_tokko",)
    assert catalogue.nested
    assert all(entry.row.repeats == 10 for entry in catalogue.entries)


def test_an_export_is_read_again(made: Path, tmp_path: Path) -> None:
    catalogue = catalogue_of(made)
    states = {entry.hash: State("keep") for entry in catalogue.entries}
    export(catalogue, states, tmp_path / "out")
    again = catalogue_of(tmp_path / "out")
    assert again.groups == catalogue.groups
    assert {entry.hash for entry in again.entries} == {entry.hash for entry in catalogue.entries}


def test_copies_and_unreadable_files_are_counted(made: Path, tmp_path: Path) -> None:
    folder = fresh(made, tmp_path / "set")
    first = min((folder / "zibo").glob("*.png"))
    (folder / "zibo" / "copy.png").write_bytes(first.read_bytes())
    broken = first.read_bytes()[:100]
    (folder / "zibo" / "broken.png").write_bytes(broken)
    facts = Facts.open(folder / "zibo")
    facts.put((content_hash(broken), *MODEL), ImageError("damaged or truncated"))
    facts.save()
    catalogue = catalogue_of(folder)
    assert len(catalogue.entries) == len(catalogue_of(made).entries)
    assert catalogue.notes == (
        "1 unreadable and left out: broken.png: damaged or truncated",
        "1 exact copy of other pictures left out",
    )


def test_labels_and_cluster_facts_are_told(made: Path, tmp_path: Path) -> None:
    folder = fresh(made, tmp_path / "set")
    plain = catalogue_of(folder)
    entry = plain.entries[0]
    write_labels(folder / "zibo", [Label(file="x", hash=entry.hash, shot_type=ShotType.MEDIUM)])
    rows = [
        {"target": entry.file, "main": True, "pose": "arms raised", "similarity": 0.9},
        {"target": entry.file, "main": False, "pose": "sitting", "similarity": 0.1},
        {"target": None, "main": True, "pose": "standing", "similarity": 0.2},
    ]
    pq.write_table(pa.Table.from_pylist(rows), folder / "clusters.parquet")
    known = catalogue_of(folder).entry(entry.id)
    assert known.row.shot_type is ShotType.MEDIUM
    assert known.label is not None
    assert (known.pose, known.similarity) == ("arms raised", 0.9)
    (folder / "clusters.parquet").write_bytes(b"PAR1 no")
    with pytest.raises(UserError, match=r"clusters\.parquet: cannot be read"):
        catalogue_of(folder)


def test_a_folder_without_pictures_is_refused(tmp_path: Path) -> None:
    with pytest.raises(UserError, match="the folder is empty"):
        catalogue_of(tmp_path)
    (tmp_path / "notes.md").write_text("nothing")
    (tmp_path / "empty").mkdir()
    with pytest.raises(UserError, match=r"no picture in it; there are 1 \.md file"):
        catalogue_of(tmp_path)
    with pytest.raises(NotFoundError, match="no such dataset folder"):
        catalogue_of(tmp_path / "missing")
