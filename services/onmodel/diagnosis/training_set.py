"""Does the training set show one character, and did the model copy it? Its pictures against held-back references."""

import math
from collections.abc import Callable, Mapping, Sequence
from pathlib import Path

import numpy as np
import numpy.typing as npt
from scipy import stats

from onmodel.core.config import Config, load_whole
from onmodel.core.errors import ImageError
from onmodel.core.files import content_hash, write_text
from onmodel.core.vocabulary import ShotType
from onmodel.diagnosis.facts import Fact, share_of
from onmodel.evaluation.identity import STRANGER, Identity, gallery
from onmodel.evaluation.metrics import nearest_cosine
from onmodel.evaluation.observe import Looking, Seen, observe
from onmodel.evaluation.record import Evaluation
from onmodel.evaluation.statistics import interval

MOST = 400
"""Training pictures that are looked at, evenly spread."""
COPIED_QUANTILE = 0.95
"""A picture nearer to a training picture than this share of the references are is taken for a copy: of pictures that
no training saw, one in twenty is as near."""
SCHEMA = "2"
"""Of what is kept: another one is measured again."""
FEWEST = 8
"""Pictures from which a share, and references from which a quantile, is worth naming."""


class MeasuredPicture(Config):
    """One training picture."""

    file: str
    """Its name."""
    identity: float | None
    """Of its main character, 0 a stranger, 1 ours; None where there is none alone and whole in the picture."""
    head_to_body: float | None = None
    """Its head over its body; None where it is not seen from head to feet."""


class MeasuredSet(Config):
    """What `measure_set` found; kept beside the trial."""

    key: str
    pictures: tuple[MeasuredPicture, ...]
    reference_nearest: tuple[float, ...]
    """Cosine of each reference picture to the most similar training picture."""


def measure_set(
    training: Sequence[Path],
    references: Sequence[Path],
    strangers: Sequence[Path],
    services: Looking,
    keep: Path,
    measured_with: str = "",
) -> MeasuredSet:
    """Look at training pictures, references and strangers; what `keep` holds of the same pictures is taken from there.

    Raises:
        UserError: too few references or strangers with a character.
        ServiceError: a service fails.
    """
    chosen = [training[round(i)] for i in np.linspace(0, len(training) - 1, min(MOST, len(training)))]
    sizes = [f"{f}:{f.stat().st_size}:{f.stat().st_mtime_ns}" for f in (*chosen, *references, *strangers)]
    key = content_hash("\0".join([SCHEMA, measured_with, *sizes]).encode())
    known = _kept(keep, key)
    if known is not None:
        return known
    shown = observe([f.read_bytes() for f in references], services)
    identity = Identity(gallery(shown, observe([f.read_bytes() for f in strangers], services)))
    seen = observe([f.read_bytes() for f in chosen], services)
    found = MeasuredSet(
        key=key,
        pictures=tuple(
            MeasuredPicture(
                file=f.name,
                identity=_identity(s, identity),
                head_to_body=s.head_to_body if isinstance(s, Seen) else None,
            )
            for f, s in zip(chosen, seen, strict=True)
        ),
        reference_nearest=tuple(round(float(v), 6) for v in nearest_cosine(_whole(shown), _whole(seen))),
    )
    write_text(keep, found.model_dump_json(indent=1) + "\n")
    return found


def _kept(path: Path, key: str) -> MeasuredSet | None:
    found = load_whole(MeasuredSet, path)
    return found if found is not None and found.key == key else None


def shows_who_it_is(seen: Seen) -> bool:
    """Whether a character is alone, unhidden, large enough to be judged, and more than a detail of somebody."""
    framed = seen.framing not in (ShotType.FAR, ShotType.UNCLASSIFIED)
    return bool(seen.crops) and seen.characters == 1 and not seen.parts[0].hidden and framed


