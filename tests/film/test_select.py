"""Judging and choosing, on candidates made by hand."""

import itertools

import numpy as np
from hypothesis import given
from hypothesis import strategies as st

from onmodel.core.likeness import distance
from onmodel.core.vocabulary import Attribute, Box, Decision, Detections, Instance, ShotType
from onmodel.detection.config import DetectorConfig
from onmodel.detection.convert import Detected
from onmodel.detection.rules import decide_for
from onmodel.film.chunk import Looked
from onmodel.film.identity import Character, IdentityConfig, Slack
from onmodel.film.judge import JudgeConfig, Judged, certainty, judge
from onmodel.film.profile import Profile
from onmodel.film.select import SelectConfig, select

SHOTS = DetectorConfig.preset("film").shots
CONFIG = JudgeConfig()
OURS = Character("ours", np.zeros((3, 2), np.float32), np.zeros((3, 3), np.float32), 0.9)
WHOLE = Box(30, 20, 60, 80)
SMALL = Box(40, 40, 50, 65)


def row(
    time_s: float, box: Box, *, shot: int = 0, like: float | None = None, others: tuple[Box, ...] = (), mark: int = 0
) -> Judged:
    instances = tuple(Instance(b, 0.9, "character") for b in (box, *others))
    found = Detections(100, 100, instances)
    detected = Detected(found, decide_for(found, 0, SHOTS, complex_background=False))
    likeness = () if like is None else ((like, *([0.1] * len(others))),)
    looked = Looked(time_s, shot, 100.0, mark or int(time_s * 1000) * 0x9E3779B97F4A7C15 % (1 << 64), None)
    looked.detected, looked.likeness, looked.picture = detected, likeness, "kept"
    return Judged(0, shot, 0, looked)


def judged(rows: list[Judged], threshold: float | None = None, **scenes: dict[str, object]) -> list[Judged]:
    asked = scenes or {"full_body": {"target": 5}, "far": {"target": 5}, "multi_character": {"target": 5}}
    profile = Profile.model_validate({"priority_scenes": asked})
    ours = () if threshold is None else (OURS,)
    judge(rows, profile, ("",) if ours else (), ours, IdentityConfig(threshold=threshold), SHOTS, CONFIG)
    return rows


def test_the_neighbours_decide_who_is_ours() -> None:
    # Half hidden in one frame, and once an odd stranger alone in its shot.
    rows = [row(t, WHOLE, like=v) for t, v in ((0.0, 0.9), (0.5, 0.4), (1.0, 0.85))]
    rows.append(row(5.0, WHOLE, shot=1, like=0.4))
    judged(rows, threshold=0.6)
    assert [r.stranger for r in rows] == [False, False, False, True]
    assert rows[3].refusals["full_body"].startswith("not our character (likeness 0.40, ours from 0.60)")
    far_off = [row(0.0, WHOLE, like=0.9), row(0.5, Box(80, 20, 99, 80), like=0.4)]
    judged(far_off, threshold=0.6)
    assert [r.stranger for r in far_off] == [False, True]


def test_each_framing_has_its_own_threshold() -> None:
    # As like as references are to each other, less a little: more less where the character is small.
    slack = Slack(full_body=0.1, far=0.3)
    rows = [row(0.0, WHOLE, shot=0, like=0.7), row(5.0, SMALL, shot=1, like=0.7)]
    profile = Profile.model_validate({"priority_scenes": {"full_body": {"target": 5}, "far": {"target": 5}}})
    judge(rows, profile, ("",), (OURS,), IdentityConfig(slack=slack), SHOTS, CONFIG)
    assert [r.stranger for r in rows] == [True, False]


def test_a_shot_type_that_its_neighbours_deny_is_not_believed() -> None:
    rows = [row(t, WHOLE) for t in (0.0, 0.3, 0.6, 0.9)] + [row(1.2, SMALL)]
    judged(rows)
    assert all("full_body" in r.scores for r in rows[:4])
    assert "far is not certain" in rows[4].refusals["far"]
    (alone,) = judged([row(1.2, SMALL)])
    assert "far" in alone.scores


def test_an_uncertain_shot_type_hears_its_neighbours() -> None:
    rows = judged([row(t, WHOLE) for t in (0.0, 0.3, 0.6)] + [row(0.9, SMALL)])
    assert rows[3].voted is ShotType.FULL_BODY
    assert "far" not in rows[3].sure
    # Two that disagree elect nobody.
    assert judged([row(0.0, WHOLE), row(0.3, SMALL), row(0.6, WHOLE)])[0].voted is None


def test_certainty_is_low_at_a_threshold() -> None:
    def sure(height: float) -> float:
        found = Detections(100, 100, (Instance(Box(40, 50 - height / 2, 60, 50 + height / 2), 0.9, "character"),))
        shot = decide_for(found, 0, SHOTS, complex_background=False).shot_type
        return certainty(found, found.instances[0], shot, SHOTS)

    edge = 100 * SHOTS.far_height
    assert sure(edge * 0.7) == sure(edge * 1.5) == 1.0
    assert sure(edge + 0.1) < 0.8


