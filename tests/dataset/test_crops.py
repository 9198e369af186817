"""Crops of any character in any picture: inside it, of a bucket's shape, the head whole."""

import numpy as np
from hypothesis import given
from hypothesis import strategies as st

from onmodel.core.vocabulary import Box, ShotType
from onmodel.dataset.analysis import InstanceRow, Row
from onmodel.dataset.crops import CropConfig, crop_window, has_even_edges


@st.composite
def rows(draw: st.DrawFn) -> Row:
    """A character of three to six heads somewhere in a picture, cut below for a medium shot."""
    width, height = draw(st.integers(200, 1400)), draw(st.integers(200, 1400))
    shot = draw(st.sampled_from([ShotType.FULL_BODY, ShotType.MEDIUM]))
    tall = draw(st.floats(0.5, 0.95)) * height
    y0 = draw(st.floats(0.0, 1.0)) * (height - tall)
    y1 = y0 + tall if shot is ShotType.FULL_BODY else float(height)
    head = (y1 - y0) / draw(st.floats(3.0, 6.0))
    wide = min(draw(st.floats(1.2, 3.0)) * head, 0.9 * width)
    x0 = draw(st.floats(0.0, 1.0)) * (width - wide)
    face = (x0 + wide / 2 - head / 3, y0, x0 + wide / 2 + head / 3, y0 + head)
    main = InstanceRow(box=(x0, y0, x0 + wide, y1), confidence=0.9, label="c", face=face)
    return Row(file="a.png", hash="0", width=width, height=height, shot_type=shot, main=0, instances=(main,))


CONFIGS = [CropConfig(), CropConfig(resolution=96, min_side=24), CropConfig(resolution=768, min_side=100)]


@given(rows(), st.sampled_from([ShotType.MEDIUM, ShotType.CLOSE_UP]), st.sampled_from(CONFIGS), st.integers(0, 3))
def test_windows(row: Row, shot: ShotType, config: CropConfig, variant: int) -> None:
    window = crop_window(row, shot, config, np.random.default_rng(variant), variant)
    if window is None:
        return
    assert 0 <= window.x0 < window.x1 <= row.width
    assert 0 <= window.y0 < window.y1 <= row.height
    assert min(window.width, window.height) >= config.min_side
    # Of a bucket's shape to within half a pixel, so that training cuts nothing more off.
    assert any(abs(window.width - window.height * wide / high) <= 0.5 for wide, high in config.shapes)
    main = row.main_instance
    assert main is not None
    assert main.face is not None
    face = Box(*main.face)
    assert window.y0 <= face.y0 + 1
    assert window.y1 >= face.y1
    assert window.y1 <= main.box[3] + 1
    inside = Box(max(face.x0, 0), face.y0, min(face.x1, row.width), face.y1)
    if window.width >= 1.5 * face.width:
        assert window.intersection(inside) >= 0.9 * inside.area


def test_shapes_are_buckets() -> None:
    shapes = CropConfig(resolution=512).shapes
    assert (512, 512) in shapes
    assert all(w % 64 == h % 64 == 0 and w * h <= 512 * 512 for w, h in shapes)
    assert CropConfig(resolution=24).shapes == [(64, 64)] or all(w > 0 < h for w, h in CropConfig(resolution=24).shapes)


def test_stripes_are_not_continued() -> None:
    image = np.full((100, 100, 3), 200, np.uint8)
    image[60:] = 120
    assert has_even_edges(image)
    fence = image.copy()
    fence[:, ::10] = 0
    assert not has_even_edges(fence)
    shadow = image.copy()
    shadow[90:, 40:55] -= 8
    assert not has_even_edges(shadow)
    shelves = image.copy()
    shelves[::10] = 0
    assert not has_even_edges(shelves)
