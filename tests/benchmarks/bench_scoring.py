"""Images a second of scoring through gRPC against open_clip called in a loop, one image at a time.

Both sides start from the same encoded pictures and end with unit vectors. Rounds alternate in one run, so
that what else the machine does falls on both; the figure is the ratio of the medians.
"""

import io
import statistics
import sys
import time
from collections.abc import Callable

import numpy as np
import open_clip
import torch
from PIL import Image

from onmodel.core.images import encode_png
from onmodel.scoring.config import ScorerConfig
from onmodel.serving.local import open_services

NAME = "scoring through gRPC / open_clip one by one"
TARGET = 2.0
PICTURES = 512
ROUNDS = 5


def pictures(side: int = 96) -> list[bytes]:
    """Smooth pictures of the toybox's size: noise would make decoding the dearest part."""
    generator = np.random.default_rng(0)
    made: list[bytes] = []
    for _ in range(PICTURES):
        coarse = Image.fromarray(generator.integers(0, 256, (6, 6, 3), dtype=np.uint8))
        made.append(encode_png(np.asarray(coarse.resize((side, side), Image.Resampling.BICUBIC))))
    return made


def one_by_one(config: ScorerConfig) -> Callable[[list[bytes]], np.ndarray]:
    """The loop that open_clip's own readme shows."""
    model, _, preprocess = open_clip.create_model_and_transforms(f"local-dir:{config.folder()}")
    model.eval()

    def run(encoded: list[bytes]) -> np.ndarray:
        rows: list[torch.Tensor] = []
        with torch.no_grad():
            for data in encoded:
                pixels = preprocess(Image.open(io.BytesIO(data)).convert("RGB")).unsqueeze(0)  # type: ignore[operator, union-attr]
                features = model.encode_image(pixels)  # type: ignore[operator]
                rows.append(features / features.norm(dim=-1, keepdim=True))
        return torch.cat(rows).numpy()

    return run


def seconds(work: Callable[[], object]) -> float:
    start = time.perf_counter()
    work()
    return time.perf_counter() - start


def main() -> None:
    """Print one row: name, ratio, target, met."""
    config = ScorerConfig()
    encoded = pictures()
    loop = one_by_one(config)
    with open_services(None, scorer=config) as services:
        client = services.scoring
        served = np.stack([v for v in client.embed_images(encoded) if isinstance(v, np.ndarray)])
        np.testing.assert_allclose(served, loop(encoded), atol=1e-4)
        rounds = [
            (seconds(lambda: client.embed_images(encoded)), seconds(lambda: loop(encoded))) for _ in range(ROUNDS)
        ]
    ours, plain = (PICTURES / statistics.median(times) for times in zip(*rounds, strict=True))
    ratio = ours / plain
    sys.stdout.write(
        f"{NAME:<52} {ratio:6.2f}  target >= {TARGET:.1f}  {'met' if ratio >= TARGET else 'NOT MET'}"
        f"  ({ours:.0f} against {plain:.0f} images/s)\n"
    )


if __name__ == "__main__":
    main()