def test_another_character_must_be_of_some_size() -> None:
    (beside,) = judged([row(0.0, WHOLE, others=(Box(65, 25, 95, 80),))])
    assert beside.scores["multi_character"] > 0
    (speck,) = judged([row(0.0, WHOLE, others=(Box(70, 30, 78, 46),))])
    assert "multi_character" in speck.refusals


def test_a_frame_that_is_about_a_larger_character_is_no_shot_type_of_ours() -> None:
    (companion,) = judged([row(0.0, WHOLE, others=(Box(62, 5, 99, 98),))])
    assert companion.refusals["full_body"] == "framed for a larger character beside ours"
    assert companion.scores["multi_character"] > 0
    # At the frame's edge, and beside a larger one: of no use at all.
    (aside,) = judged([row(0.0, Box(0, 20, 28, 80), others=(Box(40, 5, 80, 95),))])
    assert not aside.scores and "cut by the frame's side" in aside.refusals["multi_character"]
    (alone,) = judged([row(0.0, Box(0, 20, 28, 80), others=(Box(40, 40, 52, 70),))])
    assert alone.scores["multi_character"] > 0


def test_judging_again_with_more_rows_forgets_what_was_said() -> None:
    rows = [row(0.0, SMALL)]
    assert "far" in judged(rows)[0].scores
    rows += [row(t, WHOLE) for t in (0.3, 0.6, 0.9)]
    judged(rows)
    assert "far" not in rows[0].scores


@st.composite
def pools(draw: st.DrawFn) -> list[Judged]:
    rows: list[Judged] = []
    for number in range(draw(st.integers(1, 25))):
        made = Judged(
            0, draw(st.integers(0, 3)), 0, Looked(float(number), 0, 1.0, draw(st.integers(0, 2**64 - 1)), None)
        )
        shot = draw(st.sampled_from(list(ShotType)))
        found = Detections(10, 10, (Instance(Box(1, 1, 5, 9), 0.5, "c"),))
        made.looked.detected = Detected(found, Decision(shot, frozenset[Attribute](), 0, ""))
        for name in ("full_body", "far", "occlusion"):
            if draw(st.booleans()):
                made.scores[name] = draw(st.floats(0, 1))
        rows.append(made)
    return rows


@given(pools(), st.integers(1, 8), st.integers(1, 8))
def test_what_is_chosen_serves_and_is_no_more_than_asked(rows: list[Judged], first: int, second: int) -> None:
    asked = {"full_body": {"target": first}, "occlusion": {"target": second}}
    config = SelectConfig()
    chosen = select(rows, Profile.model_validate({"priority_scenes": asked}), config)
    for number, scenes in chosen.scenes.items():
        assert scenes
        assert set(scenes) <= set(rows[number].scores) & set(asked)
    assert len(chosen.scenes) <= first + second
    for name, scene in asked.items():
        serving = [n for n, scenes in chosen.scenes.items() if name in scenes]
        assert chosen.found[name] == len(serving) <= chosen.could[name]
        # Short only where nothing more is left than frames too like those taken.
        if len(serving) < scene["target"]:
            left = [n for n, r in enumerate(rows) if name in r.scores and n not in chosen.scenes]
            marks = [rows[n].looked.fingerprint for n in chosen.scenes]
            alike = [
                min(distance(rows[n].looked.fingerprint, m) for m in marks) <= config.near_duplicate_bits for n in left
            ]
            assert all(alike)
    for a, b in itertools.combinations(chosen.scenes, 2):
        assert distance(rows[a].looked.fingerprint, rows[b].looked.fingerprint) > config.near_duplicate_bits


def test_one_frame_serves_several_scenes() -> None:
    rows = [row(float(n), WHOLE, others=(Box(65, 25, 95, 80),) if n < 3 else ()) for n in range(6)]
    judged(rows)
    asked = {"full_body": {"target": 3}, "multi_character": {"target": 3}}
    chosen = select(rows, Profile.model_validate({"priority_scenes": asked}), SelectConfig())
    assert len(chosen.scenes) == 3
    assert all(scenes == ["full_body", "multi_character"] for scenes in chosen.scenes.values())


def test_the_best_are_kept_and_not_the_first() -> None:
    rows = [row(float(n), WHOLE, shot=n) for n in range(8)]
    judged(rows)
    for n, r in enumerate(rows):
        r.scores = {"full_body": 0.5 + 0.05 * n}
    chosen = select(rows, Profile.model_validate({"priority_scenes": {"full_body": {"target": 3}}}), SelectConfig())
    assert set(chosen.scenes) == {5, 6, 7}
    assert np.all([chosen.passed[n]["full_body"] == "there are enough better ones" for n in range(5)])
