"""Is what the data engine takes right? Extraction and clustering of a ten-minute toybox film, against its exact truth.

    python tests/benchmarks/bench_engine.py [SECONDS] [--seed SEED] [--errors]

The film shows zibo, who leads, and seven random characters of a seed that nothing was chosen on. Film and truth stay
in the temporary folder, so that a second run makes none. What is counted:

- Precision of a category: of the frames filed under it, the share that show our character (main, or beside the main one
  and at least half as large) and are of the category by the renderer's truth of that very frame. Where a person may see
  an attribute either way (a sliver hidden, a companion half out of the frame), the frame is left out.
- Recall of a category: of the takes that show our character as their main one and the category beyond doubt for at
  least half a second, fades left out, the share from which a frame was taken for it. Targets are larger than what there
  is, so they limit nothing; near-duplicates of a frame taken are not missed, since their take was found.
- Clustering: two frames of every take, clustered without references; adjusted Rand index over the instances that are in
  a cluster, identity being the name of the rendered character that the box overlaps most (by at least 0.3).
"""

import argparse
import tempfile
from collections import Counter
from collections.abc import Iterable, Sequence
from pathlib import Path
from typing import Any

import av
import numpy as np
import pyarrow.parquet as pq
from sklearn.metrics import adjusted_rand_score

from onmodel import toybox
from onmodel.core.files import content_hash
from onmodel.core.images import encode_png
from onmodel.core.vocabulary import Box, ShotType
from onmodel.dataset.folder import load_dataset
from onmodel.detection.config import DetectorConfig
from onmodel.film.cluster import ClusterConfig, Looking, cluster
from onmodel.film.cluster_output import TABLE, write
from onmodel.film.extract import ExtractConfig, extract
from onmodel.film.look import LookConfig
from onmodel.film.profile import SCENES, Profile
from onmodel.film.records import LINEAGE, read_lineage
from onmodel.scoring.config import ScorerConfig
from onmodel.toybox.character import HELD_OUT, Character, random_character
from onmodel.toybox.dataset import reference_pictures
from onmodel.toybox.film import FilmTruth, FrameTruth, make_film, read_film_truth, truth_path

SEED = 424_242
CAST = 8
TARGET = 300
SPAN_S = 0.5
HELD_S = 0.5
"""A take shows a category when so much of it does."""


def cast(seed: int) -> list[Character]:
    """Ours, whom no bundled model was trained on, and random others."""
    rng = np.random.default_rng(seed)
    return [HELD_OUT["zibo"], *(random_character(rng) for _ in range(CAST - 1))]


def film_of(seconds: float, seed: int) -> FilmTruth:
    """The film, made at the first run and when the renderer has changed."""
    sources = [path for path in sorted(Path(toybox.__file__).parent.glob("*.py")) if "train" not in path.stem]
    version = content_hash(b"".join(source.read_bytes() for source in sources))[:8]
    path = Path(tempfile.gettempdir()) / "onmodel-bench" / f"toybox-{seed}-{seconds:g}s-{version}.mp4"
    if path.is_file() and truth_path(path).is_file():
        return read_film_truth(path)
    return make_film(path, cast(seed), seconds=seconds, seed=seed)


def is_ours(frame: FrameTruth, name: str) -> bool:
    """Whether our character is the main one, or beside it and at least half as large."""
    people = frame.truth.characters
    return any(c.name == name and 2 * c.visible_pixels >= people[0].visible_pixels > 0 for c in people)


def is_of(frame: FrameTruth, category: str) -> bool | None:
    """Whether a frame is of a category; None where it can be seen either way."""
    if category in {shot.value for shot in ShotType}:
        return frame.truth.shot_type.value == category
    if category in {a.value for a in frame.doubtful}:
        return None
    return category in {a.value for a in frame.truth.attributes}


def takes_with(film: FilmTruth, name: str, category: str) -> set[int]:
    """Takes in which our character is the main one and the category lasts."""
    seen = Counter(
        frame.shot
        for frame in film.frames
        if frame.kind == "take"
        and frame.truth.characters
        and frame.truth.characters[0].name == name
        and frame.truth.shot_type is not ShotType.UNCLASSIFIED
        and is_of(frame, category)
    )
    return {shot for shot, count in seen.items() if count >= HELD_S * film.fps}


def line(name: str, value: float, target: float) -> None:
    print(f"{name} | {value:.3f} | >= {target:g} | {'met' if value >= target else 'not met'}")


