"""One or several checkpoints through a suite: pictures where missing, then figures, then `evaluation.json` for each."""

import math
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any

import numpy as np

from onmodel import __version__
from onmodel.core.config import load_whole
from onmodel.core.errors import ImageError, UserError
from onmodel.core.files import content_hash, write_text
from onmodel.core.progress import bar
from onmodel.evaluation.identity import Gallery, Identity, gallery
from onmodel.evaluation.metrics import Judged, figures, nearest_cosine, target_results
from onmodel.evaluation.observe import Looking, Seen, observe
from onmodel.evaluation.planned import Planned
from onmodel.evaluation.proportions import Proportions, proportions_of, usual
from onmodel.evaluation.record import RESULT_FILE, SCHEMA_VERSION, Evaluation, PictureRow, ScaleRecord
from onmodel.evaluation.suite import TestSuite
from onmodel.evaluation.tasks import Options, Task, draw

MOST_REFERENCES = 200
"""Reference and stranger pictures that are looked at, evenly spread over what is given."""
POOR_SEPARATION = 0.75
"""Below this chance of telling a genuine picture from a stranger's, a warning stands beside identity."""


def measure(tasks: Sequence[Task], suite: TestSuite, options: Options, services: Looking) -> list[Evaluation]:
    """Measure every task whose figures are not there yet, and write each `evaluation.json`."""
    results: list[Evaluation] = []
    looked = _Looked(services)
    keys = [_key(task, suite, options) for task in tasks]
    stored = [_stored(task.folder / RESULT_FILE, key) for task, key in zip(tasks, keys, strict=True)]
    with bar("Measuring checkpoints", stored.count(None)) as progress:
        for task, key, known in zip(tasks, keys, stored, strict=True):
            if known is not None:
                results.append(known)
                continue
            result = _measure(task, key, suite, options, looked)
            write_text(task.folder / RESULT_FILE, result.model_dump_json(indent=1) + "\n")
            results.append(result)
            progress.advance(1, task.trial.name)
    return results


def _stored(path: Path, key: str) -> Evaluation | None:
    found = load_whole(Evaluation, path)
    return found if found is not None and found.key == key else None


def _reference_files(task: Task, options: Options) -> tuple[tuple[Path, ...], str]:
    if options.references:
        return options.references, "held-back pictures"
    if not task.trial.training_pictures:
        raise UserError(
            f"{task.trial.checkpoint}: its training pictures are not known or gone; "
            "pass --references with a folder of pictures of the character"
        )
    return task.trial.training_pictures, "training pictures"


def _key(task: Task, suite: TestSuite, options: Options) -> str:
    references, _ = _reference_files(task, options)
    files = [
        *(f"{f}:{f.stat().st_size}:{f.stat().st_mtime_ns}" for f in (*references, *options.impostors)),
        *(f"{f}" for f in task.trial.training_pictures),
    ]
    parts = [
        str(SCHEMA_VERSION),
        __version__,
        options.measured_with,
        suite.model_dump_json(),
        *(p.key for p in task.pictures),
        *(p.key for p in task.strangers),
        *files,
    ]
    return content_hash("\0".join(parts).encode())


def _spread(files: Sequence[Path], most: int = MOST_REFERENCES) -> tuple[Path, ...]:
    if len(files) <= most:
        return tuple(files)
    return tuple(files[round(i)] for i in np.linspace(0, len(files) - 1, most))


class _Looked:
    """Pictures seen so far by file list, so that references and strangers are looked at once for all tasks."""

    def __init__(self, services: Looking) -> None:
        self.services = services
        self._seen: dict[tuple[Path, ...], list[Seen | ImageError]] = {}
        self._whole: dict[tuple[Path, ...], Any] = {}

    def seen(self, files: tuple[Path, ...]) -> list[Seen | ImageError]:
        """Detect and embed."""
        if files not in self._seen:
            self._seen[files] = observe([_read(f) for f in files], self.services)
        return self._seen[files]

    def whole(self, files: tuple[Path, ...]) -> Any:
        """Embeddings (n, D) of whole pictures alone; unreadable ones are left out."""
        if files not in self._whole:
            rows = self.services.scoring.embed_images([_read(f) for f in files]) if files else []
            good = [r for r in rows if not isinstance(r, ImageError)]
            self._whole[files] = np.stack(good) if good else np.zeros((0, 1), dtype=np.float32)
        return self._whole[files]


def _read(path: Path) -> bytes:
    try:
        return path.read_bytes()
    except OSError:
        return b""  # answered by the services as an unreadable picture


