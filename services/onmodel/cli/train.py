"""`onmodel train`: one LoRA trial on Ray Train."""

import json
from pathlib import Path
from typing import Annotated

import typer

from onmodel.core.errors import UserError


def command(
    config: Annotated[Path | None, typer.Argument(help="Training TOML with sd-scripts' key names.")] = None,
    stage: Annotated[str | None, typer.Option(help="Train this stage alone, from the end of the one before.")] = None,
    epochs: Annotated[int | None, typer.Option(min=1, help="Instead of the config's, or of the stage's.")] = None,
    num_workers: Annotated[int, typer.Option(min=1, help="Ray Train workers, one GPU each where there are GPUs.")] = 1,
    max_failures: Annotated[
        int, typer.Option(min=0, help="How often workers that died are started again from the last state.")
    ] = 3,
    resume: Annotated[
        Path | None,
        typer.Option(help="A trial folder to go on from exactly, or a LoRA .safetensors to start from."),
    ] = None,
    inspect: Annotated[
        Path | None, typer.Option(help="Print what a LoRA file holds, its metadata and layers, and train nothing.")
    ] = None,
    merge: Annotated[
        Path | None, typer.Option(help="Add a LoRA file to the base model --into, and train nothing.")
    ] = None,
    into: Annotated[str | None, typer.Option(help="Base model for --merge: toybox, folder, file or hub id.")] = None,
    output_dir: Annotated[Path | None, typer.Option(help="New folder for what --merge makes.")] = None,
    scale: Annotated[float, typer.Option(help="Strength of the LoRA for --merge.")] = 1.0,
    as_json: Annotated[bool, typer.Option("--json", help="Print the result as JSON.")] = False,
) -> None:
    """Train one LoRA trial from a TOML file.

    A run that was stopped goes on where it was when the same command is given again.
    """
    if inspect is not None:
        _inspect(inspect, as_json=as_json)
        return
    if merge is not None:
        _merge(merge, into, output_dir, scale, as_json=as_json)
        return
    if config is None:
        raise UserError("give a training TOML, --inspect FILE, or --merge FILE --into BASE --output-dir DIR")
    from onmodel.evaluation.samples import samples_of
    from onmodel.training.config import load_train_config, to_toml
    from onmodel.training.run import train, with_epochs
    from onmodel.training.sources import with_dataset_config

    def say(text: str) -> None:
        typer.echo(text, err=True)

    settings = with_dataset_config(load_train_config(config, say), say)
    if epochs is not None:
        settings = with_epochs(settings, epochs, stage)
    typer.echo(f"{to_toml(settings)}", err=True)
    result = train(
        settings,
        num_workers=num_workers,
        resume=resume,
        stage=stage,
        max_failures=max_failures,
        samples=samples_of(settings),
    )
    for problem in result.problems:
        typer.echo(f"left out: {problem}", err=True)
    if as_json:
        answer = {
            "trial_dir": str(result.trial_dir),
            "checkpoints": [str(path) for path in result.checkpoints],
            "steps": len(result.losses),
            "last_loss": result.losses[-1] if result.losses else None,
            "problems": result.problems,
        }
        typer.echo(json.dumps(answer, ensure_ascii=False))
        return
    if result.problems:
        typer.echo(f"{len(result.problems)} picture(s) could not be read and were left out", err=True)
    typer.echo(str(result.checkpoints[-1] if result.checkpoints else result.trial_dir))


def _inspect(file: Path, *, as_json: bool) -> None:
    """Metadata, and a table of the file's parts; as JSON every layer."""
    from onmodel.training.inspect_file import counted, inspect

    facts = inspect(file)
    if as_json:
        typer.echo(json.dumps(facts.as_json(), ensure_ascii=False, indent=1))
        return
    from rich.console import Console
    from rich.table import Column, Table

    console = Console()
    for key, value in facts.metadata.items():
        text = value if isinstance(value, str) else json.dumps(value, ensure_ascii=False)
        shown = text if len(text) <= 100 else f"{text[:100]}… ({len(text)} characters; --json shows all)"
        console.print(f"{key}: {shown}", markup=False, highlight=False, soft_wrap=True)
    table = Table(Column("part", no_wrap=True), "layers", "kind", "rank", "alpha", "norm mean", "norm max", "type")
    for part, layers in facts.parts():
        norms = [layer.norm for layer in layers]
        table.add_row(
            part,
            str(len(layers)),
            counted([layer.kind for layer in layers]),
            counted([layer.rank for layer in layers]),
            counted([f"{layer.alpha:g}" for layer in layers]),
            f"{sum(norms) / len(norms):.4g}",
            f"{max(norms):.4g}",
            counted([layer.dtype for layer in layers]),
        )
    console.print(table)


def _merge(file: Path, base: str | None, output_dir: Path | None, scale: float, *, as_json: bool) -> None:
    if base is None or output_dir is None:
        raise UserError("--merge needs --into BASE (toybox, folder, file or hub id) and --output-dir DIR")
    from onmodel.training.merge import merge_lora

    merge_lora(file, base, output_dir, scale)
    typer.echo(json.dumps({"output_dir": str(output_dir)}) if as_json else str(output_dir))