def extraction(film: FilmTruth, scratch: Path, seed: int, show_errors: bool) -> None:
    """Take everything that there is of the leading character, and count."""
    lead = cast(seed)[0]
    references = scratch / "lead"
    references.mkdir()
    for k, picture in enumerate(reference_pictures(lead, 6, seed, size=128)):
        (references / f"{k}.png").write_bytes(encode_png(picture.image))
    profile = Profile.model_validate({"priority_scenes": {scene: {"target": TARGET} for scene in SCENES}})
    look = LookConfig(DetectorConfig.preset("toybox")).open()
    result = extract(
        [film.path], profile, scratch / "frames", look,
        reference=references, config=ExtractConfig(span_s=SPAN_S), knows_occluders=True,
    )  # fmt: skip
    taken = read_lineage(scratch / "frames" / LINEAGE)
    print(f"engine: frames taken of {result.candidates} candidates | {len(taken)} | - | -")
    right_all, judged_all, found_all, there_all = 0, 0, 0, 0
    for scene, category in SCENES.items():
        filed = [row for row in taken if scene in row["scenes"]]
        judged = [(row, right(film.at(row["time_s"]), lead.name, category)) for row in filed]
        counted = [answer for _, answer in judged if answer is not None]
        takes = takes_with(film, lead.name, category)
        found = takes & {film.at(row["time_s"]).shot for row in filed}
        right_all, judged_all = right_all + sum(counted), judged_all + len(counted)
        found_all, there_all = found_all + len(found), there_all + len(takes)
        line(f"engine: {category} precision of {len(counted)} frames", share(counted), 0.95)
        line(f"engine: {category} recall of {len(takes)} takes", len(found) / max(1, len(takes)), 0.90)
        if show_errors:
            explain(film, [row for row, answer in judged if answer is False], sorted(takes - found))
    line(f"engine: precision, all categories ({judged_all} filings)", right_all / max(1, judged_all), 0.95)
    line(f"engine: recall, all categories ({there_all} takes)", found_all / max(1, there_all), 0.90)


def right(frame: FrameTruth, name: str, category: str) -> bool | None:
    """Whether a frame filed under a category is rightly there."""
    answer = is_of(frame, category)
    return answer and is_ours(frame, name) if answer is not None else None


def share(answers: Iterable[bool]) -> float:
    """The share of yes among the answers, 0 without any."""
    given = list(answers)
    return sum(given) / max(1, len(given))


def explain(film: FilmTruth, wrong: Sequence[dict[str, Any]], missed: Sequence[int]) -> None:
    """Print each wrong frame and each missed take."""
    for row in wrong:
        truth = film.at(row["time_s"]).truth
        who = [c.name for c in truth.characters]
        marks = sorted(a.value for a in truth.attributes)
        print(f"  wrong {row['time_s']:.2f} s: is {truth.shot_type.value} {marks} of {who}")
    for shot in missed:
        frame = film.shots[shot][len(film.shots[shot]) // 2]
        visible = frame.truth.characters[0].visible_fraction
        print(f"  missed take {shot} at {frame.time_s:.2f} s: {frame.truth.shot_type.value}"
              f" {sorted(a.value for a in frame.truth.attributes)}, {visible:.0%} visible")  # fmt: skip


def clustering(film: FilmTruth, scratch: Path) -> None:
    """Cluster two frames of every take."""
    folder = scratch / "two of each"
    folder.mkdir()
    wanted = {
        film.frames.index(frames[0]) + int(part * len(frames))
        for frames in film.shots.values()
        if frames[0].kind in ("take", "fade")
        for part in (0.25, 0.75)
    }
    numbers: dict[str, int] = {}
    with av.open(str(film.path)) as container:
        for number, frame in enumerate(container.decode(video=0)):
            if number in wanted:
                numbers[f"frame_{number:06d}.png"] = number
                image = frame.to_ndarray(format="rgb24").astype(np.uint8)
                (folder / f"frame_{number:06d}.png").write_bytes(encode_png(image))
    looking = Looking(DetectorConfig.preset("toybox"), ScorerConfig())
    dataset = load_dataset(folder)
    result = write(cluster(dataset, looking, ClusterConfig()), dataset, scratch / "clusters", looking.detector)
    rows: list[dict[str, Any]] = pq.read_table(scratch / "clusters" / TABLE).to_pylist()
    names = [who(film.frames[numbers[row["file"]]], row["box"]) for row in rows]
    known = [(name, row["cluster"]) for name, row in zip(names, rows, strict=True) if name is not None]
    inside = [pair for pair in known if pair[1] is not None]
    print(f"engine: clusters found of {CAST} characters | {len(result.clusters)} | - | -")
    print(f"engine: instances that are outliers, of {len(known)} | {1 - len(inside) / max(1, len(known)):.3f} | - | -")
    index = adjusted_rand_score([name for name, _ in inside], [cluster for _, cluster in inside])
    line(f"engine: clustering adjusted Rand index ({len(inside)} instances)", index, 0.95)


def who(frame: FrameTruth, corners: Sequence[float] | None) -> str | None:
    """The rendered character that a box overlaps most; None where it overlaps nobody."""
    if corners is None:
        return None
    box = Box(*corners)
    overlaps = {c.name: c.visible_box.iou(box) for c in frame.truth.characters if c.visible_box is not None}
    best = max(overlaps, key=lambda name: overlaps[name], default=None)
    return best if best is not None and overlaps[best] >= 0.3 else None


def main() -> None:
    """Make the film, extract, cluster, print."""
    parser = argparse.ArgumentParser(description="Accuracy of extraction and clustering on a toybox film.")
    parser.add_argument("seconds", nargs="?", type=float, default=600.0, help="length of the film")
    parser.add_argument("--seed", type=int, default=SEED, help="of the film and its cast")
    parser.add_argument("--errors", action="store_true", help="print what is wrong and what was missed")
    options = parser.parse_args()
    film = film_of(options.seconds, options.seed)
    with tempfile.TemporaryDirectory() as folder:
        clustering(film, Path(folder))
        extraction(film, Path(folder), options.seed, options.errors)


if __name__ == "__main__":
    main()
