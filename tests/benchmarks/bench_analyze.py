"""Pictures a second of `analyze` through the service, against a plain loop over the same detector, in one run.

Facts start empty each time, so everything is detected; starting and warming the services is left out. One replica
takes all cores, as the plain loop does. What a second process brings is measured with one core for each.
"""

import tempfile
import time
from collections.abc import Callable
from pathlib import Path

import numpy as np

from onmodel.core.images import decode
from onmodel.core.vocabulary import Decision
from onmodel.dataset.analysis import analyze
from onmodel.dataset.facts import Facts
from onmodel.dataset.folder import Dataset, load_dataset
from onmodel.detection.config import DetectorConfig
from onmodel.detection.model import Detector, load_detector
from onmodel.detection.rules import decide
from onmodel.serving.local import open_services
from onmodel.toybox.dataset import Shares, make_dataset

RENDERED = 32
COPIES = 5
ROUNDS = 2
CONFIG = DetectorConfig.preset("toybox")


def pictures(folder: Path) -> Dataset:
    """Rendered pictures, each under several contents: a changed last byte is another picture to every cache."""
    make_dataset(folder, None, RENDERED, Shares(0.4, 0.3, 0.2, 0.1, 0.3, 0.2, 0.5), 99, size=256)
    for path in sorted(folder.glob("*.png")):
        for copy in range(1, COPIES):
            (folder / f"{path.stem}_{copy}.png").write_bytes(path.read_bytes() + bytes([copy]))
    return load_dataset(folder)


def plain_loop(detector: Detector, dataset: Dataset) -> list[Decision]:
    """What one writes without OnModel: read, decode, detect, decide, one after the other."""
    made: list[Decision] = []
    for picture in dataset.pictures:
        image = decode(picture.path.read_bytes())
        made.append(decide(image, detector.detect([image])[0], CONFIG.shots))
    return made


def rate(count: int, work: Callable[[], object]) -> float:
    """Pictures a second, the best of several rounds: other programs only ever slow one down."""
    times: list[float] = []
    for _ in range(ROUNDS):
        start = time.perf_counter()
        work()
        times.append(time.perf_counter() - start)
    return count / min(times)


def through_services(dataset: Dataset, scratch: Path, replicas: int, threads: int = 0) -> float:
    """Pictures a second of `analyze` with that many detection replicas of so many threads (0: all) here."""
    config = CONFIG.model_copy(update={"threads": threads})
    with open_services(None, detector=config, detection_replicas=replicas) as services:
        warm = [p.bytes() for p in dataset.pictures[: 16 * replicas]]
        services.detection.detect(warm)
        numbers = iter(range(1000))
        return rate(
            len(dataset.pictures),
            lambda: analyze(
                load_dataset(dataset.path),
                services,
                facts=Facts(scratch / f"{replicas}-{threads}-{next(numbers)}.parquet"),
            ),
        )


def line(name: str, value: float, target: float) -> None:
    print(f"{name} | {value:.2f} | >= {target:g} | {'met' if value >= target else 'not met'}")


def main() -> None:
    """Measure and print."""
    with tempfile.TemporaryDirectory() as scratch:
        dataset = pictures(Path(scratch) / "set")
        detector = load_detector(CONFIG)
        detector.detect([np.zeros((256, 256, 3), np.uint8)])
        plain = rate(len(dataset.pictures), lambda: plain_loop(detector, dataset))
        whole = through_services(dataset, Path(scratch), 1)
        one = through_services(dataset, Path(scratch), 1, threads=1)
        two = through_services(dataset, Path(scratch), 2, threads=1)
    print(f"analyze: plain loop, pictures a second | {plain:.1f} | - | -")
    print(f"analyze: one replica, all cores, pictures a second | {whole:.1f} | - | -")
    print(f"analyze: one replica of one core, pictures a second | {one:.1f} | - | -")
    print(f"analyze: two replicas of one core each, pictures a second | {two:.1f} | - | -")
    line("analyze: one replica over the plain loop", whole / plain, 0.9)
    line("analyze: two replicas of one core each over the plain loop", two / plain, 1.0)
    print(f"analyze: two replicas over one, a core each | {two / one:.2f} | - | -")


if __name__ == "__main__":
    main()