def _identity(seen: Seen | ImageError, identity: Identity) -> float | None:
    if isinstance(seen, ImageError) or not shows_who_it_is(seen):
        return None
    value = identity.characters(seen)[0]
    return None if value != value else round(value, 4)


def _whole(seen: Sequence[Seen | ImageError]) -> npt.NDArray[np.float32]:
    rows = [s.whole for s in seen if isinstance(s, Seen)]
    return np.stack(rows) if rows else np.zeros((0, 1), dtype=np.float32)


def set_facts(measured: MeasuredSet, minority: Mapping[str, bool], evaluation: Evaluation | None) -> dict[str, Fact]:
    """`set.strangers`, `set.split_by_age` and `set.copied`, those that can be said.

    Args:
        minority: file name -> whether its caption says another age than most. Pictures of another age are not counted
            as strangers: that is told apart as `split_by_age`.
        evaluation: what was drawn with the last checkpoint.
    """
    facts: dict[str, Fact] = {}
    known = {p.file: p.identity for p in measured.pictures if p.identity is not None}
    usual = [value for file, value in known.items() if not minority.get(file, False)]
    if len(usual) >= FEWEST:
        facts["set.strangers"] = share_of(sum(value < STRANGER for value in usual), len(usual))
    split = _split_by_age(measured, minority)
    if split is not None:
        facts["set.split_by_age"] = split
    if evaluation is not None and len(measured.reference_nearest) >= FEWEST and measured.pictures:
        limit = float(np.quantile(measured.reference_nearest, COPIED_QUANTILE))
        by_prompt: dict[int, list[float]] = {}
        for row in evaluation.pictures:
            if row.memorisation is not None:
                by_prompt.setdefault(row.prompt, []).append(float(row.memorisation > limit))
        count = sum(map(len, by_prompt.values()))
        found = interval([sum(v) / len(v) for v in by_prompt.values()], share_of=count)
        if found is not None:
            facts["set.copied"] = Fact(value=100 * found.mean, low=100 * found.low, high=100 * found.high, count=count)
    return facts


def _split_by_age(measured: MeasuredSet, minority: Mapping[str, bool]) -> Fact | None:
    """How far pictures differ between the ages that their captions say: in identity or in build, whichever is surer.

    Identity counts as the difference of means; build as the size of the log ratio of head over body, since a scorer may
    take a child for the same person but no child has an adult's proportions.
    """
    picked: dict[str, Callable[[MeasuredPicture], float | None]] = {
        "likeness to the references": lambda p: p.identity,
        "head size for the body": lambda p: None if p.head_to_body is None else math.log(p.head_to_body),
    }
    found: list[Fact] = []
    for name, pick in picked.items():
        known = [(minority[p.file], value) for p in measured.pictures if p.file in minority for value in (pick(p),)]
        usual = [value for other, value in known if not other and value is not None]
        others = [value for other, value in known if other and value is not None]
        if min(len(usual), len(others)) >= FEWEST:
            # A child's head is larger for its body, an adult's smaller: either way the pictures differ.
            found.append(_apart(usual, others, name))
    return max(found, key=lambda fact: fact.low, default=None)


def _apart(usual: Sequence[float], other: Sequence[float], name: str) -> Fact:
    """Size of the difference of two means, with Welch's interval turned the same way."""
    sign = 1.0 if np.mean(usual) >= np.mean(other) else -1.0
    if len({*usual}) == 1 or len({*other}) == 1:
        # No spread to estimate; a scorer that gives the very same number is not to be trusted with an interval.
        return Fact(value=abs(usual[0] - other[0]), low=0.0, high=1.0, count=len(usual) + len(other), at=name)
    span = stats.ttest_ind(usual, other, equal_var=False).confidence_interval(0.95)
    ends = sorted((sign * float(span.low), sign * float(span.high)))
    difference = sign * float(np.mean(usual) - np.mean(other))
    return Fact(value=difference, low=ends[0], high=ends[1], count=len(usual) + len(other), at=name)
