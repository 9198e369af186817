"""An extraction for a person: a table for the terminal, and a contact sheet as one self-contained page."""

import base64
from collections.abc import Mapping, Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from pathlib import Path

from jinja2 import Environment, PackageLoader
from rich.table import Table

from onmodel.core.images import load, thumbnail_jpeg
from onmodel.dataset.recommended import LABELS
from onmodel.film.decode import Film
from onmodel.film.judge import Judged
from onmodel.film.profile import SCENES
from onmodel.film.records import ExtractionResult
from onmodel.film.select import Chosen

THUMBNAIL_SIDE = 320
FAULTS = {
    "black": "black",
    "fade": "in a fade or dissolve",
    "title_card": "title card",
    "blur": "blurred",
    "near_duplicate": "near-duplicate",
}


@dataclass(frozen=True, slots=True)
class _Thumb:
    file: str
    time: str
    jpeg: str
    label: str
    detail: str


def clock(time_s: float) -> str:
    """Seconds as h:mm:ss.cc."""
    minutes, seconds = divmod(round(time_s, 2), 60)
    return f"{int(minutes // 60)}:{int(minutes % 60):02d}:{seconds:05.2f}"


def page(
    folder: Path, rows: Sequence[Judged], films: Sequence[Film], chosen: Chosen, files: Mapping[int, str],
    result: ExtractionResult,
) -> str:  # fmt: skip
    """The contact sheet: per scene what was asked, found and missing, with its frames; what was dropped and why."""
    environment = Environment(loader=PackageLoader("onmodel.film"), autoescape=True, trim_blocks=True)
    with ThreadPoolExecutor(4) as pool:
        jpegs = dict(zip(files, pool.map(lambda name: _thumbnail(folder / name), files.values()), strict=True))
    groups: list[tuple[str, list[_Thumb]]] = []
    for name in result.scenes:
        mine = [n for n in files if name in chosen.scenes[n]]
        groups.append((name, [_thumb(rows[n], films, files[n], jpegs[n], name, len(films) > 1) for n in mine]))
    return environment.get_template("extraction.html").render(
        result=result,
        films=films,
        groups=groups,
        labels={name: LABELS[category] for name, category in SCENES.items()},
        faults=[(FAULTS.get(name, name), count) for name, count in result.dropped.items() if count],
        clock=clock,
    )


def _thumbnail(path: Path) -> str:
    return base64.b64encode(thumbnail_jpeg(load(path), THUMBNAIL_SIDE)).decode()


def _thumb(row: Judged, films: Sequence[Film], file: str, jpeg: str, scene: str, several: bool) -> _Thumb:
    decision = row.decision
    assert decision is not None
    attributes = [LABELS[a.value] for a in sorted(decision.attributes)]
    label = ", ".join([LABELS[decision.shot_type.value], *attributes])
    like = "" if row.likeness is None else f", likeness {row.likeness:.2f}"
    where = f"{films[row.film].path.name}, " if several else ""
    return _Thumb(
        file, f"{where}{clock(row.looked.time_s)}", jpeg, label, f"shot {row.shot}, score {row.scores[scene]:.2f}{like}"
    )


def table(result: ExtractionResult) -> Table:
    """What was asked and found, as a rich renderable."""
    shown = Table(title=f"{result.pictures} frames: {result.output_dir}", title_justify="left")
    for heading in ("scene", "asked", "found", "could serve"):
        shown.add_column(heading, justify="left" if heading == "scene" else "right")
    for name, scene in result.scenes.items():
        colour = "green" if scene.found >= scene.target else "red"
        shown.add_row(name, str(scene.target), f"[{colour}]{scene.found}[/]", str(scene.could))
    return shown


def lines(result: ExtractionResult) -> list[str]:
    """What the table leaves out, a sentence a line."""
    dropped = ", ".join(f"{count} {FAULTS.get(name, name)}" for name, count in result.dropped.items() if count)
    said = [
        f"{result.frames} frames in {result.shots} shots gave {result.candidates} candidates;"
        f" dropped without a look: {dropped or 'none'}."
    ]
    said += [f"not reached: {sentence}" for sentence in result.shortfalls]
    return [*said, *(f"note: {note}" for note in result.notes)]
