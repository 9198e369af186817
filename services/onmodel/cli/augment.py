"""`onmodel augment`: fill a dataset's gaps from itself, and from what can be put together with it."""

from enum import StrEnum
from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer

if TYPE_CHECKING:
    from collections.abc import Sequence

    from onmodel.dataset.analysis import Analysis, HasDetection
    from onmodel.dataset.facts import Outcome
    from onmodel.dataset.folder import Dataset
    from onmodel.dataset.scenery import Scenery
    from onmodel.detection.config import DetectorConfig


class Strategy(StrEnum):
    """How gaps are filled."""

    BALANCED = "balanced"
    """Crops, composites, captions and repeats towards the recommended ranges."""


def command(
    dataset: Annotated[Path, typer.Argument(help="Folder of pictures with captions; not changed.")],
    analysis: Annotated[Path, typer.Argument(help="What `onmodel analyze --output-json` wrote about it.")],
    output_dir: Annotated[Path, typer.Option(help="Folder for the derived set; written whole or not at all.")],
    strategy: Annotated[Strategy, typer.Option(help="How gaps are filled.")] = Strategy.BALANCED,
    target_size: Annotated[int | None, typer.Option(min=1, help="Pictures an epoch should show.")] = None,
    recommended: Annotated[Path | None, typer.Option(help="TOML or JSON with other recommended ranges.")] = None,
    min_side: Annotated[int, typer.Option(min=8, help="Least shorter side of a crop in pixels.")] = 64,
    resolution: Annotated[int | None, typer.Option(min=8, help="Enlarge smaller crops towards this side.")] = None,
    max_repeats: Annotated[int, typer.Option(min=1, help="Most repeats of a folder.")] = 10,
    variants: Annotated[int, typer.Option(min=1, max=8, help="Most pictures of one kind from one original.")] = 2,
    backgrounds: Annotated[
        list[Path] | None, typer.Option(help="Folder of pictures without characters to put ours before; repeatable.")
    ] = None,
    own_backgrounds: Annotated[
        bool, typer.Option("--own-backgrounds", help="Also use the dataset's own pictures without a character.")
    ] = False,
    companions: Annotated[
        list[Path] | None, typer.Option(help="Folder of pictures of other characters to put beside ours; repeatable.")
    ] = None,
    foregrounds: Annotated[
        list[Path] | None, typer.Option(help="Folder of cutouts with transparency to put in front; repeatable.")
    ] = None,
    max_synthetic: Annotated[float, typer.Option(min=0, max=1, help="Most share of an epoch that is synthetic.")] = 0.2,
    caption_variants: Annotated[int, typer.Option(min=1, max=16, help="Captions a picture, one a line.")] = 1,
    verify: Annotated[
        bool,
        typer.Option(help="Let the detector look at what was made, and leave out what it sees otherwise."),
    ] = True,
    detector: Annotated[str | None, typer.Option(help="Detector preset; else the analysis's.")] = None,
    detector_config: Annotated[Path | None, typer.Option(help="TOML with all detector settings instead.")] = None,
    services: Annotated[str | None, typer.Option(help="HOST:PORT of running services; else started here.")] = None,
    seed: Annotated[int, typer.Option(help="Of the choice of windows, places and words.")] = 0,
    json: Annotated[bool, typer.Option("--json", help="Print the result as JSON.")] = False,
) -> None:
    """Fill gaps with crops, composites and captions made from what is there."""
    import dataclasses
    import json as jsonlib

    from onmodel.core.config import load
    from onmodel.core.progress import bar
    from onmodel.dataset.analysis import Analysis
    from onmodel.dataset.augment import augment, default_crop
    from onmodel.dataset.derived import check_place
    from onmodel.dataset.folder import load_dataset
    from onmodel.dataset.recommended import load_recommended
    from onmodel.dataset.report import print_augmented
    from onmodel.serving.local import open_services

    loaded = load_dataset(dataset)
    known = load(Analysis, analysis)
    ranges = load_recommended(recommended)
    folders = (backgrounds or [], companions or [], foregrounds or [])
    check_place([loaded.path, *(folder for given in folders for folder in given)], output_dir)
    settings = _detector(known, detector, detector_config)
    crop = default_crop(known)
    crop = dataclasses.replace(crop, min_side=min_side, resolution=resolution or crop.resolution)

    def look(images: "Sequence[bytes]") -> "Sequence[Outcome]":
        # Asked for here, so that no service starts where nothing is made.
        return opened.detection.detect(images)

    with open_services(services, detector=settings) as opened, bar(f"augmenting ({strategy.value})", None) as shown:
        result = augment(
            loaded,
            known,
            output_dir,
            target_size=target_size,
            recommended=ranges,
            crop=crop,
            variants=variants,
            max_repeats=max_repeats,
            scenery=scenery_of(loaded, known, folders, own_backgrounds, opened, None if services else settings),
            max_synthetic=max_synthetic,
            caption_lines=caption_variants,
            verify=look if verify else None,
            sees_things_in_front=bool(settings.occluder_classes),
            seed=seed,
            advance=shown.advance,
        )
    # The command names the file that it was given.
    commands = tuple(text.replace("analysis.json", str(analysis)) for text in result.commands)
    result = dataclasses.replace(result, commands=commands)
    if json:
        typer.echo(jsonlib.dumps({**dataclasses.asdict(result), "output_dir": str(result.output_dir)}))
        return
    print_augmented(result, ranges)


def _detector(analysis: "Analysis", preset: str | None, file: Path | None) -> "DetectorConfig":
    """The settings that the analysis was made with, so that what is made is looked at with the same eyes."""
    from onmodel.core.config import load
    from onmodel.core.errors import NotFoundError
    from onmodel.dataset.known import PRESETS
    from onmodel.detection.config import DetectorConfig

    if file is not None:
        return load(DetectorConfig, file)
    if preset is not None:
        return DetectorConfig.preset(preset)
    for name in PRESETS:
        settings = DetectorConfig.preset(name)
        if settings.hash == analysis.model.config_hash:
            return settings
    raise NotFoundError(
        f"the analysis was made by a detector with settings of its own ({analysis.model.name}); "
        "name them with --detector-config, as for `onmodel analyze`"
    )


def scenery_of(
    dataset: "Dataset",
    analysis: "Analysis",
    folders: tuple[list[Path], list[Path], list[Path]],
    own_backgrounds: bool,
    services: "HasDetection",
    local: "DetectorConfig | None",
) -> "Scenery | None":
    """What the given folders hold that can be put together with the dataset's characters; None without any folder.

    `local`: settings of the detector that runs on this machine, whose name is known without starting it.
    """
    from onmodel.common.convert import ModelInfo
    from onmodel.core.progress import bar
    from onmodel.dataset.analysis import analyze
    from onmodel.dataset.audit import expect
    from onmodel.dataset.folder import load_dataset
    from onmodel.dataset.mend import Expected
    from onmodel.dataset.scenery import Scenery, is_opaque
    from onmodel.detection.weights import weights_hash

    backgrounds, companions, foregrounds = folders
    if not (any(folders) or own_backgrounds):
        return None
    model = None
    if local is not None:
        model = ModelInfo(local.weights, weights_hash(local.weights, local.face_weights), local.hash)
    trigger = expect([picture.caption for picture in dataset.pictures], Expected()).trigger
    found = Scenery()

    def looked_at(folder: Path) -> "tuple[Dataset, Analysis]":
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
