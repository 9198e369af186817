"""Toybox films: what is written is what the truth says, and everything follows from the seed."""

import dataclasses
from pathlib import Path

import av
import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from onmodel.core.images import RGB
from onmodel.core.vocabulary import Attribute, ShotType
from onmodel.toybox.body import random_pose
from onmodel.toybox.character import Character, random_character
from onmodel.toybox.dataset import Plan
from onmodel.toybox.film import FilmTruth, make_film, read_film_truth, truth_path
from onmodel.toybox.motion import Camera, between, make_take
from onmodel.toybox.render import render
from onmodel.toybox.scene import FRAMED


def cast(count: int, seed: int = 5) -> list[Character]:
    rng = np.random.default_rng(seed)
    return [random_character(rng) for _ in range(count)]


@pytest.fixture(scope="module")
def film(tmp_path_factory: pytest.TempPathFactory) -> FilmTruth:
    """Forty seconds in small frames with one drawing a second: every kind of part, little rendering."""
    path = tmp_path_factory.mktemp("film") / "short.mp4"
    return make_film(path, cast(3), seconds=40, seed=2, size=48, fps=8, held=8)


def pictures(film: FilmTruth) -> list[RGB]:
    with av.open(str(film.path)) as container:
        return [frame.to_ndarray(format="rgb24").astype(np.uint8) for frame in container.decode(video=0)]


def test_every_frame_has_its_truth(film: FilmTruth) -> None:
    frames = pictures(film)
    assert len(frames) == len(film.frames) == 40 * 8
    assert frames[0].shape == (48, 48, 3)
    with av.open(str(film.path)) as container:
        assert container.streams.video[0].codec_context.name == "h264"
    assert [f.time_s for f in film.frames] == [k / 8 for k in range(320)]
    assert {f.kind for f in film.frames} == {"take", "fade", "black", "card"}
    for image, frame in zip(frames, film.frames, strict=True):
        if frame.kind == "black":
            assert image.mean() < 4
        if frame.kind in ("black", "card"):
            assert frame.truth.count == 0 and frame.truth.shot_type is ShotType.UNCLASSIFIED
    light = {kind: np.mean([i.mean() for i, f in zip(frames, film.frames, strict=True) if f.kind == kind])
             for kind in ("take", "fade")}  # fmt: skip
    assert light["fade"] < 0.75 * light["take"]


def test_cuts_change_the_picture_and_takes_flow(film: FilmTruth) -> None:
    frames = [image.astype(np.float64) for image in pictures(film)]
    cuts, flow = [], []
    for k in range(1, len(frames)):
        now, before = film.frames[k], film.frames[k - 1]
        if {now.kind, before.kind} == {"take"}:
            (flow if now.shot == before.shot else cuts).append(float(np.abs(frames[k] - frames[k - 1]).mean()))
    assert min(cuts) > 4 * float(np.mean(flow))
    assert np.median(cuts) > 20


def test_all_shot_types_and_attributes_occur(film: FilmTruth) -> None:
    assert {f.truth.shot_type for f in film.frames} == set(ShotType)
    assert {a for f in film.frames for a in f.truth.attributes} == set(Attribute)
    mains = [frames[0].truth.characters[0].name for frames in film.shots.values() if frames[0].truth.characters]
    assert set(mains) == {c.name for c in cast(3)}
    assert {c.name for f in film.frames for c in f.truth.characters} == {c.name for c in cast(3)}


def test_the_truth_is_kept_beside_the_film(film: FilmTruth) -> None:
    again = read_film_truth(film.path)
    assert truth_path(film.path).name == "short.truth.jsonl"
    assert again.fps == film.fps and len(again.frames) == len(film.frames)
    for a, b in zip(again.frames, film.frames, strict=True):
        assert (a.time_s, a.shot, a.kind, a.doubtful) == (pytest.approx(b.time_s), b.shot, b.kind, b.doubtful)
        assert a.truth.attributes == b.truth.attributes
        assert [c.name for c in a.truth.characters] == [c.name for c in b.truth.characters]
    assert film.at(10.0) is film.frames[80]
    assert film.at(1e6) is film.frames[-1]


