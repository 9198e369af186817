"""The whole product on real pictures: from the open film to the comparison of two LoRAs of its rabbit.

    python tests/benchmarks/bench_real_pictures.py WORK_FOLDER

Runs the commands of docs/real-pictures.md as they stand there, in a folder with the film, three reference pictures and
the files of `real_pictures/`; a folder that an earlier run left is gone on with. Needs the shared assets (film,
detector weights). Two sets of as many pictures come from the same frames: close-ups mostly, and balanced.

Held back are whole shots of the film, as references of the evaluation: no picture of them is trained on.
"""

import json
import os
import shlex
import shutil
import subprocess
import sys
import time
from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import Any

sys.path.insert(0, str(Path(__file__).parents[1]))

from film.made import cut_references
from onmodel.detection.weights import ENVIRONMENT
from onmodel.evaluation.compare import Comparison
from onmodel.film.records import LINEAGE
from pages import blocks, commands

ASSETS = Path(__file__).parents[3] / "shared" / "assets"
FILM = ASSETS / "video" / "big_buck_bunny_117s_720p.mp4"
GIVEN = Path(__file__).parent / "real_pictures"
REFERENCES = Path(__file__).parents[1] / "film" / "rabbit_references.json"
STRANGERS = REFERENCES.with_name("rabbit_strangers.json")
PAGE = Path(__file__).parents[2] / "docs" / "real-pictures.md"
HELD_BACK = "# hold back"
"""The one step that is no command, as the page shows it."""
HELD_SHOTS = frozenset({2, 8, 22})
"""A close-up, a full body with arms and a toy, and a close-up from another side."""
TRIALS = ("close_ups", "balanced")
METRICS = ("on_model", "found", "framing", "identity", "consistency", "memorisation")


def steps(page: Path = PAGE) -> list[str]:
    """The lines of the page's bash blocks, `HELD_BACK` among them."""
    found = blocks(page.read_text(encoding="utf-8"), "bash")
    return [line for block in found for line in commands(block) if line.startswith(("onmodel ", HELD_BACK))]


def prepare(work: Path, film: Path = FILM) -> None:
    """Put into a folder what the commands begin with."""
    work.mkdir(parents=True, exist_ok=True)
    for file in GIVEN.iterdir():
        shutil.copy(file, work / file.name)
    if not (work / "film.mp4").exists():
        (work / "film.mp4").symlink_to(film)
    for name, spec in (("references", REFERENCES), ("strangers", STRANGERS)):
        if not (work / name).is_dir():
            cut_references(spec, film, work / name)


def hold_back(work: Path, shots: frozenset[int] = HELD_SHOTS) -> None:
    """Copy `captioned` to `material` without the pictures of `shots`, which go to `held_back`."""
    for name in ("material", "held_back"):
        shutil.rmtree(work / name, ignore_errors=True)
    shutil.copytree(work / "captioned", work / "material")
    (work / "held_back").mkdir()
    for line in lineage(work / "captioned"):
        if line["shot"] in shots:
            picture = work / "material" / str(line["file"])
            shutil.move(picture, work / "held_back" / picture.name)
            picture.with_suffix(".txt").unlink()


def lineage(folder: Path) -> list[dict[str, Any]]:
    """What `lineage.jsonl` says of each picture."""
    return [json.loads(line) for line in (folder / LINEAGE).read_text(encoding="utf-8").splitlines()]


def run(work: Path, lines: Sequence[str]) -> Iterator[tuple[str, float]]:
    """Run steps in `work`; yields each with its seconds. Raises CalledProcessError."""
    environment = {
        **os.environ,
        ENVIRONMENT: os.environ.get(ENVIRONMENT, str(ASSETS / "detector")),
        "ONMODEL_CACHE": str(work / "cache"),
    }
    for line in lines:
        started = time.monotonic()
        if line.startswith(HELD_BACK):
            hold_back(work)
        else:
            command = [sys.executable, "-m", "onmodel", *shlex.split(line, comments=True)[1:]]
            subprocess.run(command, cwd=work, env=environment, check=True)
        yield line, time.monotonic() - started


def figures(work: Path) -> None:
    """Print what came of it."""
    comparison = Comparison.model_validate_json((work / "comparison.json").read_text(encoding="utf-8"))
    row("frames taken", len(lineage(work / "frames")))
    row("held back", len(list((work / "held_back").iterdir())))
    for result in comparison.evaluations:
        separation = result.calibration.separation if result.calibration else None
        row(f"{result.trial}: scorer tells held-back pictures from the base model's", separation)
        row(f"{result.trial}: pictures", len(result.pictures))
        for name in METRICS:
            found = result.overall.get(name)
            said = "-" if found is None else f"{found.mean:.3f} ({found.low:.3f} to {found.high:.3f})"
            row(f"{result.trial}: {name}", said)
    print(comparison.verdict)


def row(name: str, value: object) -> None:
    """One line of the table; there are no targets."""
    print(f"real pictures: {name} | {value} | - | -")


def main() -> None:
    """Run and print."""
    if len(sys.argv) != 2:
        sys.exit("usage: bench_real_pictures.py WORK_FOLDER")
    if not FILM.is_file():
        print(f"real pictures | not measured: no {FILM.name} | - | not met")
        return
    work = Path(sys.argv[1]).resolve()
    prepare(work)
    for line, seconds in run(work, steps()):
        print(f"real pictures: {line.split()[1]}, seconds | {seconds:.0f} | - | -", flush=True)
    figures(work)


if __name__ == "__main__":
    main()
