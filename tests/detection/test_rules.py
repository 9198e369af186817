"""The shot decision: known framings, and properties that must hold whatever the thresholds' values."""

import tomllib
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
from hypothesis import example, given, settings
from hypothesis import strategies as st

from onmodel.core.images import RGB
from onmodel.core.vocabulary import Attribute, Box, Detections, Instance, Keypoint, ShotType
from onmodel.detection.config import DetectorConfig, ShotConfig
from onmodel.detection.rules import background_facts, cut_edges, decide, main_character

SHOTS = ShotConfig()
SIDE = 96
PLAIN: RGB = np.full((SIDE, SIDE, 3), 200, dtype=np.uint8)
ORDER = (ShotType.CLOSE_UP, ShotType.MEDIUM, ShotType.FULL_BODY, ShotType.FAR)


def busy(side: int = SIDE) -> RGB:
    return np.random.default_rng(0).integers(0, 256, (side, side, 3), dtype=np.uint8)


def standing(height: float, heads: float, top: float = 5.0, x: float = 48.0, frame: float = SIDE) -> Instance:
    """A character `height` pixels high and `heads` heads tall below `top`, what the frame shows of it."""
    head = height / heads
    half = 0.6 * head
    box = Box(x - half, top, x + half, min(frame, top + height))
    face = Box(x - 0.4 * head, top, x + 0.4 * head, min(frame, top + head))
    return Instance(box, 0.9, "character", face)


def seen(*instances: Instance, occluders: tuple[Box, ...] = (), side: int = SIDE) -> Detections:
    return Detections(side, side, instances, occluders)


def scaled(detections: Detections, factor: int) -> Detections:
    def box(b: Box) -> Box:
        return Box(*(v * factor for v in b.as_tuple()))

    return Detections(
        detections.width * factor,
        detections.height * factor,
        tuple(replace(i, box=box(i.box), face=box(i.face) if i.face else None) for i in detections.instances),
        tuple(box(o) for o in detections.occluders),
    )


def mirrored(detections: Detections) -> Detections:
    width = detections.width

    def box(b: Box) -> Box:
        return Box(width - b.x1, b.y0, width - b.x0, b.y1)

    return replace(
        detections,
        instances=tuple(replace(i, box=box(i.box), face=box(i.face) if i.face else None) for i in detections.instances),
        occluders=tuple(box(o) for o in detections.occluders),
    )


def test_shots_toml_shows_the_defaults() -> None:
    file = Path(__file__).parents[2] / "configs" / "shots.toml"
    assert ShotConfig.model_validate(tomllib.loads(file.read_text(encoding="utf-8"))) == SHOTS
    assert tomllib.loads(file.read_text(encoding="utf-8")).keys() == ShotConfig.model_fields.keys()


def test_every_threshold_gives_its_reason() -> None:
    source = (Path(__file__).parents[2] / "services/onmodel/detection/config.py").read_text(encoding="utf-8")
    body = source.split("class ShotConfig")[1].split("class DetectorConfig")[0]
    for name in ShotConfig.model_fields:
        after = body.split(f"    {name}: ")[1].split("\n", 1)[1].lstrip()
        assert after.startswith('"""'), name


@pytest.mark.parametrize(
    ("height", "heads", "expected"),
    [
        (330, 4.0, ShotType.CLOSE_UP),
        (170, 4.0, ShotType.MEDIUM),
        (80, 4.0, ShotType.FULL_BODY),
        (28, 4.0, ShotType.FAR),
        (230, 3.0, ShotType.CLOSE_UP),
        (130, 3.0, ShotType.MEDIUM),
    ],
)
def test_framings(height: float, heads: float, expected: ShotType) -> None:
    assert decide(PLAIN, seen(standing(height, heads)), SHOTS).shot_type is expected


def test_nobody_is_unclassified() -> None:
    decision = decide(PLAIN, seen(), SHOTS)
    assert decision.shot_type is ShotType.UNCLASSIFIED
    assert decision.main is None
    assert decision.categories == frozenset()


