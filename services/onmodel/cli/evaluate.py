"""`onmodel evaluate`: test pictures of checkpoints, figures for every scenario, and which checkpoint to use."""

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
    detector_of_trials,
    measuring,
    options_of,
    suite_with,
)
from onmodel.evaluation.trial import Which

if TYPE_CHECKING:
    from collections.abc import Sequence

    from rich.table import Table
    from rich.tree import Tree

    from onmodel.evaluation.choice import Choice
    from onmodel.evaluation.lineage import Node
    from onmodel.evaluation.record import Evaluation
    from onmodel.evaluation.suite import TestSuite
    from onmodel.evaluation.tasks import Task


def command(
    checkpoints: Annotated[
        list[Path] | None, typer.Argument(help="LoRA files, or trial folders (see --checkpoints).")
    ] = None,
    test_suite: SuiteOption = "character",
    output_dir: Annotated[
        Path | None, typer.Option(help="Holds one folder a checkpoint; else each trial's `evaluation` folder.")
    ] = None,
    which: Annotated[
        Which, typer.Option("--checkpoints", help="Of a trial folder: the last, all, or the best by an earlier choice.")
    ] = Which.LAST,
    lora_scale: Annotated[str, typer.Option(help="One or several strengths, as in 0.6,0.8,1.0.")] = "1.0",
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
    preview: Annotated[bool, typer.Option("--preview", help="Print the prompts and stop.")] = False,
    explain: Annotated[
        Path | None,
        typer.Option(help="Say where a picture, checkpoint, dataset, evaluation.json or comparison comes from."),
    ] = None,
    json: Annotated[bool, typer.Option("--json", help="Print the figures as JSON.")] = False,
) -> None:
    """Make test pictures of checkpoints, measure every scenario, and recommend one of a trial's checkpoints."""
    from onmodel.core.errors import UserError
    from onmodel.core.progress import console
    from onmodel.evaluation.trial import open_trials

    if explain is not None:
        _explain(explain, json)
        return
    if not checkpoints:
        raise UserError("name at least one LoRA file or trial folder, or pass --explain with a file")
    suite = suite_with(test_suite, trigger, class_word, age)
    trials = [trial for path in checkpoints for trial in open_trials(path, which, base=base, trigger=trigger)]
    if preview:
        _preview(suite, trials[0].trigger)
        return
    scales = parse_scales(lora_scale)
    # These import torch, which takes seconds: not before the arguments are known to be good.
    from onmodel.evaluation.evaluate import evaluate
    from onmodel.evaluation.tasks import make_tasks

    preset = detector_of_trials(trials, detector, detector_config, scorer, services)
    with measuring(services, preset, detector_config, scorer, scorer_pretrained) as (opened, measured_with):
        options = options_of(references, impostors, measured_with, device, batch_size)
        tasks = make_tasks(trials, suite, options, scales=scales, output_dir=output_dir)
        results = evaluate(tasks, suite, options, opened)
    choices = choices_of(tasks, results)
    if json:
        typer.echo(f"[{','.join(r.model_dump_json() for r in results)}]")
        return
    from rich.console import Console

    for task, result in zip(tasks, results, strict=True):
        Console().print(table(result))
        for warning in result.warnings:
            console.print(warning, style="yellow", highlight=False)
        typer.echo(f"{task.folder}")
    for path, choice in choices.items():
        Console().print(choice_table(choice))
        for sentence in (choice.reason, choice.confidence):
            Console().print(sentence, highlight=False, markup=False)
        typer.echo(f"{path}")


