"""`onmodel analyze` and `onmodel augment` as commands, with a stand-in for the services."""

import json
from collections.abc import Generator
from contextlib import contextmanager
from pathlib import Path

import pytest

from onmodel.cli import analyze as analyze_verb
from onmodel.cli import augment as augment_verb
from onmodel.core.errors import UserError
from onmodel.dataset.facts import FILE
from onmodel.detection import weights

from .conftest import Trial
from .world import Services


@pytest.fixture
def started(trial: Trial, monkeypatch: pytest.MonkeyPatch) -> list[Services]:
    """Every time services would be opened, with what they were asked."""
    opened: list[Services] = []

    @contextmanager
    def open_services(address: str | None, **_: object) -> Generator[Services]:
        opened.append(trial.services())
        yield opened[-1]

    monkeypatch.setattr("onmodel.serving.local.open_services", open_services)
    monkeypatch.setattr(weights, "weights_hash", lambda *names: "0" * 64)
    return opened


def test_analyze_writes_prints_and_remembers(
    trial: Trial, started: list[Services], tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    analyze_verb.command(trial.path, output_json=tmp_path / "a.json", html=tmp_path / "a.html")
    text = capsys.readouterr().out
    assert "close-up" in text
    assert "Nothing shows medium shot" in text
    assert f"{tmp_path / 'a.json'} --output-dir" in text
    assert json.loads((tmp_path / "a.json").read_text(encoding="utf-8"))["pictures"] == 20
    assert (tmp_path / "a.html").read_text(encoding="utf-8").startswith("<!doctype html>")
    assert (trial.path / FILE).is_file()
    analyze_verb.command(trial.path, json=True)
    assert json.loads(capsys.readouterr().out)["pictures"] == 20
    assert [services.started for services in started] == [True, False]


def test_augment_follows(
    trial: Trial, started: list[Services], tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    analyze_verb.command(trial.path, output_json=tmp_path / "a.json")
    augment_verb.command(trial.path, tmp_path / "a.json", tmp_path / "out", target_size=80, min_side=24)
    text = capsys.readouterr().out
    assert "before" in text
    assert "20 originals copied" in text
    augment_verb.command(trial.path, tmp_path / "a.json", tmp_path / "out", min_side=24, json=True)
    result = json.loads(capsys.readouterr().out)
    assert result["after"]["medium"] > 0


def test_a_wrong_analysis_file_is_named(trial: Trial, tmp_path: Path) -> None:
    wrong = tmp_path / "a.json"
    wrong.write_text('{"pictures": 3}', encoding="utf-8")
    with pytest.raises(UserError, match=r"a\.json: key `dataset` is missing"):
        augment_verb.command(trial.path, wrong, tmp_path / "out")
