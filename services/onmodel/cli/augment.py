"""`onmodel augment`: fill a dataset's gaps from itself, and from what can be put together with it."""

from enum import StrEnum
from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer

from onmodel.cli.measuring import ServicesOption

if TYPE_CHECKING:
    from collections.abc import Sequence

    from onmodel.dataset.analysis import Analysis
    from onmodel.dataset.facts import Outcome
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
    recommended: Annotated[Path | None, typer.Option(help="Other ranges: measured, or a TOML or JSON file.")] = None,
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
    services: ServicesOption = None,
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
    from onmodel.dataset.materials import scenery_of
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
