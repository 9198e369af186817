"""`onmodel analyze`: what a dataset holds, what it should hold, and what to do about it."""

import shlex
from pathlib import Path
from typing import Annotated

import typer

from onmodel.cli.measuring import DatasetDetectorOption, DetectorConfigOption, ServicesOption, detector_for


def command(
    dataset: Annotated[Path, typer.Argument(help="Folder of pictures with captions, or an sd-scripts dataset TOML.")],
    output_json: Annotated[Path | None, typer.Option(help="Write the analysis here; `augment` reads it.")] = None,
    html: Annotated[Path | None, typer.Option(help="Write one page with thumbnails per category here.")] = None,
    recommended: Annotated[Path | None, typer.Option(help="Other ranges: measured, or a TOML or JSON file.")] = None,
    detector: DatasetDetectorOption = None,
    detector_config: DetectorConfigOption = None,
    services: ServicesOption = None,
    json: Annotated[bool, typer.Option("--json", help="Print the analysis as JSON.")] = False,
) -> None:
    """Measure a dataset and name what is missing."""
    from onmodel.core.files import write_text
    from onmodel.core.progress import bar, console
    from onmodel.dataset.analysis import analyze
    from onmodel.dataset.facts import Facts
    from onmodel.dataset.folder import load_dataset
    from onmodel.dataset.recommended import load_recommended
    from onmodel.dataset.report import page, table, terminal
    from onmodel.detection.weights import local_model
    from onmodel.serving.local import open_services

    loaded = load_dataset(dataset)
    ranges = load_recommended(recommended)
    facts = Facts.open(loaded.path)
    config = detector_for(facts, detector, detector_config)
    model = None
    if services is None:
        # Known without a service, so a second run of an unchanged dataset starts none.
        model = local_model(config)
    with open_services(services, detector=config) as opened, bar("analysing", len(loaded.pictures)) as shown:
        analysis = analyze(loaded, opened, model=model, recommended=ranges, facts=facts, advance=shown.advance)
    if output_json is not None:
        analysis = analysis.model_copy(
            update={
                "next_command": analysis.next_command.replace(" analysis.json ", f" {shlex.quote(str(output_json))} ")
            }
        )
        write_text(output_json, analysis.model_dump_json(indent=1) + "\n")
    if html is not None:
        write_text(html, page(analysis, loaded))
    if facts.note:
        console.print(facts.note, style="yellow", highlight=False)
    if json:
        typer.echo(analysis.model_dump_json())
        return
    out = terminal()
    out.print(table(analysis))
    for row in [row for row in analysis.rows if row.error is not None][:10]:
        out.print(f"unreadable: {row.file}: {row.error}", markup=False, highlight=False, soft_wrap=True)
    out.print(analysis.conclusion, markup=False, highlight=False, soft_wrap=True)
    if output_json is None:
        out.print("(run this again with --output-json analysis.json first)", markup=False, highlight=False)
    out.print(analysis.next_command, markup=False, highlight=False, soft_wrap=True)
