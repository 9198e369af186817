"""The world's truth is true: boxes, fractions, masks, determinism, shares."""

import dataclasses
from pathlib import Path

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from onmodel.core.vocabulary import Attribute, Keypoint, ShotType
from onmodel.film.poses import name_pose
from onmodel.toybox.body import Action, random_pose
from onmodel.toybox.character import HELD_OUT, likeness, near_twin, random_character
from onmodel.toybox.dataset import (
    BALANCED_SHARES,
    TRIAL_SHARES,
    Shares,
    make_dataset,
    make_places,
    plan,
    read_truth,
    reference_pictures,
    truth_from_json,
    truth_to_json,
)
from onmodel.toybox.render import Rendered, Truth, body_points, render
from onmodel.toybox.scene import FRAMED, random_scene
from onmodel.toybox.shapes import Ellipsoid, RoundCone, bounds, hit, turn
from onmodel.toybox.wording import TRIGGERS, describe, training_caption, vocabulary

SEEDS = st.integers(0, 2**32 - 1)
FEW = settings(max_examples=25, deadline=None)


def draw(seed: int, shot: ShotType | None = None, size: int = 64) -> Rendered:
    return render(random_scene(np.random.default_rng(seed), shot_type=shot), size)


@FEW
@given(seed=SEEDS, shot=st.sampled_from(list(ShotType)), size=st.sampled_from([48, 96]))
def test_boxes_and_masks_agree(seed: int, shot: ShotType, size: int) -> None:
    picture = draw(seed, shot, size)
    assert picture.image.shape == (size, size, 3)
    assert picture.image.dtype == np.uint8
    assert picture.masks.shape == (len(picture.truth.characters), size, size)
    for truth, mask in zip(picture.truth.characters, picture.masks, strict=True):
        assert truth.visible_pixels == mask.sum()
        assert 0 <= truth.visible_fraction <= 1
        assert 0 <= truth.in_frame_fraction <= 1 + 1e-9
        if truth.visible_box is None:
            assert truth.visible_pixels == 0
            continue
        seen, whole = truth.visible_box, truth.box.clip(size, size)
        assert seen.x0 >= whole.x0 and seen.y0 >= whole.y0 and seen.x1 <= whole.x1 and seen.y1 <= whole.y1
        rows, cols = np.nonzero(mask)
        assert abs(cols.min() - seen.x0) < 1 and abs(rows.max() + 1 - seen.y1) < 1
        if truth.face_box is not None:
            assert truth.face_box.intersection(seen) == pytest.approx(truth.face_box.area)
    assert (picture.masks.sum(axis=0) <= 1).all()


@FEW
@given(seed=SEEDS, shot=st.sampled_from(FRAMED), many=st.booleans(), hidden=st.booleans(), busy=st.booleans())
def test_a_scene_shows_what_was_asked_for(seed: int, shot: ShotType, many: bool, hidden: bool, busy: bool) -> None:
    scene = random_scene(
        np.random.default_rng(seed), shot_type=shot, multi_character=many, occlusion=hidden, complex_background=busy
    )
    truth = render(scene, 96).truth
    main = truth.characters[0]
    assert truth.shot_type is shot
    assert (Attribute.MULTI_CHARACTER in truth.attributes) == many == (truth.count > 1)
    assert (Attribute.OCCLUSION in truth.attributes) == hidden == (len(truth.occluders) > 0)
    assert (Attribute.COMPLEX_BACKGROUND in truth.attributes) == busy
    assert main.visible_fraction < 0.93 if hidden else main.visible_fraction > 0.96
    assert main.visible_box is not None and main.face_box is not None
    share = main.box.height / truth.size
    cut_below = main.box.y1 > truth.size
    assert cut_below == (shot in (ShotType.CLOSE_UP, ShotType.MEDIUM))
    if shot is ShotType.FAR:
        assert share <= 0.34
    if shot is ShotType.FULL_BODY:
        assert 0.4 < share <= 0.94


