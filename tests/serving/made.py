"""Pictures of noise, and what no honest client sends."""

import io

import numpy as np
from hypothesis import strategies as st
from PIL import Image

from onmodel.common.v1 import common_pb2 as pb
from onmodel.core.images import RGB, encode_png
from onmodel.scoring.v1 import scoring_pb2


def noise(seed: int, height: int = 40, width: int = 56) -> RGB:
    """A picture of noise."""
    return np.random.default_rng(seed).integers(0, 256, (height, width, 3), dtype=np.uint8)


def noise_png(seed: int) -> bytes:
    """The same, encoded."""
    return encode_png(noise(seed))


def pixel_bomb() -> bytes:
    """A small file of a very large picture."""
    buffer = io.BytesIO()
    Image.new("1", (20_000, 20_000)).save(buffer, "PNG")
    return buffer.getvalue()


def malformed(picture: bytes) -> st.SearchStrategy[bytes]:
    """Bytes that are no message, nearly one, or one of nonsense: of any request of the services."""
    image = pb.Image(data=picture)
    whole = scoring_pb2.ScoreIdentityRequest(images=[image, pb.Image(uri="file:///etc/passwd")], references=[image])
    valid = whole.SerializeToString()

    def spoiled(places: list[tuple[int, int]]) -> bytes:
        data = bytearray(valid)
        for place, value in places:
            data[place % len(data)] = value
        return bytes(data)

    changes = st.lists(st.tuples(st.integers(0, len(valid) - 1), st.integers(0, 255)), min_size=1, max_size=8)
    cut = st.integers(0, len(valid)).map(lambda end: valid[:end])
    # A field's header that promises far more than there is, or nests without end.
    promised = st.builds(lambda tag, size: bytes([tag]) + size, st.integers(0, 255), st.binary(min_size=1, max_size=10))
    nested = st.integers(1, 200).map(lambda depth: b"\\x0a\\x7f" * depth)
    return st.one_of(st.binary(max_size=300), changes.map(spoiled), cut, promised, nested)
