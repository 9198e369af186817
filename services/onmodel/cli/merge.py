"""`onmodel merge`: several sets to a target mix."""

from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer

from onmodel.cli.measuring import ServicesOption

if TYPE_CHECKING:
    from onmodel.dataset.analysis import Analysis
    from onmodel.dataset.folder import Dataset


def command(
    datasets: Annotated[list[Path], typer.Argument(help="Folders of pictures with captions, or dataset TOMLs.")],
    output_dir: Annotated[Path, typer.Option(help="Folder for the merged set; written whole or not at all.")],
    composition: Annotated[
        str, typer.Option(help="Target mix: a JSON file or a packaged name (default, balanced).")
    ] = "default",
    total: Annotated[int | None, typer.Option(min=1, help="The same mix for a set of so many pictures.")] = None,
    repeats: Annotated[
        int | None, typer.Option(min=1, max=100, help="Most repeats of a folder, to balance what is short.")
    ] = None,
    class_tokens: Annotated[str | None, typer.Option(help="Words of the repeat folders, e.g. 'zibo boy'.")] = None,
    resolution: Annotated[int | None, typer.Option(min=64, help="Of training; goes into dataset.toml.")] = None,
    merge_config: Annotated[
        Path | None, typer.Option(help="TOML or JSON with weights of quality, likeness and the solver's limits.")
    ] = None,
    dry_run: Annotated[bool, typer.Option("--dry-run", help="Print the table; write no set.")] = False,
    detector: Annotated[
        str | None, typer.Option(help="Detector preset: toybox or film. Else what the sets were looked at with.")
    ] = None,
    detector_config: Annotated[Path | None, typer.Option(help="TOML with all detector settings instead.")] = None,
    services: ServicesOption = None,
    json: Annotated[bool, typer.Option("--json", help="Print what was taken and what is short as JSON.")] = False,
) -> None:
    """Put sets together to a target mix."""
    from onmodel.core.config import load, validate
    from onmodel.core.progress import bar
    from onmodel.dataset.composition import load_composition
    from onmodel.dataset.folder import load_dataset
    from onmodel.dataset.merge import MergeConfig, check_sources, merge
    from onmodel.dataset.merged import print_report

    # What is wrong with a file or a place is said before minutes of analysing.
    wanted = load_composition(composition)
    wanted = wanted if total is None else wanted.scaled(total)
    config = MergeConfig() if merge_config is None else load(MergeConfig, merge_config)
    given = {"max_repeats": repeats, "class_tokens": class_tokens, "resolution": resolution}
    changes = {key: value for key, value in given.items() if value is not None}
    config = validate(MergeConfig, {**config.model_dump(), **changes}, "merge")
    loaded = [load_dataset(path) for path in datasets]
    check_sources(loaded, output_dir)
    analyses, options = _analyses(loaded, detector, detector_config, services)
    pictures = sum(len(dataset.pictures) for dataset in loaded)
    with bar("comparing", pictures) as shown:
        report = merge(
            loaded, analyses, wanted, output_dir, config, dry_run=dry_run, detector=options, advance=shown.advance
        )
    if json:
        typer.echo(report.model_dump_json())
        return
    print_report(report)


def _analyses(
    datasets: "list[Dataset]", detector: str | None, detector_config: Path | None, services: str | None
) -> "tuple[list[Analysis], list[str]]":
    """What every set shows, from the facts beside it or the detection service; and the options for that detector."""
    from onmodel.core.config import load
    from onmodel.core.progress import bar, console
    from onmodel.dataset.analysis import analyze
    from onmodel.dataset.facts import Facts
    from onmodel.dataset.known import PRESETS, preset_of, recorded
    from onmodel.detection.config import DetectorConfig
    from onmodel.detection.weights import local_model
    from onmodel.serving.local import open_services

    facts = [Facts.open(dataset.path) for dataset in datasets]
    chosen = detector is not None or detector_config is not None
    preset = detector or preset_of(facts)
    config, options = DetectorConfig.preset(preset), [] if preset == PRESETS[0] else ["--detector", preset]
    if detector_config is not None:
        config, options = load(DetectorConfig, detector_config), ["--detector-config", str(detector_config)]
    using = [None if chosen else recorded(*pair) for pair in zip(datasets, facts, strict=True)]
    model = None
    if services is None and None in using:
        # Known without a service, so sets that were analysed before start none.
        model = local_model(config)
    total = sum(len(dataset.pictures) for dataset in datasets)
    with open_services(services, detector=config) as opened, bar("analysing", total) as shown:
        analyses = [
            analyze(dataset, opened, model=known or model, facts=known_facts, advance=shown.advance)
            for dataset, known, known_facts in zip(datasets, using, facts, strict=True)
        ]
    for note in (each.note for each in facts if each.note):
        console.print(note, style="yellow", highlight=False, markup=False)
    return analyses, options
