"""Where to cut a picture so that it becomes another shot type. Arithmetic on boxes; pixels only at the end."""

from dataclasses import dataclass

import cv2
import numpy as np

from onmodel.core.buckets import Size, bucket_sizes, nearest_bucket
from onmodel.core.images import RGB
from onmodel.core.vocabulary import Attribute, Box, ShotType
from onmodel.dataset.analysis import Numbers, Row


@dataclass(frozen=True, slots=True)
class CropConfig:
    """What a crop must keep."""

    min_side: int = 64
    """Shorter side in pixels of the picture that a crop may leave."""
    max_upscale: float = 2.0
    """A crop is enlarged towards `resolution` at most by this factor: more invents no detail, only blur."""
    resolution: int = 512
    """Shorter side in pixels that training wants."""
    face_to_head: float = 1.0
    """Head height over face-box height of the detector (see ShotConfig)."""
    far_height: float = 0.28
    """Height of the character, as a share of the picture, after the canvas was widened."""
    bucket_step: int = 64
    """Sides of the trainer's buckets are multiples of it; crops have buckets' shapes, so that nothing is cut again."""

    @property
    def shapes(self) -> list[Size]:
        """Buckets that crops may have the shape of: none narrower than 2 to 3, nor wider than 3 to 2."""
        side = max(self.resolution, self.bucket_step)
        step = self.bucket_step if side >= 4 * self.bucket_step else max(1, side // 8)
        sizes = bucket_sizes((side, side), step, side // 2, 2 * side)
        return [size for size in sizes if 2 / 3 <= size[0] / size[1] <= 3 / 2] or [(side, side)]


def crop_window(
    row: Row,
    shot: ShotType,
    config: CropConfig,
    rng: np.random.Generator,
    variant: int = 0,
    *,
    aside: float = 0.0,
) -> Box | None:
    """The window, in whole pixels, that turns a picture into `shot`; None where that cannot be done.

    Full-body pictures become medium shots (cut between hip and knee) and close-ups (cut below the shoulders),
    medium shots close-ups. Windows have the shape of a bucket: square, or for odd variants nearer to the picture's own.
    `aside` is where the character is to be: 0 in the middle, 0.2 a fifth of the window's width right of it, as far as
    the picture reaches.
    """
    main = row.main_instance
    sources = {ShotType.MEDIUM: (ShotType.FULL_BODY,), ShotType.CLOSE_UP: (ShotType.FULL_BODY, ShotType.MEDIUM)}
    # Without a face nothing says where the head is, nor that the box is a character at all.
    if main is None or main.face is None or row.shot_type not in sources.get(shot, ()):
        return None
    box, face = Box(*main.box), Box(*main.face)
    head = face.height * config.face_to_head
    top, chin, middle = min(box.y0, face.y1 - head), face.y1, face.center[0]
    if shot is ShotType.CLOSE_UP:
        bottom = chin + float(rng.uniform(0.25, 0.42)) * head
    else:
        bottom = chin + float(rng.uniform(0.48, 0.60)) * (box.y1 - chin)
        middle = (middle + box.center[0]) / 2
    headroom = float(rng.uniform(0.06, 0.14)) * (bottom - max(top, 0.0))
    ratio = row.width / row.height if variant % 2 else 1.0
    return _window(max(0.0, top - headroom), min(bottom, float(row.height)), middle, aside, ratio, row, config)


def _window(
    top: float, bottom: float, middle: float, aside: float, ratio: float, row: Row, config: CropConfig
) -> Box | None:
    y0, y1 = round(top), round(bottom)
    height = y1 - y0
    fitting = [size for size in config.shapes if round(height * size[0] / size[1]) <= row.width]
    if height < config.min_side or not fitting:
        return None
    wide, high = nearest_bucket(ratio, 1.0, fitting)
    width = round(height * wide / high)
    if width < config.min_side:
        return None
    x0 = round(min(max(middle - (0.5 + aside) * width, 0.0), row.width - width))
    return Box(x0, y0, x0 + width, y1)


def cropped_attributes(row: Row, window: Box) -> frozenset[str]:
    """Which attributes a crop keeps: others and occluders count only where they are still in it."""
    main = row.main_instance
    kept = set(row.attributes)
    if main is None:
        return frozenset(kept)
    seen = Box(*main.box)
    visible = Box(max(seen.x0, window.x0), max(seen.y0, window.y0), min(seen.x1, window.x1), min(seen.y1, window.y1))
    others = [Box(*i.box) for n, i in enumerate(row.instances) if n != row.main]
    if not any(other.intersection(window) >= 0.3 * other.area for other in others):
        kept.discard(Attribute.MULTI_CHARACTER)
    in_front = [Box(*numbers) for numbers in row.occluders]
    if in_front and not any(box.intersection(visible) >= 0.04 * visible.area for box in in_front):
        kept.discard(Attribute.OCCLUSION)
    return frozenset(str(name) for name in kept)


def cut_size(window: Box, config: CropConfig) -> Size:
    """Width and height of a window's picture: enlarged towards the training resolution where it is smaller."""
    factor = max(1.0, min(config.max_upscale, config.resolution / min(window.width, window.height)))
    return round(window.width * factor), round(window.height * factor)


def cut(image: RGB, window: Box, config: CropConfig) -> RGB:
    """The pixels of a window, in `cut_size`."""
    x0, y0, x1, y1 = (round(v) for v in window.as_tuple())
    piece = image[y0:y1, x0:x1]
    size = cut_size(window, config)
    if size == (piece.shape[1], piece.shape[0]):
        return np.ascontiguousarray(piece)
    return np.asarray(cv2.resize(piece, size, interpolation=cv2.INTER_LANCZOS4), dtype=np.uint8)


def can_widen(row: Row) -> bool:
    """Whether a picture's plain surroundings may be continued to make the character small in frame."""
    main = row.main_instance
    if main is None or main.face is None or row.shot_type is not ShotType.FULL_BODY or len(row.instances) != 1:
        return False
    if {Attribute.COMPLEX_BACKGROUND, Attribute.OCCLUSION} & set(row.attributes):
        return False
    x0, y0, x1, y1 = main.box
    # Edge pixels are continued outwards, so the character must touch none.
    margin = 0.01 * row.height
    return x0 > margin and y0 > margin and x1 < row.width - margin and y1 < row.height - margin


def has_even_edges(image: RGB, tolerance: float = 6.0) -> bool:
    """Whether a picture's edges may be continued without stripes.

    Rows above and below must be even: grey levels hardly deviate, and lie on a smooth curve, which the end of a shadow
    does not. Left and right edges may change slowly, or at a horizon or two, which go on as horizons; more steps would
    become stripes.
    """
    grey = image.astype(np.float32).mean(axis=2)
    ends = grey[[0, -1]]
    at = np.linspace(-1, 1, grey.shape[1])
    curves = np.polynomial.polynomial.polyval(at, np.polynomial.polynomial.polyfit(at, ends.T, 2))
    steps = np.abs(np.diff(grey[:, [0, -1]], axis=0)) > tolerance
    return bool(
        ends.std(axis=1).max() <= tolerance
        and np.abs(ends - curves).max() <= tolerance / 2
        and steps.sum(axis=0).max() <= max(4, 0.02 * len(grey))
    )


def widen(image: RGB, row: Row, config: CropConfig, rng: np.random.Generator) -> tuple[RGB, Numbers]:
    """Continue a plain background outwards until the character is far, at the picture's own size.

    Returns:
        The picture, and where the whole old picture lies in it: (x0, y0, x1, y1) in pixels.
    """
    main = row.main_instance
    assert main is not None
    height, width = image.shape[:2]
    share = (main.box[3] - main.box[1]) / height
    factor = max(1.0, share / (config.far_height * float(rng.uniform(0.85, 1.1))))
    extra_x, extra_y = round(width * (factor - 1)), round(height * (factor - 1))
    # Characters stand on the ground: most of the new room is above them.
    left, top = round(extra_x * float(rng.uniform(0.25, 0.75))), round(extra_y * float(rng.uniform(0.55, 0.8)))
    wide = cv2.copyMakeBorder(image, top, extra_y - top, left, extra_x - left, cv2.BORDER_REPLICATE)
    small = np.asarray(cv2.resize(wide, (width, height), interpolation=cv2.INTER_AREA), dtype=np.uint8)
    scale_x, scale_y = width / wide.shape[1], height / wide.shape[0]
    where = (left * scale_x, top * scale_y, (left + width) * scale_x, (top + height) * scale_y)
    return small, where
