"""Poses by geometry: stick figures whose pose a person would name at once."""

from pathlib import Path

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from onmodel.core.errors import NotFoundError, UserError
from onmodel.core.vocabulary import Box, Instance, Keypoint
from onmodel.detection.weights import pinned
from onmodel.film.poses import PoseModel, name_pose

NAMES = ("nose", "eyes", "eyes", "ears", "ears", "shoulder", "shoulder", "elbow", "elbow", "wrist", "wrist",
         "hip", "hip", "knee", "knee", "ankle", "ankle")  # fmt: skip
STANDING = {
    "nose": (0, 0), "eyes": (0, -4), "ears": (0, -3), "shoulder": (20, 30), "elbow": (26, 60), "wrist": (28, 85),
    "hip": (14, 90), "knee": (14, 135), "ankle": (14, 180),
}  # fmt: skip
"""Left half of an upright figure, x from its middle line; the right half mirrors it."""


def figure(left: dict[str, tuple[float, float]], right: dict[str, tuple[float, float]] | None = None,
           unseen: tuple[str, ...] = ()) -> list[Keypoint]:  # fmt: skip
    """17 points of STANDING with other places for some; what is given for the left alone is mirrored."""
    points: list[Keypoint] = []
    count: dict[str, int] = {}
    for name in NAMES:
        side = count.get(name, 0)
        count[name] = side + 1
        x, y = {**STANDING, **left}[name]
        if side == 1:
            x, y = (right or {}).get(name, (-x, y))
        points.append(Keypoint(100 + x, 100 + y, 0.1 if name in unseen else 0.9))
    return points


POSES = {
    "standing": figure({}),
    "arms raised": figure({"elbow": (30, 5), "wrist": (32, -30)}),
    "arm raised": figure({"elbow": (30, 5), "wrist": (32, -30)}, {"elbow": (-26, 60), "wrist": (-28, 85)}),
    "walking": figure({"ankle": (45, 175), "knee": (25, 135)}),
    "sitting": figure({"knee": (24, 98), "ankle": (24, 145)}),
    "crouching": figure({"knee": (30, 92), "ankle": (20, 110)}),
    "bending": figure({"shoulder": (75, 45), "elbow": (80, 70), "wrist": (82, 95)},
                      {"shoulder": (45, 45), "elbow": (50, 70), "wrist": (52, 95)}),
    "lying": figure({"shoulder": (90, 84), "elbow": (95, 100), "wrist": (96, 120)},
                    {"shoulder": (86, 80), "elbow": (95, 100), "wrist": (96, 120)}),
    "upper body": figure({}, unseen=("hip", "knee", "ankle")),
}  # fmt: skip


@pytest.mark.parametrize("name", POSES)
def test_a_pose_has_its_name(name: str) -> None:
    assert name_pose(POSES[name]) == name


@settings(max_examples=30, deadline=None)
@given(name=st.sampled_from(sorted(POSES)), size=st.floats(0.1, 20), x=st.floats(-500, 500), y=st.floats(-500, 500))
def test_a_pose_does_not_depend_on_place_or_size(name: str, size: float, x: float, y: float) -> None:
    moved = [Keypoint(size * p.x + x, size * p.y + y, p.confidence) for p in POSES[name]]
    assert name_pose(moved) == name


@settings(max_examples=30, deadline=None)
@given(st.lists(st.tuples(st.floats(0, 100), st.floats(0, 100), st.floats(0, 1)), min_size=17, max_size=17))
def test_any_points_give_a_known_name_or_none(points: list[tuple[float, float, float]]) -> None:
    assert name_pose([Keypoint(*p) for p in points]) in {*POSES, None}


def test_too_little_has_no_pose() -> None:
    assert name_pose([]) is None
    assert name_pose(figure({}, unseen=("shoulder", "hip"))) is None


def test_pose_weights_answer_for_boxes_of_another_detector(tmp_path: Path) -> None:
    yolo = pytest.importorskip("ultralytics").YOLO
    path = tmp_path / "pose.pt"
    yolo("yolo11n-pose.yaml", verbose=False).save(path)
    image = np.random.default_rng(0).integers(0, 256, (64, 64, 3), np.uint8)
    people = [Instance(Box(0, 0, 60, 60), 1.0, "character"), Instance(Box(2, 2, 9, 9), 1.0, "character")]
    answers = PoseModel(pinned(path)).points(image, people)
    assert len(answers) == 2
    assert all(len(points) in (0, 17) for points in answers)


def test_weights_that_give_no_poses_are_refused_by_name() -> None:
    with pytest.raises(UserError, match=r"toybox: weights for the task 'detect', not for poses"):
        PoseModel("toybox")
    with pytest.raises(NotFoundError, match="no such weights"):
        PoseModel("nowhere-pose.pt@sha256:" + "0" * 64)