@FEW
@given(seed=SEEDS)
def test_a_seed_decides_everything(seed: int) -> None:
    first, second = draw(seed), draw(seed)
    assert (first.image == second.image).all()
    assert first.truth == second.truth


@FEW
@given(seed=SEEDS)
def test_captions_stay_in_the_vocabulary(seed: int) -> None:
    rng = np.random.default_rng(seed)
    scene = random_scene(rng, shot_type=list(ShotType)[seed % len(ShotType)])
    known = set(vocabulary())
    for caption in (describe(scene, rng), training_caption(scene, rng, "zibo")):
        words = set(caption.replace("-", " ").replace(",", " ").split())
        assert words <= known
    assert not set(describe(scene, rng).replace(",", " ").split()) & set(TRIGGERS)


@FEW
@given(seed=SEEDS)
def test_training_characters_never_resemble_held_out_ones(seed: int) -> None:
    rng = np.random.default_rng(seed)
    drawn = random_character(rng)
    for other in (drawn, near_twin(rng, drawn)):
        assert all(likeness(other, held) < 2 for held in HELD_OUT.values())


@FEW
@given(seed=SEEDS, yaw=st.floats(-3, 3), pitch=st.floats(-1.5, 1.5))
def test_shapes_fill_their_bounds_and_their_normals_are_unit(seed: int, yaw: float, pitch: float) -> None:
    rng = np.random.default_rng(seed)
    radii = (float(rng.uniform(0.05, 0.3)), float(rng.uniform(0.05, 0.3)), float(rng.uniform(0.05, 0.3)))
    grid = ((np.arange(200) + 0.5) / 200).astype(np.float32)
    shapes = (
        Ellipsoid(np.array([0.5, 0.5, 0.0]), radii, (1, 1, 1), turn(yaw, pitch)),
        RoundCone(rng.uniform(0.3, 0.7, 3), rng.uniform(0.3, 0.7, 3), radii[0], radii[1], (1, 1, 1)),
    )
    for shape in shapes:
        hits = hit(shape, grid, grid)
        rows, cols = np.nonzero(hits.inside)
        x0, y0, x1, y1 = bounds(shape)
        seen = (grid[cols].min(), grid[rows].min(), grid[cols].max(), grid[rows].max())
        assert np.allclose(seen, np.clip((x0, y0, x1, y1), 0, 1), atol=0.02)
        assert np.allclose(np.linalg.norm(hits.normal, axis=1), 1, atol=1e-3)
        assert (hits.normal[:, 2] > -0.01).all()


@pytest.mark.parametrize("shares", [TRIAL_SHARES, BALANCED_SHARES])
def test_a_plan_meets_its_shares(shares: Shares) -> None:
    items = plan(1000, shares, np.random.default_rng(1))
    for shot, share in shares.shot_types().items():
        assert sum(i.shot_type is shot for i in items) == round(1000 * share)
    for attribute, share in shares.attributes().items():
        assert sum(attribute in i.attributes for i in items) == round(1000 * share)


def test_shares_that_exceed_the_whole_are_refused() -> None:
    with pytest.raises(ValueError, match="must not sum to more than 1"):
        Shares(close_up=0.7, far=0.4)
    with pytest.raises(ValueError, match="must lie in"):
        Shares(occlusion=-0.1)


def test_a_dataset_folder_holds_pictures_captions_and_truth(tmp_path: Path) -> None:
    truths = make_dataset(tmp_path / "a", HELD_OUT["zibo"], 30, TRIAL_SHARES, 5, size=48, trigger="zibo")
    back = read_truth(tmp_path / "a")
    assert len(back) == len(truths) == len(list((tmp_path / "a").glob("*.png"))) == 30
    for name, truth in back.items():
        caption = (tmp_path / "a" / name).with_suffix(".txt").read_text()
        assert caption.startswith("zibo") == (len(truth.characters) > 0)
        assert all(c.name == "zibo" for c in truth.characters)
    assert sum(t.shot_type is ShotType.CLOSE_UP for t in truths) == 12
    make_dataset(tmp_path / "b", HELD_OUT["zibo"], 30, TRIAL_SHARES, 5, size=48, trigger="zibo")
    for path in sorted((tmp_path / "a").iterdir()):
        assert path.read_bytes() == (tmp_path / "b" / path.name).read_bytes()


