"""Profiles: read, checked, planned from what a dataset lacks."""

import json
from pathlib import Path
from typing import Any

import pytest

from onmodel.core.errors import UserError
from onmodel.dataset.analysis import Analysis
from onmodel.detection.config import ShotConfig
from onmodel.film.profile import SCENES, Profile, Scene, load_profile, plan, refuse_unreachable

PROFILES = Path(__file__).parents[2] / "configs" / "profiles"


def written(path: Path, scenes: dict[str, Any]) -> Path:
    path.write_text(json.dumps({"priority_scenes": scenes}), encoding="utf-8")
    return path


@pytest.mark.parametrize("path", sorted(PROFILES.glob("*.json")), ids=lambda p: p.stem)
def test_the_shipped_profiles_can_be_read_and_reached(path: Path) -> None:
    profile = load_profile(path)
    assert dict(profile.scenes())
    refuse_unreachable(profile, ShotConfig(), path.name)


@pytest.mark.parametrize(
    ("scenes", "message"),
    [
        ({"full_bodys": {"target": 3}}, "`full_bodys` is no scene .* did you mean `full_body`"),
        ({"medium": {"target": 3}}, "did you mean `medium_shot`"),
        ({"complex_background": {"target": 3}}, "did you mean `complex_backgrounds`"),
        ({"zzz": {"target": 3}}, "known scenes: close_up, medium_shot"),
        ({"far": {"target": 3, "keyword": ["a"]}}, "unknown key .*did you mean `keywords`"),
        ({"far": {"target": -1}}, r"far\.target"),
        ({"far": {}}, r"`priority_scenes\.far\.target` is missing"),
        ({"far": {"target": 0}}, "nothing to extract"),
        ({}, "nothing to extract"),
    ],
)
def test_what_is_wrong_is_named(tmp_path: Path, scenes: dict[str, Any], message: str) -> None:
    with pytest.raises(UserError, match=message):
        load_profile(written(tmp_path / "p.json", scenes))


def test_a_target_that_no_film_can_meet_is_refused_with_its_constraint() -> None:
    shots = ShotConfig()
    asked = Profile.model_validate(
        {"priority_scenes": {"far": {"target": 5, "min_character_height_ratio": shots.far_height}}}
    )
    with pytest.raises(UserError, match=r"height_ratio of 0\.45, but a character is far only below 0\.45"):
        refuse_unreachable(asked, shots, "p.json")
    twice = {"target": 5, "required_characters": ["a"], "required_characters_alt": ["a"]}
    with pytest.raises(UserError, match="names a as required and as an alternative"):
        refuse_unreachable(Profile.model_validate({"priority_scenes": {"multi_character": twice}}), shots, "p.json")


def test_characters_are_named_once_and_in_order() -> None:
    scenes = {
        "full_body": {"target": 1, "required_characters": ["b"]},
        "multi_character": {"target": 1, "required_characters": ["b", "a"], "required_characters_alt": ["c", "d"]},
        "far": {"target": 0, "required_characters": ["not asked"]},
    }
    assert Profile.model_validate({"priority_scenes": scenes}).characters() == ("b", "a", "c", "d")
    assert Scene(target=1, keywords=("x",), scene_types=("y",)).queries == ("x", "y")


def analysis(**deficits: int) -> Analysis:
    row = {
        "count": 0, "share": 0.0, "picture_share": 0.0, "low": 10.0, "high": 20.0, "status": "below", "deficit": 1,
        "impact": "",
    }  # fmt: skip
    return Analysis.model_validate(
        {
            "dataset": "set",
            "dataset_hash": "0",
            "model": {"name": "m", "hash": "0", "config_hash": "0"},
            "pictures": 10,
            "unreadable": 0,
            "target_size": 475,
            "categories": {c: {**row, "deficit_at_target": deficits.get(c, 0)} for c in SCENES.values()},
            "unclassified": 0,
            "unclassified_share": 0.0,
            "conclusion": "",
            "next_command": "",
            "rows": (),
        }
    )


def test_a_plan_asks_for_the_deficits_and_some_to_spare() -> None:
    made = dict(plan(analysis(medium=100, complex_background=10)).scenes())
    assert set(made) == {"medium_shot", "complex_backgrounds"}
    assert 100 < made["medium_shot"].target <= 120
    assert made["complex_backgrounds"].target > 10
    refuse_unreachable(plan(analysis(**dict.fromkeys(SCENES.values(), 5))), ShotConfig(), "plan")
    with pytest.raises(UserError, match="nothing to extract"):
        plan(analysis())
