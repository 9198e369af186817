"""Grouping as arrays: who belongs together, who never does, and what references name."""

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from onmodel.film.groups import GroupingConfig, Labels, Vectors, adopted, by_size, group, matches, similarity

CONFIG = GroupingConfig()


def blob(seed: int, middle: int, count: int, spread: float = 0.05, width: int = 24) -> Vectors:
    """Unit vectors around an axis."""
    rows = np.random.default_rng(seed).normal(0, spread, (count, width))
    rows[:, middle] += 1
    return rows / np.linalg.norm(rows, axis=1, keepdims=True)


def alone(count: int) -> list[int]:
    return list(range(count))


def sure(count: int) -> list[bool]:
    return [True] * count


def sizes(labels: Labels) -> list[int]:
    return np.bincount(labels[labels >= 0]).tolist()


@settings(max_examples=15, deadline=None)
@given(seed=st.integers(0, 2**31), counts=st.lists(st.integers(14, 30), min_size=2, max_size=4))
def test_separate_characters_are_found_and_ordered_by_size(seed: int, counts: list[int]) -> None:
    vectors = np.concatenate([blob(seed + k, k, n) for k, n in enumerate(counts)])
    truth = np.repeat(np.arange(len(counts)), counts)
    labels = group(vectors, alone(len(vectors)), sure(len(vectors)), CONFIG)
    assert sizes(labels) == sorted(sizes(labels), reverse=True)
    assert labels.max() + 1 == len(counts)
    for cluster in range(len(counts)):
        assert len(set(truth[labels == cluster])) == 1
    assert (labels < 0).mean() < 0.2


def test_one_character_is_one_cluster_though_density_sees_none() -> None:
    vectors = np.concatenate([blob(1, 0, 60), blob(2, 9, 2)])
    labels = group(vectors, alone(62), sure(62), CONFIG)
    assert sizes(labels) == [60]
    assert (labels[60:] == -1).all()


def test_too_few_are_no_cluster() -> None:
    assert (group(blob(1, 0, 4), alone(4), sure(4), CONFIG) == -1).all()
    assert group(np.zeros((0, 3)), [], [], CONFIG).shape == (0,)


def lookalikes(count: int = 24) -> tuple[Vectors, list[int]]:
    """Two characters nearer to each other than to anyone else, each of `count`."""
    first, second = blob(3, 0, count, 0.07), blob(4, 0, count, 0.07)
    second[:, 1] += 0.35
    second /= np.linalg.norm(second, axis=1, keepdims=True)
    return np.concatenate([first, second]), [0] * count + [1] * count


def test_lookalikes_that_meet_are_parted() -> None:
    vectors, truth = lookalikes()
    never = group(vectors, alone(48), sure(48), CONFIG)
    meeting = group(vectors, [*range(24), *range(24)], sure(48), CONFIG)
    assert sizes(never) == [48]
    assert len(sizes(meeting)) == 2
    agree = max(np.mean(meeting == truth), np.mean(meeting == 1 - np.array(truth)))
    assert agree > 0.9


def test_one_body_found_twice_parts_nobody() -> None:
    vectors = blob(5, 0, 60)
    pictures = [*range(58), 57, 58]
    assert sizes(group(vectors, pictures, sure(60), CONFIG)) == [60]


def test_uncertain_ones_found_nothing_but_may_join() -> None:
    certain = blob(1, 0, 30)
    uncertain = np.concatenate([blob(6, 0, 5), blob(7, 5, 20)])
    labels = group(np.concatenate([certain, uncertain]), alone(55), sure(30) + [False] * 25, CONFIG)
    assert sizes(labels) == [35]
    assert (labels[35:] == -1).all()


def test_what_lies_between_two_clusters_joins_neither() -> None:
    first, second = blob(1, 0, 20, 0.02), blob(2, 1, 20, 0.02)
    middle = (first[:1] + second[:1]) / np.linalg.norm(first[0] + second[0])
    labels = np.array([0] * 20 + [1] * 20 + [-1])
    loose = CONFIG.model_copy(update={"adopt_likeness": 0.5})
    assert adopted(labels, np.concatenate([first, second, middle]), loose)[-1] == -1
    assert adopted(labels, np.concatenate([first, second, first[:1]]), loose)[-1] == 0


@given(st.lists(st.integers(-1, 4), max_size=40))
def test_numbering_by_size_keeps_who_is_together(labels: list[int]) -> None:
    given_labels = np.array(labels, dtype=np.int64)
    numbered = by_size(given_labels)
    assert ((numbered < 0) == (given_labels < 0)).all()
    assert ((numbered[:, None] == numbered) == (given_labels[:, None] == given_labels)).all()
    assert sizes(numbered) == sorted(sizes(numbered), reverse=True)


def test_similarity_is_highest_in_the_middle() -> None:
    vectors = blob(1, 0, 30)
    labels = np.zeros(30, dtype=np.int64)
    values = similarity(vectors, labels)
    assert (values > 0.8).all() and (values <= 1 + 1e-9).all()
    assert values.argmax() == (vectors @ vectors.mean(axis=0)).argmax()
    labels[3] = -1
    assert np.isnan(similarity(vectors, labels)[3])


def test_references_name_their_cluster_and_strangers_none() -> None:
    vectors = np.concatenate([blob(1, 0, 30), blob(2, 1, 20)])
    labels = np.array([0] * 30 + [1] * 20)
    references = [blob(8, 1, 4), blob(9, 5, 4)]
    assert matches(references, vectors, labels, 0.8) == {1: 0}
    assert matches([], vectors, labels, 0.8) == {}


def test_grouping_is_deterministic() -> None:
    vectors = np.concatenate([blob(k, k % 3, 15) for k in range(4)])
    first, second = (group(vectors, alone(60), sure(60), CONFIG) for _ in range(2))
    assert (first == second).all()


@pytest.mark.parametrize("value", [{"min_cluster_size": 1}, {"reach": 0.0}, {"unknown": 1}])
def test_wrong_settings_are_refused(value: dict[str, float]) -> None:
    with pytest.raises(ValueError, match=next(iter(value))):
        GroupingConfig.model_validate(value)
