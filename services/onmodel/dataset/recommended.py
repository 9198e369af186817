"""What a character dataset should hold, and what goes wrong when it does not."""

from pathlib import Path
from typing import Self

from pydantic import Field, model_validator

from onmodel.core.config import Config, load
from onmodel.core.vocabulary import CATEGORIES

Range = tuple[float, float]
"""Lowest and highest share in per cent."""


class Recommended(Config):
    """Recommended shares in per cent, lowest and highest. Shot types exclude each other; attributes overlap them."""

    close_up: Range = (30.0, 40.0)
    medium: Range = (25.0, 30.0)
    full_body: Range = (25.0, 30.0)
    far: Range = (5.0, 10.0)
    multi_character: Range = (15.0, 20.0)
    occlusion: Range = (8.0, 12.0)
    complex_background: Range = (20.0, 30.0)
    target_size: int | None = Field(default=None, ge=1)
    """Number of pictures the dataset should have; None = 475, or its present size where that is larger."""

    @model_validator(mode="after")
    def _check(self) -> Self:
        for name in CATEGORIES:
            low, high = self.range(name)
            if not 0 <= low <= high <= 100:
                raise ValueError(f"`{name}` must be two per cents, lowest first, between 0 and 100")
        lows = sum(self.range(name)[0] for name in CATEGORIES[:4])
        if lows > 100:
            raise ValueError(f"the four shot types exclude each other, but their lowest shares sum to {lows:g} %")
        return self

    def range(self, category: str) -> Range:
        """The range of one of `CATEGORIES`."""
        return getattr(self, category)


RECOMMENDED = Recommended()
"""Shares that trainers pass on to one another."""
MEASURED = Recommended(
    close_up=(10.0, 45.0),
    medium=(5.0, 45.0),
    full_body=(5.0, 45.0),
    far=(5.0, 45.0),
    multi_character=(0.0, 45.0),
    occlusion=(0.0, 45.0),
    complex_background=(0.0, 45.0),
)
"""From the least share that was as good as the best one to the largest that was tried, in the toybox with sets of 128
pictures (docs/experiment.md, dose and response)."""
NAMED: dict[str, Recommended] = {"received": RECOMMENDED, "measured": MEASURED}

LABELS: dict[str, str] = {
    "close_up": "close-up",
    "medium": "medium shot",
    "full_body": "full body",
    "far": "far / wide",
    "multi_character": "multi-character",
    "occlusion": "occlusion",
    "complex_background": "complex background",
    "unclassified": "unclassified",
}
"""Category -> its name in tables."""

WHEN_BELOW: dict[str, str] = {
    "close_up": "weak face detail",
    "medium": "no mid-range reference",
    "full_body": "poor body consistency",
    "far": "fails at a distance",
    "multi_character": "no context of other characters",
    "occlusion": "distorts when partly hidden",
    "complex_background": "depends on the background",
}
WHEN_ABOVE: dict[str, str] = {
    "close_up": "over-fitted to faces",
    "medium": "over-fitted to the mid range",
    "full_body": "weak face detail",
    "far": "too few pixels of the character",
    "multi_character": "mixes characters up",
    "occlusion": "learns the obstacles",
    "complex_background": "learns the backgrounds",
}
"""Category -> what a model trained on too much of it does."""


def load_recommended(path: Path | None) -> Recommended:
    """The defaults, ranges by their name in `NAMED`, or those of a TOML or JSON file over the defaults.

    Raises:
        UserError: a key is wrong.
        NotFoundError: neither a name nor a file.
    """
    if path is None:
        return RECOMMENDED
    return NAMED[str(path)] if str(path) in NAMED else load(Recommended, path)
