"""Head over body: where it can be seen, and how far pictures stray from the references."""

import dataclasses
import math

import pytest
from hypothesis import given
from hypothesis import strategies as st

from onmodel.core.vocabulary import Attribute, Box, Decision, Detections, Instance, ShotType
from onmodel.evaluation.proportions import head_to_body, proportions_of, stability, usual

WHOLE = Decision(ShotType.FULL_BODY, frozenset(), 0, "whole")
BODY = Instance(Box(30, 10, 60, 90), 0.9, "character", Box(35, 10, 55, 30))


def seen(instance: Instance, *occluders: Box) -> Detections:
    return Detections(100, 100, (instance,), occluders)


def test_head_over_body_from_the_top_of_the_head() -> None:
    assert head_to_body(seen(BODY), WHOLE) == pytest.approx(20 / 80)
    cheering = dataclasses.replace(BODY, box=Box(30, 3, 60, 90))
    assert head_to_body(seen(cheering), WHOLE) == pytest.approx(20 / 80), "raised arms do not count"


@pytest.mark.parametrize(
    ("detections", "decision"),
    [
        (seen(dataclasses.replace(BODY, face=None)), WHOLE),
        (seen(dataclasses.replace(BODY, box=Box(30, 10, 60, 100))), WHOLE),
        (seen(dataclasses.replace(BODY, box=Box(30, 0, 60, 90))), WHOLE),
        (seen(BODY, Box(20, 85, 70, 110)), WHOLE),
        (seen(BODY), dataclasses.replace(WHOLE, attributes=frozenset({Attribute.OCCLUSION}))),
        (seen(BODY), dataclasses.replace(WHOLE, shot_type=ShotType.MEDIUM)),
        (seen(BODY), dataclasses.replace(WHOLE, main=None)),
    ],
    ids=["no face", "cut below", "cut above", "feet behind", "hidden", "medium", "nobody"],
)
def test_not_where_it_cannot_be_seen(detections: Detections, decision: Decision) -> None:
    assert head_to_body(detections, decision) is None


def test_references_by_framing() -> None:
    found = proportions_of([("full_body", 0.2), ("full_body", 0.3), ("full_body", 0.4), ("far", 0.5), ("far", None)])
    assert found["full_body"].median == 0.3
    assert (found["far"].count, found["all"].count) == (1, 4)
    assert usual(found, "full_body") == 0.3
    assert usual(found, "far") == found["all"].median, "one far reference is no measure"
    assert math.isnan(usual({}, "far"))


heads = st.floats(0.05, 1.0)


@given(st.lists(heads, min_size=1, max_size=6), heads)
def test_one_only_where_every_picture_is_true_to_the_references(values: list[float], wanted: float) -> None:
    score = stability([(v, wanted) for v in values])
    assert 0 < score <= 1
    assert (score > 1 - 1e-9) <= all(math.isclose(v, wanted, rel_tol=1e-6) for v in values)
    assert score == pytest.approx(stability([(wanted, v) for v in values])), "too large counts as too small"


@given(st.lists(heads, min_size=2, max_size=6))
def test_without_references_it_is_steadiness(values: list[float]) -> None:
    alone = stability([(v, math.nan) for v in values])
    assert alone == pytest.approx(stability([(v / 2, math.nan) for v in values]))
    assert stability([(values[0], math.nan)] * 3) == 1.0
    assert math.isnan(stability([(values[0], math.nan)]))
    assert math.isnan(stability([]))
