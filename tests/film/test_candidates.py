"""Cuts are found, useless frames are dropped and counted, near-duplicates are folded."""

from collections import Counter
from collections.abc import Iterator
from pathlib import Path

import cv2
import numpy as np
import pytest

from onmodel.core.images import RGB
from onmodel.film.candidates import BEYOND, Candidate, Counted, SamplingConfig, candidates
from onmodel.film.decode import Reader, pieces, probe
from onmodel.film.quality import Fault, QualityConfig, is_blurred, is_title_card

from .made import scene, write_film

KEEP_ALL = QualityConfig(near_duplicate_bits=-1)


def run(path: Path, config: SamplingConfig, part_s: float = 1000.0) -> tuple[list[Candidate], list[Counted]]:
    film = probe(path)
    found: list[Candidate] = []
    counts: list[Counted] = []
    for part in pieces(film, part_s):
        counts.append(Counted())
        found += candidates(Reader(film).read(*part, beyond=BEYOND), config, counts[-1])
    return sorted(found, key=lambda c: c.time_s), counts


def shots(*seeds: int, frames: int = 10) -> Iterator[RGB]:
    for seed in seeds:
        yield from (scene(seed, step=n) for n in range(frames))


def test_each_span_of_each_shot_gives_one_frame(tmp_path: Path) -> None:
    path = write_film(tmp_path / "film.mp4", shots(1, 2, 3, frames=15))
    found, (counted,) = run(path, SamplingConfig(span_s=0.5, quality=KEEP_ALL))
    assert (counted.frames, counted.shots, counted.cut_at_end) == (45, 3, False)
    assert Counter(c.shot for c in found) == {0: 3, 1: 3, 2: 3}
    for shot in range(3):
        inside = [c.time_s - 1.5 * shot for c in found if c.shot == shot]
        assert [int(t / 0.5 + 1e-6) for t in inside] == [0, 1, 2]


def test_a_part_knows_whether_a_cut_follows_it(tmp_path: Path) -> None:
    path = write_film(tmp_path / "film.mp4", shots(1, 2, frames=20), gop=10)
    _, counts = run(path, SamplingConfig(quality=KEEP_ALL), part_s=1.0)
    assert [(c.frames, c.cut_at_end) for c in counts] == [(10, False), (10, True), (10, False), (10, False)]


def test_the_sharpest_frame_stands_for_its_span(tmp_path: Path) -> None:
    sharp = [scene(1, step=n) for n in range(10)]
    frames = [
        image if n == 3 else cv2.GaussianBlur(image, (5, 5), 1.0).astype(np.uint8) for n, image in enumerate(sharp)
    ]
    found, _ = run(write_film(tmp_path / "film.mp4", frames), SamplingConfig(span_s=2.0))
    assert [round(c.time_s, 2) for c in found] == [0.3]


@pytest.mark.parametrize("looks", [1, 2])
def test_of_near_duplicates_the_sharpest_are_looked_at(tmp_path: Path, looks: int) -> None:
    still = scene(5)
    soft = cv2.GaussianBlur(still, (3, 3), 0.8).astype(np.uint8)
    frames = [soft] * 10 + [still] * 10 + [soft] * 10
    found, _ = run(write_film(tmp_path / "film.mp4", frames), SamplingConfig(span_s=0.5, looks=looks))
    kept = [c for c in found if c.fault is None]
    assert len(kept) == looks
    assert all(1.0 <= c.time_s < 2.0 for c in kept)
    assert Counter(c.fault for c in found)[Fault.NEAR_DUPLICATE] == len(found) - looks == 6 - looks
    assert all(c.frame is None for c in found if c.fault is not None)


def test_black_frames_and_fades_are_dropped(tmp_path: Path) -> None:
    first, second = scene(1, step=3), scene(2, step=12)
    down = [(first * (1 - n / 12)).astype(np.uint8) for n in range(1, 12)]
    up = [(second * (n / 12)).astype(np.uint8) for n in range(1, 12)]
    frames = [first] * 10 + down + [np.zeros_like(first)] * 10 + up + [second] * 10
    found, _ = run(write_film(tmp_path / "film.mp4", frames), SamplingConfig(span_s=0.2, quality=KEEP_ALL))
    counts = Counter(c.fault for c in found)
    assert counts[Fault.BLACK] >= 4
    assert counts[Fault.FADE] >= 4
    assert all(c.time_s < 1.3 or c.time_s > 3.7 for c in found if c.fault is None)


def test_a_dissolve_is_dropped_and_a_moving_camera_is_not(tmp_path: Path) -> None:
    first, second = scene(1, step=3), scene(2, step=12)
    blend = [(first * (1 - n / 12) + second * (n / 12)).astype(np.uint8) for n in range(1, 12)]
    config = SamplingConfig(span_s=0.2, quality=KEEP_ALL)
    found, _ = run(write_film(tmp_path / "film.mp4", [first] * 8 + blend + [second] * 8), config)
    assert Counter(c.fault for c in found)[Fault.FADE] >= 3
    wide = scene(3, width=400)
    pan = [np.ascontiguousarray(wide[:, 6 * n : 6 * n + 128]) for n in range(40)]
    found, _ = run(write_film(tmp_path / "pan.mp4", pan), config)
    assert not [c for c in found if c.fault is Fault.FADE]


def test_a_title_card_is_dropped(tmp_path: Path) -> None:
    card = np.full((72, 128, 3), (20, 20, 90), np.uint8)
    cv2.putText(card, "PART TWO", (14, 42), cv2.FONT_HERSHEY_SIMPLEX, 0.6, (250, 250, 250), 1)
    found, _ = run(write_film(tmp_path / "film.mp4", [*shots(1), *([card] * 10)]), SamplingConfig(span_s=0.5))
    assert {c.fault for c in found if c.time_s >= 1.0} <= {Fault.TITLE_CARD, Fault.NEAR_DUPLICATE}
    assert Fault.TITLE_CARD in {c.fault for c in found}
    # A character before an even wall is no lettering.
    wall = np.full((72, 128, 3), (200, 210, 180), np.uint8)
    cv2.circle(wall, (64, 40), 20, (120, 60, 40), -1)
    assert not is_title_card(wall, QualityConfig())


def test_blur_is_judged_by_its_shot() -> None:
    config = QualityConfig()
    assert is_blurred(config.blur_floor - 1, [], config)
    assert not is_blurred(20.0, [22.0] * 10, config)
    assert is_blurred(20.0, [200.0] * 10, config)
    assert not is_blurred(20.0, [200.0] * 3, config)


def test_a_blurred_frame_among_sharp_ones_is_dropped(tmp_path: Path) -> None:
    # A camera that is jerked: blurred more and more, then less.
    sharp = [scene(1, step=n // 2) for n in range(40)]
    strength = {n: 3.0 - abs(n - 22) for n in range(20, 25)}
    frames = [
        cv2.GaussianBlur(image, (0, 0), strength[n]).astype(np.uint8) if n in strength else image
        for n, image in enumerate(sharp)
    ]
    found, _ = run(write_film(tmp_path / "film.mp4", frames), SamplingConfig(span_s=0.1, quality=KEEP_ALL))
    blurred = [round(c.time_s, 1) for c in found if c.fault is Fault.BLUR]
    assert blurred
    assert set(blurred) <= {2.0, 2.1, 2.2, 2.3, 2.4}
