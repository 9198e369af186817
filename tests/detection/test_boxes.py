"""Merging raw boxes: overlaps, nested boxes, roles, faces."""

import numpy as np
import numpy.typing as npt
import pytest

from onmodel.core.vocabulary import Box, Instance
from onmodel.detection.boxes import assemble, attach_faces, drop_nested, suppress
from onmodel.detection.config import DetectorConfig

IMAGE = np.zeros((100, 100, 3), dtype=np.uint8)


def floats(*rows: float | tuple[float, ...]) -> npt.NDArray[np.float32]:
    return np.array(rows, dtype=np.float32)


def test_one_animal_found_as_two_kinds_is_one() -> None:
    boxes = floats((10, 10, 60, 90), (12, 10, 61, 88), (70, 10, 95, 50))
    scores, labels = floats(0.5, 0.7, 0.4).reshape(-1), np.array([1, 2, 1])
    agnostic = suppress(boxes, scores, labels, iou=0.5, class_agnostic=True)
    assert agnostic.tolist() == [1, 2]
    by_class = suppress(boxes, scores, labels, iou=0.5, class_agnostic=False)
    assert sorted(by_class.tolist()) == [0, 1, 2]


def test_a_head_inside_its_body_is_no_second_character() -> None:
    boxes = floats((10, 10, 60, 90), (20, 12, 50, 40))
    kept, scores = drop_nested(boxes, floats(0.5, 0.8).reshape(-1), 0.8)
    assert kept.tolist() == [0]
    assert scores.tolist() == [pytest.approx(0.8)]
    assert drop_nested(boxes, floats(0.5, 0.8).reshape(-1), 1.0)[0].tolist() == [1, 0]


def test_a_doubtful_box_round_a_sure_one_goes() -> None:
    kept, _ = drop_nested(floats((0, 0, 99, 99), (20, 12, 50, 80)), floats(0.2, 0.8).reshape(-1), 0.8)
    assert kept.tolist() == [1]


def test_roles_come_from_the_config() -> None:
    config = DetectorConfig(
        character_classes=("rabbit",), face_classes=("head",), occluder_classes=("bush",), excluded_classes=("chair",)
    )
    names = ("rabbit", "head", "bush", "chair", "other")
    boxes = floats((10, 5, 50, 95), (20, 8, 40, 30), (5, 60, 60, 95), (60, 5, 95, 95), (60, 6, 90, 40))
    found = assemble(IMAGE, boxes, np.full(5, 0.9, np.float32), np.arange(5), names, config, None)
    assert [i.label for i in found.instances] == ["rabbit"]
    assert found.instances[0].face == Box(20, 8, 40, 30)
    assert found.occluders == (Box(5, 60, 60, 95),)


def test_without_character_classes_everything_else_is_one() -> None:
    config = DetectorConfig(excluded_classes=("chair",))
    boxes = floats((10, 5, 40, 95), (60, 5, 95, 95))
    found = assemble(IMAGE, boxes, np.full(2, 0.9, np.float32), np.arange(2), ("bird", "chair"), config, None)
    assert [i.label for i in found.instances] == ["bird"]


def test_nothing_found_is_an_answer() -> None:
    empty = np.zeros(0, np.float32)
    found = assemble(IMAGE, np.zeros((0, 4), np.float32), empty, empty.astype(np.int64), (), DetectorConfig(), None)
    assert found.instances == ()
    assert (found.width, found.height) == (100, 100)


def test_a_face_goes_to_the_body_whose_head_it_is() -> None:
    left = Instance(Box(0, 10, 50, 90), 0.9, "c")
    right = Instance(Box(30, 10, 95, 90), 0.8, "c")
    face = Box(55, 15, 70, 32)
    given, left_over = attach_faces([left, right], [face, Box(96, 0, 100, 5)])
    assert given[0].face is None
    assert given[1].face == face
    assert left_over == [Box(96, 0, 100, 5)]


def test_a_face_at_the_feet_is_none() -> None:
    given, left = attach_faces([Instance(Box(0, 0, 50, 100), 0.9, "c")], [Box(10, 80, 30, 98)])
    assert given[0].face is None
    assert len(left) == 1


def test_a_lone_face_becomes_a_character_where_configured() -> None:
    config = DetectorConfig(character_classes=("c",), face_classes=("f",), face_makes_instance=True)
    boxes = floats((40, 30, 60, 50))
    found = assemble(IMAGE, boxes, floats(0.7).reshape(-1), np.array([1]), ("c", "f"), config, None)
    assert len(found.instances) == 1
    assert found.instances[0].face == Box(40, 30, 60, 50)
    assert found.instances[0].box.intersection(Box(40, 30, 60, 50)) == pytest.approx(400)
