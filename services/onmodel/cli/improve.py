"""`onmodel improve`: the loop from a dataset to a model that meets its targets, or to why it does not."""

from pathlib import Path
from typing import Annotated

import typer

from onmodel.cli.measuring import ServicesOption, detector_of, measuring


def command(
    project: Annotated[
        Path, typer.Argument(help="Project TOML: dataset, references, training config, what is allowed.")
    ],
    rounds: Annotated[int | None, typer.Option(min=1, help="Most trainings in all, in place of the project's.")] = None,
    unattended: Annotated[
        bool, typer.Option("--unattended", help="Ask nobody; frames of a film are taken without curation.")
    ] = False,
    services: ServicesOption = None,
    json: Annotated[bool, typer.Option("--json", help="Print what came of every round as JSON.")] = False,
) -> None:
    """Diagnose, mend, train and evaluate in rounds, until the targets are met or nothing helps.

    A stopped run goes on where it was when the same command is given again.
    """
    import json as jsonlib

    from onmodel.core.progress import console
    from onmodel.diagnosis.project import load_project

    settings = load_project(project)
    # These import torch, which takes seconds: not before the project file is known to be good.
    from onmodel.diagnosis.fixes import Workshop
    from onmodel.diagnosis.improve import improve
    from onmodel.diagnosis.improve_report import HTML_FILE, write_improvement
    from onmodel.scoring.config import ScorerConfig

    def say(text: str) -> None:
        console.print(text, highlight=False, markup=False, soft_wrap=True)

    detector = detector_of(settings.detector, None)
    scorer = ScorerConfig.model_validate({"model": settings.scorer, "pretrained": settings.scorer_pretrained})
    with measuring(services, settings.detector, None, settings.scorer, settings.scorer_pretrained) as (opened, with_):
        shop = Workshop(
            settings,
            opened,
            detector,
            scorer,
            with_,
            ask=None if unattended else lambda question: typer.confirm(question, err=True),
            local=services is None,
        )
        done = improve(
            settings,
            shop,
            rounds or settings.rounds,
            say,
            lambda journal, stopped: write_improvement(settings, journal, stopped),
        )
    if json:
        results = [jsonlib.loads(result.model_dump_json()) for result in done.results]
        best = done.best.number if done.best else None
        typer.echo(jsonlib.dumps({"stopped": done.stopped, "best": best, "rounds": results}))
        return
    say(done.stopped)
    typer.echo(settings.output_dir / HTML_FILE)
