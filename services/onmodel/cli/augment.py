"""`onmodel augment`: fill a dataset's gaps from itself."""

from enum import StrEnum
from pathlib import Path
from typing import Annotated

import typer


class Strategy(StrEnum):
    """How gaps are filled."""

    BALANCED = "balanced"
    """Crops, captions and repeats towards the recommended ranges."""


def command(
    dataset: Annotated[Path, typer.Argument(help="Folder of pictures with captions.")],
    analysis: Annotated[Path, typer.Argument(help="What `onmodel analyze --output-json` wrote about it.")],
    output_dir: Annotated[Path, typer.Option(help="Folder for the derived set; written whole or not at all.")],
    strategy: Annotated[Strategy, typer.Option(help="How gaps are filled.")] = Strategy.BALANCED,
    target_size: Annotated[int | None, typer.Option(min=1, help="Pictures an epoch should show.")] = None,
    recommended: Annotated[Path | None, typer.Option(help="TOML or JSON with other recommended ranges.")] = None,
    min_side: Annotated[int, typer.Option(min=8, help="Least shorter side of a crop in pixels.")] = 64,
    resolution: Annotated[int | None, typer.Option(min=8, help="Enlarge smaller crops towards this side.")] = None,
    max_repeats: Annotated[int, typer.Option(min=1, help="Most repeats of a folder.")] = 10,
    seed: Annotated[int, typer.Option(help="Of the choice of windows and words.")] = 0,
    json: Annotated[bool, typer.Option("--json", help="Print the result as JSON.")] = False,
) -> None:
    """Fill gaps with crops and captions made from what is there."""
    import dataclasses
    import json as jsonlib

    from onmodel.core.config import load
    from onmodel.core.progress import bar
    from onmodel.dataset.analysis import Analysis
    from onmodel.dataset.augment import augment, default_crop
    from onmodel.dataset.folder import load_dataset
    from onmodel.dataset.recommended import load_recommended
    from onmodel.dataset.report import print_augmented

    loaded = load_dataset(dataset)
    known = load(Analysis, analysis)
    ranges = load_recommended(recommended)
    crop = default_crop(known)
    crop = dataclasses.replace(crop, min_side=min_side, resolution=resolution or crop.resolution)
    with bar(f"augmenting ({strategy.value})", None) as shown:
        result = augment(
            loaded,
            known,
            output_dir,
            target_size=target_size,
            recommended=ranges,
            crop=crop,
            max_repeats=max_repeats,
            seed=seed,
            advance=shown.advance,
        )
    if json:
        typer.echo(jsonlib.dumps({**dataclasses.asdict(result), "output_dir": str(result.output_dir)}))
        return
    print_augmented(result, ranges)
