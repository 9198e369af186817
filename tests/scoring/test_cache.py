"""Each picture's content is embedded once per model."""

from collections.abc import Sequence
from pathlib import Path

import numpy as np
import pytest

from onmodel.core.errors import ImageError, UserError
from onmodel.scoring.cache import EmbeddingCache
from onmodel.scoring.convert import Vector


class Counting:
    """Embeds a picture as its length; an empty one is broken."""

    def __init__(self) -> None:
        self.asked: list[bytes] = []

    def __call__(self, images: Sequence[bytes]) -> list[Vector | ImageError]:
        self.asked += images
        return [np.full(3, len(i), np.float32) if i else ImageError("picture: empty") for i in images]


def test_stored_pictures_are_not_asked_for_again(tmp_path: Path) -> None:
    embed = Counting()
    with EmbeddingCache(tmp_path / "sub" / "cache.sqlite") as cache:
        first = cache.embed_images([b"a", b"bb", b"a"], "model", embed)
    assert embed.asked == [b"a", b"bb"]
    with EmbeddingCache(tmp_path / "sub" / "cache.sqlite") as cache:
        second = cache.embed_images([b"bb", b"a", b"ccc"], "model", embed)
    assert embed.asked == [b"a", b"bb", b"ccc"]
    np.testing.assert_array_equal(np.stack([first[1], first[0]]), np.stack(second[:2]))  # type: ignore[arg-type]


def test_another_model_is_another_entry(tmp_path: Path) -> None:
    embed = Counting()
    with EmbeddingCache(tmp_path / "cache.sqlite") as cache:
        cache.embed_images([b"a"], "one", embed)
        cache.embed_images([b"a"], "two", embed)
    assert embed.asked == [b"a", b"a"]


def test_errors_are_handed_on_and_not_stored(tmp_path: Path) -> None:
    embed = Counting()
    with EmbeddingCache(tmp_path / "cache.sqlite") as cache:
        for _ in range(2):
            broken, good = cache.embed_images([b"", b"a"], "model", embed)
            assert isinstance(broken, ImageError) and not isinstance(good, ImageError)
    assert embed.asked == [b"", b"a", b""]


def test_more_pictures_than_one_statement_takes(tmp_path: Path) -> None:
    embed = Counting()
    pictures = [str(n).encode() for n in range(1300)]
    with EmbeddingCache(tmp_path / "cache.sqlite") as cache:
        cache.embed_images(pictures, "model", embed)
        again = cache.embed_images(pictures, "model", embed)
    assert len(embed.asked) == 1300
    assert [int(v[0]) for v in again if not isinstance(v, ImageError)] == [len(p) for p in pictures]


def test_a_file_that_is_something_else(tmp_path: Path) -> None:
    (tmp_path / "cache.sqlite").write_bytes(b"not a database, but long enough to be looked at" * 30)
    with pytest.raises(UserError, match="embedding cache"):
        EmbeddingCache(tmp_path / "cache.sqlite")
