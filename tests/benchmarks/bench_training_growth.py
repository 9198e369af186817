"""What a start costs with 100, 1,000 and 10,000 pictures whose latents and captions are cached already.

Each size runs in a process of its own, from the dataset's folder to the first batch: files listed and hashed (a
second time, as a second trial does), mixes solved, caches mapped, an epoch planned, a batch gathered. The cache is
filled through its own code with made-up latents of Stable Diffusion 1.5 at 512 px, 64 kB each.
"""

import json
import os
import subprocess
import sys
import tempfile
import time
from collections.abc import Sequence
from pathlib import Path
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from onmodel.training.config import TrainConfig

SIZES = (100, 1_000, 10_000)
SHAPES = ((4, 64, 64), (4, 56, 72), (4, 72, 56))
KINDS = (("close_up",), ("close_up", "complex_background"), ("full_body",), ("medium", "multi_character"), ())
CAPTIONS = 200


def main() -> None:
    """Print `name | value | target | met`."""
    found: list[dict[str, float]] = []
    with tempfile.TemporaryDirectory() as folder:
        for count in SIZES:
            place = Path(folder) / str(count)
            _run("fill", place, count)
            _run("start", place, count)  # the first one hashes the files
            found.append(_run("start", place, count))
    for count, row in zip(SIZES, found, strict=True):
        shown = f"{row['seconds']:.2f} s (files {row['files']:.2f}, cache {row['cache']:.2f}, plan {row['plan']:.2f})"
        print(f"{count} pictures: {shown}, {row['memory']:.0f} MB more, {row['mapped']:.0f} MB of cache mapped")
    small, large = found[1], found[2]
    # Ten times the pictures: no more than ten times the time, and memory far below the cache's size.
    growth = large["seconds"] / max(small["seconds"], 1e-3)
    print(f"start-up, 10,000 over 1,000 pictures | {growth:.1f} | <= 11 | {'yes' if growth <= 11 else 'no'}")
    part = large["memory"] / large["mapped"]
    print(f"memory over cache size at 10,000 | {part:.2f} | <= 0.2 | {'yes' if part <= 0.2 else 'no'}")


def _run(what: str, place: Path, count: int) -> dict[str, float]:
    command = [sys.executable, __file__, what, str(place), str(count)]
    return json.loads(subprocess.run(command, check=True, capture_output=True, text=True).stdout or "{}")


def _fill(place: Path, count: int) -> None:
    """A dataset of small files, and the cache that encoding it would leave."""
    import numpy as np

    from onmodel.core.files import content_hash
    from onmodel.training.buckets import bucket_sizes
    from onmodel.training.store import ArrayCache

    data = place / "set"
    data.mkdir(parents=True)
    cache = ArrayCache(place / "cache")
    data_section = _config(place, staged=False).data
    latents = cache.section(content_hash(f"{_Cached().picture_hash()} {bucket_sizes(data_section)}".encode()))
    texts = cache.section(_Cached().caption_hash())
    numbers = np.random.default_rng(0)
    for index in range(count):
        content = numbers.bytes(64)
        file = data / f"{index:05d}.png"
        file.write_bytes(content)
        os.utime(file, (1e9, 1e9))
        file.with_suffix(".txt").write_text(f"caption {index % CAPTIONS}")
        key = content_hash(content_hash(content).encode())
        latents.put(key, numbers.standard_normal(SHAPES[index % len(SHAPES)], dtype=np.float32))
    for index in range(CAPTIONS):
        texts.put(content_hash(f"caption {index}".encode()), numbers.standard_normal((77, 768), dtype=np.float32))
    texts.put(content_hash(b""), np.zeros((77, 768), dtype=np.float32))
    cache.flush()


def _config(place: Path, *, staged: bool) -> "TrainConfig":
    from onmodel.core.config import validate
    from onmodel.training.config import TrainConfig

    weak = {"full_body": 35.0, "multi_character": 25.0}
    stages = [{"name": "first", "epochs": 6, "mix": "balanced"}, {"name": "second", "epochs": 6, "mix": weak}]
    value = {
        "model": {"pretrained_model_name_or_path": "none"},
        "training": {"train_batch_size": 4},
        "data": {"train_data_dir": str(place / "set")},
        "stage": stages if staged else [{"name": "first", "epochs": 6}],
    }
    return validate(TrainConfig, value, "benchmark")


def _start(place: Path) -> dict[str, float]:
    from dataclasses import replace

    import psutil
    import torch

    from onmodel.training.data import prepare
    from onmodel.training.pictures import load_pictures
    from onmodel.training.plan import plan_stages
    from onmodel.training.store import ArrayCache

    config, plain = _config(place, staged=True), _config(place, staged=False)
    process = psutil.Process()
    before = process.memory_info()
    start = time.perf_counter()
    pictures = load_pictures(plain, place / "cache")
    pictures = [replace(picture, categories=KINDS[index % len(KINDS)]) for index, picture in enumerate(pictures)]
    files = time.perf_counter()
    data = prepare(pictures, _Cached(), config.data, ArrayCache(place / "cache"))  # pyright: ignore[reportArgumentType]
    cache = time.perf_counter()
    plan = plan_stages(config, data, 4)[0]
    first = plan.groups(0)[0][0]
    torch.stack([data.latents[index] for index in first.pictures])
    end = time.perf_counter()
    mapped = sum(file.stat().st_size for file in (place / "cache").rglob("*.safetensors"))
    return {
        "seconds": end - start,
        "files": files - start,
        "cache": cache - files,
        "plan": end - cache,
        "memory": (process.memory_info().rss - before.rss) / 2**20,
        "mapped": mapped / 2**20,
    }


class _Cached:
    """A family that encodes nothing: all is in the cache."""

    pixels_per_latent = 8

    def picture_hash(self) -> str:
        return "a" * 64

    def caption_hash(self) -> str:
        return "b" * 64

    def encode_pictures(self, pixels: object) -> object:
        raise AssertionError("the cache holds every picture")

    def encode_captions(self, captions: Sequence[str]) -> object:
        raise AssertionError("the cache holds every caption")


if __name__ == "__main__":
    if len(sys.argv) == 1:
        main()
    elif sys.argv[1] == "fill":
        _fill(Path(sys.argv[2]), int(sys.argv[3]))
    else:
        print(json.dumps(_start(Path(sys.argv[2]))))
