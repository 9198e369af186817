"""Frames a second of extraction, against decoding alone and against a plain loop over as many samples, in one run.

Decoding alone is the limit: every frame once, by all cores, nothing done with it. The plain loop is what one writes
without OnModel: decode every frame, and of as many frames a second as extraction considers, spread by the clock, turn
each into a picture, detect, decide, embed frame and characters, one after the other. Models are loaded beforehand on
both sides and have every core; rounds alternate, so that what else the machine does falls on all, and medians count.

With `--film` a minute of the film by the "film" preset alone, with `--toybox` a rendered one by the bundled detector.
"""

import os
import statistics
import sys
import tempfile
import time
from collections.abc import Callable
from pathlib import Path

import av

sys.path.insert(0, str(Path(__file__).parents[1]))

from film.made import cut, cut_references
from onmodel.core.images import encode_png
from onmodel.detection.config import DetectorConfig
from onmodel.detection.model import load_detector
from onmodel.detection.rules import decide
from onmodel.detection.weights import ENVIRONMENT
from onmodel.film.decode import probe
from onmodel.film.extract import ExtractConfig, extract, settings_for
from onmodel.film.identity import crop_of
from onmodel.film.look import LocalLook
from onmodel.film.profile import Profile
from onmodel.scoring.config import ScorerConfig
from onmodel.scoring.model import load_scorer
from onmodel.toybox.character import HELD_OUT
from onmodel.toybox.dataset import reference_pictures
from onmodel.toybox.film import make_film

ASSETS = Path(__file__).parents[3] / "shared" / "assets"
FILM = ASSETS / "video" / "big_buck_bunny_117s_720p.mp4"
REFERENCES = Path(__file__).parents[1] / "film" / "rabbit_references.json"
MINUTE_FROM_S = 56.0
"""The excerpt begins at the key frame here: of what follows, rabbit and others share about half each."""
ROUNDS = 3
TARGET = 3.0
PROFILE = Profile.model_validate(
    {"priority_scenes": {n: {"target": 8} for n in ("medium_shot", "full_body", "multi_character", "occlusion")}}
)


def decode_alone(film: Path) -> None:
    """Every frame, by as many threads as FFmpeg likes."""
    with av.open(str(film)) as container:
        stream = container.streams.video[0]
        stream.thread_type = "AUTO"
        for _ in container.decode(stream):
            pass


def plain_loop(film: Path, config: DetectorConfig, span_s: float) -> Callable[[], None]:
    """Decode all, detect and embed one sample each `span_s` after the other."""
    detector, scorer = load_detector(config), load_scorer(ScorerConfig())

    def run() -> None:
        wanted = 0.0
        with av.open(str(film)) as container:
            stream = container.streams.video[0]
            stream.thread_type = "AUTO"
            for frame in container.decode(stream):
                if frame.time + 1e-6 < wanted:
                    continue
                wanted += span_s
                image = frame.to_ndarray(format="rgb24").astype("uint8")
                (found,) = detector.detect([image])
                decide(image, found, config.shots)
                scorer.embed_images([image])
                for instance in found.instances:
                    scorer.embed_images([crop_of(image, instance.box)])

    return run


def through_extract(film: Path, reference: Path, config: DetectorConfig, scratch: Path) -> Callable[[], None]:
    """The whole of `onmodel extract` behind loading: to the dataset on disk."""
    look = LocalLook(config)
    numbers = iter(range(1000))

    def run() -> None:
        extract(
            [film],
            PROFILE,
            scratch / f"out{next(numbers)}",
            look,
            reference=reference,
            knows_occluders=bool(config.occluder_classes),
        )

    return run


def seconds(work: Callable[[], None]) -> float:
    start = time.perf_counter()
    work()
    return time.perf_counter() - start


def measure(label: str, film: Path, reference: Path, config: DetectorConfig, scratch: Path) -> None:
    """Alternate the three, and print."""
    found = probe(film)
    frames = found.frames
    span_s = settings_for(ExtractConfig(), [found], PROFILE).sampling.span_s
    ours = through_extract(film, reference, config, scratch)
    plain = plain_loop(film, config, span_s)
    rounds = [(seconds(ours), seconds(plain), seconds(lambda: decode_alone(film))) for _ in range(ROUNDS)]
    extraction, loop, limit = (frames / statistics.median(times) for times in zip(*rounds, strict=True))
    print(f"extract, {label}: frames a second, considering one each {span_s:g} s | {extraction:.0f} | - | -")
    print(f"extract, {label}: decoding alone, frames a second (the limit) | {limit:.0f} | - | -")
    print(f"extract, {label}: plain loop, frames a second | {loop:.0f} | - | -")
    print(f"extract, {label}: share of decoding alone | {extraction / limit:.2f} | - | -")
    ratio = extraction / loop
    met = "met" if ratio >= TARGET else "not met"
    print(f"extract, {label}: over the plain loop | {ratio:.2f} | >= {TARGET:g} | {met}")


def rabbit(folder: Path) -> Path:
    """The reference pictures, cut from the film."""
    return cut_references(REFERENCES, FILM, folder)


def toybox(folder: Path) -> tuple[Path, Path]:
    """A rendered minute and pictures of its first character."""
    film = folder / "toys.mp4"
    make_film(film, list(HELD_OUT.values()), seconds=60, seed=9, size=256)
    references = folder / "zibo"
    references.mkdir()
    for number, drawn in enumerate(reference_pictures(HELD_OUT["zibo"], 4, 5, size=256)):
        (references / f"{number}.png").write_bytes(encode_png(drawn.image))
    return film, references


def main() -> None:
    """Measure and print."""
    os.environ.setdefault(ENVIRONMENT, str(ASSETS / "detector"))
    with tempfile.TemporaryDirectory() as name:
        scratch = Path(name)
        if "--toybox" not in sys.argv:
            if FILM.is_file():
                references = rabbit(scratch / "rabbit")
                measure(
                    "film",
                    cut(FILM, scratch / "minute.mp4", MINUTE_FROM_S, MINUTE_FROM_S + 60),
                    references,
                    DetectorConfig.preset("film"),
                    scratch / "film",
                )
            else:
                print(f"extract, film: over the plain loop | not measured: no {FILM.name} | >= {TARGET:g} | not met")
        if "--film" not in sys.argv:
            film, references = toybox(scratch)
            measure("toybox", film, references, DetectorConfig.preset("toybox"), scratch / "toybox")


if __name__ == "__main__":
    main()
