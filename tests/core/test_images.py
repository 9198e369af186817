"""One safe way in for pictures: every odd file is converted rightly or refused with a sentence."""

import io
from pathlib import Path

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from PIL import Image

from onmodel.core import images
from onmodel.core.errors import ImageError


def encoded(image: Image.Image, kind: str, **options: object) -> bytes:
    buffer = io.BytesIO()
    image.save(buffer, kind, **options)
    return buffer.getvalue()


def test_png_round_trip_is_exact() -> None:
    picture = np.random.default_rng(0).integers(0, 256, (7, 5, 3), dtype=np.uint8)
    assert np.array_equal(images.decode(images.encode_png(picture)), picture)


@pytest.mark.parametrize(
    ("data", "says"),
    [
        (b"", "empty"),
        (b"hello, I am a caption", "not a picture"),
        (encoded(Image.new("RGB", (64, 64), "red"), "JPEG")[:-200], "damaged or truncated"),
        (encoded(Image.new("RGB", (64, 64), "red"), "PNG")[:60], "damaged or truncated"),
    ],
)
def test_unreadable_pictures_are_named(data: bytes, says: str) -> None:
    with pytest.raises(ImageError, match=says) as caught:
        images.decode(data, "frame_012.jpg")
    assert "frame_012.jpg" in str(caught.value)


def test_missing_file_is_named(tmp_path: Path) -> None:
    with pytest.raises(ImageError, match="cannot be read"):
        images.load(tmp_path / "nowhere.png")


def test_cmyk_jpeg_keeps_its_colour() -> None:
    red = Image.new("RGB", (16, 16), (230, 20, 20)).convert("CMYK")
    pixel = images.decode(encoded(red, "JPEG"))[8, 8]
    assert pixel[0] > 180 and pixel[1] < 80 and pixel[2] < 80


def test_sixteen_bit_is_scaled_and_not_clipped() -> None:
    ramp = np.linspace(0, 65535, 256).astype(np.uint16)[None].repeat(4, 0)
    got = images.decode(encoded(Image.fromarray(ramp), "PNG"))
    assert got.shape == (4, 256, 3)
    assert np.abs(got[0, :, 0].astype(int) - np.arange(256)).max() <= 1


def test_transparency_lies_on_white() -> None:
    clear = Image.new("RGBA", (4, 4), (0, 0, 0, 0))
    assert (images.decode(encoded(clear, "PNG")) == 255).all()


def test_exif_rotation_is_applied() -> None:
    image = Image.new("RGB", (20, 10), "white")
    exif = Image.Exif()
    exif[0x0112] = 6
    assert images.decode(encoded(image, "JPEG", exif=exif)).shape == (20, 10, 3)


def test_animation_gives_its_first_frame() -> None:
    frames = [Image.new("RGB", (8, 8), colour) for colour in ("red", "blue")]
    data = encoded(frames[0], "GIF", save_all=True, append_images=frames[1:])
    assert images.decode(data)[0, 0].tolist() == [255, 0, 0]


def test_pixel_bomb_is_refused_before_decoding() -> None:
    bomb = encoded(Image.new("1", (20_000, 20_000)), "PNG")
    assert len(bomb) < 100_000
    with pytest.raises(ImageError, match="limit"):
        images.decode(bomb, "bomb.png")


@given(st.binary(max_size=400))
def test_any_bytes_give_a_picture_or_an_image_error(data: bytes) -> None:
    try:
        picture = images.decode(data)
    except ImageError:
        return
    assert picture.dtype == np.uint8 and picture.shape[2] == 3
