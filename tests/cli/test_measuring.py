"""Which detector a verb looks with."""

from pathlib import Path

import pytest

from onmodel.cli.measuring import detector_for, detector_of_trials
from onmodel.core.vocabulary import Detections
from onmodel.dataset.facts import Facts
from onmodel.detection.config import DetectorConfig
from onmodel.detection.convert import Detected
from onmodel.detection.rules import decide
from onmodel.evaluation.trial import Trial
from onmodel.toybox.character import HELD_OUT
from onmodel.toybox.dataset import reference_pictures


def look_at_with_film(folder: Path) -> None:
    """Leave in a folder what is left there by a verb that looked at it with the film's detector."""
    film = DetectorConfig.preset("film")
    (picture,) = reference_pictures(HELD_OUT["zibo"], 1, seed=1)
    found = Detections(picture.image.shape[1], picture.image.shape[0], ())
    facts = Facts.open(folder)
    facts.put(("a" * 64, "b" * 64, film.hash), Detected(found, decide(picture.image, found, film.shots)))
    facts.save()


def test_a_set_is_looked_at_again_with_what_it_was_looked_at_with(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    """A set that `extract --detector film` made has other characters in it for the toybox's detector."""
    film, toybox = (DetectorConfig.preset(name) for name in ("film", "toybox"))
    assert detector_for(Facts.open(tmp_path), None, None) == toybox
    assert "knows only the toybox's renders; for other pictures add --detector film" in capsys.readouterr().err
    look_at_with_film(tmp_path)
    assert detector_for(Facts.open(tmp_path), None, None) == film
    assert detector_for(Facts.open(tmp_path), "toybox", None) == toybox
    (tmp_path / "mine.toml").write_text("confidence = 0.5\n")
    assert detector_for(Facts.open(tmp_path), None, tmp_path / "mine.toml").confidence == 0.5
    assert capsys.readouterr().err == "", "what is known or given needs no word"


def test_trials_are_looked_at_as_their_training_sets_were(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    def trial(base: str, dataset: Path | None) -> Trial:
        return Trial("trial", tmp_path / "trial.safetensors", base, "zibo", (), dataset)

    bundled, strange = trial("toybox", None), trial("somebody/sd15", tmp_path)
    assert detector_of_trials([bundled], None, None, "toybox", None) == "toybox"
    assert capsys.readouterr().err == ""
    assert detector_of_trials([bundled, strange], None, None, "toybox", None) == "toybox"
    assert "the bundled detector and scorer" in capsys.readouterr().err
    look_at_with_film(tmp_path)
    assert detector_of_trials([strange], None, None, "toybox", None) == "film"
    said = capsys.readouterr().err
    assert "the bundled scorer," in said and "--detector" not in said and "--scorer ViT" in said
    assert detector_of_trials([strange], "toybox", None, "ViT-B-32", None) == "toybox"
    assert "the bundled detector," in capsys.readouterr().err
    assert detector_of_trials([strange], None, None, "toybox", "127.0.0.1:9000") == "film"
    assert capsys.readouterr().err == ""
