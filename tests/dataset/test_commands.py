"""`onmodel analyze` and `onmodel augment` as commands, with a stand-in for the services."""

import json
from collections.abc import Generator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from PIL import Image

from onmodel.cli import analyze as analyze_verb
from onmodel.cli import augment as augment_verb
from onmodel.core.errors import UserError
from onmodel.core.images import encode_png
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
    made: dict[str, Any] = {"min_side": 24, "verify": False}
    augment_verb.command(trial.path, tmp_path / "a.json", tmp_path / "out", target_size=80, **made)
    text = capsys.readouterr().out
    assert "before" in text
    assert "20 originals copied" in text
    assert f"onmodel extract FILM --plan {tmp_path / 'a.json'} --profile missing.json" in text
    augment_verb.command(trial.path, tmp_path / "a.json", tmp_path / "out", json=True, **made)
    result = json.loads(capsys.readouterr().out)
    assert result["after"]["medium"] > 0
    assert not started[-1].started


def test_augment_leaves_out_what_the_detector_does_not_see(
    trial: Trial, started: list[Services], tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    """The stand-in finds nobody in pictures it does not know: nothing that was made can be confirmed."""
    analyze_verb.command(trial.path, output_json=tmp_path / "a.json")
    capsys.readouterr()
    augment_verb.command(trial.path, tmp_path / "a.json", tmp_path / "out", min_side=24, json=True)
    result = json.loads(capsys.readouterr().out)
    assert result["checked"] > 0
    assert result["derived"] == {}
    assert any(why.startswith("made and left out: meant as medium shot, seen as") for why in result["refused"])


def test_augment_takes_scenery(
    trial: Trial, started: list[Services], tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    for name in ("bg", "fg", "others"):
        (tmp_path / name).mkdir()
    # To the stand-in an unknown picture shows nobody: a background, and no companion.
    for name in ("bg", "others"):
        (tmp_path / name / "x.png").write_bytes(encode_png(np.full((160, 160, 3), 200, np.uint8)))
    Image.fromarray(np.full((60, 60, 4), (40, 90, 30, 255), np.uint8)).save(tmp_path / "fg" / "opaque.png")
    Image.fromarray(np.pad(np.full((60, 60, 4), 255, np.uint8), ((9, 9), (9, 9), (0, 0)))).save(
        tmp_path / "fg" / "a.png"
    )
    analyze_verb.command(trial.path, output_json=tmp_path / "a.json")
    capsys.readouterr()
    augment_verb.command(
        trial.path, tmp_path / "a.json", tmp_path / "out", min_side=24, verify=False, json=True, own_backgrounds=True,
        backgrounds=[tmp_path / "bg"], companions=[tmp_path / "others"], foregrounds=[tmp_path / "fg"],
    )  # fmt: skip
    result = json.loads(capsys.readouterr().out)
    assert result["refused"]["companion: no character of a known shot type"] == 1
    assert result["refused"]["foreground: no transparency in it, and the detector finds nothing in front"] == 1
    assert any(kind.startswith("composite background + foreground") for kind in result["derived"])
    assert 0 < result["synthetic"] <= 20 + 1e-6


def test_an_analysis_by_other_settings_asks_for_them(trial: Trial, started: list[Services], tmp_path: Path) -> None:
    analyze_verb.command(trial.path, output_json=tmp_path / "a.json")
    known = json.loads((tmp_path / "a.json").read_text(encoding="utf-8"))
    known["model"]["config_hash"] = "f" * 64
    (tmp_path / "a.json").write_text(json.dumps(known), encoding="utf-8")
    with pytest.raises(UserError, match="--detector-config"):
        augment_verb.command(trial.path, tmp_path / "a.json", tmp_path / "out")


def test_a_wrong_analysis_file_is_named(trial: Trial, tmp_path: Path) -> None:
    wrong = tmp_path / "a.json"
    wrong.write_text('{"pictures": 3}', encoding="utf-8")
    with pytest.raises(UserError, match=r"a\.json: key `dataset` is missing"):
        augment_verb.command(trial.path, wrong, tmp_path / "out")
