"""The `onmodel` command: one typer app, its verbs imported when they are called.

Importing torch, Ray and diffusers takes seconds; `onmodel --help` or a mistyped option must not wait for them,
so each verb's module imports them inside its function.
"""

import importlib
import os
import sys
from typing import Any, Protocol, runtime_checkable

import typer
from typer.core import TyperGroup

from onmodel import __version__
from onmodel.core.errors import OnModelError, exit_code

VERBS: dict[str, tuple[str, str]] = {
    "demo": ("onmodel.cli.demo:command", "Run the whole loop on the bundled world, offline."),
    "analyze": ("onmodel.cli.analyze:command", "Measure a dataset and name what is missing."),
    "extract": ("onmodel.cli.extract:command", "Take from a film the frames that are missing."),
    "cluster": ("onmodel.cli.cluster:command", "Group the characters of pictures by who they are."),
    "curate": ("onmodel.cli.curate:command", "Keep, reject and correct pictures on a page in the browser."),
    "caption": ("onmodel.cli.caption:command", "Write caption variants, or check captions for contradictions."),
    "augment": ("onmodel.cli.augment:command", "Fill gaps with crops and captions made from what is there."),
    "merge": ("onmodel.cli.merge:command", "Put sets together to a target mix."),
    "train": ("onmodel.cli.train:command", "Train one LoRA trial from a TOML file."),
    "ablate": ("onmodel.cli.ablate:command", "Train variants of one config at once and compare them."),
    "evaluate": (
        "onmodel.cli.evaluate:command",
        "Make test pictures of checkpoints and measure every scenario.",
    ),
    "compare": ("onmodel.cli.compare:command", "Put trials side by side in one report."),
    "diagnose": ("onmodel.cli.diagnose:command", "Name the causes of what a trial does wrong, and what mends them."),
    "improve": (
        "onmodel.cli.improve:command",
        "Diagnose, mend, train and evaluate in rounds, until targets are met.",
    ),
    "serve": ("onmodel.cli.serve:app", "Start, show and stop the detection and scoring services."),
    "submit": ("onmodel.cli.submit:app", "Run any of these as a job on a Ray cluster."),
    "jobs": ("onmodel.cli.jobs:app", "Show, follow and stop jobs of a Ray cluster."),
    "doctor": ("onmodel.cli.doctor:command", "Check this installation and say what is wrong with it."),
}
"""verb -> (module:function or module:typer app, one line of help), in the order of the work."""


class _Interrupted(Exception):
    """Ctrl-C under a name that typer does not know: of its own it ends with 130 and without a word."""


class LazyGroup(TyperGroup):
    """Resolves a verb's module only when that verb is called."""

    def invoke(self, ctx: Any) -> Any:
        try:
            return super().invoke(ctx)
        except KeyboardInterrupt:
            raise _Interrupted from None

    def list_commands(self, ctx: Any) -> list[str]:
        return list(VERBS)

    def get_command(self, ctx: Any, cmd_name: str) -> Any:
        if cmd_name not in VERBS:
            return None
        return load_verb(cmd_name) if cmd_name in sys.argv[1:] else named_only(cmd_name)


def load_verb(name: str) -> Any:
    """Import the verb's module and make its command."""
    target, text = VERBS[name]
    module, attribute = target.split(":")
    found: Any = getattr(importlib.import_module(module), attribute)
    if isinstance(found, typer.Typer):
        found.info.help = text
        return typer.main.get_command(found)
    return _single(name, found, text)


def named_only(name: str) -> Any:
    """A command with a name and a line of help, for the list of verbs."""

    def nothing() -> None: ...

    return _single(name, nothing, VERBS[name][1])


def _single(name: str, function: Any, text: str) -> Any:
    single = typer.Typer(add_completion=False, rich_markup_mode=None)
    single.command(name, help=text)(function)
    return typer.main.get_command(single)


app = typer.Typer(cls=LazyGroup, add_completion=False, no_args_is_help=True, rich_markup_mode=None)


def _version(value: bool) -> None:
    if value:
        typer.echo(f"onmodel {__version__}")
        raise typer.Exit


@app.callback()
def root(
    version: bool = typer.Option(False, "--version", callback=_version, is_eager=True, help="Print the version."),
) -> None:
    """Keep a character on model: measure its dataset, fill what is missing, train, evaluate, compare."""


@runtime_checkable
class _UsageError(Protocol):
    """What typer raises for a wrong command line; it carries its own exit code and text."""

    exit_code: int

    def show(self) -> None: ...


def main() -> None:
    """Entry point: turns errors into one line on standard error and an exit code (see core.errors)."""
    # Set before any library starts threads.
    os.environ.setdefault("TOKENIZERS_PARALLELISM", "false")
    os.environ.setdefault("YOLO_VERBOSE", "false")
    command: Any = typer.main.get_command(app)
    try:
        result = command.main(prog_name="onmodel", standalone_mode=False)
        sys.exit(result if isinstance(result, int) else 0)
    except typer.Exit as stop:
        sys.exit(stop.exit_code)
    except (KeyboardInterrupt, _Interrupted, typer.Abort):
        typer.echo("onmodel: stopped; what was finished is kept", err=True)
        sys.exit(130)
    except OnModelError as error:
        typer.echo(f"onmodel: {error}", err=True)
        sys.exit(exit_code(error))
    except Exception as error:
        if not isinstance(error, _UsageError):
            raise
        error.show()
        sys.exit(error.exit_code)
