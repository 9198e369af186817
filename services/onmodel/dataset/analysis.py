"""What a dataset holds against what it should hold: counts, shares, deficits, and a conclusion in words."""

import math
import shlex
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from typing import Any, Literal, Protocol

from onmodel.common.convert import ModelInfo
from onmodel.core.config import Config
from onmodel.core.errors import ImageError
from onmodel.core.files import content_hash
from onmodel.core.vocabulary import CATEGORIES, Attribute, ShotType, share
from onmodel.dataset.facts import Facts, Outcome, complete, to_json
from onmodel.dataset.folder import Dataset, Picture
from onmodel.dataset.labels import REASON, Label, read_labels
from onmodel.dataset.recommended import LABELS, RECOMMENDED, WHEN_ABOVE, WHEN_BELOW, Recommended
from onmodel.detection.convert import Detected

__all__ = ["RECOMMENDED", "Analysis", "CategoryResult", "InstanceRow", "Row", "analyze", "summarize"]

TARGET_SIZE = 475
Status = Literal["missing", "below", "within", "above"]
Numbers = tuple[float, float, float, float]


class InstanceRow(Config):
    """One character in one picture; boxes (x0, y0, x1, y1) in the upright picture's pixels."""

    box: Numbers
    confidence: float
    label: str
    face: Numbers | None = None
    outline: tuple[tuple[float, float], ...] = ()
    """Polygon around the visible part, from a segmentation model; empty without one."""


class Row(Config):
    """One picture of the dataset."""

    file: str
    """Path below the dataset's folder."""
    hash: str | None
    """SHA-256 of the file; None where it cannot be read."""
    caption: str = ""
    repeats: int = 1
    class_tokens: str | None = None
    error: str | None = None
    """Why the picture could not be analysed; then nothing below is set."""
    width: int = 0
    height: int = 0
    shot_type: ShotType = ShotType.UNCLASSIFIED
    attributes: tuple[str, ...] = ()
    reason: str = ""
    main: int | None = None
    instances: tuple[InstanceRow, ...] = ()
    occluders: tuple[Numbers, ...] = ()

    @property
    def categories(self) -> frozenset[str]:
        """The categories of the table that the picture counts in."""
        shot = () if self.shot_type is ShotType.UNCLASSIFIED else (self.shot_type.value,)
        return frozenset((*shot, *self.attributes))

    @property
    def main_instance(self) -> InstanceRow | None:
        return None if self.main is None else self.instances[self.main]


class CategoryResult(Config):
    """One line of the table. Shares in per cent."""

    count: int
    share: float
    """Of what training sees: pictures weighted by their folder's repeats."""
    picture_share: float
    """Of the pictures alone."""
    low: float
    high: float
    status: Status
    deficit: int
    """Pictures of this kind to add to the present ones to reach the range."""
    deficit_at_target: int
    """Pictures of this kind lacking in a dataset of the target size."""
    impact: str
    """What a model trained on this does; empty where the share is within its range."""


class Model(Config):
    """What detected: name for a person, hashes of weights and settings."""

    name: str
    hash: str
    config_hash: str


class Analysis(Config):
    """`analysis.json`."""

    schema_version: Literal[1] = 1
    dataset: str
    dataset_hash: str
    model: Model
    pictures: int
    """Pictures that were analysed."""
    unreadable: int
    target_size: int
    categories: dict[str, CategoryResult]
    unclassified: int
    unclassified_share: float
    conclusion: str
    next_command: str
    face_to_head: float = 1.0
    """Head height over face-box height of the detector; `augment` frames heads by it."""
    rows: tuple[Row, ...]

    @property
    def counts(self) -> dict[str, int]:
        return {name: result.count for name, result in self.categories.items()}

    @property
    def shares(self) -> dict[str, float]:
        """Per cent of what training sees."""
        return {name: result.share for name, result in self.categories.items()}

    @property
    def deficits(self) -> dict[str, int]:
        """Pictures to add to the present ones, a category."""
        return {name: result.deficit for name, result in self.categories.items()}


class _Detecting(Protocol):
    def detect(
        self, images: Sequence[bytes], *, advance: Callable[[int], object] | None = None
    ) -> list[Detected | ImageError]: ...

    def model_info(self) -> ModelInfo: ...


class HasDetection(Protocol):
    """What `analyze` needs of `onmodel.serving.local.Services`; the property starts a service where none runs."""

    @property
    def detection(self) -> _Detecting: ...


@dataclass(frozen=True, slots=True)
class _Source:
    picture: Picture
    hash: str | None
    error: str | None


