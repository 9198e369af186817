"""`onmodel evaluate`: test pictures of checkpoints, and figures for every scenario."""

from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer

from onmodel.cli.measuring import (
    AgeOption,
    BaseOption,
    BatchOption,
    ClassOption,
    DetectorConfigOption,
    DetectorOption,
    DeviceOption,
    ImpostorsOption,
    ReferencesOption,
    ScorerOption,
    ScorerWeightsOption,
    ServicesOption,
    SuiteOption,
    TriggerOption,
    measuring,
    options_of,
    suite_with,
)

if TYPE_CHECKING:
    from rich.table import Table

    from onmodel.evaluation.record import Evaluation
    from onmodel.evaluation.suite import TestSuite


def command(
    checkpoints: Annotated[list[Path], typer.Argument(help="LoRA files, or trial folders (their last checkpoint).")],
    test_suite: SuiteOption = "character",
    output_dir: Annotated[
        Path | None, typer.Option(help="Holds one folder a checkpoint; else each trial's `evaluation` folder.")
    ] = None,
    lora_scale: Annotated[str, typer.Option(help="One or several strengths, as in 0.6,0.8,1.0.")] = "1.0",
    references: ReferencesOption = None,
    impostors: ImpostorsOption = None,
    trigger: TriggerOption = None,
    class_word: ClassOption = None,
    age: AgeOption = None,
    base: BaseOption = None,
    detector: DetectorOption = "toybox",
    detector_config: DetectorConfigOption = None,
    scorer: ScorerOption = "toybox",
    scorer_pretrained: ScorerWeightsOption = None,
    services: ServicesOption = None,
    device: DeviceOption = "auto",
    batch_size: BatchOption = None,
    preview: Annotated[bool, typer.Option("--preview", help="Print the prompts and stop.")] = False,
    json: Annotated[bool, typer.Option("--json", help="Print the figures as JSON.")] = False,
) -> None:
    """Make test pictures of checkpoints and measure every scenario."""
    from onmodel.core.progress import console
    from onmodel.evaluation.trial import open_trial

    suite = suite_with(test_suite, trigger, class_word, age)
    trials = [open_trial(path, base=base, trigger=trigger) for path in checkpoints]
    if preview:
        _preview(suite, trials[0].trigger)
        return
    scales = parse_scales(lora_scale)
    # These import torch, which takes seconds: not before the arguments are known to be good.
    from onmodel.evaluation.evaluate import evaluate
    from onmodel.evaluation.tasks import make_tasks

    with measuring(services, detector, detector_config, scorer, scorer_pretrained) as (opened, measured_with):
        options = options_of(references, impostors, measured_with, device, batch_size)
        tasks = make_tasks(trials, suite, options, scales=scales, output_dir=output_dir)
        results = evaluate(tasks, suite, options, opened)
    if json:
        typer.echo(f"[{','.join(r.model_dump_json() for r in results)}]")
        return
    from rich.console import Console

    for task, result in zip(tasks, results, strict=True):
        Console().print(table(result))
        for warning in result.warnings:
            console.print(warning, style="yellow", highlight=False)
        typer.echo(f"{task.folder}")


def parse_scales(text: str) -> list[float]:
    """`0.6,0.8` to numbers. Raises UserError."""
    from onmodel.core.errors import UserError

    try:
        scales = [float(part) for part in text.split(",")]
    except ValueError:
        raise UserError(f"--lora-scale {text}: not numbers with commas between; write 0.6,0.8,1.0") from None
    if len(set(scales)) != len(scales):
        raise UserError(f"--lora-scale {text}: the same scale stands there twice; name each once")
    return scales


def _preview(suite: "TestSuite", trigger: str | None) -> None:
    last = ""
    for prompt in suite.prompts(trigger):
        if prompt.scenario != last:
            typer.echo(f"{prompt.scenario}")
            last = prompt.scenario
        typer.echo(f"  p{prompt.index:03d}  {prompt.text}")
    if suite.negative_prompt:
        typer.echo(f"negative prompt\n        {suite.negative_prompt}")
    typer.echo(f"{len(suite.seeds)} variations each, seeds {', '.join(map(str, suite.seeds))}")


COLUMNS = ("on_model", "identity", "consistency", "found", "framing", "prompt_fidelity", "memorisation")


def table(result: "Evaluation") -> "Table":
    """An evaluation as a table: scenarios by figures, means with intervals for the first."""
    from rich.table import Table

    from onmodel.evaluation.compare import ALL, label
    from onmodel.evaluation.metrics import METRICS
    from onmodel.evaluation.report import interval_view

    done = [t for t in result.targets if t.scenario != ALL and t.met is not None]
    passed = sum(bool(t.met) for t in done)
    title = f"{result.trial}, {result.checkpoint} at scale {result.scale:g}: {passed} of {len(done)} targets met"
    shown = Table(title=title, title_justify="left")
    shown.add_column("scenario")
    for name in COLUMNS:
        shown.add_column(METRICS[name].label.lower(), justify="right")
    for scenario, figures in (*result.scenarios.items(), (ALL, result.overall)):
        cells: list[str] = []
        for name in COLUMNS:
            view = interval_view(figures[name], name)
            cells.append(f"{view['short']} ({view['range_short']})" if name == COLUMNS[0] else view["short"])
        shown.add_row(label(scenario), *cells)
    return shown
