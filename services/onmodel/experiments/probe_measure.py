"""How right the probe is, on renders that it never saw.

    python -m onmodel.experiments.probe_measure PROBE_FOLDER WORK_FOLDER [PICTURES]

renders those held-out pictures that WORK_FOLDER lacks, reads them, and writes the accuracy into probe.json anew.
"""

from __future__ import annotations

import json
import multiprocessing
import os
import sys
from collections import defaultdict
from dataclasses import dataclass, field
from pathlib import Path
from typing import Final

import numpy as np
import numpy.typing as npt

from onmodel.core.files import write_text
from onmodel.experiments import probe_pictures
from onmodel.experiments.probe import APART, DESCRIPTION, Person, Probe, distance, load_probe
from onmodel.experiments.probe_augment import VARIANTS
from onmodel.experiments.probe_pictures import COUNTED, FEATURES, SEED, UNSURE, Targets, character_of, twin
from onmodel.experiments.probe_store import Store
from onmodel.experiments.truth import on_model
from onmodel.toybox.character import Character, any_character
from onmodel.toybox.scene import FRAMED
from onmodel.toybox.schedule import best_device

HELD_FIRST: Final[int] = 10_000_000
"""Number of the first picture that is held out."""
NEAREST: Final[float] = 3.0
"""A found head belongs to a true one within half of its height, or within this many pixels."""
THRESHOLDS: Final[tuple[float, ...]] = tuple(round(0.1 + 0.05 * k, 2) for k in range(15))


def count_accuracy(people: list[tuple[Person, ...]], targets: Targets, threshold: float = 0.0) -> float:
    """Share of pictures whose number of people is right. Pictures with a head of which little is seen are left out."""
    sure = ~(targets.state == UNSURE).any(axis=1)
    true = (targets.state == COUNTED).sum(axis=1)
    found = np.array([sum(p.score >= threshold for p in each) for each in people])
    return float((found == true)[sure].mean())


