"""Boxes and counting."""

from hypothesis import given
from hypothesis import strategies as st

from onmodel.core.vocabulary import CATEGORIES, Box, count_categories, share

side = st.floats(0, 500)
boxes = st.builds(lambda x, y, w, h: Box(x, y, x + w, y + h), side, side, side, side)


@given(boxes, boxes)
def test_iou_is_symmetric_and_bounded(a: Box, b: Box) -> None:
    assert 0 <= a.iou(b) <= 1 + 1e-9
    assert abs(a.iou(b) - b.iou(a)) < 1e-9


@given(boxes, st.floats(1, 400), st.floats(1, 400))
def test_clip_stays_inside(box: Box, width: float, height: float) -> None:
    inside = box.clip(width, height)
    assert 0 <= inside.x0 <= width and 0 <= inside.y1 <= height
    assert inside.area <= box.area + 1e-6


@given(st.lists(st.frozensets(st.sampled_from(CATEGORIES))))
def test_counts_add_up(pictures: list[frozenset[str]]) -> None:
    counts = count_categories(pictures)
    assert tuple(counts) == CATEGORIES
    assert sum(counts.values()) == sum(len(p) for p in pictures)


def test_share_of_nothing_is_zero() -> None:
    assert share(0, 0) == 0
    assert share(41, 100) == 41
