"""What an extraction leaves beside its frames: `extraction.parquet`, `lineage.jsonl` and the result's summary."""

import json
from collections import Counter
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any, Literal

import pyarrow as pa
import pyarrow.parquet as pq
from pydantic import ValidationError

from onmodel.core.config import Config
from onmodel.core.files import write_aside, write_text
from onmodel.film.decode import Film
from onmodel.film.judge import Judged
from onmodel.film.select import Chosen

TABLE = "extraction.parquet"
LINEAGE = "lineage.jsonl"
PAGE = "extraction.html"

SCHEMA = pa.schema(
    [
        ("film", pa.string()),
        ("film_hash", pa.string()),
        ("time_s", pa.float64()),
        ("shot", pa.int32()),
        ("taken", pa.bool_()),
        ("file", pa.string()),
        ("scenes", pa.list_(pa.string())),
        ("dropped", pa.string()),
        ("why", pa.string()),
        ("shot_type", pa.string()),
        ("attributes", pa.list_(pa.string())),
        ("identity", pa.float64()),
        ("ours", pa.bool_()),
        ("height_ratio", pa.float64()),
        ("certainty", pa.float64()),
        ("score", pa.float64()),
        ("sharpness", pa.float64()),
        ("fingerprint", pa.uint64()),
        ("hidden", pa.float64()),
        ("box", pa.list_(pa.float64(), 4)),
    ]
)
"""One row a candidate. `dropped`: the fault for which it was not looked at; `why`: scene by scene, why it was taken or
not; `identity`: likeness to the references; `certainty`: of its least certain category."""


class SceneResult(Config):
    """One scene's outcome."""

    target: int
    found: int
    """Frames taken that serve it."""
    could: int
    """Frames that could serve it."""
    refused: dict[str, int]
    """Why the other looked-at frames could not: reason without its figures, how many."""


class ExtractionResult(Config):
    """What came of an extraction."""

    schema_version: Literal[1] = 1
    key: str
    """SHA-256 over films, profile, settings, references and models."""
    output_dir: str
    films: tuple[str, ...]
    frames: int
    """Frames decoded."""
    shots: int
    candidates: int
    """Frames considered: one a span of each shot."""
    dropped: dict[str, int]
    """Fault -> candidates dropped for it without a look."""
    pictures: int
    scenes: dict[str, SceneResult]
    shortfalls: tuple[str, ...]
    """A sentence for each scene that has fewer than asked, naming what most frames failed."""
    notes: tuple[str, ...]


def kind_of(reason: str) -> str:
    """A refusal without its figures, so that refusals can be counted."""
    return reason.split(" (", 1)[0].split(" fills ", 1)[0]


def scene_results(rows: Sequence[Judged], targets: Mapping[str, int], chosen: Chosen) -> dict[str, SceneResult]:
    """Outcome of each scene asked for."""
    return {
        name: SceneResult(
            target=target,
            found=chosen.found[name],
            could=chosen.could[name],
            refused=dict(
                sorted(Counter(kind_of(r.refusals[name]) for r in rows if name in r.refusals).items(), key=_most)
            ),
        )
        for name, target in targets.items()
    }


def _most(item: tuple[str, int]) -> tuple[int, str]:
    return (-item[1], item[0])


def shortfalls(scenes: Mapping[str, SceneResult]) -> tuple[str, ...]:
    """Sentences about scenes that have fewer frames than asked."""
    said: list[str] = []
    for name, scene in scenes.items():
        if scene.found >= scene.target:
            continue
        reasons = ", ".join(f"{count} {_plural(reason)}" for reason, count in list(scene.refused.items())[:3])
        alike = scene.could - scene.found
        extra = f"; {alike} more are too like those taken" if alike > 0 else ""
        said.append(
            f"{name}: {scene.found} of {scene.target} found; of the other frames looked at: {reasons or 'none'}{extra}"
        )
    return tuple(said)


def _plural(reason: str) -> str:
    """A refusal's kind behind a number."""
    if reason.startswith("is "):
        return f"are {reason.removeprefix('is ')}"
    if reason.endswith("is not certain"):
        return "not certain"
    if reason.endswith("not seen"):
        return f"without {reason.removesuffix(' not seen')}"
    return {
        "the character": "with too small a character",
        "no character found": "without a character",
        "nothing in front of the character": "with nothing in front of the character",
        "no other character beside ours": "without another character",
        "the background is plain": "with a plain background",
    }.get(reason, reason)