def test_places_are_busy_and_empty(tmp_path: Path) -> None:
    truths = make_places(tmp_path / "places", 8, 5, size=48)
    assert len(truths) == len(list((tmp_path / "places").glob("*.png"))) == 8
    assert all(not t.characters and t.attributes == {Attribute.COMPLEX_BACKGROUND} for t in truths)
    captions = [p.read_text() for p in (tmp_path / "places").glob("*.txt")]
    assert all(c.startswith(("no people", "nobody")) for c in captions)


def test_truth_survives_json() -> None:
    truth = draw(3, ShotType.FULL_BODY).truth
    again = truth_from_json(truth_to_json(truth))
    assert truth_to_json(again) == truth_to_json(truth)
    assert again.characters[0].name == truth.characters[0].name


def test_references_show_one_clear_character() -> None:
    pictures = reference_pictures(HELD_OUT["tokko"], 4, 1, size=48)
    truths: list[Truth] = [p.truth for p in pictures]
    assert all(t.count == 1 and not t.attributes and t.characters[0].name == "tokko" for t in truths)


@FEW
@given(SEEDS)
def test_body_points_lie_on_the_body(seed: int) -> None:
    scene = random_scene(np.random.default_rng(seed), shot_type=ShotType.FULL_BODY, multi_character=False)
    drawn = render(scene, 96)
    who, points = drawn.truth.characters[0], body_points(scene, 96)[0]
    assert (points[:, 2] > 0).all()
    box = who.box
    assert ((points[:, 0] >= box.x0) & (points[:, 0] <= box.x1) & (points[:, 1] >= box.y0)).all()
    assert (points[:, 1] <= box.y1).all()
    if not scene.occluders:
        assert (points[:, 2] == 2).all()
    # From head to foot, and the character's own left on the picture's right where it faces the viewer.
    nose, shoulders, hips, knees, ankles = (
        points[a:b, 1].mean() for a, b in ((0, 1), (5, 7), (11, 13), (13, 15), (15, 17))
    )
    assert nose < shoulders < hips < knees < ankles
    assert points[5, 0] > points[6, 0] and points[1, 0] > points[2, 0]


def test_points_outside_the_picture_are_not_seen() -> None:
    scene = random_scene(np.random.default_rng(3), shot_type=ShotType.CLOSE_UP, multi_character=False, occlusion=False)
    points = body_points(scene, 96)[0]
    assert (points[11:, 2] == 0).all() and (points[:3, 2] == 2).all()


def test_the_points_of_those_who_wave_cheer_and_stand_name_their_pose() -> None:
    named: dict[Action, str | None] = {}
    actions: tuple[Action, ...] = ("waving", "cheering", "standing")
    for k, action in enumerate(actions):
        rng = np.random.default_rng(k)
        scene = random_scene(rng, shot_type=ShotType.FULL_BODY, multi_character=False, occlusion=False)
        person = dataclasses.replace(scene.people[0], pose=random_pose(rng, action))
        points = body_points(dataclasses.replace(scene, people=(person,)), 96)[0]
        named[action] = name_pose([Keypoint(x, y, float(v > 0)) for x, y, v in points.tolist()])
    assert named == {"waving": "arm raised", "cheering": "arms raised", "standing": "standing"}


def test_truth_is_immutable() -> None:
    with pytest.raises(dataclasses.FrozenInstanceError):
        draw(1).truth.size = 3  # pyright: ignore[reportAttributeAccessIssue]
