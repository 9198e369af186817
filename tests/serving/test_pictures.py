"""Where pictures may come from, and how a request's pictures reach the model."""

import asyncio
from pathlib import Path

import numpy as np
import pytest

from onmodel.common.pictures import Intake, PictureReader, Pipeline, count_items
from onmodel.common.v1 import common_pb2 as pb
from onmodel.core.errors import ForbiddenError, ImageError, OnModelError, UserError
from onmodel.core.images import RGB, encode_png


def picture(value: int) -> bytes:
    return encode_png(np.full((4, 6, 3), value, np.uint8))


@pytest.fixture
def root(tmp_path: Path) -> Path:
    (tmp_path / "allowed" / "sub dir").mkdir(parents=True)
    (tmp_path / "allowed" / "sub dir" / "a.png").write_bytes(picture(7))
    (tmp_path / "allowed_not").mkdir()
    (tmp_path / "allowed_not" / "b.png").write_bytes(picture(8))
    (tmp_path / "allowed" / "link.png").symlink_to(tmp_path / "allowed_not" / "b.png")
    (tmp_path / "allowed" / "inside.png").symlink_to(tmp_path / "allowed" / "sub dir" / "a.png")
    return tmp_path / "allowed"


@pytest.mark.parametrize("form", ["{0}/sub dir/a.png", "file://{0}/sub%20dir/a.png", "file://localhost{0}/inside.png"])
def test_files_below_an_allowed_root_are_read(root: Path, form: str) -> None:
    read = PictureReader([str(root)]).read(pb.Image(uri=form.format(root)))
    assert read.shape == (4, 6, 3) and read[0, 0, 0] == 7


@pytest.mark.parametrize(
    "form",
    ["{0}_not/b.png", "{0}/../allowed_not/b.png", "{0}/link.png", "/etc/passwd", "file://{0}/%2e%2e/allowed_not/b.png"],
)
def test_files_outside_are_refused(root: Path, form: str) -> None:
    with pytest.raises(ForbiddenError, match="not below a folder"):
        PictureReader([str(root)]).read(pb.Image(uri=form.format(root)))


def test_without_roots_no_file_is_read_and_none_is_told_of(root: Path) -> None:
    for name in ("inside.png", "missing.png"):
        with pytest.raises(ForbiddenError):
            PictureReader([]).read(pb.Image(uri=str(root / name)))


@pytest.mark.parametrize("uri", ["http://host/a.png", "a.png", "file://other/a.png", "", "s3://bucket/a.png"])
def test_other_uris_are_errors(root: Path, uri: str) -> None:
    with pytest.raises(UserError):
        PictureReader([str(root)]).read(pb.Image(uri=uri))


def test_an_image_of_nothing_is_an_error() -> None:
    with pytest.raises(UserError, match="neither data nor uri"):
        PictureReader([]).read(pb.Image())


def run(images: list[pb.Image], batch_size: int, **intake: int) -> tuple[list[int | OnModelError], list[int]]:
    """Results (each picture's value) and the sizes of the pieces that reached the model."""
    sizes: list[int] = []
    running = 0

    async def compute(prepared: list[int]) -> list[int]:
        nonlocal running
        sizes.append(len(prepared))
        running += len(prepared)
        assert running <= 3 * batch_size
        await asyncio.sleep(0.001)
        running -= len(prepared)
        return prepared

    def prepare(image: RGB) -> int:
        return int(image[0, 0, 0])

    async def go() -> list[int | OnModelError]:
        return await Pipeline(Intake(**intake), batch_size, prepare, compute).run(images)  # type: ignore[arg-type]

    return asyncio.run(go()), sizes


@pytest.mark.parametrize("count", [0, 1, 7, 8, 9, 50])
def test_every_picture_is_answered_in_order(count: int) -> None:
    results, sizes = run([pb.Image(data=picture(n)) for n in range(count)], 8)
    assert results == list(range(count))
    assert sum(sizes) == count and all(size <= 8 for size in sizes)


def test_a_broken_picture_is_an_error_of_its_own() -> None:
    images = [pb.Image(data=picture(n)) for n in range(10)]
    images[3] = pb.Image(data=b"")
    images[4] = pb.Image(uri="/etc/passwd")
    results, _ = run(images, 4)
    assert isinstance(results[3], ImageError) and isinstance(results[4], ForbiddenError)
    assert [r for r in results if not isinstance(r, OnModelError)] == [0, 1, 2, 5, 6, 7, 8, 9]


def test_more_pictures_than_the_limit_are_refused() -> None:
    with pytest.raises(UserError, match="the limit is 4"):
        run([pb.Image(data=picture(0))] * 5, 2, max_images_per_request=4)


def test_batches_count_pictures() -> None:
    assert count_items([(None, [1, 2]), (None, []), (None, [3])]) == 3
