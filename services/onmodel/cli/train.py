"""`onmodel train`: one LoRA trial on Ray Train."""

import json
from collections import Counter
from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer

from onmodel.core.errors import UserError

if TYPE_CHECKING:
    from onmodel.evaluation.samples import SamplePictures
    from onmodel.training.config import TrainConfig


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
    from onmodel.training.run import train, with_epochs

    settings = load_train_config(config)
    if epochs is not None:
        settings = with_epochs(settings, epochs, stage)
    typer.echo(f"{to_toml(settings)}", err=True)
    result = train(
        settings,
        num_workers=num_workers,
        resume=resume,
        stage=stage,
        max_failures=max_failures,
        samples=_samples(settings),
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


def _samples(settings: "TrainConfig") -> "SamplePictures | None":
    """What `sample_prompts` names, with the trigger word that the dataset's folders or captions show."""
    if settings.training.sample_prompts is None:
        return None
    from onmodel.dataset.folder import load_dataset
    from onmodel.evaluation.samples import load_samples
    from onmodel.evaluation.trial import guess_trigger

    pictures = load_dataset(Path(settings.data.train_data_dir)).pictures
    named = {picture.class_tokens.split()[0] for picture in pictures if picture.class_tokens}
    tags = Counter(tag.strip() for picture in pictures for tag in picture.caption.split(","))
    trigger = named.pop() if len(named) == 1 else guess_trigger(json.dumps({"": tags}))
    return load_samples(settings.training.sample_prompts, trigger)


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
