"""Folders of backgrounds, companions and things in front, looked at and ready to be put together with a character."""

from pathlib import Path

from onmodel.core.progress import bar
from onmodel.dataset.analysis import Analysis, HasDetection, analyze
from onmodel.dataset.audit import expect
from onmodel.dataset.folder import Dataset, load_dataset
from onmodel.dataset.mend import Expected
from onmodel.dataset.scenery import Scenery, is_opaque
from onmodel.detection.config import DetectorConfig
from onmodel.detection.weights import local_model


def scenery_of(
    dataset: Dataset,
    analysis: Analysis,
    folders: tuple[list[Path], list[Path], list[Path]],
    own_backgrounds: bool,
    services: HasDetection,
    local: DetectorConfig | None,
) -> Scenery | None:
    """What the given folders hold that can be put together with the dataset's characters; None without any folder.

    `local`: settings of the detector that runs on this machine, whose name is known without starting it.
    """
    backgrounds, companions, foregrounds = folders
    if not (any(folders) or own_backgrounds):
        return None
    model = None
    if local is not None:
        model = local_model(local)
    trigger = expect([picture.caption for picture in dataset.pictures], Expected()).trigger
    found = Scenery()

    def looked_at(folder: Path) -> tuple[Dataset, Analysis]:
        given = load_dataset(folder)
        with bar(f"looking at {folder.name}", len(given.pictures)) as shown:
            return given, analyze(given, services, model=model, advance=shown.advance)

    if own_backgrounds:
        found.add_backgrounds(dataset, analysis, trigger)
    for folder in backgrounds:
        found.add_backgrounds(*looked_at(folder), trigger)
    own = [row.hash for row in analysis.rows if row.hash is not None]
    for folder in companions:
        found.add_companions(*looked_at(folder), own)
    for folder in foregrounds:
        given = load_dataset(folder)
        # What is transparent around its thing needs no detector.
        seen = looked_at(folder)[1] if any(is_opaque(picture) for picture in given.pictures) else None
        found.add_foregrounds(given, seen)
    return found
