"""One start of both services for all tests of this package that need them."""

from collections.abc import Iterator
from pathlib import Path

import pytest

from onmodel.core.errors import NotFoundError
from onmodel.detection.config import DetectorConfig
from onmodel.scoring.config import ScorerConfig
from onmodel.serving.local import Services, open_services


@pytest.fixture(scope="session")
def running_services(clip_folder: Path) -> Iterator[Services]:
    """Detection with the bundled detector and scoring with a small random model, started once."""
    try:
        from onmodel.toybox.models import bundled

        bundled("detector")
    except NotFoundError as missing:
        pytest.skip(str(missing))
    scorer = ScorerConfig(model=str(clip_folder), batch_size=8)
    with open_services(None, detector=DetectorConfig.preset("toybox"), scorer=scorer) as services:
        services.start("detection", "scoring")
        yield services
