"""Pictures of a comparison, small enough for one page."""

import base64
from collections.abc import Mapping
from pathlib import Path

from onmodel.core.errors import ImageError
from onmodel.core.images import load, thumbnail_jpeg
from onmodel.evaluation.compare import Comparison

_BUDGET = 9_000_000
"""Bytes of pictures on one page, before base64 adds a third: 3 models x 70 prompts x 4 variations stay below 15 MB."""
_SIDES = ((192, 82), (160, 78), (128, 74), (96, 68))
"""Longer side and JPEG quality of pictures on the page, the first that keeps the budget."""


def thumbnails(comparison: Comparison, folders: Mapping[str, Path]) -> dict[tuple[str, str], tuple[str, int, int]]:
    """(model, file) to a data URI with its size, small enough together; files that are gone are left out."""
    rows = [(n, r.file) for n, e in zip(comparison.models, comparison.evaluations, strict=True) for r in e.pictures]
    for side, quality in _SIDES:
        found: dict[tuple[str, str], tuple[str, int, int]] = {}
        size = 0
        for name, file in rows:
            try:
                image = load(folders[name] / file)
            except ImageError:
                continue
            data = thumbnail_jpeg(image, side, quality)
            size += len(data)
            if size > _BUDGET and side != _SIDES[-1][0]:
                break
            height, width = image.shape[:2]
            shrink = min(1.0, side / max(width, height))
            uri = f"data:image/jpeg;base64,{base64.b64encode(data).decode()}"
            found[name, file] = (uri, max(1, round(width * shrink)), max(1, round(height * shrink)))
        else:
            return found
    return {}
