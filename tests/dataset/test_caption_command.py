"""`onmodel caption` as a command, with a stand-in for the services."""

import json
from collections.abc import Generator
from contextlib import contextmanager
from pathlib import Path

import pytest
import typer

from onmodel.cli import caption as verb
from onmodel.core.errors import UserError
from onmodel.core.files import tree_hash
from onmodel.dataset.folder import load_dataset
from onmodel.detection import weights

from .conftest import Trial
from .world import Services


@pytest.fixture
def quick(trial: Trial, monkeypatch: pytest.MonkeyPatch) -> Trial:
    @contextmanager
    def open_services(address: str | None, **_: object) -> Generator[Services]:
        yield trial.services()

    monkeypatch.setattr("onmodel.serving.local.open_services", open_services)
    monkeypatch.setattr(weights, "weights_hash", lambda *names: "0" * 64)
    return trial


def spoil(trial: Trial) -> str:
    name = sorted(trial.truth)[0]
    (trial.path / name).with_suffix(".txt").write_text("zibo, an elderly woman", encoding="utf-8")
    return name


def test_check_prints_and_fails(quick: Trial, capsys: pytest.CaptureFixture[str]) -> None:
    name = spoil(quick)
    before = {p.name for p in quick.path.iterdir()}
    with pytest.raises(typer.Exit) as stop:
        verb.command(quick.path, check=True, age="teenage boy", words_only=True)
    assert stop.value.exit_code == 1
    text = capsys.readouterr().out
    assert name in text
    assert "'elderly woman', not 'teenage boy'" in text
    assert {p.name for p in quick.path.iterdir()} == before


def test_check_answers_a_machine(quick: Trial, capsys: pytest.CaptureFixture[str]) -> None:
    name = spoil(quick)
    with pytest.raises(typer.Exit):
        verb.command(quick.path, check=True, age="teenage boy", json=True)
    answer = json.loads(capsys.readouterr().out)
    assert answer["contradictions"] >= 1
    assert {"file", "line", "problem", "is_note", "caption", "evidence", "fix"} == set(answer["findings"][0])
    assert any(f["file"] == name and f["problem"] == "other age" for f in answer["findings"])


def test_nothing_wrong_ends_well(quick: Trial, capsys: pytest.CaptureFixture[str]) -> None:
    verb.command(quick.path, check=True, words_only=True)
    assert "nothing is wrong" in capsys.readouterr().out


def test_fix_and_variants_write_beside(quick: Trial, tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    name = spoil(quick)
    before = tree_hash(quick.path)
    verb.command(quick.path, tmp_path / "fixed", fix=True, age="teenage boy", words_only=True)
    assert (tmp_path / "fixed" / name).with_suffix(".txt").read_text(encoding="utf-8") == "zibo, a teenage boy\n"
    assert "1 captions changed" in capsys.readouterr().out
    verb.command(quick.path, tmp_path / "new", class_word="boy", variants=2)
    assert "keep_tokens = 2, enable_wildcard = true" in capsys.readouterr().out
    assert any(p.variants for p in load_dataset(tmp_path / "new").pictures)
    # Facts are kept beside the dataset, as `analyze` does; pictures and captions are as they were.
    (quick.path / "onmodel.parquet").unlink()
    assert tree_hash(quick.path) == before


@pytest.mark.parametrize(
    ("arguments", "said"),
    [
        ({}, "either --check .* or --output-dir"),
        ({"check": True, "output_dir": Path("x")}, "either --check"),
        ({"check": True, "fix": True}, "leave out --fix"),
        ({"check": True, "age": "blue"}, "says no age"),
        ({"check": True, "trigger": "a, b"}, "one tag"),
    ],
)
def test_what_does_not_go_together(quick: Trial, arguments: dict[str, object], said: str) -> None:
    with pytest.raises(UserError, match=said):
        verb.command(quick.path, **arguments)  # pyright: ignore[reportArgumentType]


def test_wording_from_a_file(quick: Trial, tmp_path: Path) -> None:
    wording = tmp_path / "w.toml"
    wording.write_text('trigger = "zibo"\ntemplate = ["trigger", "shot"]\n', encoding="utf-8")
    verb.command(quick.path, tmp_path / "out", config=wording)
    assert "zibo, close-up" in {p.caption for p in load_dataset(tmp_path / "out").pictures}
    wording.write_text('triger = "zibo"\n', encoding="utf-8")
    with pytest.raises(UserError, match="did you mean `trigger`"):
        verb.command(quick.path, tmp_path / "out", config=wording)