def analyze(
    dataset: Dataset,
    services: HasDetection,
    *,
    model: ModelInfo | None = None,
    recommended: Recommended = RECOMMENDED,
    facts: Facts | None = None,
    face_to_head: float = 1.0,
    advance: Callable[[int], object] = lambda count: None,
) -> Analysis:
    """Detect what is not known yet, and count. What a person corrected (`labels.jsonl`) counts over the detector.

    Args:
        dataset: pictures to analyse; not changed.
        services: asked for `.detection` only when a picture is not in the facts (or `model` is None).
        model: what the services would answer with, where that is known without starting them.
        recommended: ranges and target size.
        facts: what is known; None opens the file beside the dataset. What is found is saved to it.
        face_to_head: of the detector, see `ShotConfig`; noted in the analysis.
        advance: called with the number of pictures done.

    Raises:
        ServiceError: the detection service fails; what was found until then is kept.
        UserError: `labels.jsonl` beside the dataset is damaged.
    """
    labels = read_labels(dataset.path)
    facts = Facts.open(dataset.path) if facts is None else facts
    info = model if model is not None else services.detection.model_info()
    sources = [_source(picture) for picture in dataset.pictures]
    readers = {source.hash: source.picture.bytes for source in sources if source.hash is not None}
    done = len(sources) - len(readers)
    advance(done)

    def detect(images: Sequence[bytes]) -> Sequence[Outcome]:
        return services.detection.detect(images, advance=advance)

    complete(facts, readers, (info.hash, info.config_hash), detect, advance=advance)
    rows: list[Row] = []
    for source in sources:
        found = None if source.hash is None else facts.get((source.hash, info.hash, info.config_hash))
        rows.append(_row(dataset, source, found, labels.get(source.hash or "")))
    return summarize(dataset, tuple(rows), info, recommended, face_to_head)


def _source(picture: Picture) -> _Source:
    try:
        return _Source(picture, picture.hash, None)
    except ImageError as error:
        return _Source(picture, None, str(error))


def _row(dataset: Dataset, source: _Source, found: Outcome | None, label: Label | None) -> Row:
    picture = source.picture
    base: dict[str, Any] = {
        "file": dataset.relative(picture),
        "hash": source.hash,
        "caption": picture.caption,
        "repeats": picture.repeats,
        "class_tokens": picture.class_tokens,
    }
    if not isinstance(found, Detected):
        # The service knows no file names; the row has its own.
        error = source.error if found is None else str(found).removeprefix("picture: ")
        return Row(**base, error=error or "was not analysed")
    detections, decision = found.detections, found.decision
    shot, attributes, reason = decision.shot_type, decision.attributes, decision.reason
    if label is not None and label.shot_type is not None:
        shot, reason = label.shot_type, REASON
    if label is not None and label.attributes is not None:
        attributes = frozenset(label.attributes)
    return Row(
        **base,
        width=detections.width,
        height=detections.height,
        shot_type=shot,
        attributes=tuple(sorted(a.value for a in attributes)),
        reason=reason,
        main=decision.main,
        instances=tuple(
            InstanceRow(
                box=_numbers(to_json(i.box)),
                confidence=round(i.confidence, 4),
                label=i.label,
                face=None if i.face is None else _numbers(to_json(i.face)),
                outline=tuple((round(x, 2), round(y, 2)) for x, y in i.outline),
            )
            for i in detections.instances
        ),
        occluders=tuple(_numbers(to_json(box)) for box in detections.occluders),
    )


def _numbers(values: list[float] | None) -> Numbers:
    assert values is not None
    x0, y0, x1, y1 = values
    return (x0, y0, x1, y1)


def summarize(
    dataset: Dataset,
    rows: tuple[Row, ...],
    model: ModelInfo,
    recommended: Recommended = RECOMMENDED,
    face_to_head: float = 1.0,
) -> Analysis:
    """Counts, shares, deficits and words for pictures already decided."""
    good = [row for row in rows if row.error is None]
    target = recommended.target_size or max(TARGET_SIZE, len(good))
    shown = sum(row.repeats for row in good)
    categories = {name: _category(name, good, shown, target, recommended) for name in CATEGORIES}
    unclassified = [row for row in good if row.shot_type is ShotType.UNCLASSIFIED]
    out = f"{dataset.path.resolve().name}_balanced"
    options = ["--output-dir", out, "--strategy", "balanced", "--target-size", str(target)]
    command = shlex.join(["onmodel", "augment", str(dataset.path), "analysis.json", *options])
    return Analysis(
        dataset=str(dataset.path),
        dataset_hash=_hash_of(rows),
        model=Model(name=model.name, hash=model.hash, config_hash=model.config_hash),
        pictures=len(good),
        unreadable=len(rows) - len(good),
        target_size=target,
        categories=categories,
        unclassified=len(unclassified),
        unclassified_share=share(sum(row.repeats for row in unclassified), shown),
        conclusion=conclusion(
            categories, len(good), len(unclassified), len(rows) - len(good), target, kept_apart(good, categories)
        ),
        next_command=command,
        face_to_head=face_to_head,
        rows=rows,
    )


def _hash_of(rows: Sequence[Row]) -> str:
    return content_hash("\n".join(f"{r.file}\0{r.hash}\0{r.caption}\0{r.repeats}" for r in rows).encode())


