"""Which detector a verb looks with."""

from pathlib import Path

import pytest

from onmodel.cli.measuring import detector_for
from onmodel.core.vocabulary import Detections
from onmodel.dataset.facts import Facts
from onmodel.detection.config import DetectorConfig
from onmodel.detection.convert import Detected
from onmodel.detection.rules import decide
from onmodel.toybox.character import HELD_OUT
from onmodel.toybox.dataset import reference_pictures


def test_a_set_is_looked_at_again_with_what_it_was_looked_at_with(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    """A set that `extract --detector film` made has other characters in it for the toybox's detector."""
    film, toybox = (DetectorConfig.preset(name) for name in ("film", "toybox"))
    assert detector_for(Facts.open(tmp_path), None, None) == toybox
    assert "knows only the toybox's renders; for other pictures add --detector film" in capsys.readouterr().err
    (picture,) = reference_pictures(HELD_OUT["zibo"], 1, seed=1)
    found = Detections(picture.image.shape[1], picture.image.shape[0], ())
    facts = Facts.open(tmp_path)
    facts.put(("a" * 64, "b" * 64, film.hash), Detected(found, decide(picture.image, found, film.shots)))
    facts.save()
    assert detector_for(Facts.open(tmp_path), None, None) == film
    assert detector_for(Facts.open(tmp_path), "toybox", None) == toybox
    (tmp_path / "mine.toml").write_text("confidence = 0.5\n")
    assert detector_for(Facts.open(tmp_path), None, tmp_path / "mine.toml").confidence == 0.5
    assert capsys.readouterr().err == "", "what is known or given needs no word"