def choices_of(tasks: "Sequence[Task]", results: "Sequence[Evaluation]") -> "dict[Path, Choice]":
    """Choose among each trial's evaluations where it has several, and write each choice."""
    from collections import Counter

    from onmodel.core.errors import UserError
    from onmodel.core.progress import console
    from onmodel.evaluation.choice import choose, write_choice

    groups: dict[tuple[Path, str, tuple[str, ...]], list[Evaluation]] = {}
    for task, result in zip(tasks, results, strict=True):
        # LoRA files of several characters may lie in one folder; their triggers make other prompts.
        groups.setdefault((task.folder.parent, result.trial_folder, result.prompts), []).append(result)
    # A folder that several trials share holds a choice for each.
    shared = Counter(root for root, _, _ in groups)
    written: dict[Path, Choice] = {}
    for (root, _, _), group in groups.items():
        if len(group) < 2:
            continue
        try:
            choice = choose(group)
        except UserError as error:
            # The figures stand without it.
            console.print(f"no checkpoint is recommended: {error}", highlight=False, markup=False)
            continue
        whose = f"{choice.trial}-{group[0].trigger}" if shared[root] > 1 else ""
        written[write_choice(choice, root, whose)] = choice
    return written


def choice_table(choice: "Choice") -> "Table":
    """A choice as a table: candidates by figures, with the scenarios in which no other beats them in everything."""
    from rich.table import Table

    from onmodel.evaluation.compare import label
    from onmodel.evaluation.metrics import METRICS, number

    shown = Table(title=f"Checkpoints of {choice.trial} (* recommended)", title_justify="left")
    # The name is what the table is for: it is never cut, headings wrap instead.
    shown.add_column("checkpoint", no_wrap=True)
    for heading in ("scale", *(METRICS[name].label.lower() for name in choice.objectives), "chosen again"):
        shown.add_column(heading, justify="right")
    shown.add_column("on the front of")
    for place, each in enumerate(choice.candidates):
        fronts = [label(name).lower() for name, scenario in choice.scenarios.items() if place in scenario.front]
        everywhere = len(fronts) == len(choice.scenarios)
        shown.add_row(
            f"{'*' if place == choice.recommended else ' '} {each.checkpoint.removesuffix('.safetensors')}",
            f"{each.scale:g}",
            *(number(each.figures[name], name) for name in choice.objectives),
            f"{100 * each.chosen:.0f} %",
            "all" if everywhere else ", ".join(fronts) or "none",
        )
    return shown


def _explain(path: Path, json: bool) -> None:
    from rich.console import Console

    from onmodel.evaluation.lineage import explain

    node = explain(path)
    if json:
        typer.echo(node.model_dump_json())
        return
    Console().print(tree(node), highlight=False)
    lost = len(node.every_untraced())
    typer.echo("Everything could be traced." if not lost else f"Not traced: {lost}, marked ! above.")


def tree(node: "Node") -> "Tree":
    """A lineage for reading: what it is, what is known of it, what could not be traced, what it was made from."""
    from rich.text import Text
    from rich.tree import Tree

    shown = Tree(Text.assemble((node.kind, "bold"), " ", node.name))
    for name, value in node.facts.items():
        shown.add(Text.assemble((f"{name}: ", "dim"), value))
    for sentence in node.untraced:
        shown.add(Text(f"! {sentence}", style="yellow"))
    for source in node.sources:
        shown.children.append(tree(source))
    return shown


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


COLUMNS = ("on_model", "identity", "found", "framing", "prompt_fidelity", "memorisation")


def table(result: "Evaluation") -> "Table":
    """An evaluation as a table: scenarios by figures, means with intervals for the first."""
    from rich import box
    from rich.table import Table

    from onmodel.evaluation.compare import label, met
    from onmodel.evaluation.metrics import ALL, METRICS
    from onmodel.evaluation.report import interval_view

    passed, of = met(result)
    title = f"{result.trial}, {result.checkpoint} at scale {result.scale:g}: {passed} of {of} targets met"
    # Lean, to be read whole on a terminal of 80 columns.
    shown = Table(title=title, title_justify="left", box=box.SIMPLE_HEAD, padding=0)
    shown.add_column("scenario", no_wrap=True)
    for name in COLUMNS:
        shown.add_column(
            METRICS[name].label.lower().removeprefix("character "), justify="right", no_wrap=name == COLUMNS[0]
        )
    for scenario, figures in (*result.scenarios.items(), (ALL, result.overall)):
        cells: list[str] = []
        for name in COLUMNS:
            view = interval_view(figures[name], name)
            cells.append(f"{view['short']} ({view['range_short']})" if name == COLUMNS[0] else view["short"])
        shown.add_row(label(scenario), *cells)
    return shown
