"""`onmodel merge` as a command: which detector it goes by, what it prints, and what it refuses before any work."""

import json
import shutil
from collections.abc import Generator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import pytest

from onmodel.cli import merge as merge_verb
from onmodel.core.errors import NotFoundError, UserError
from onmodel.dataset.facts import FILE, Facts
from onmodel.dataset.folder import load_dataset
from onmodel.dataset.known import preset_of, recorded
from onmodel.detection import weights
from onmodel.detection.config import DetectorConfig

from .conftest import Trial
from .world import Services


@pytest.fixture
def started(trial: Trial, monkeypatch: pytest.MonkeyPatch) -> list[tuple[Services, DetectorConfig]]:
    """Every time services would be opened: what they were asked, and with which detector."""
    opened: list[tuple[Services, DetectorConfig]] = []

    @contextmanager
    def open_services(address: str | None, *, detector: DetectorConfig, **_: object) -> Generator[Services]:
        opened.append((trial.services(), detector))
        yield opened[-1][0]

    monkeypatch.setattr("onmodel.serving.local.open_services", open_services)
    monkeypatch.setattr(weights, "weights_hash", lambda *names: "0" * 64)
    return opened


@pytest.fixture
def two(trial: Trial) -> list[Path]:
    """The set and a second one with five of its pictures."""
    other = trial.path.with_name("other")
    other.mkdir()
    for name in sorted(trial.truth)[:5]:
        shutil.copy(trial.path / name, other / name)
    return [trial.path, other]


def test_it_prints_the_table_and_what_would_fill_the_gaps(
    two: list[Path], started: list[Any], tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    merge_verb.command(two, tmp_path / "out", total=37)
    text = capsys.readouterr().out
    assert "of 37 pictures" in text
    assert "medium shot: 0 of 10, 10 missing; the sets hold none" in text
    assert "5 duplicates left out: 5 exact, 0 near" in text
    assert f"onmodel analyze {tmp_path / 'out'} --recommended" in text
    assert "onmodel extract FILM --plan" in text
    assert (tmp_path / "out" / "merge.json").is_file()


def test_sets_that_were_looked_at_start_nothing_and_json_is_whole(
    two: list[Path], started: list[tuple[Services, DetectorConfig]], tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    report: dict[str, Any] = {}
    for number in range(2):
        merge_verb.command(two, tmp_path / "out", composition="balanced", dry_run=True, json=True)
        report = json.loads(capsys.readouterr().out)
        assert report["output_dir"] is None
        assert started[number][0].started == (number == 0)
    assert not (tmp_path / "out").exists()
    assert report["pictures"] == sum(source["taken"] for source in report["sources"])
    assert [source["path"] for source in report["sources"]] == [str(path) for path in two]


def test_the_detector_that_a_set_was_looked_at_with_is_used_for_the_others(
    two: list[Path],
    trial: Trial,
    started: list[tuple[Services, DetectorConfig]],
    tmp_path: Path,
    capsys: pytest.CaptureFixture[str],
) -> None:
    film = DetectorConfig.preset("film")
    merge_verb.command(two, tmp_path / "out", dry_run=True, detector="film")
    (two[1] / FILE).unlink()
    capsys.readouterr()
    merge_verb.command(two, tmp_path / "out", dry_run=True, json=True)
    # The commands that fill the gaps go by the same detector.
    commands = json.loads(capsys.readouterr().out)["commands"]
    assert [command.endswith("--detector film") for command in commands] == [True, False, True]
    assert [config for _, config in started] == [film, film]
    facts = [Facts.open(path) for path in two]
    assert preset_of(facts) == "film"
    info = recorded(load_dataset(two[0]), facts[0])
    assert info is not None
    assert (info.hash, info.config_hash) == ("0" * 64, film.hash)
    # One new picture, and the facts no longer cover the set.
    (two[0] / "new.png").write_bytes((two[0] / sorted(trial.truth)[0]).read_bytes() + b"\0")
    assert recorded(load_dataset(two[0]), facts[0]) is None


def test_mistakes_are_named_before_any_work(two: list[Path], started: list[Any], tmp_path: Path) -> None:
    wrong = tmp_path / "c.json"
    wrong.write_text('{"full_bodies": 9}', encoding="utf-8")
    with pytest.raises(UserError, match=r"c\.json: unknown key `full_bodies`; did you mean `full_body`"):
        merge_verb.command(two, tmp_path / "out", composition=str(wrong))
    with pytest.raises(NotFoundError, match="no such composition"):
        merge_verb.command(two, tmp_path / "out", composition="balance")
    with pytest.raises(UserError, match="is given twice"):
        merge_verb.command([two[0], two[0]], tmp_path / "out")
    with pytest.raises(UserError, match="`resolution`: input should be a multiple of 64"):
        merge_verb.command(two, tmp_path / "out", resolution=100)
    with pytest.raises(UserError, match="`class_tokens`: become a folder's name"):
        merge_verb.command(two, tmp_path / "out", class_tokens="a/b")
    with pytest.raises(NotFoundError, match="nowhere"):
        merge_verb.command([tmp_path / "nowhere"], tmp_path / "out")
    assert started == []
