"""Who is ours: likeness, the threshold, and references that show two characters."""

from dataclasses import replace
from pathlib import Path

import cv2
import numpy as np
import pytest

from onmodel.core.errors import UserError
from onmodel.core.images import RGB, encode_png
from onmodel.core.vocabulary import Box, ShotType
from onmodel.film.identity import (
    BINS,
    Character,
    IdentityConfig,
    build,
    hidden_share,
    likeness,
    load_character,
    signature,
    threshold,
)

from .made import LightLook, scene

CONFIG = IdentityConfig()
BOX = Box(30, 10, 70, 90)


def dressed(colour: tuple[int, int, int], background: tuple[int, int, int] = (60, 120, 60)) -> RGB:
    """A figure of one colour in BOX."""
    image = np.full((100, 100, 3), background, np.uint8)
    cv2.ellipse(image, (50, 50), (20, 40), 0, 0, 360, colour, -1)
    return image


def unit(*values: float) -> np.ndarray:
    row = np.asarray(values, np.float32)
    return row / np.linalg.norm(row)


def character(*colours: tuple[int, int, int], genuine: float = 1.0) -> Character:
    signatures = np.stack([signature(dressed(colour), BOX) for colour in colours])
    return Character("c", np.stack([unit(1, 0)] * len(colours)), signatures, genuine)


def test_colours_tell_characters_apart() -> None:
    ours = character((230, 120, 20), (220, 110, 30))
    same, other = (signature(dressed(c, (20, 20, 90)), BOX) for c in ((225, 115, 25), (40, 60, 220)))
    near, far = likeness(np.stack([unit(1, 0), unit(0, 1)]), np.stack([same, other]), ours, CONFIG)
    assert near > 0.9
    assert far < 0.2


def test_the_nearer_half_of_the_references_counts() -> None:
    # A character in two dresses: a picture of either is like it.
    ours = character((230, 120, 20), (228, 118, 22), (40, 60, 220), (42, 62, 222))
    for colour in ((229, 119, 21), (41, 61, 221)):
        (value,) = likeness(unit(1, 0)[None], signature(dressed(colour), BOX)[None], ours, CONFIG)
        assert value > 0.95


def test_something_in_front_is_seen_by_its_colour() -> None:
    ours = character((230, 120, 20))
    free = dressed((230, 120, 20))
    hidden = free.copy()
    cv2.rectangle(hidden, (35, 40), (65, 65), (230, 40, 230), -1)
    assert hidden_share(free, BOX, ours) < 0.02
    assert hidden_share(hidden, BOX, ours) > 0.2
    # The background seen between limbs is no thing in front.
    gap = free.copy()
    cv2.rectangle(gap, (45, 60), (55, 90), (60, 120, 60), -1)
    assert hidden_share(gap, BOX, ours) < 0.02


def test_where_a_colour_is_counts() -> None:
    top, bottom = dressed((230, 120, 20)), dressed((40, 60, 220))
    upper = np.concatenate([top[:50], bottom[50:]])
    lower = np.concatenate([bottom[:50], top[50:]])
    ours = Character("c", unit(1, 0)[None], signature(upper, BOX)[None], 1.0)
    rows = np.stack([signature(upper, BOX), signature(lower, BOX)])
    same, turned = likeness(np.stack([unit(1, 0)] * 2), rows, ours, CONFIG)
    assert same > 0.99
    assert turned < same - 0.1


def references(*groups: tuple[RGB, int]) -> tuple[np.ndarray, np.ndarray, list[Path]]:
    pictures = [image for image, count in groups for _ in range(count)]
    rows = [unit(1, n) for n, (_, count) in enumerate(groups) for _ in range(count)]
    names = [Path(f"refs/{n}.png") for n in range(len(pictures))]
    return np.stack(rows), np.stack([signature(image, BOX) for image in pictures]), names


def test_references_of_two_characters_are_refused_with_both_groups() -> None:
    rows, colours, names = references((dressed((230, 120, 20)), 3), (dressed((40, 60, 220)), 2))
    with pytest.raises(UserError, match=r"two characters: (0\.png, 1\.png, 2\.png and 3\.png, 4\.png|3.*and 0.*) are"):
        build("c", rows, colours, names, CONFIG, (), [ShotType.MEDIUM] * len(names))


def test_close_ups_and_full_bodies_of_one_character_are_no_two_characters() -> None:
    """Unlike each other they are, but of different framing; a close-up and a full body in each group tell."""
    rows, colours, names = references((dressed((230, 120, 20)), 3), (dressed((40, 60, 220)), 3))
    near, whole = ShotType.CLOSE_UP, ShotType.FULL_BODY
    assert build("c", rows, colours, names, CONFIG, (), [near] * 3 + [whole] * 3).name == "c"
    with pytest.raises(UserError, match="two characters"):
        build("c", rows, colours, names, CONFIG, (), [near, near, whole, whole, whole, near])


def test_one_odd_reference_is_named() -> None:
    rows, colours, names = references((dressed((230, 120, 20)), 4), (dressed((40, 60, 220)), 1))
    (note,) = build("c", rows, colours, names, CONFIG, (), [ShotType.MEDIUM] * len(names)).notes
    assert note.startswith(f"{names[4]}: is less like the other references")
    alone = build("c", rows[:1], colours[:1], names[:1], CONFIG, (), [ShotType.MEDIUM])
    assert "one reference picture says little" in alone.notes[0]
    assert not build("c", rows[:4], colours[:4], names[:4], CONFIG, (), [ShotType.MEDIUM] * 4).notes


def test_the_threshold_follows_the_references_and_the_framing() -> None:
    ours = Character("c", np.zeros((3, 2), np.float32), np.zeros((3, BINS), np.float32), 0.85)
    by_framing = {shot: threshold(ours, shot, CONFIG) for shot in ShotType}
    assert all(0.85 - 0.25 < value <= 0.85 for value in by_framing.values())
    assert by_framing[ShotType.MEDIUM] > by_framing[ShotType.CLOSE_UP] > by_framing[ShotType.FAR]
    varied = replace(ours, spread=0.2)
    assert all(threshold(varied, shot, CONFIG) < value for shot, value in by_framing.items())
    assert threshold(ours, ShotType.FAR, IdentityConfig(threshold=0.4)) == 0.4


def test_a_reference_folder_is_read(tmp_path: Path) -> None:
    for number in range(3):
        (tmp_path / f"{number}.png").write_bytes(encode_png(scene(number, step=10)))
    (tmp_path / "broken.png").write_bytes(b"no picture")
    (tmp_path / "empty_wall.png").write_bytes(encode_png(np.full((40, 40, 3), 60, np.uint8)))
    (tmp_path / "notes.txt").write_text("not a picture")
    ours = load_character(tmp_path, LightLook(), CONFIG)
    assert ours.embeddings.shape[0] == ours.signatures.shape[0] == 3
    assert any("broken.png" in note for note in ours.notes)
    assert any("empty_wall.png: no character is found in it" in note for note in ours.notes)
    with pytest.raises(UserError, match="no such folder of reference pictures"):
        load_character(tmp_path / "none", LightLook(), CONFIG)
    (tmp_path / "nothing").mkdir()
    with pytest.raises(UserError, match="holds no picture that can be read"):
        load_character(tmp_path / "nothing", LightLook(), CONFIG)
