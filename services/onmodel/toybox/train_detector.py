"""Train the bundled detector: an ultralytics YOLO from nothing on rendered pictures.

    python -m onmodel.toybox.train_detector SET_FOLDER WORK_FOLDER [WEIGHTS]

Classes: 0 character (box of its visible part), 1 face (visible head, hair top to chin), 2 object (something in front).
Pictures of the set are 96 px and are enlarged by the detector's own resizing, as they are in use; a part is rendered
larger, so that sharp pictures are known too.

With WEIGHTS it goes on from them for `SECOND`: pictures with something in front are rare in the set (one in six), and
the first pass hardly learns the class; the second renders more of them.
"""

from __future__ import annotations

import sys
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Final

import numpy as np
import torch
import yaml
from PIL import Image

from onmodel.toybox import training_set
from onmodel.toybox.models import MODELS
from onmodel.toybox.render import Truth, render
from onmodel.toybox.scene import FRAMED, Scene, random_scene

CLASSES: Final[tuple[str, ...]] = ("character", "face", "object")


@dataclass(frozen=True, slots=True)
class DetectorConfig:
    """Width and depth are factors of ultralytics' yolo11; the rest is what `YOLO.train` takes."""

    pictures: int = 3600
    first_picture: int = 0
    hidden: int = 0
    """Pictures rendered beside the set's, each with something in front of the main character."""
    sharp: int = 500
    held_out: int = 200
    image_size: int = 128
    width: float = 0.15
    depth: float = 0.33
    epochs: int = 14
    batch: int = 16
    learning_rate: float = 3e-3
    seed: int = 7


SECOND: Final[DetectorConfig] = DetectorConfig(
    pictures=6000, first_picture=3800, hidden=3000, sharp=600, epochs=12, learning_rate=2e-3, seed=8
)
"""The second pass: other pictures, almost half of them with something in front."""


def labels(truth: Truth) -> str:
    """A YOLO label file: class and centre x, centre y, width, height in shares of the picture, a line each."""
    boxes = [(0, c.visible_box) for c in truth.characters if c.visible_pixels >= 8]
    boxes += [(1, c.face_box) for c in truth.characters if c.visible_pixels >= 8]
    boxes += [(2, o.box) for o in truth.occluders]
    lines: list[str] = []
    for label, box in boxes:
        if box is None or min(box.width, box.height) < 0.012 * truth.size:
            continue
        x, y = box.center
        values = np.array([x, y, box.width, box.height]) / truth.size
        lines.append(f"{label} " + " ".join(f"{v:.5f}" for v in values))
    return "".join(line + "\n" for line in lines)


def write_pictures(data: training_set.TrainingSet, out: Path, config: DetectorConfig) -> Path:
    """Write ultralytics' folder layout and its data file; returns the data file."""
    for part in ("train", "val"):
        (out / "images" / part).mkdir(parents=True, exist_ok=True)
        (out / "labels" / part).mkdir(parents=True, exist_ok=True)
    first = config.first_picture
    for k in range(first, min(first + config.pictures + config.held_out, len(data.truths))):
        _write(out, "train" if k < first + config.pictures else "val", f"a{k:05d}", data.images[k], data.truths[k])
    for k in range(config.hidden):
        drawn = render(hidden_scene(np.random.default_rng([training_set.SEED, 2, config.seed, k])), 96)
        _write(out, "train", f"c{k:05d}", drawn.image, drawn.truth)
    for k in range(config.sharp):
        drawn = render(training_set.picture(1_000_000 + 10_000 * config.seed + k)[0], 176)
        _write(out, "train", f"b{k:05d}", drawn.image, drawn.truth)
    path = out / "data.yaml"
    names = dict(enumerate(CLASSES))
    path.write_text(yaml.safe_dump({"path": str(out), "train": "images/train", "val": "images/val", "names": names}))
    return path


def hidden_scene(rng: np.random.Generator) -> Scene:
    """A scene of any framing with something in front of one of the set's characters."""
    return random_scene(
        rng, character=training_set.identity(int(rng.integers(5000))), shot_type=FRAMED[int(rng.integers(len(FRAMED)))],
        multi_character=bool(rng.random() < 0.2), occlusion=True, complex_background=bool(rng.random() < 0.5),
    )  # fmt: skip


def _write(out: Path, part: str, stem: str, image: Any, truth: Truth) -> None:
    Image.fromarray(image).save(out / "images" / part / f"{stem}.png")
    (out / "labels" / part / f"{stem}.txt").write_text(labels(truth))


def architecture(out: Path, packaged: str, classes: int, depth: float, width: float) -> Path:
    """A yolo11 at our own width: a copy of the `packaged` description with one scale."""
    import ultralytics

    source = Path(ultralytics.__file__).parent / "cfg" / "models" / "11" / f"{packaged}.yaml"
    described = yaml.safe_load(source.read_text())
    described["nc"] = classes
    described["scales"] = {"n": [depth, width, 1024]}
    path = out / f"{packaged.replace('yolo11', 'yolo11n')}-toybox.yaml"
    path.write_text(yaml.safe_dump(described))
    return path


def train(set_folder: Path, work: Path, config: DetectorConfig, start: Path | None = None) -> Path:
    """Train and install `models/detector/toybox.pt` (half precision, no optimizer state); returns its path."""
    from ultralytics import YOLO

    work.mkdir(parents=True, exist_ok=True)
    data = write_pictures(training_set.read(set_folder), work / "pictures", config)
    model = YOLO(
        str(start if start is not None else architecture(work, "yolo11", len(CLASSES), config.depth, config.width))
    )
    model.train(
        data=str(data), imgsz=config.image_size, epochs=config.epochs, batch=config.batch, seed=config.seed,
        device="cpu", workers=0, optimizer="AdamW", lr0=config.learning_rate, cos_lr=True, warmup_epochs=1.0,
        mosaic=0.4, close_mosaic=4, scale=0.25, translate=0.08, fliplr=0.5, hsv_h=0.02, hsv_s=0.4, hsv_v=0.3,
        box=9.0, cls=0.7, plots=False, amp=False, cache="ram", project=str(work), name="run", exist_ok=True, val=False,
    )  # fmt: skip
    return install(work / "run" / "weights" / "last.pt", "toybox.pt")


def forget_places(weights: Path) -> None:
    """Keep of every path in a checkpoint's records its last part alone: other machines lack the folders."""
    checkpoint: Any = torch.load(weights, map_location="cpu", weights_only=False)
    model: Any = checkpoint["model"]
    checkpoint["git"] = None
    for record in (checkpoint["train_args"], model.args, model.yaml, vars(model)):
        for key, value in record.items():
            if isinstance(value, str | Path) and Path(value).is_absolute():
                record[key] = Path(value).name
    torch.save(checkpoint, weights)


def install(weights: Path, name: str) -> Path:
    """Copy stripped weights to where `models.bundled` finds them, whole or not at all."""
    from ultralytics.utils.torch_utils import strip_optimizer

    target = MODELS / "detector" / name
    target.parent.mkdir(parents=True, exist_ok=True)
    temporary = target.with_suffix(".partial.pt")
    strip_optimizer(str(weights), str(temporary))
    forget_places(temporary)
    temporary.rename(target)
    return target


if __name__ == "__main__":
    weights = Path(sys.argv[3]) if len(sys.argv) > 3 else None
    print(train(Path(sys.argv[1]), Path(sys.argv[2]), DetectorConfig() if weights is None else SECOND, weights))
