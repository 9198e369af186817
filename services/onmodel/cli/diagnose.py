"""`onmodel diagnose`: why a trial fails, what mends it, and the command that does."""

from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer

from onmodel.cli.measuring import (
    BaseOption,
    DetectorConfigOption,
    ImpostorsOption,
    ScorerOption,
    ScorerWeightsOption,
    ServicesOption,
    TrialDetectorOption,
    TriggerOption,
    detector_of,
    detector_of_trials,
    measuring,
)

if TYPE_CHECKING:
    from onmodel.dataset.analysis import Analysis, HasDetection
    from onmodel.diagnosis.diagnose import Diagnosis
    from onmodel.evaluation.trial import Trial


def command(
    trial: Annotated[Path, typer.Argument(help="Trial folder that was evaluated, or one of its checkpoints.")],
    analysis: Annotated[
        Path | None,
        typer.Option(help="What `onmodel analyze --output-json` wrote; else the trial's dataset is analysed."),
    ] = None,
    evaluation: Annotated[
        Path | None, typer.Option(help="What `onmodel evaluate --output-dir` was given; else the trial's own.")
    ] = None,
    references: Annotated[
        Path | None, typer.Option(help="Folder of held-back pictures of the character: is the set of one character?")
    ] = None,
    impostors: ImpostorsOption = None,
    film: Annotated[
        Path | None, typer.Option(help="Film that further pictures can come from; named in commands.")
    ] = None,
    output_dir: Annotated[
        Path | None, typer.Option(help="For diagnosis.json, .md and the next configs; else `diagnosis` in the trial.")
    ] = None,
    trigger: TriggerOption = None,
    base: BaseOption = None,
    detector: TrialDetectorOption = None,
    detector_config: DetectorConfigOption = None,
    scorer: ScorerOption = "toybox",
    scorer_pretrained: ScorerWeightsOption = None,
    services: ServicesOption = None,
    json: Annotated[bool, typer.Option("--json", help="Print the diagnosis as JSON.")] = False,
) -> None:
    """Name the causes of what a trial does wrong, each with its evidence, and the commands that mend them."""
    from onmodel.core.config import load
    from onmodel.core.progress import console
    from onmodel.dataset.analysis import Analysis
    from onmodel.diagnosis.run import Request, run_diagnosis
    from onmodel.diagnosis.sources import FOLDER, Names, read_evaluations
    from onmodel.evaluation.tasks import pictures_in, strangers_in
    from onmodel.evaluation.trial import open_trial

    opened = open_trial(trial, base=base, trigger=trigger)
    known = load(Analysis, analysis) if analysis is not None else None
    drawn = evaluation or opened.evaluation_folder
    out = output_dir or opened.checkpoint.parent / FOLDER
    own = pictures_in(references, "reference") if references is not None else ()
    preset = detector_of_trials([opened], detector, detector_config, scorer, services)
    names = Names(
        references=references,
        film=film,
        analysis=analysis,
        detector=_options(("--detector", preset, "toybox"), ("--detector-config", detector_config, None)),
        scorer=_options(("--scorer", scorer, "toybox"), ("--scorer-pretrained", scorer_pretrained, None)),
    )
    evaluations = read_evaluations(opened, evaluation)
    with measuring(services, preset, detector_config, scorer, scorer_pretrained) as (looking, measured_with):
        if known is None and opened.dataset is not None:
            known = _analyse(opened, looking, preset, detector_config, services is None)
        request = Request(
            out=out,
            trial=opened,
            evaluations=evaluations,
            analysis=known,
            references=own,
            strangers=pictures_in(impostors, "impostor") if impostors else strangers_in(drawn, evaluations),
            trigger=trigger,
            names=names,
        )
        result = run_diagnosis(request, looking, measured_with)
    for note in request.notes:
        console.print(note, style="yellow", highlight=False, markup=False, soft_wrap=True)
    if json:
        typer.echo(result.model_dump_json())
        return
    _print(result, out)


def _options(*given: tuple[str, object, object]) -> tuple[str, ...]:
    """Options whose value is not the default, as words."""
    return tuple(word for option, value, usual in given if value != usual for word in (option, str(value)))


def _analyse(
    trial: "Trial", services: "HasDetection", detector: str, detector_config: Path | None, local: bool
) -> "Analysis | None":
    """The training set's analysis; what is known of it already is not looked at again."""
    from onmodel.core.errors import UserError
    from onmodel.core.progress import bar, console
    from onmodel.dataset.analysis import analyze
    from onmodel.dataset.folder import load_dataset
    from onmodel.detection.weights import local_model

    assert trial.dataset is not None
    config = detector_of(detector, detector_config)
    model = local_model(config) if local else None
    try:
        dataset = load_dataset(trial.dataset)
    except UserError as error:
        console.print(f"the training set is left out: {error}", highlight=False, markup=False, soft_wrap=True)
        return None
    with bar("analysing", len(dataset.pictures)) as shown:
        return analyze(dataset, services, model=model, advance=shown.advance)


def _print(result: "Diagnosis", out: Path) -> None:
    from onmodel.dataset.report import terminal
    from onmodel.diagnosis.diagnose import RESULT_FILE
    from onmodel.diagnosis.report import table

    shown = terminal()
    if result.findings:
        shown.print(table(result))
    lines = [result.conclusion]
    for number, finding in enumerate(result.findings, 1):
        lines += ["", f"{number}. {finding.fix}", *(f"   {command}" for command in finding.commands)]
    if result.unjudged:
        lines += ["", "Not judged:"]
        lines += [f"   {u.cause} (no {', '.join(u.missing)}): {u.command}" for u in result.unjudged]
    if not result.findings:
        lines += ["", "Looked for:", *(f"   {c.cause}: {c.reason}" for c in result.cleared)]
    for line in lines:
        shown.print(line, markup=False, highlight=False, soft_wrap=True)
    typer.echo(out / Path(RESULT_FILE).with_suffix(".md"))