def _measure(task: Task, key: str, suite: TestSuite, options: Options, looked: _Looked) -> Evaluation:
    reference_files, source = _reference_files(task, options)
    stranger_files = _spread(options.impostors or [p.path for p in task.strangers])
    known = gallery(looked.seen(_spread(reference_files)), looked.seen(stranger_files))
    identity = Identity(known)
    seen = looked.seen(tuple(p.path for p in task.pictures))
    heads = proportions_of([(s.framing, s.head_to_body) for s in known.references])
    judged = judge(task, seen, identity, heads, looked)
    scenarios = {name: figures(judged, name) for name in suite.tested}
    scale = identity.scale
    record = (
        ScaleRecord(
            impostor=scale.impostor,
            genuine=scale.genuine,
            separation=scale.separation,
            references=scale.references,
            impostors=scale.impostors,
            recognised=identity.recognised,
            reference_source=source,
            impostor_source="given pictures" if options.impostors else "the base model, same prompts, no LoRA",
        )
        if scale
        else None
    )
    return Evaluation(
        key=key,
        trial=task.trial.name,
        trial_folder=str(task.trial.checkpoint.parent.resolve()),
        dataset=str(task.trial.dataset.resolve()) if task.trial.dataset else None,
        checkpoint=task.trial.checkpoint.name,
        checkpoint_hash=task.model.lora_hash or "",
        epoch=task.trial.epoch,
        step=task.trial.step,
        stage=task.trial.stage,
        scale=task.model.scale,
        base=task.model.base,
        base_hash=task.model.base_hash,
        vae=task.model.vae,
        suite=suite.name,
        steps=suite.steps,
        guidance_scale=suite.guidance_scale,
        seeds=suite.seeds,
        trigger=suite.trigger or task.trial.trigger,
        prompts=tuple(p.text for p in suite.prompts(task.trial.trigger)),
        measured_with=options.measured_with,
        calibration=record,
        base_pictures=str(task.strangers[0].path.parent.resolve()) if task.strangers else None,
        references_head_to_body=heads,
        warnings=tuple(_warnings(record, known, judged)),
        targets=tuple(target_results(scenarios)),
        scenarios=scenarios,
        overall=figures(judged),
        pictures=tuple(_row(p, j) for p, j in zip(task.pictures, judged, strict=True)),
    )


def judge(
    task: Task,
    seen: Sequence[Seen | ImageError],
    identity: Identity,
    heads: dict[str, Proportions],
    looked: _Looked,
) -> list[Judged]:
    """Everything the figures are made of, picture by picture; `heads` are the references' proportions."""
    readable = [s if isinstance(s, Seen) else None for s in seen]
    identities = [identity.characters(s) if s else [] for s in readable]
    # Whoever else is in the picture, and however large: the character is the one that is most like it.
    which = [int(np.argmax(values)) if values else 0 for values in identities]
    hidden = [
        (s, n)
        for s, n, p in zip(readable, which, task.pictures, strict=True)
        if s and s.crops and p.prompt.scenario == "occlusion"
    ]
    visible = dict(zip((id(s) for s, _ in hidden), identity.visible(hidden, looked.services), strict=True))
    texts = sorted({p.prompt.plain for p in task.pictures})
    embedded = dict(zip(texts, looked.services.scoring.embed_texts(texts), strict=True))
    training = looked.whole(_spread(task.trial.training_pictures, 2000))
    result: list[Judged] = []
    for picture, one, values, best in zip(task.pictures, readable, identities, which, strict=True):
        if one is None:
            result.append(Judged(picture.prompt.index, picture.prompt.scenario, None, (), *(float("nan"),) * 4))
            continue
        result.append(
            Judged(
                prompt=picture.prompt.index,
                scenario=picture.prompt.scenario,
                seen=one,
                identities=tuple(values),
                centre=identity.centre(one, best),
                visible=visible.get(id(one), float("nan")),
                fidelity=float(one.whole @ embedded[picture.prompt.plain]),
                nearest=float(nearest_cosine(one.whole[None], training)[0]),
                usual_head=usual(heads, one.framing),
                recognised=identity.recognised,
            )
        )
    return result


def _row(picture: Planned, judged: Judged) -> PictureRow:
    seen = judged.seen
    return PictureRow(
        file=picture.path.name,
        scenario=judged.scenario,
        prompt=judged.prompt,
        variation=picture.variation,
        outcome=judged.outcome.value,
        shot_type=seen.framing if seen else None,
        attributes=tuple(sorted(a.value for a in seen.decision.attributes)) if seen else (),
        characters=seen.characters if seen else 0,
        identity=_rounded(judged.main if seen else None),
        head_to_body=_rounded(seen.head_to_body if seen else None),
        fidelity=_rounded(judged.fidelity),
        memorisation=_rounded(judged.nearest),
    )


def _rounded(value: float | None) -> float | None:
    return None if value is None or math.isnan(value) else round(value, 4)


def _warnings(record: ScaleRecord | None, known: Gallery, judged: Sequence[Judged]) -> list[str]:
    notes: list[str] = []
    if record is None or record.separation < POOR_SEPARATION:
        chance = "no" if record is None else f"a {100 * record.separation:.0f} %"
        notes.append(
            f"The scorer has {chance} chance to tell a reference of this character from a stranger, so identity "
            "says little here; take a larger scorer or more references."
        )
    framings = {s.framing for s in known.references}
    lacking = [f for f in ("close_up", "medium", "full_body", "far") if f not in framings]
    if lacking:
        notes.append(
            f"No reference picture is {' or '.join(f.replace('_', ' ') for f in lacking)}: there identity is measured "
            "against other framings and comes out low."
        )
    unreadable = sum(j.seen is None for j in judged)
    if unreadable:
        notes.append(f"{unreadable} pictures could not be read and are left out.")
    return notes


def evaluate(
    tasks: Sequence[Task],
    suite: TestSuite,
    options: Options,
    services: Looking,
    *,
    on_drawn: Callable[[int], None] = lambda count: None,
) -> list[Evaluation]:
    """Draw what is missing, measure what is not measured, in the order of `tasks`."""
    on_drawn(draw(tasks, suite, options))
    return measure(tasks, suite, options, services)
