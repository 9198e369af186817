"""Train the bundled pose model: the detector's own network, with 17 body points of each character beside its box.

    python -m onmodel.toybox.train_pose WORK_FOLDER

It starts from the bundled detector, which knows the pictures already, and renders what it learns from: scenes of the
training set, whose characters are none of `HELD_OUT`. Points are labelled where they are in the picture, hidden or not.
"""

from __future__ import annotations

import multiprocessing
import os
import sys
from dataclasses import dataclass
from pathlib import Path
from typing import Final

import cv2
import numpy as np
import yaml
from PIL import Image

from onmodel.toybox import training_set
from onmodel.toybox.models import bundled
from onmodel.toybox.render import body_points, render
from onmodel.toybox.train_detector import DetectorConfig, architecture, install

MIRRORED: Final[tuple[int, ...]] = (0, 2, 1, 4, 3, 6, 5, 8, 7, 10, 9, 12, 11, 14, 13, 16, 15)
"""Which point each one is in the mirrored picture."""
NETWORK: Final[DetectorConfig] = DetectorConfig()
"""Width, depth and input size, which are the detector's."""


@dataclass(frozen=True, slots=True)
class PoseConfig:
    """How many pictures, and what `YOLO.train` takes."""

    pictures: int = 3000
    sharp: int = 600
    """Of them, larger ones, so that sharp pictures are known too."""
    first_picture: int = 20_000
    epochs: int = 14
    batch: int = 32
    learning_rate: float = 3e-3
    seed: int = 11


def write_picture(work: tuple[Path, int, int]) -> None:
    """Render a scene of the training set and label it: (folder, which, pixels a side)."""
    folder, number, size = work
    cv2.setNumThreads(1)
    scene, _ = training_set.picture(number)
    drawn = render(scene, size)
    lines: list[str] = []
    for who, points in zip(drawn.truth.characters, body_points(scene, size), strict=True):
        if who.visible_box is None or who.visible_pixels < 8:
            continue
        x, y = who.visible_box.center
        box = np.array([x, y, who.visible_box.width, who.visible_box.height]) / size
        points[points[:, 2] == 0] = 0.0
        points[:, :2] /= size
        lines.append("0 " + " ".join(f"{value:.5g}" for value in (*box, *points.ravel())))
    Image.fromarray(drawn.image).save(folder / "images" / f"{number}.png")
    (folder / "labels" / f"{number}.txt").write_text("".join(f"{line}\n" for line in lines))


def write_pictures(out: Path, config: PoseConfig) -> Path:
    """Write ultralytics' folder layout and its data file, on all cores; returns the data file."""
    for part in ("images", "labels"):
        (out / part).mkdir(parents=True, exist_ok=True)
    numbers = range(config.first_picture, config.first_picture + config.pictures)
    work = [(out, k, 176 if n < config.sharp else 96) for n, k in enumerate(numbers)]
    with multiprocessing.get_context("spawn").Pool(os.cpu_count()) as pool:
        pool.map(write_picture, work, chunksize=50)
    path = out / "data.yaml"
    described = {
        "path": str(out), "train": "images", "val": "images", "names": {0: "character"}, "kpt_shape": [17, 3],
        "flip_idx": list(MIRRORED),
    }  # fmt: skip
    path.write_text(yaml.safe_dump(described))
    return path


def train(work: Path, config: PoseConfig) -> Path:
    """Train and install `models/detector/toybox-pose.pt` (half precision, no optimizer state); returns its path."""
    from ultralytics import YOLO

    work.mkdir(parents=True, exist_ok=True)
    data = write_pictures(work / "pictures", config)
    model = YOLO(str(architecture(work, "yolo11-pose", 1, NETWORK.depth, NETWORK.width))).load(str(bundled("detector")))
    model.train(
        data=str(data), imgsz=NETWORK.image_size, epochs=config.epochs, batch=config.batch, seed=config.seed,
        device="cpu", workers=0, optimizer="AdamW", lr0=config.learning_rate, cos_lr=True, warmup_epochs=1.0,
        mosaic=0.3, close_mosaic=5, scale=0.25, translate=0.08, fliplr=0.5, hsv_h=0.02, hsv_s=0.4, hsv_v=0.3,
        plots=False, amp=False, cache="ram", project=str(work), name="run", exist_ok=True, val=False,
    )  # fmt: skip
    return install(work / "run" / "weights" / "last.pt", "toybox-pose.pt")


if __name__ == "__main__":
    print(train(Path(sys.argv[1]), PoseConfig()))
