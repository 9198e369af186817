"""Pictures as arrays: one safe way in, for files and bytes.

Everything inside OnModel is uint8 RGB of shape (height, width, 3), upright (EXIF rotation applied),
alpha composited on white, 16-bit and CMYK converted, the first frame of an animation.
"""

import io
from pathlib import Path

import numpy as np
import numpy.typing as npt
from PIL import Image, ImageOps, UnidentifiedImageError

from onmodel.core.errors import ImageError

RGB = npt.NDArray[np.uint8]
"""uint8 (height, width, 3), RGB."""

SUFFIXES = frozenset({".png", ".jpg", ".jpeg", ".webp", ".bmp", ".gif"})
MAX_PIXELS = 100_000_000
"""Larger pictures are refused before they are decoded: a few kilobytes can claim gigabytes."""


def decode(data: bytes, name: str = "picture") -> RGB:
    """Decode an encoded picture. `name` stands in the error.

    Raises:
        ImageError: empty, not a picture, truncated, or larger than `MAX_PIXELS`.
    """
    if not data:
        raise ImageError(f"{name}: the file is empty; replace or remove it")
    try:
        with Image.open(io.BytesIO(data)) as image:
            if image.width * image.height > MAX_PIXELS:
                raise ImageError(
                    f"{name}: {image.width}x{image.height} pixels is more than the limit of {MAX_PIXELS}; scale it down"
                )
            return to_rgb(image)
    except (UnidentifiedImageError, ImportError):
        # ImportError: ultralytics replaces Image.open by one that asks for a HEIF plugin before giving up.
        raise ImageError(f"{name}: not a picture that can be read (png, jpg, webp, bmp, gif); remove it") from None
    except Image.DecompressionBombError:
        raise ImageError(f"{name}: claims more pixels than the limit of {MAX_PIXELS}; scale it down") from None
    except (OSError, SyntaxError, ValueError, EOFError) as error:
        raise ImageError(f"{name}: damaged or truncated ({error}); replace it") from None


def to_rgb(image: Image.Image) -> RGB:
    """Any Pillow picture to upright uint8 RGB (height, width, 3)."""
    image = ImageOps.exif_transpose(image)
    if image.mode in ("I;16", "I;16B", "I;16L", "I"):
        # Pillow clips 16-bit to 8-bit instead of scaling, which turns such pictures white.
        wide = np.asarray(image, dtype=np.float64)
        scaled = np.clip(wide / 65535.0 * 255.0 + 0.5, 0, 255).astype(np.uint8)
        return np.repeat(scaled[..., None], 3, axis=2)
    if image.mode in ("RGBA", "LA", "PA") or "transparency" in image.info:
        rgba = image.convert("RGBA")
        image = Image.alpha_composite(Image.new("RGBA", rgba.size, "white"), rgba)
    return np.ascontiguousarray(np.asarray(image.convert("RGB"), dtype=np.uint8))


def read_bytes(path: Path) -> bytes:
    """The bytes of a picture's file.

    Raises:
        ImageError: the file is missing, unreadable or a folder.
    """
    try:
        return path.read_bytes()
    except OSError as error:
        raise ImageError(f"{path}: cannot be read ({error.strerror}); check the file and its permissions") from None


def load(path: Path) -> RGB:
    """Read and decode one picture file. Raises ImageError."""
    return decode(read_bytes(path), str(path))


def size(path: Path) -> tuple[int, int]:
    """Width and height of a picture file as `load` gives it, from its header. Raises ImageError."""
    try:
        with Image.open(path) as image:
            turned = image.getexif().get(0x0112, 1) >= 5  # EXIF orientations 5 to 8 lie on their side
            return (image.height, image.width) if turned else (image.width, image.height)
    except (OSError, SyntaxError, ValueError, Image.DecompressionBombError) as error:
        raise ImageError(f"{path}: its size cannot be read ({error}); replace it") from None


def encode_png(image: RGB) -> bytes:
    """Lossless PNG bytes of a uint8 RGB picture."""
    buffer = io.BytesIO()
    Image.fromarray(image).save(buffer, "PNG", compress_level=1)
    return buffer.getvalue()


def thumbnail_jpeg(image: RGB, side: int, quality: int = 80) -> bytes:
    """JPEG bytes with the longer side at most `side` pixels, for pages and contact sheets."""
    small = Image.fromarray(image)
    small.thumbnail((side, side), Image.Resampling.LANCZOS)
    buffer = io.BytesIO()
    small.save(buffer, "JPEG", quality=quality)
    return buffer.getvalue()
