"""`onmodel curate` as a command: export without a page, and what is said before any picture is analysed."""

import json
from collections.abc import Generator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import pytest

from onmodel.cli import curate as verb
from onmodel.common.convert import ModelInfo
from onmodel.core.errors import NotFoundError, UserError
from onmodel.curation.server import listen
from onmodel.curation.store import FILE
from onmodel.dataset import facts as fact_files
from onmodel.dataset.facts import Facts
from onmodel.dataset.folder import load_dataset
from onmodel.detection.convert import Detected

from .made import MODEL, NoServices, ask, fresh, ids, session_of


@pytest.fixture
def unasked(monkeypatch: pytest.MonkeyPatch) -> None:
    """No service may be needed."""

    @contextmanager
    def open_services(*_: object, **__: object) -> Generator[NoServices]:
        yield NoServices()

    monkeypatch.setattr("onmodel.curation.start.open_services", open_services)


@pytest.mark.usefixtures("unasked")
def test_export_without_a_page(made: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    out = tmp_path / "out"
    with pytest.raises(UserError, match="no picture is kept yet"):
        verb.command(made, out, export=True)
    with session_of(made, out) as session:
        session.act(ask(session, "keep", ids(session.catalogue, "cluster_01")))
    verb.command(made, out, export=True)
    assert f"6 pictures written to {out}" in capsys.readouterr().out
    verb.command(made, out, export=True, json=True)
    said = json.loads(capsys.readouterr().out)
    assert (said["kept"], said["groups"], said["output_dir"]) == (6, {"cluster_01": 6}, str(out))
    assert len(load_dataset(out).pictures) == 6


@pytest.mark.usefixtures("unasked")
def test_what_nobody_rejected_can_count_as_kept(made: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    out = tmp_path / "out"
    with session_of(made, out) as session:
        total = len(session.catalogue.entries)
        session.act(ask(session, "reject", ids(session.catalogue, "cluster_01")))
    verb.command(made, out, export=True, keep_undecided=True, json=True)
    said = json.loads(capsys.readouterr().out)
    assert said["kept"] == total - 6 and "cluster_01" not in said["groups"]
    summary = json.loads((out / "curation.json").read_text(encoding="utf-8"))
    assert (summary["rejected"], summary["undecided"]) == (6, total - 6)
    with pytest.raises(UserError, match="goes with --export"):
        verb.command(made, out, keep_undecided=True)


@pytest.mark.usefixtures("unasked")
def test_what_is_wrong_is_said_at_once(made: Path, tmp_path: Path) -> None:
    out = tmp_path / "out"
    with pytest.raises(UserError, match="the folder is empty"):
        empty = tmp_path / "empty"
        empty.mkdir()
        verb.command(empty, out, export=True)
    with pytest.raises(NotFoundError, match="no such composition"):
        verb.command(made, out, composition="rich", export=True)
    with pytest.raises(UserError, match="two targets"):
        verb.command(made, out, composition="default", recommended=Path("r.toml"), export=True)
    with pytest.raises(UserError, match="lies in or around the pictures"):
        verb.command(made, made / "out", export=True)
    taken = listen("127.0.0.1", 0)
    with taken.socket, pytest.raises(UserError, match="is in use; choose another with --port"):
        verb.command(made, out, port=taken.access.port)
    state = tmp_path / "out.curation" / FILE
    state.parent.mkdir(exist_ok=True)
    for ending in ("-wal", "-shm"):
        state.with_name(FILE + ending).unlink(missing_ok=True)
    state.write_bytes(b"scrambled" * 999)
    with pytest.raises(UserError, match="the decisions in it cannot be read"):
        verb.command(made, out, export=True)
    assert not out.exists()


def test_what_is_not_known_is_analysed_first(made: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    folder = fresh(made, tmp_path / "set")
    known: dict[str, Any] = {}
    for place in folder.iterdir():
        facts = Facts.open(place)
        for file in place.glob("*.png"):
            known[file.read_bytes().hex()] = facts.get((_hash(file), *MODEL))
    (folder / "zibo" / fact_files.FILE).unlink()
    asked: list[int] = []

    class Services:
        """Answers as the detection service would."""

        @property
        def detection(self) -> "Services":
            return self

        def detect(self, images: list[bytes], **_: object) -> list[Detected]:
            asked.append(len(images))
            return [known[image.hex()] for image in images]

        def model_info(self) -> ModelInfo:
            return ModelInfo("made", *MODEL)

    @contextmanager
    def open_services(*_: object, **__: object) -> Generator[Services]:
        yield Services()

    monkeypatch.setattr("onmodel.curation.start.open_services", open_services)
    for expected in (12, 12):
        with session_of(folder, tmp_path / "out") as session:
            assert len(session.catalogue.entries) == 21
        assert sum(asked) == expected


def _hash(file: Path) -> str:
    from onmodel.core.files import file_hash

    return file_hash(file)