def test_legs_alone_are_unclassified() -> None:
    legs = Instance(Box(30, 0, 60, 90), 0.9, "character")
    assert decide(PLAIN, seen(legs), SHOTS).shot_type is ShotType.UNCLASSIFIED


def test_being_cut_is_not_occlusion_but_a_thing_in_front_is() -> None:
    cut = standing(330, 4.0)
    assert Attribute.OCCLUSION not in decide(PLAIN, seen(cut), SHOTS).attributes
    whole = standing(80, 4.0)
    hidden = seen(whole, occluders=(Box(30, 50, 70, 90),))
    assert Attribute.OCCLUSION in decide(PLAIN, hidden, SHOTS).attributes
    beside = seen(whole, occluders=(Box(0, 50, 20, 90),))
    assert Attribute.OCCLUSION not in decide(PLAIN, beside, SHOTS).attributes


def test_a_bush_before_the_legs_does_not_make_a_whole_body() -> None:
    """The box ends where a thing begins that goes down to the frame: the body goes on behind it."""
    figure = standing(170, 4.0)
    shown = replace(figure, box=replace(figure.box, y1=60.0))
    assert decide(PLAIN, seen(shown, occluders=(Box(20, 58, 76, 96),)), SHOTS).shot_type is ShotType.MEDIUM


def test_another_character_in_front_occludes() -> None:
    main = standing(80, 4.0)
    near = Instance(Box(46, 30, 86, 95), 0.9, "character")
    attributes = decide(PLAIN, seen(main, near), SHOTS).attributes
    assert {Attribute.MULTI_CHARACTER, Attribute.OCCLUSION} <= attributes


def test_a_tiny_or_doubtful_box_is_no_other_character() -> None:
    main = standing(80, 4.0)
    tiny = Instance(Box(2, 80, 8, 90), 0.9, "character")
    doubtful = Instance(Box(2, 30, 25, 90), 0.1, "character")
    assert Attribute.MULTI_CHARACTER not in decide(PLAIN, seen(main, tiny, doubtful), SHOTS).attributes
    sure = replace(doubtful, confidence=0.9)
    assert Attribute.MULTI_CHARACTER in decide(PLAIN, seen(main, sure), SHOTS).attributes


def test_the_one_who_faces_the_camera_is_main() -> None:
    back = Instance(Box(0, 10, 40, 90), 0.9, "character")
    facing = standing(78, 4.0, x=62)
    assert main_character(seen(back, facing), SHOTS) == 1


def test_background_is_judged_outside_the_boxes() -> None:
    image = PLAIN.copy()
    image[20:80, 30:66] = busy()[20:80, 30:66]
    box = Box(30, 20, 66, 80)
    assert Attribute.COMPLEX_BACKGROUND not in decide(image, seen(Instance(box, 0.9, "c")), SHOTS).attributes
    assert Attribute.COMPLEX_BACKGROUND in decide(busy(), seen(Instance(box, 0.9, "c")), SHOTS).attributes
    assert background_facts(busy(), [Box(0, 0, SIDE, SIDE)], SHOTS) == (0.0, 0.0, 0.0)


@pytest.mark.parametrize(
    ("lowest", "expected"),
    [((5, 6), ShotType.CLOSE_UP), ((11, 12), ShotType.MEDIUM), ((15, 16), ShotType.FULL_BODY)],
)
def test_keypoints_decide_where_a_pose_is_known(lowest: tuple[int, int], expected: ShotType) -> None:
    points = [Keypoint(0, 0, 0.0)] * 17
    for index in (0, 5, 6, *lowest):
        points[index] = Keypoint(48, 50, 0.9)
    figure = replace(standing(80, 4.0), keypoints=tuple(points))
    assert decide(PLAIN, seen(figure), SHOTS).shot_type is expected


