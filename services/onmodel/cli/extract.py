"""`onmodel extract`: take from a film the frames that are missing."""

import os
import time
from collections.abc import Generator
from contextlib import ExitStack, closing, contextmanager
from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer

from onmodel.cli.measuring import (
    DetectorConfigOption,
    FilmDetectorOption,
    ScorerOption,
    ScorerWeightsOption,
    ServicesOption,
    detector_for,
)

if TYPE_CHECKING:
    from onmodel.film.extract import Watch
    from onmodel.film.look import LookConfig
    from onmodel.film.run import Runner


def command(
    films: Annotated[list[Path] | None, typer.Argument(help="Film files, worked in this order.")] = None,
    profile: Annotated[Path | None, typer.Option(help="What is asked for: JSON with `priority_scenes`.")] = None,
    output_dir: Annotated[Path | None, typer.Option(help="Folder for the dataset of frames.")] = None,
    reference: Annotated[Path | None, typer.Option(help="Folder of pictures of the character.")] = None,
    plan: Annotated[
        Path | None,
        typer.Option(help="Write --profile first, from what `onmodel analyze --output-json` found."),
    ] = None,
    resume: Annotated[bool, typer.Option(help="Go on from what a stopped run finished.")] = True,
    stop_when_met: Annotated[
        bool, typer.Option(help="Stop when each scene has three times as many candidates as it asks for.")
    ] = False,
    trigger: Annotated[str | None, typer.Option(help="Word that captions begin with.")] = None,
    config: Annotated[Path | None, typer.Option(help="TOML or JSON with settings of sampling and selection.")] = None,
    detector: FilmDetectorOption = None,
    detector_config: DetectorConfigOption = None,
    scorer: ScorerOption = "toybox",
    scorer_pretrained: ScorerWeightsOption = None,
    services: ServicesOption = None,
    json: Annotated[bool, typer.Option("--json", help="Print the result as JSON.")] = False,
) -> None:
    """Take from films the frames that a profile asks for."""
    from onmodel.core.config import load
    from onmodel.core.errors import UserError
    from onmodel.core.files import existing
    from onmodel.core.progress import console
    from onmodel.dataset.report import terminal
    from onmodel.film.extract import ExtractConfig, extract
    from onmodel.film.look import LookConfig
    from onmodel.film.profile import load_profile, refuse_unreachable
    from onmodel.film.records import PAGE
    from onmodel.film.report import lines, table
    from onmodel.scoring.config import ScorerConfig

    if profile is None:
        raise UserError("no profile is given; name one with --profile (configs/profiles holds examples)")
    if plan is not None:
        _plan(plan, profile)
    if not films:
        if plan is None:
            raise UserError("no film is given; name at least one")
        return
    if output_dir is None:
        raise UserError("no folder is given for the frames; name one with --output-dir")
    asked = load_profile(profile)
    settings = load(ExtractConfig, config) if config else ExtractConfig()
    seeing = detector_for(None, detector, detector_config)
    scoring = ScorerConfig.model_validate({"model": scorer, "pretrained": scorer_pretrained})
    looking = LookConfig(seeing, scoring, services)
    refuse_unreachable(asked, seeing.shots, str(profile))
    for film in films:
        existing(film, "film")
    with ExitStack() as stack:
        with console.status("loading the models"):
            look = stack.enter_context(closing(looking.open()))
        result = extract(
            films,
            asked,
            output_dir,
            look,
            reference=reference,
            profile_folder=profile.parent,
            config=settings,
            knows_occluders=bool(seeing.occluder_classes),
            runner=_runner(looking),
            resume=resume,
            stop_when_met=stop_when_met,
            trigger=trigger,
            watch=stack.enter_context(_watching()),
        )
    if json:
        typer.echo(result.model_dump_json())
        return
    out = terminal()
    out.print(table(result))
    for line in lines(result):
        out.print(line, markup=False, highlight=False, soft_wrap=True)
    out.print(f"contact sheet: {output_dir / PAGE}", markup=False, highlight=False, soft_wrap=True)


def _plan(analysis: Path, profile: Path) -> None:
    """Write a profile from an analysis's deficits, and say what it asks for."""
    from onmodel.core.config import load
    from onmodel.core.files import write_text
    from onmodel.core.progress import console
    from onmodel.dataset.analysis import Analysis
    from onmodel.film.profile import plan

    made = plan(load(Analysis, analysis))
    write_text(profile, made.model_dump_json(indent=1, exclude_none=True, exclude_defaults=True) + "\n")
    asked = ", ".join(f"{name} {scene.target}" for name, scene in made.scenes())
    console.print(f"{profile}: asks for {asked}", markup=False, highlight=False, soft_wrap=True)


def _runner(looking: "LookConfig") -> "Runner | None":
    """Spread over the Ray cluster that RAY_ADDRESS names; None = this process."""
    if not os.environ.get("RAY_ADDRESS"):
        return None
    from onmodel.film.ray_data import over_cluster

    return over_cluster(looking)


@contextmanager
def _watching() -> "Generator[Watch]":
    """A bar of frames, with frames a second and what is found for each scene behind it."""
    from onmodel.core.progress import bar
    from onmodel.film.extract import Watch

    with ExitStack() as stack:
        shown = None
        start = time.monotonic()
        done = 0
        found = ""

        def begin(frames: int) -> None:
            nonlocal shown, start
            shown = stack.enter_context(bar("extracting", frames))
            start = time.monotonic()

        def advance(frames: int) -> None:
            nonlocal done
            done += frames
            if shown is not None:
                shown.advance(frames, f"{done / max(time.monotonic() - start, 1e-3):.0f} frames/s{found}")

        def tell(scenes: dict[str, tuple[int, int]]) -> None:
            nonlocal found
            found = "".join(f" · {name} {able}/{target}" for name, (able, target) in scenes.items())
            advance(0)

        yield Watch(begin, advance, tell)
