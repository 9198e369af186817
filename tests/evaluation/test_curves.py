"""Curves hold what belongs together, in order, and the charts of them are safe to put into a page."""

import shutil
from pathlib import Path

import pytest

from onmodel.core.files import write_text
from onmodel.evaluation.charts import Line, panel
from onmodel.evaluation.curves import curves, siblings
from onmodel.evaluation.record import RESULT_FILE, Evaluation

from .made import SCENARIOS, evaluation


def made(**changes: object) -> Evaluation:
    return evaluation("trial_1", dict.fromkeys(SCENARIOS, 0.5)).model_copy(update=changes)


def test_epochs_and_strengths_are_told_apart_and_ordered() -> None:
    e = made(epoch=3)
    beside = [
        made(epoch=10, checkpoint_hash="10" * 32),
        made(epoch=1, checkpoint_hash="01" * 32),
        e,
        made(epoch=3, scale=0.6),
        made(epoch=1, checkpoint_hash="01" * 32, scale=0.6),
    ]
    by_epoch, by_scale = curves({"a": e}, {"a": beside})
    assert (by_epoch.by, [p.x for p in by_epoch.points]) == ("epoch", [1, 3, 10])
    assert (by_scale.by, [p.x for p in by_scale.points]) == ("scale", [0.6, 1.0])
    assert by_epoch.points[0].figures["all"]["on_model"].mean == e.overall["on_model"].mean
    assert "memorisation" not in by_epoch.points[0].figures["all"], "what was not measured has no place on it"


@pytest.mark.parametrize(
    "change", [{"trial": "other"}, {"suite": "other"}, {"seeds": (8, 9)}, {"steps": 9}, {"measured_with": "other"}]
)
def test_what_was_asked_or_measured_otherwise_is_on_no_curve(change: dict[str, object]) -> None:
    e = made(epoch=2)
    assert curves({"a": e}, {"a": [e, made(epoch=1, **change)]}) == ()


def test_two_checkpoints_of_one_trial_share_a_curve_of_epochs() -> None:
    first, second = made(epoch=1, checkpoint_hash="01" * 32), made(epoch=2)
    found = curves({"a": first, "b": second}, {"a": [first, second], "b": [first, second]})
    assert [(c.model, c.by) for c in found] == [("a", "epoch")]


def test_siblings_are_read_and_damaged_ones_left_out(tmp_path: Path) -> None:
    for name in ("one", "two"):
        write_text(tmp_path / name / RESULT_FILE, made().model_dump_json())
    write_text(tmp_path / "torn" / RESULT_FILE, made().model_dump_json()[:100])
    assert len(siblings(tmp_path / "one")) == 2
    shutil.rmtree(tmp_path / "two")
    assert len(siblings(tmp_path / "one")) == 1


def test_a_chart_is_markup_for_a_page_with_ids_of_its_own() -> None:
    lines = [Line("<b>", "#0f6e79", (1, 2, 3), (0.2, 0.5, 0.9), (0.1, 0.3, 0.8), (0.3, 0.7, 1.0))]
    one, other = (panel(key, lines, axis="epoch", target=0.5) for key in ("one", "two"))
    assert one == panel("one", lines, axis="epoch", target=0.5), "the same every time"
    assert one.startswith("<svg") and "http" not in one and "url(" not in one and "<style" not in one

    def ids(text: str) -> set[str]:
        return {part.split('"')[0] for part in text.split(' id="')[1:]}

    assert ids(one) and not ids(one) & ids(other)
