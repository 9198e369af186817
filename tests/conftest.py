"""Fixtures that every test package may use."""

from pathlib import Path

import pytest

SHARED_ASSETS = Path(__file__).parents[2] / "shared" / "assets"


@pytest.fixture(scope="session")
def shared_assets() -> Path:
    """The folder of films, subjects and small weights that tests read; absent from a user's clone."""
    if not SHARED_ASSETS.is_dir():
        pytest.skip("the shared assets (film, subject pictures, detector weights) are not beside this checkout")
    return SHARED_ASSETS
