"""The small CLIP model, loaded once."""

from pathlib import Path

import pytest

from onmodel.scoring.model import ClipModel, ScorerConfig, load_scorer


@pytest.fixture(scope="session")
def scorer(clip_folder: Path) -> ClipModel:
    return load_scorer(ScorerConfig(model=str(clip_folder), device="cpu", batch_size=4))