def test_the_seed_decides_every_byte(tmp_path: Path) -> None:
    films = [make_film(tmp_path / f"{k}.mp4", cast(2), seconds=2.5, seed=9, size=32, fps=4) for k in range(2)]
    assert films[0].path.read_bytes() == films[1].path.read_bytes()
    assert films[0].frames == films[1].frames
    other = make_film(tmp_path / "other.mp4", cast(2), seconds=2.5, seed=10, size=32, fps=4)
    assert other.path.read_bytes() != films[0].path.read_bytes()


def test_a_cast_of_one_has_no_company(tmp_path: Path) -> None:
    film = make_film(tmp_path / "one.mp4", cast(1), seconds=16, seed=1, size=32, fps=2)
    assert all(len(f.truth.characters) <= 1 for f in film.frames)


@pytest.mark.parametrize(("people", "seconds", "size"), [(0, 5.0, 64), (2, 5.0, 63), (2, 0.0, 64)])
def test_what_cannot_be_a_film_is_refused(tmp_path: Path, people: int, seconds: float, size: int) -> None:
    with pytest.raises(ValueError, match="a film needs"):
        make_film(tmp_path / "no.mp4", cast(people), seconds=seconds, seed=1, size=size)
    assert not list(tmp_path.iterdir())


@settings(max_examples=12, deadline=None)
@given(seed=st.integers(0, 2**32 - 1), shot=st.sampled_from(FRAMED), company=st.booleans())
def test_a_take_keeps_its_framing_and_moves_smoothly(seed: int, shot: ShotType, company: bool) -> None:
    rng = np.random.default_rng(seed)
    marks = frozenset({Attribute.MULTI_CHARACTER} if company else ())
    take = make_take(Plan(shot, marks), None, cast(2), rng, seconds=3.0)
    assert take.keeps_framing
    moments = [take.at(k / 30) for k in range(31)]
    feet = np.array([[s.people[0].foot_x, s.people[0].foot_y, s.people[0].unit] for s in moments])
    assert np.abs(np.diff(feet, axis=0)).max() < 0.06
    turns = np.array([s.people[0].pose.head_yaw for s in moments])
    assert np.abs(np.diff(turns)).max() < 0.4
    assert take.window(take.paint(32), 0.4).shape == (32, 32, 3)


@settings(max_examples=5, deadline=None)
@given(seed=st.integers(0, 2**32 - 1))
def test_what_passes_hides_and_is_gone(seed: int) -> None:
    rng = np.random.default_rng(seed)
    plan = Plan(ShotType.MEDIUM, frozenset({Attribute.OCCLUSION}))
    take = make_take(plan, None, (), rng, seconds=3.0, passing=True)
    seen = [render(take.at(k / 10), 32).truth.characters[0].visible_fraction for k in range(11)]
    assert seen[0] == seen[-1] == 1.0
    assert min(seen) < 0.93


def test_camera_and_poses_start_and_end_where_told() -> None:
    camera = Camera((1.0, 1.1), (-1.0, 1.0), (0.0, 1.0))
    assert camera.at(0.0) == dataclasses.replace(camera.at(0.0), zoom=1.0, shift_x=0.0, shift_y=0.0)
    end = camera.at(1.0)
    # Panned wholly to one side, that side of the frame is the painted picture's own.
    assert end.zoom * 0.0 + end.shift_x == pytest.approx(0.0)
    rng = np.random.default_rng(1)
    a, b = random_pose(rng, "waving"), random_pose(rng, "waving")
    assert between(a, b, 0.0) == a
    last = between(a, b, 1.0)
    assert last.arm_out == pytest.approx(b.arm_out) and last.gaze == pytest.approx(b.gaze)
    assert last.yaw == pytest.approx(b.yaw)


def test_the_backdrop_moves_with_the_camera() -> None:
    rng = np.random.default_rng(4)
    take = make_take(Plan(ShotType.UNCLASSIFIED, frozenset({Attribute.COMPLEX_BACKGROUND})), None, (), rng, seconds=3.0)
    take = dataclasses.replace(take, camera=Camera((1.0, 2.0), (1.0, 1.0), (1.0, 1.0)))
    painted = take.paint(64)
    # Pan (1, 1) at zoom 2 shows the lower left quarter: x and y shifts are 0 from there.
    corner = painted[32:, :32].reshape(16, 2, 16, 2, 3).mean(axis=(1, 3))
    shown = take.window(painted, 1.0).reshape(16, 4, 16, 4, 3).mean(axis=(1, 3))
    assert np.abs(corner - shown).mean() < 0.03
