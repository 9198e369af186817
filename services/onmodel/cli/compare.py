"""`onmodel compare`: trials side by side in one report."""

from collections.abc import Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer

from onmodel.cli.measuring import (
    AgeOption,
    BaseOption,
    BatchOption,
    ClassOption,
    DetectorConfigOption,
    DeviceOption,
    ImpostorsOption,
    ReferencesOption,
    ScorerOption,
    ScorerWeightsOption,
    ServicesOption,
    SuiteOption,
    TrialDetectorOption,
    TriggerOption,
    detector_of,
    detector_of_trials,
    measuring,
    options_of,
    suite_with,
)

if TYPE_CHECKING:
    from onmodel.dataset.analysis import HasDetection
    from onmodel.evaluation.compare import Mix
    from onmodel.evaluation.trial import Trial


def command(
    models: Annotated[
        list[Path], typer.Option("--models", help="Trial folders or LoRA files; the first is compared with.")
    ],
    others: Annotated[list[Path] | None, typer.Argument(help="Further trials, as in --models A B C.")] = None,
    test_suite: SuiteOption = "character",
    output: Annotated[Path, typer.Option(help="The report; .json and .md are written beside it.")] = Path(
        "comparison.html"
    ),
    references: ReferencesOption = None,
    impostors: ImpostorsOption = None,
    trigger: TriggerOption = None,
    class_word: ClassOption = None,
    age: AgeOption = None,
    base: BaseOption = None,
    detector: TrialDetectorOption = None,
    detector_config: DetectorConfigOption = None,
    scorer: ScorerOption = "toybox",
    scorer_pretrained: ScorerWeightsOption = None,
    services: ServicesOption = None,
    device: DeviceOption = "auto",
    batch_size: BatchOption = None,
    json: Annotated[bool, typer.Option("--json", help="Print the comparison as JSON.")] = False,
) -> None:
    """Put trials side by side in one report."""
    from onmodel.core.errors import UserError
    from onmodel.core.progress import console
    from onmodel.core.vocabulary import CATEGORIES
    from onmodel.dataset.recommended import RECOMMENDED
    from onmodel.evaluation.trial import open_trial

    paths = [*models, *(others or ())]
    if len(paths) < 2:
        raise UserError("--models needs at least two trials; name them one after the other")
    suite = suite_with(test_suite, trigger, class_word, age)
    trials = [open_trial(path, base=base, trigger=trigger) for path in paths]
    # These import torch, which takes seconds: not before the arguments are known to be good.
    from onmodel.evaluation.compare import compare
    from onmodel.evaluation.curves import siblings
    from onmodel.evaluation.evaluate import evaluate
    from onmodel.evaluation.report import write_report
    from onmodel.evaluation.tasks import make_tasks

    preset = detector_of_trials(trials, detector, detector_config, scorer, services)
    with measuring(services, preset, detector_config, scorer, scorer_pretrained) as (opened, measured_with):
        options = options_of(references, impostors, measured_with, device, batch_size)
        tasks = make_tasks(trials, suite, options)
        results = evaluate(tasks, suite, options, opened)
        mixes = mixes_of(trials, opened, preset, detector_config, local=services is None)
    ranges = {name: RECOMMENDED.range(name) for name in CATEGORIES}
    beside = [siblings(task.folder) for task in tasks]
    comparison = compare(results, mixes=mixes, recommended=ranges, others=beside)
    folders = {name: task.folder for name, task in zip(comparison.models, tasks, strict=True)}
    write_report(comparison, folders, output)
    if json:
        typer.echo(comparison.model_dump_json())
        return
    console.print(comparison.verdict, highlight=False, markup=False)
    typer.echo(output)


def mixes_of(
    trials: "Sequence[Trial]", services: "HasDetection", detector: str, detector_config: Path | None, *, local: bool
) -> "dict[str, Mix]":
    """What each trial was trained on, by its name; what is known of a dataset already is not looked at again."""
    from onmodel.core.errors import UserError
    from onmodel.core.progress import console
    from onmodel.dataset.analysis import analyze
    from onmodel.dataset.folder import load_dataset
    from onmodel.detection.weights import local_model
    from onmodel.evaluation.compare import Mix

    config = detector_of(detector, detector_config)
    model = local_model(config) if local else None
    mixes: dict[str, Mix] = {}
    for trial in trials:
        if trial.dataset is None:
            continue
        try:
            dataset = load_dataset(trial.dataset)
        except UserError as error:
            # The report stands without it; the dataset may have been moved or cleared since.
            console.print(f"the training mix of {trial.name} is left out: {error}", highlight=False, markup=False)
            continue
        analysis = analyze(dataset, services, model=model)
        mixes[trial.name] = Mix(pictures=analysis.pictures, shares=analysis.shares)
    return mixes
