"""Stacks of near-duplicates, rankings, and the background work that finds them."""

import shutil
import time
from collections.abc import Callable, Sequence
from pathlib import Path

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from hypothesis.extra import numpy as arrays

from onmodel.core.images import RGB
from onmodel.core.likeness import NEAR_DUPLICATE_BITS, distance
from onmodel.curation.background import Background, Embedder
from onmodel.curation.cache import Cache
from onmodel.curation.embedders import LocalEmbedder
from onmodel.curation.similar import Floats, best, nearest_by_fingerprint, stack
from onmodel.scoring.config import ScorerConfig

from .made import catalogue_of, fresh

bits = st.sampled_from([0, 1, 3, 7, 0xFF, 0xFFFF, 2**63, 2**64 - 1])


@given(st.lists(st.tuples(bits, st.integers(0, 3), st.sampled_from("ab")), max_size=12))
def test_stacks_hold_near_duplicates_of_one_group_once(rows: list[tuple[int, int, str]]) -> None:
    prints = np.array([row[0] for row in rows], dtype=np.uint64)
    sharp = np.array([row[1] for row in rows], dtype=np.float32)
    groups = [row[2] for row in rows]
    stacks = stack(prints, sharp, groups)
    members = [at for each in stacks for at in each]
    assert len(members) == len(set(members))
    for leader, *rest in stacks:
        assert rest
        assert sharp[leader] == max(sharp[at] for at in (leader, *rest))
        for at in rest:
            assert groups[at] == groups[leader]
            assert distance(int(prints[at]), int(prints[leader])) <= NEAR_DUPLICATE_BITS
    # What stands alone is near no other that stands alone or leads.
    alone = [at for at in range(len(rows)) if at not in members] + [each[0] for each in stacks]
    for one in alone:
        for other in alone:
            if one < other and groups[one] == groups[other]:
                assert distance(int(prints[one]), int(prints[other])) > NEAR_DUPLICATE_BITS


@given(arrays.arrays(np.float32, st.integers(1, 9), elements=st.floats(0, 1, width=32)))
def test_best_is_in_order(likeness: Floats) -> None:
    chosen = best(likeness, 5)
    assert [likeness[at] for at in chosen] == sorted(likeness.tolist(), reverse=True)[:5]


def test_fingerprints_compare_to_one_and_zero() -> None:
    found = nearest_by_fingerprint(np.array([0, 2**64 - 1, 1], dtype=np.uint64), 0)
    assert found.tolist() == [1.0, 0.0, 1 - 1 / 64]


def settled(background: Background, done: Callable[[Background], bool]) -> None:
    for _ in range(1500):
        if done(background):
            return
        time.sleep(0.02)
    raise AssertionError(f"the background work did not get there: {background.progress}")


def run(folder: Path, cache: Path, embedder: Callable[[], Embedder] | None) -> Background:
    catalogue = catalogue_of(folder)
    background = Background(catalogue, Cache(cache), embedder)
    background.start()
    total = len(catalogue.entries)
    settled(background, lambda b: b.progress.looked == total and b.progress.stacks > 0)
    if embedder is not None:
        settled(background, lambda b: b.progress.embedded == total or b.progress.note is not None)
    background.stop()
    return background


class Refusing:
    """A model that must not be needed."""

    def __init__(self, key: str) -> None:
        self.key = key

    def embed(self, images: Sequence[RGB]) -> Floats:
        raise AssertionError(f"{len(images)} crops are embedded again")


def test_clip_finds_the_same_character(made: Path, tmp_path: Path) -> None:
    embedder = LocalEmbedder(ScorerConfig())
    background = run(made, tmp_path, lambda: embedder)
    catalogue = catalogue_of(made)
    hits = 0
    queries = [entry for entry in catalogue.entries if entry.group != "outliers"]
    for entry in queries:
        found = background.similar(entry)
        assert found.by == "embedding"
        assert found.note is None
        assert found.ids[0] == (entry.id, 1.0)
        hits += catalogue.entry(found.ids[1][0]).group == entry.group
    # Measured: 17 of 18; chance would be about 9.
    assert hits >= 0.8 * len(queries)
    again = run(made, tmp_path, lambda: Refusing(embedder.key))
    assert again.progress.embedded == len(catalogue.entries)


def test_near_duplicates_are_stacked_and_remembered(made: Path, tmp_path: Path) -> None:
    background = run(made, tmp_path, None)
    catalogue = catalogue_of(made)
    stacks = [[catalogue.entry(each).path.name for each in members] for members in background.stacks]
    mine = next(names for names in stacks if "near_1.png" in names)
    assert {"near_1.png", "near_2.png"} < set(mine)
    # A second run reads no picture.
    gone = fresh(made, tmp_path / "gone")
    known = catalogue_of(gone)
    shutil.rmtree(gone)
    second = Background(known, Cache(tmp_path), None)
    second.start()
    settled(second, lambda b: b.progress.looked == len(known.entries))
    second.stop()
    assert second.stacks == background.stacks


def test_without_embeddings_the_hash_answers_and_says_so(made: Path, tmp_path: Path) -> None:
    def broken() -> Embedder:
        return LocalEmbedder(ScorerConfig(model="./nowhere"))

    background = run(made, tmp_path, broken)
    assert background.progress.note is not None
    catalogue = catalogue_of(made)
    near = next(entry for entry in catalogue.entries if entry.path.name == "near_1.png")
    found = background.similar(near)
    assert found.by == "fingerprint"
    assert found.note is not None
    assert "nowhere" in found.note
    names = [catalogue.entry(each).path.name for each, _ in found.ids[:3]]
    assert "near_2.png" in names
    scores = [score for _, score in found.ids[1:]]
    assert scores == sorted(scores, reverse=True)


def test_before_anything_was_looked_at(made: Path, tmp_path: Path) -> None:
    catalogue = catalogue_of(made)
    background = Background(catalogue, Cache(tmp_path), None)
    found = background.similar(catalogue.entries[0])
    assert [each for each, _ in found.ids] == [catalogue.entries[0].id]
    assert found.note == f"looked at 1 of {len(catalogue.entries)} so far"


def test_a_damaged_cache_is_made_anew(made: Path, tmp_path: Path) -> None:
    (tmp_path / "cache.sqlite").write_bytes(b"rubbish" * 1000)
    assert run(made, tmp_path, None).progress.looked == len(catalogue_of(made).entries)


def test_a_picture_that_vanishes_stops_nothing(made: Path, tmp_path: Path) -> None:
    folder = fresh(made, tmp_path / "set")
    catalogue = catalogue_of(folder)
    catalogue.entries[1].path.unlink()
    background = Background(catalogue, Cache(tmp_path / "cache"), None)
    background.start()
    settled(background, lambda b: b.progress.looked == len(catalogue.entries))
    background.stop()
    assert len(background.similar(catalogue.entries[0]).ids) == len(catalogue.entries) - 1
    with pytest.raises(Exception, match="cannot be read"):
        background.similar(catalogue.entries[1])
