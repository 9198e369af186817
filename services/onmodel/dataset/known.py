"""Which detector several datasets were looked at with, so that putting them together looks at none anew."""

from collections import Counter
from collections.abc import Collection, Sequence
from dataclasses import replace
from pathlib import Path

from onmodel.common.convert import ModelInfo
from onmodel.core.errors import ImageError
from onmodel.dataset.facts import Facts, Outcome
from onmodel.dataset.folder import Dataset
from onmodel.dataset.labels import Label, read_labels
from onmodel.detection.config import DetectorConfig
from onmodel.detection.convert import Detected

PRESETS = ("toybox", "film")
"""Detector presets, the default of every verb first."""


def recorded(dataset: Dataset, facts: Facts) -> ModelInfo | None:
    """The model under which the facts know every readable picture; of several the one that knows most. None: none."""
    hashes: set[str] = set()
    for picture in dataset.pictures:
        try:
            hashes.add(picture.hash)
        except ImageError:
            continue
    for model, config in facts.models:
        if hashes and all(facts.get((content, model, config)) is not None for content in hashes):
            return ModelInfo("the facts' model", model, config)
    return None


def preset_of(all_facts: Sequence[Facts]) -> str:
    """The detector preset that most pictures were looked at with; "toybox" where that is none of ours."""
    known = Counter(key[2] for facts in all_facts for key, _ in facts.items())
    hashes = {name: DetectorConfig.preset(name).hash for name in PRESETS}
    return max(PRESETS, key=lambda name: known[hashes[name]])


def known_categories(folder: Path, contents: Collection[str]) -> dict[str, tuple[str, ...]] | None:
    """Content hash -> the categories that a picture of a dataset counts in, as an earlier analysis found them.

    What a person corrected counts over the detector. Nothing is detected here and no picture is read.

    Returns:
        None where no one model has seen all of `contents`.
    """
    facts, labels = Facts.open(folder), read_labels(folder)
    for model, config in facts.models:
        outcomes = {content: facts.get((content, model, config)) for content in contents}
        if outcomes and all(outcome is not None for outcome in outcomes.values()):
            return {content: _categories(outcome, labels.get(content)) for content, outcome in outcomes.items()}
    return None


def _categories(outcome: Outcome | None, label: Label | None) -> tuple[str, ...]:
    if not isinstance(outcome, Detected):
        return ()
    decision = outcome.decision
    if label is not None and label.shot_type is not None:
        decision = replace(decision, shot_type=label.shot_type)
    if label is not None and label.attributes is not None:
        decision = replace(decision, attributes=frozenset(label.attributes))
    return tuple(sorted(decision.categories))
