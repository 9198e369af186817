"""The pictures that the bundled models are trained on, rendered once into shards.

    python -m onmodel.toybox.training_set FOLDER FIRST LAST

renders pictures FIRST..LAST (exclusive) of the fixed set on all cores. Held-out characters (`character.HELD_OUT`) never
appear.
"""

from __future__ import annotations

import json
import multiprocessing
import os
import sys
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Final

import cv2
import numpy as np
import numpy.typing as npt

from onmodel.core.vocabulary import ShotType
from onmodel.toybox.character import Character, near_twin, random_character
from onmodel.toybox.dataset import truth_from_json, truth_to_json
from onmodel.toybox.render import Truth, render
from onmodel.toybox.scene import Scene, random_scene
from onmodel.toybox.wording import describe

SEED: Final[int] = 20250
SHARD: Final[int] = 500
PICTURES_EACH: Final[int] = 3
"""Pictures of one character, so that an identity model finds positives."""
CAPTIONS_EACH: Final[int] = 6
"""Wordings of one picture."""
SHOTS: Final[tuple[tuple[ShotType, float], ...]] = (
    (ShotType.CLOSE_UP, 0.27), (ShotType.MEDIUM, 0.24), (ShotType.FULL_BODY, 0.27), (ShotType.FAR, 0.15),
    (ShotType.UNCLASSIFIED, 0.07),
)  # fmt: skip


@dataclass(frozen=True, slots=True)
class TrainingSet:
    """Pictures uint8 (n, size, size, 3) RGB with their wordings, characters and truths."""

    images: npt.NDArray[np.uint8]
    captions: tuple[tuple[str, ...], ...]
    identities: npt.NDArray[np.int64]
    truths: tuple[Truth, ...]


def identity(number: int) -> Character:
    """Character `number` of the set; every fourth is a near twin of the one before."""
    rng = np.random.default_rng([SEED, 1, number])
    return near_twin(rng, identity(number - 1)) if number % 4 == 3 else random_character(rng)


def picture(k: int) -> tuple[Scene, tuple[str, ...]]:
    """Scene k of the set and its wordings."""
    rng = np.random.default_rng([SEED, 2, k])
    shot = SHOTS[int(rng.choice(len(SHOTS), p=[share for _, share in SHOTS]))][0]
    scene = random_scene(
        rng, character=identity(k // PICTURES_EACH), shot_type=shot, multi_character=bool(rng.random() < 0.16),
        occlusion=bool(rng.random() < 0.16), complex_background=bool(rng.random() < 0.40),
    )  # fmt: skip
    return scene, tuple(describe(scene, rng) for _ in range(CAPTIONS_EACH))


def write(folder: Path, first: int, last: int, size: int = 96) -> None:
    """Render pictures first..last into shards of `SHARD`; a shard that is there already is left as it is."""
    folder.mkdir(parents=True, exist_ok=True)
    for start in range(first, last, SHARD):
        path = folder / f"shard_{start:06d}.npz"
        if path.exists():
            continue
        images: list[npt.NDArray[np.uint8]] = []
        rows: list[dict[str, Any]] = []
        for k in range(start, min(start + SHARD, last)):
            scene, captions = picture(k)
            drawn = render(scene, size)
            images.append(drawn.image)
            rows.append({"identity": k // PICTURES_EACH, "captions": captions, **truth_to_json(drawn.truth)})
        temporary = path.with_suffix(".partial.npz")
        np.savez(temporary, images=np.stack(images), rows=np.array(json.dumps(rows)))
        temporary.rename(path)


def _write_one(work: tuple[Path, int, int]) -> None:
    cv2.setNumThreads(1)
    write(*work)


def write_in_parallel(folder: Path, first: int, last: int, processes: int) -> None:
    """`write`, a shard at a time by that many processes; shards are done about in their order."""
    spans = [(folder, start, min(start + SHARD, last)) for start in range(first, last, SHARD)]
    with multiprocessing.get_context("spawn").Pool(processes) as pool:
        for done, _ in enumerate(pool.imap(_write_one, spans, chunksize=1), 1):
            print(f"{done} of {len(spans)} shards", flush=True)


def shards(folder: Path) -> list[Path]:
    """The finished shards of a folder, in order."""
    return sorted(folder.glob("shard_??????.npz"))


def shrink(images: npt.NDArray[np.uint8], side: int | None) -> npt.NDArray[np.uint8]:
    """Pictures uint8 (n, h, w, 3) at `side` x `side` pixels, by area means."""
    if side is None or images.shape[1] == side:
        return images
    return np.stack([cv2.resize(image, (side, side), interpolation=cv2.INTER_AREA) for image in images]).astype(
        np.uint8
    )


def read(folder: Path, side: int | None = None) -> TrainingSet:
    """All shards of a folder, in order; pictures made smaller to `side` pixels where given."""
    return read_shards(shards(folder), side)


def read_shards(paths: Sequence[Path], side: int | None = None) -> TrainingSet:
    """Those shards, one or more; pictures made smaller to `side` pixels where given."""
    images: list[npt.NDArray[np.uint8]] = []
    rows: list[dict[str, Any]] = []
    for path in paths:
        with np.load(path) as shard:
            images.append(shrink(shard["images"], side))
            rows.extend(json.loads(str(shard["rows"])))
    return TrainingSet(
        np.concatenate(images),
        tuple(tuple(row["captions"]) for row in rows),
        np.array([row["identity"] for row in rows], dtype=np.int64),
        tuple(truth_from_json(row) for row in rows),
    )


def read_captions(folder: Path) -> tuple[tuple[tuple[str, ...], ...], tuple[ShotType, ...]]:
    """The wordings and the shot type of every picture, without reading the pictures."""
    wordings: list[tuple[str, ...]] = []
    shots: list[ShotType] = []
    for path in shards(folder):
        with np.load(path) as shard:
            rows = json.loads(str(shard["rows"]))
        wordings.extend(tuple(row["captions"]) for row in rows)
        shots.extend(ShotType(row["shot_type"]) for row in rows)
    return tuple(wordings), tuple(shots)


if __name__ == "__main__":
    write_in_parallel(Path(sys.argv[1]), int(sys.argv[2]), int(sys.argv[3]), os.cpu_count() or 1)
