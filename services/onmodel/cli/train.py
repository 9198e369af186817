"""`onmodel train`: one LoRA trial on Ray Train."""

import json
from pathlib import Path
from typing import Annotated

import typer

from onmodel.core.errors import UserError


def command(
    config: Annotated[Path | None, typer.Argument(help="Training TOML with sd-scripts' key names.")] = None,
    epochs: Annotated[int | None, typer.Option(min=1, help="Instead of the config's max_train_epochs.")] = None,
    num_workers: Annotated[int, typer.Option(min=1, help="Ray Train workers, one GPU each where there are GPUs.")] = 1,
    resume: Annotated[
        Path | None,
        typer.Option(help="A trial folder to go on from exactly, or a LoRA .safetensors to start from."),
    ] = None,
    inspect: Annotated[Path | None, typer.Option(help="Print a LoRA file's metadata and train nothing.")] = None,
    as_json: Annotated[bool, typer.Option("--json", help="Print the result as JSON.")] = False,
) -> None:
    """Train one LoRA trial from a TOML file.

    A run that was stopped goes on where it was when the same command is given again.
    """
    if inspect is not None:
        _inspect(inspect)
        return
    if config is None:
        raise UserError("give a training TOML, or --inspect FILE")
    from onmodel.training.config import load_train_config, to_toml
    from onmodel.training.sources import with_dataset_config

    def say(text: str) -> None:
        typer.echo(text, err=True)

    settings = with_dataset_config(load_train_config(config, say), say)
    if epochs is not None:
        settings = settings.with_changes(training={"max_train_epochs": epochs})
    typer.echo(f"{to_toml(settings)}", err=True)
    from onmodel.training.run import train

    result = train(settings, num_workers=num_workers, resume=resume)
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


def _inspect(file: Path) -> None:
    """The file's metadata as JSON, with the tables inside it opened up."""
    from onmodel.training.export import read_metadata

    shown: dict[str, object] = {}
    for key, value in sorted(read_metadata(file).items()):
        try:
            shown[key] = json.loads(value) if value[:1] in ("{", "[") else value
        except ValueError:
            shown[key] = value
    typer.echo(json.dumps(shown, ensure_ascii=False, indent=1))