def write_table(path: Path, rows: Sequence[Judged], films: Sequence[Film], chosen: Chosen, files: Mapping[int, str],
                result: ExtractionResult) -> None:  # fmt: skip
    """Write every candidate, with the result's summary in the file's metadata."""
    table = pa.Table.from_pylist([_row(n, row, films, chosen, files) for n, row in enumerate(rows)], SCHEMA)
    # Without the folder's path: the same extraction is the same bytes wherever it lies.
    summary = result.model_copy(update={"output_dir": ""}).model_dump_json()
    table = table.replace_schema_metadata({"onmodel.extraction": summary})
    with write_aside(path) as aside:
        pq.write_table(table, aside, compression="zstd")


def read_result(folder: Path) -> ExtractionResult | None:
    """The summary of a finished extraction in `folder`, or None."""
    path = folder / TABLE
    if not path.is_file():
        return None
    try:
        metadata = pq.read_schema(path).metadata or {}
        return ExtractionResult.model_validate_json(metadata.get(b"onmodel.extraction", b""))
    except (OSError, pa.ArrowException, ValidationError):
        return None


def _row(number: int, row: Judged, films: Sequence[Film], chosen: Chosen, files: Mapping[int, str]) -> dict[str, Any]:
    decision, main, looked = row.decision, row.main, row.looked
    scenes = chosen.scenes.get(number, [])
    return {
        "film": films[row.film].path.name,
        "film_hash": films[row.film].hash,
        "time_s": round(looked.time_s, 6),
        "shot": row.shot,
        "taken": number in chosen.scenes,
        "file": files.get(number),
        "scenes": scenes,
        "dropped": looked.fault,
        "why": explain(number, row, chosen),
        "shot_type": decision.shot_type.value if decision else None,
        "attributes": sorted(a.value for a in decision.attributes) if decision else [],
        "identity": row.likeness,
        "ours": main is not None and not row.stranger,
        "height_ratio": round(row.height_ratio, 4),
        "certainty": min(row.certainties.values(), default=None),
        "score": max(row.scores.values(), default=None),
        "sharpness": round(looked.sharpness, 3),
        "fingerprint": looked.fingerprint,
        "hidden": looked.hidden,
        "box": main.box.as_tuple() if main else None,
    }


def explain(number: int, row: Judged, chosen: Chosen) -> str:
    """Why a candidate was taken or dropped, scene by scene."""
    if row.looked.fault is not None:
        return f"dropped: {row.looked.fault.replace('_', ' ')}"
    said = [f"{name}: taken ({row.scores[name]:.2f})" for name in chosen.scenes.get(number, [])]
    said += [f"{name}: {why}" for name, why in chosen.passed.get(number, {}).items() if number not in chosen.scenes]
    said += [f"{name}: {why}" for name, why in row.refusals.items()]
    return "; ".join(said)


def write_lineage(path: Path, rows: Sequence[Judged], films: Sequence[Film], chosen: Chosen,
                  files: Mapping[int, str]) -> None:  # fmt: skip
    """One JSON line a taken frame: where it comes from and what it serves."""
    lines: list[str] = []
    for number, file in files.items():
        row = rows[number]
        assert row.decision is not None
        line = {
            "file": file,
            "film": films[row.film].path.name,
            "film_hash": films[row.film].hash,
            "time_s": round(row.looked.time_s, 6),
            "shot": row.shot,
            "scenes": chosen.scenes[number],
            "shot_type": row.decision.shot_type.value,
            "attributes": sorted(a.value for a in row.decision.attributes),
            "identity": row.likeness,
        }
        lines.append(json.dumps(line))
    write_text(path, "".join(f"{line}\n" for line in lines))


def read_lineage(path: Path) -> list[dict[str, Any]]:
    """The lines of a lineage file; none where there is no such file."""
    if not path.is_file():
        return []
    return [json.loads(line) for line in path.read_text(encoding="utf-8").splitlines() if line.strip()]