def test_film_preset_takes_an_ear_at_the_upper_edge_for_no_cut() -> None:
    shots = DetectorConfig.preset("film").shots
    assert "top" not in cut_edges(Box(10, 1, 50, 80), 96, 96, shots.edge_margin, shots.top_margin)
    assert "top" in cut_edges(Box(10, 0, 50, 80), 96, 96, shots.edge_margin, shots.top_margin)


figures = st.builds(
    standing,
    height=st.floats(20, 400),
    heads=st.floats(2.5, 6),
    top=st.floats(3, 12),
    x=st.floats(20, 76),
)
things = st.builds(
    lambda x, y, w, h: Box(x, y, x + w, y + h), st.floats(0, 60), st.floats(0, 60), st.floats(5, 36), st.floats(5, 36)
)


@settings(max_examples=60, deadline=None)
@given(
    st.lists(figures, min_size=1, max_size=3), st.lists(things, max_size=2), st.sampled_from([2, 3, 5]), st.booleans()
)
@example([standing(20.0, 4.75, 3.0, 20.0), standing(20.0, 4.75, 3.0, 24.0)], [], 5, False)  # twins beside the middle
def test_size_in_pixels_does_not_count(people: list[Instance], front: list[Box], factor: int, full: bool) -> None:
    image = busy() if full else PLAIN
    small = seen(*people, occluders=tuple(front))
    large_image = np.repeat(np.repeat(image, factor, axis=0), factor, axis=1)
    large, plain = decide(large_image, scaled(small, factor), SHOTS), decide(image, small, SHOTS)
    # The reason names a rounded share, which may round to either side.
    assert replace(large, reason="") == replace(plain, reason="")


@settings(max_examples=60, deadline=None)
@given(st.lists(figures, min_size=1, max_size=3), st.lists(things, max_size=2), st.booleans())
def test_left_and_right_do_not_count(people: list[Instance], front: list[Box], full: bool) -> None:
    image = busy() if full else PLAIN
    given_ = seen(*people, occluders=tuple(front))
    flipped = np.ascontiguousarray(image[:, ::-1])
    one, other = decide(image, given_, SHOTS), decide(flipped, mirrored(given_), SHOTS)
    assert (one.shot_type, one.attributes) == (other.shot_type, other.attributes)


@settings(max_examples=150, deadline=None)
@given(st.floats(2.5, 6), st.floats(15, 500), st.floats(15, 500), st.floats(3, 10))
def test_more_of_the_body_never_means_a_closer_shot(heads: float, one: float, other: float, top: float) -> None:
    near, away = max(one, other), min(one, other)
    shots = [decide(PLAIN, seen(standing(height, heads, top)), SHOTS).shot_type for height in (near, away)]
    assert ORDER.index(shots[0]) <= ORDER.index(shots[1])


@settings(max_examples=100, deadline=None)
@given(st.floats(15, 500), st.floats(15, 500), st.floats(0.3, 1.2))
def test_the_same_without_a_face(one: float, other: float, aspect: float) -> None:
    shots: list[ShotType] = []
    for height in (max(one, other), min(one, other)):
        width = min(aspect * height, 90.0)
        figure = Instance(Box(48 - width / 2, 4, 48 + width / 2, min(96, 4 + height)), 0.9, "bird")
        shots.append(decide(PLAIN, seen(figure), SHOTS).shot_type)
    assert ORDER.index(shots[0]) <= ORDER.index(shots[1])


@settings(max_examples=60, deadline=None)
@given(figures, things)
def test_a_thing_in_front_never_changes_the_count(figure: Instance, thing: Box) -> None:
    alone = decide(PLAIN, seen(figure), SHOTS).attributes
    hidden = decide(PLAIN, seen(figure, occluders=(thing,)), SHOTS).attributes
    assert (Attribute.MULTI_CHARACTER in alone) == (Attribute.MULTI_CHARACTER in hidden)
    assert alone <= hidden