def calibrated(probe: Probe, images: npt.NDArray[np.uint8], targets: Targets) -> float:
    """The threshold of heads that gives the most right numbers of people; the middle one of equals.

    Args:
        probe: with a threshold of 0.
        images: uint8 (variants, n, side, side, 3): all variants of the same pictures count.
        targets: of the n pictures.
    """
    read = [probe.read(each) for each in images]
    right = np.array([np.mean([count_accuracy(people, targets, t) for people in read]) for t in THRESHOLDS])
    best = np.flatnonzero(right >= right.max() - 1e-9)
    return THRESHOLDS[int(best[len(best) // 2])]


def matched(people: tuple[Person, ...], targets: Targets, row: int) -> dict[int, Person]:
    """For places of counted characters in a row of targets, who was found there; the nearest pairs first."""
    pairs = sorted(
        (distance(person.centre, (float(x), float(y))), k, m)
        for k, (x, y) in enumerate(targets.centre[row]) if targets.state[row, k] == COUNTED
        for m, person in enumerate(people)
    )  # fmt: skip
    found: dict[int, Person] = {}
    taken: set[int] = set()
    for far, k, m in pairs:
        if k not in found and m not in taken and far <= max(NEAREST, APART * float(targets.head[row, k])):
            found[k] = people[m]
            taken.add(m)
    return found


@dataclass
class _Tally:
    """Hits and errors under names."""

    each: dict[str, list[float]] = field(default_factory=lambda: defaultdict(list))

    def add(self, name: str, value: float) -> None:
        self.each[name].append(float(value))

    def mean(self, name: str) -> float:
        return float(np.mean(self.each[name])) if self.each[name] else float("nan")

    def quantile(self, name: str, share: float) -> float:
        return float(np.quantile(self.each[name], share)) if self.each[name] else float("nan")


def measure(
    probe: Probe, images: npt.NDArray[np.uint8], targets: Targets, numbers: range
) -> dict[str, float]:  # fmt: skip
    """Accuracy on pictures uint8 (n, side, side, 3) with their targets and numbers (`probe_pictures.scene_of`).

    Shares in 0..1; what no picture shows is left out. Features are judged where the truth says that they are seen, on
    heads that were found:
    `features` is the mean over all of them, `features_<framing>` over those of one framing, and `seen` how often the
    probe agrees about what is seen. Errors of heads and of head over body are relative, the latter of whole bodies.
    `on_model_right`: the main character is found on model in its own picture; `on_model_twin` and `on_model_other`: a
    near twin of it (other hair colour and shirt; not asked of a bald character, whose twin differs in one feature), and
    somebody else, are.
    """
    people = probe.read(images)
    tally = _Tally()
    for row, (found, number) in enumerate(zip(people, numbers, strict=True)):
        pairs = matched(found, targets, row)
        for k in np.flatnonzero(targets.state[row] == COUNTED):
            tally.add("found", int(k) in pairs)
            if int(k) in pairs:
                _judge_person(pairs[int(k)], targets, (row, int(k)), tally)
        if targets.state[row, 0] == COUNTED:
            _judge_picture(found, number, FRAMED[int(targets.framing[row, 0])].value, tally)
    result = {
        "pictures": float(len(images)), "count": count_accuracy(people, targets), "found": tally.mean("found"),
        "framing": tally.mean("framing"), "features": tally.mean("features"),
        **{name: tally.mean(f"feature {name}") for name in FEATURES},
        **{f"features_{shot.value}": tally.mean(f"features {shot.value}") for shot in FRAMED},
        "seen": tally.mean("seen"),
        "head_error_median": tally.quantile("head", 0.5), "head_error_90": tally.quantile("head", 0.9),
        "ratio_error_median": tally.quantile("ratio", 0.5), "ratio_error_90": tally.quantile("ratio", 0.9),
        **{f"on_model_{who}": tally.mean(f"on model {who}") for who in ("right", "twin", "other")},
        **{
            f"on_model_{who}_{shot.value}": tally.mean(f"on model {who} {shot.value}")
            for who in ("right", "twin", "other") for shot in FRAMED
        },
    }  # fmt: skip
    return {name: round(value, 4) for name, value in result.items() if np.isfinite(value)}


def _judge_person(person: Person, targets: Targets, at: tuple[int, int], tally: _Tally) -> None:
    shot = FRAMED[int(targets.framing[at])]
    tally.add("framing", person.framing is shot)
    tally.add("head", abs(person.head_height / float(targets.head[at]) - 1))
    if person.ratio is not None:
        tally.add("ratio", abs(person.ratio / (float(targets.head[at]) / float(targets.body[at])) - 1))
    for k, (name, options) in enumerate(FEATURES.items()):
        reading, seen = person.features[name], bool(targets.seen[at][k])
        tally.add("seen", (reading.seen >= 0.5) == seen)
        if seen:
            right = reading.value == options[int(targets.values[at][k])]
            for key in ("features", f"feature {name}", f"features {shot.value}"):
                tally.add(key, right)


def _judge_picture(found: tuple[Person, ...], number: int, scenario: str, tally: _Tally) -> None:
    """Whether the picture's own main character is on model in it, and whether others are."""
    rng = np.random.default_rng([SEED, 4, number])
    own = character_of(number)
    asked: dict[str, Character] = {"right": own, "twin": twin(rng, own), "other": any_character(rng)}
    if own.hair_style == "bald":
        del asked["twin"]
    for who, character in asked.items():
        answer = on_model(found, character, scenario)
        tally.add(f"on model {who}", answer)
        tally.add(f"on model {who} {scenario}", answer)


def accuracy(probe: Probe, unseen: Store, first: int) -> dict[str, dict[str, float]]:
    """`measure` for each of `VARIANTS`, on the store's held-out pictures from `first` on."""
    images, targets = unseen.images[:, first : unseen.filled].cpu().numpy(), unseen.on_cpu()
    numbers = range(HELD_FIRST + first, HELD_FIRST + unseen.filled)
    measured = targets.between(first, unseen.filled)
    return {name: measure(probe, images[k], measured, numbers) for k, name in enumerate(VARIANTS)}


def main(folder: Path, work: Path, pictures: int | None = None) -> dict[str, dict[str, float]]:
    """Measure the probe of a folder on those held-out pictures that did not choose its threshold; `pictures` of them,
    else as many as at its training."""
    described = json.loads((folder / DESCRIPTION).read_text(encoding="utf-8"))
    first = int(described["training"]["calibration"])
    count = int(described["training"]["held_out"]) if pictures is None else first + pictures
    spans = probe_pictures.spans(work, HELD_FIRST, count)
    with multiprocessing.get_context("spawn").Pool(os.cpu_count() or 1) as pool:
        pool.map(probe_pictures.write_one, spans, chunksize=1)
    device = best_device()
    unseen = Store(count, device)
    unseen.take(work)
    described["accuracy"] = accuracy(load_probe(folder, device), unseen, first)
    write_text(folder / DESCRIPTION, json.dumps(described, indent=2) + "\n")
    return described["accuracy"]


if __name__ == "__main__":
    made = main(Path(sys.argv[1]), Path(sys.argv[2]), int(sys.argv[3]) if len(sys.argv) > 3 else None)
    print(json.dumps(made, indent=2))
