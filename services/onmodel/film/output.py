"""Writes what an extraction chose: frames with captions and facts, where each is from, and the table that ends it."""

from collections import Counter
from collections.abc import Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass, field, replace
from pathlib import Path

from onmodel.core.errors import InternalError
from onmodel.core.files import content_hash, write_bytes, write_text
from onmodel.core.images import encode_png
from onmodel.core.vocabulary import Attribute
from onmodel.dataset.captions import with_context, with_shot
from onmodel.dataset.facts import FILE as FACTS
from onmodel.dataset.facts import Facts
from onmodel.detection.convert import Detected
from onmodel.film.chunk import Part, unpack
from onmodel.film.decode import Film
from onmodel.film.judge import Judged
from onmodel.film.look import Look
from onmodel.film.profile import Profile
from onmodel.film.quality import Fault
from onmodel.film.records import (
    LINEAGE,
    PAGE,
    TABLE,
    ExtractionResult,
    read_lineage,
    scene_results,
    shortfalls,
    write_lineage,
    write_table,
)
from onmodel.film.report import page
from onmodel.film.select import Chosen


@dataclass(slots=True)
class Gathered:
    """Rows of all parts so far, in order, and where their pictures lie."""

    rows: list[Judged] = field(default_factory=list[Judged])
    folders: list[Path] = field(default_factory=list[Path])
    """Of each part, by `Judged.part`."""
    frames: int = 0
    shots: int = 0
    damaged: int = 0
    films: int = 0
    shot: int = -1
    """Number of the film's last shot so far."""
    new: bool = True
    """Whether the next part begins with a new shot."""

    def add(self, film: int, part: Part, folder: Path) -> None:
        if film != self.films - 1:
            self.films, self.shot, self.new = film + 1, -1, True
        first = self.shot + 1 if self.new else max(0, self.shot)
        self.folders.append(folder)
        for looked in part.rows:
            self.rows.append(Judged(film, first + looked.shot, len(self.folders) - 1, looked))
        last = first + max(0, part.shots - 1)
        self.shots += last - self.shot
        self.shot, self.new = last, part.cut_at_end
        self.frames += part.frames
        self.damaged += part.damaged


def write(
    folder: Path,
    gathered: Gathered,
    chosen: Chosen,
    films: Sequence[Film],
    profile: Profile,
    look: Look,
    *,
    key: str,
    caption: str,
    notes: Sequence[str],
) -> ExtractionResult:
    """Write the dataset; the table comes last and marks it as finished.

    Args:
        folder: the dataset's; frames that an earlier extraction wrote there and that are not chosen now are removed.
        gathered: all candidates and where their pictures lie.
        chosen: which of them are taken.
        films: by `Judged.film`.
        profile: what was asked for.
        look: whose facts are kept.
        key: names the extraction.
        caption: first words of every caption.
        notes: sentences for the result.
    """
    # From here until it is written again the folder is not a finished one.
    (folder / TABLE).unlink(missing_ok=True)
    rows = gathered.rows
    for row in rows:
        _settle(row)
    files = _names(rows, chosen, films)
    _remove_others(folder, set(files.values()))
    facts = Facts(folder / FACTS)

    def one(number: int) -> str:
        return _write_frame(folder / files[number], rows[number], gathered, caption)

    with ThreadPoolExecutor(4) as pool:
        for number, content in zip(files, pool.map(one, files), strict=True):
            detected = rows[number].looked.detected
            assert detected is not None
            facts.put((content, look.detector.hash, look.detector.config_hash), detected)
    facts.save()
    scenes = scene_results(rows, {name: scene.target for name, scene in profile.scenes()}, chosen)
    faults = Counter(row.looked.fault for row in rows if row.looked.fault is not None)
    result = ExtractionResult(
        key=key,
        output_dir=str(folder),
        films=tuple(str(film.path) for film in films),
        frames=gathered.frames,
        shots=gathered.shots,
        candidates=len(rows),
        dropped={fault.value: faults[fault.value] for fault in Fault},
        pictures=len(files),
        scenes=scenes,
        shortfalls=shortfalls(scenes),
        notes=tuple(notes),
    )
    write_lineage(folder / LINEAGE, rows, films, chosen, files)
    write_text(folder / PAGE, page(folder, rows, films, chosen, files, result))
    write_table(folder / TABLE, rows, films, chosen, files, result)
    return result


def _settle(row: Judged) -> None:
    """Mend what is doubtful, since what is written counts as a fact.

    An occlusion that colours alone suggest is taken back where it is not certain, and a shot type that is not gives
    way to the one that the neighbours agree on.
    """
    found = row.looked.detected
    if found is None or not row.certainties:
        return
    decision = found.decision
    if row.looked.hidden and Attribute.OCCLUSION.value not in row.sure:
        decision = replace(decision, attributes=decision.attributes - {Attribute.OCCLUSION})
    if row.voted is not None and row.voted is not decision.shot_type and decision.shot_type.value not in row.sure:
        decision = replace(decision, shot_type=row.voted, reason="as the frames around it in its shot")
    row.looked.detected = Detected(found.detections, decision)


def _remove_others(folder: Path, kept: set[str]) -> None:
    for line in read_lineage(folder / LINEAGE):
        if line["file"] not in kept:
            (folder / line["file"]).unlink(missing_ok=True)
            (folder / line["file"]).with_suffix(".txt").unlink(missing_ok=True)


def _write_frame(path: Path, row: Judged, gathered: Gathered, caption: str) -> str:
    """Write a frame and its caption; its content hash."""
    assert row.looked.picture is not None and row.decision is not None
    try:
        packed = (gathered.folders[row.part] / row.looked.picture).read_bytes()
    except OSError:
        raise InternalError(f"{path.parent}: a kept frame has vanished; run again with --no-resume") from None
    png = encode_png(unpack(packed))
    write_bytes(path, png)
    shown = with_shot(caption, row.decision.shot_type)
    write_text(path.with_suffix(".txt"), with_context(shown, [a.value for a in row.decision.attributes]) + "\n")
    return content_hash(png)


def _names(rows: Sequence[Judged], chosen: Chosen, films: Sequence[Film]) -> dict[int, str]:
    """File names of the taken frames by row number, in order; films of one name are told apart by their hash."""
    stems = Counter(film.path.stem for film in films)
    names: dict[int, str] = {}
    for number in sorted(chosen.scenes):
        film = films[rows[number].film]
        stem = film.path.stem if stems[film.path.stem] == 1 else f"{film.path.stem}-{film.hash[:8]}"
        names[number] = f"{stem}_{round(rows[number].looked.time_s * 1000):09d}.png"
    return names
