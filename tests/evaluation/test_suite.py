"""Suites: packaged ones are whole, wrong ones are refused with the nearest name, slots are filled."""

import json
from pathlib import Path
from typing import Any

import pytest

from onmodel.core.errors import NotFoundError, UserError
from onmodel.core.vocabulary import CATEGORIES
from onmodel.evaluation.suite import load_suite, tidy

from .conftest import small_suite

ROOT = Path(__file__).parents[2]


def refused(tmp_path: Path, **changes: Any) -> str:
    path = tmp_path / "suite.json"
    path.write_text(json.dumps({"trigger": "zibo", "scenarios": {"close_up": ["{trigger}"]}, **changes}))
    with pytest.raises(UserError) as caught:
        load_suite(path)
    assert str(path) in str(caught.value)
    return str(caught.value)


def test_the_character_suite_has_ten_prompts_a_scenario() -> None:
    suite = load_suite("character")
    assert {name: len(getattr(suite.scenarios, name)) for name in CATEGORIES} == dict.fromkeys(CATEGORIES, 10)
    prompts = suite.prompts("zibo")
    assert [p.index for p in prompts] == list(range(70))
    assert all("zibo" in p.text and "zibo" not in p.plain for p in prompts)
    packaged = ROOT / "services/onmodel/evaluation/suites/character.json"
    assert packaged.read_text() == (ROOT / "configs/suites/character.json").read_text()


def test_unknown_scenarios_name_the_nearest(tmp_path: Path) -> None:
    assert "did you mean `close_up`?" in refused(tmp_path, scenarios={"closeup": ["{trigger}"]})
    assert "did you mean `negative_prompt`?" in refused(tmp_path, negativ_prompt="x")


def test_wrong_values_are_explained(tmp_path: Path) -> None:
    assert "did you mean {trigger}?" in refused(tmp_path, scenarios={"close_up": ["{triger}"]})
    assert "unknown slot {trigger.upper}" in refused(tmp_path, scenarios={"close_up": ["{trigger.upper}"]})
    assert "literal braces doubled" in refused(tmp_path, scenarios={"close_up": ["{trigger"]})
    assert "prompt 1 is empty" in refused(tmp_path, scenarios={"close_up": [" "]})
    assert "twice" in refused(tmp_path, scenarios={"close_up": ["a", "a"]})
    assert "holds no prompt" in refused(tmp_path, scenarios={})
    assert "two different seeds" in refused(tmp_path, seeds=[1, 1])
    assert "multiple of 8" in refused(tmp_path, width=100)
    assert "`steps`" in refused(tmp_path, steps="many")


def test_a_missing_file_or_trigger_is_explained(tmp_path: Path) -> None:
    with pytest.raises(NotFoundError, match="no such file"):
        load_suite(tmp_path / "none.json")
    with pytest.raises(UserError, match="--trigger"):
        load_suite("character").prompts()


def test_slots_are_filled_in_turn() -> None:
    suite = small_suite(companions=["an old man", "a girl"], age="teenage boy")
    texts = [p.text for p in suite.prompts()]
    assert texts[0] == "close-up of zibo, a teenage boy"
    assert texts[4:] == ["zibo with an old man", "zibo beside a girl"]
    assert suite.prompts()[0].plain == "close-up of a teenage boy"


def test_noise_depends_on_template_and_seed_alone() -> None:
    one, other = small_suite(), small_suite(trigger="mirel", seeds=[2, 1])
    assert one.noise_seed(one.prompts()[2], 0) == other.noise_seed(other.prompts()[2], 1)


def test_tidy_leaves_no_hole_where_a_slot_was_empty() -> None:
    assert tidy("portrait of , a boy") == "portrait of a boy"
    assert tidy(", a boy, standing") == "a boy, standing"