def _category(name: str, rows: Sequence[Row], shown: int, target: int, recommended: Recommended) -> CategoryResult:
    low, high = recommended.range(name)
    members = [row for row in rows if name in row.categories]
    part = share(sum(row.repeats for row in members), shown)
    status: Status = "within"
    if part < low:
        status = "below" if members else "missing"
    elif part > high:
        status = "above"
    lacking = low / 100 * len(rows) - len(members)
    return CategoryResult(
        count=len(members),
        share=part,
        picture_share=share(len(members), len(rows)),
        low=low,
        high=high,
        status=status,
        deficit=max(0, math.ceil(lacking / (1 - low / 100) - 1e-9)) if low < 100 else len(rows) - len(members),
        deficit_at_target=max(0, math.ceil(low / 100 * target - len(members) - 1e-9)),
        impact={"within": "", "above": WHEN_ABOVE[name]}.get(status, WHEN_BELOW[name]),
    )


_WITH_ROOM = (ShotType.MEDIUM, ShotType.FULL_BODY)
"""Shot types that leave room for every attribute; close-ups hardly have any for others, and far shots are few."""
_EXPECTED = 8.0
"""Pictures with repeats that a shot type would show an attribute in, were it spread evenly, from which none is no
chance."""
_APART = 0.2
"""Share of those below which a shot type counts as hardly ever showing it."""


def kept_apart(rows: Sequence[Row], categories: Mapping[str, CategoryResult]) -> tuple[str, ...]:
    """A sentence for each attribute that there is enough of, but hardly ever in medium shots or full bodies.

    Of an attribute that is itself missing by more than half nothing is said: more of it comes first.
    """
    found: list[str] = []
    shown = sum(row.repeats for row in rows)
    for attribute in Attribute:
        result = categories[attribute.value]
        if not shown or result.share < result.low / 2:
            continue
        for shot in _WITH_ROOM:
            members = [row for row in rows if row.shot_type is shot]
            count = sum(row.repeats for row in members)
            has = sum(row.repeats for row in members if attribute.value in row.attributes)
            expected = count * result.share / 100
            if expected >= _EXPECTED and has < _APART * expected:
                found.append(
                    f"{LABELS[attribute.value].capitalize()} and {LABELS[shot.value]} hardly ever come together "
                    f"({has} of {count} shown, where {result.share:.0f} % of all would be {expected:.0f}): "
                    "a prompt that asks for both may get one alone."
                )
    return tuple(found)


# What a crop of a picture that shows the whole character can become; the rest needs new pictures.
CROPPABLE = ("close_up", "medium")


def conclusion(
    categories: dict[str, CategoryResult],
    pictures: int,
    unclassified: int,
    unreadable: int,
    target: int,
    apart: Sequence[str],
) -> str:
    """What is missing and what to do next, in a few sentences; `apart` are those of `kept_apart`."""
    if not pictures:
        return "No picture could be read, so nothing can be said about the dataset."

    def named(*statuses: Status) -> list[str]:
        return [name for name, result in categories.items() if result.status in statuses]

    sentences: list[str] = []
    if named("missing"):
        sentences.append(f"Nothing shows {_listed(named('missing'), 'or')}.")
    if named("below"):
        parts = [
            f"{LABELS[n]} ({categories[n].share:.1f} % of {categories[n].low:g}–{categories[n].high:g} %)"
            for n in named("below")
        ]
        sentences.append(f"Too little: {', '.join(parts)}.")
    if named("above"):
        parts = [f"{LABELS[n]} ({categories[n].share:.1f} %, at most {categories[n].high:g} %)" for n in named("above")]
        sentences.append(f"Too much: {', '.join(parts)}.")
    if not sentences:
        sentences.append("Every category is within its recommended range.")
    sentences += apart
    if unclassified:
        sentences.append(f"{unclassified} of {pictures} pictures are of no known shot type.")
    if unreadable:
        sentences.append(f"{unreadable} {'files' if unreadable > 1 else 'file'} could not be read and count nowhere.")
    return " ".join([*sentences, *_next_step(named("missing", "below"), categories, target)])


def _next_step(lacking: list[str], categories: dict[str, CategoryResult], target: int) -> list[str]:
    if not lacking:
        return []
    wanted = [f"{LABELS[n]} {categories[n].deficit_at_target}" for n in lacking if categories[n].deficit_at_target]
    sentences = [f"A set of {target} pictures still lacks: {', '.join(wanted)}."] if wanted else []
    new = [name for name in lacking if name not in CROPPABLE]
    sentences.append("Next: `onmodel augment` crops and repeats what is there towards the ranges.")
    if new:
        sentences.append(f"Crops cannot make {_listed(new, 'or')}: these need new pictures, from the film for example.")
    return sentences


def _listed(names: Sequence[str], word: str) -> str:
    labels = [LABELS[name] for name in names]
    return labels[0] if len(labels) == 1 else f"{', '.join(labels[:-1])} {word} {labels[-1]}"
