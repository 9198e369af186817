"""Which detector several datasets were looked at with, so that putting them together looks at none anew."""

from collections import Counter
from collections.abc import Sequence

from onmodel.common.convert import ModelInfo
from onmodel.core.errors import ImageError
from onmodel.dataset.facts import Facts
from onmodel.dataset.folder import Dataset
from onmodel.detection.config import DetectorConfig

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
