"""`onmodel ablate`: variants of one config at once, compared."""

import os
from contextlib import ExitStack
from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer

if TYPE_CHECKING:
    from rich.table import Table

    from onmodel.ablation.config import EvaluationSection
    from onmodel.ablation.outcome import Outcome, VariantOutcome
    from onmodel.ablation.run import Evaluating
    from onmodel.ablation.variants import Ablation


def command(
    ablation: Annotated[Path, typer.Argument(help="Ablation TOML: a base config and variants of it, or a search.")],
    epochs: Annotated[int | None, typer.Option(min=1, help="Of every variant, instead of the configs'.")] = None,
    as_json: Annotated[bool, typer.Option("--json", help="Print the outcome as JSON.")] = False,
) -> None:
    """Train variants of one config at once and compare them.

    When the same command is given again, only what is missing or failed is trained.
    """
    from onmodel.ablation.config import load_ablation
    from onmodel.ablation.variants import make_ablation

    plan = make_ablation(ablation, load_ablation(ablation), epochs)
    # These import torch and Ray, which takes seconds: not before the file is known to be good.
    from onmodel.ablation.outcome import OUTCOME
    from onmodel.ablation.run import run_ablation

    with ExitStack() as stack:
        section = plan.settings.evaluation
        evaluating = None if section is None else _evaluating(stack, plan, section)
        try:
            outcome = run_ablation(plan, evaluating)
        except KeyboardInterrupt:
            typer.echo(f"onmodel: the same command goes on where {plan.folder} stands", err=True)
            raise
    if as_json:
        typer.echo(outcome.model_dump_json())
    else:
        _print(outcome, plan.folder / OUTCOME)
    if outcome.failed:
        raise typer.Exit(1)


def _evaluating(stack: ExitStack, plan: "Ablation", section: "EvaluationSection") -> "Evaluating":
    """What the [evaluation] table asks for. Raises UserError."""
    from onmodel.ablation.measuring import Measuring
    from onmodel.ablation.run import Evaluating
    from onmodel.cli.measuring import SERVICES_VARIABLE, measuring, options_of, suite_with

    address = section.services or os.environ.get(SERVICES_VARIABLE) or None
    suite = suite_with(section.test_suite, section.trigger, section.class_word, section.age)
    opened, measured_with = stack.enter_context(
        measuring(
            address,
            section.detector,
            _path(section.detector_config),
            section.scorer,
            section.scorer_pretrained,
        )
    )
    references, impostors = _path(section.references), _path(section.impostors)
    options = options_of(references, impostors, measured_with, section.device, section.batch_size)
    folder = plan.folder / "evaluation"
    return Evaluating(Measuring(suite, options, section.lora_scale, folder, section.trigger, address), opened)


def _path(text: str | None) -> Path | None:
    return None if text is None else Path(text)


def _print(outcome: "Outcome", file: Path) -> None:
    from rich.console import Console

    from onmodel.core.progress import console

    Console().print(table(outcome))
    if any(each.on_model for each in outcome.variants):
        Console().print(scenario_table(outcome))
    for each in outcome.failed:
        text = f"{each.name}: {each.status.value}: {each.reason}"
        console.print(text, style="yellow", highlight=False, markup=False, soft_wrap=True)
    if outcome.failed:
        console.print("the same command tries again what failed", highlight=False)
    if outcome.verdict:
        console.print(outcome.verdict, highlight=False, markup=False, soft_wrap=True)
    typer.echo(outcome.report or file)


def table(outcome: "Outcome") -> "Table":
    """The variants, a row each: what they change, and their losses."""
    from rich.table import Table

    from onmodel.ablation.record import Status
    from onmodel.ablation.variants import shown

    against = f", against {outcome.first}" if outcome.first and len(outcome.variants) > 1 else ""
    validated = any(each.val_loss is not None for each in outcome.variants)
    complete = all(each.status is Status.FINISHED for each in outcome.variants)
    loss = "validation loss" if validated else "training loss"
    wanted = {
        "variant": True,
        "changes": True,
        outcome.metric or "metric": outcome.metric is not None,
        "status": not complete,
        "epochs": True,
        loss: True,
    }
    result = Table(title=f"{outcome.name}{against}", title_justify="left")
    for name, here in wanted.items():
        if here:
            justify = "right" if name in ("epochs", loss) else "left"
            result.add_column(name, overflow="fold", justify=justify, no_wrap=name in ("variant", "changes"))
    for each in outcome.variants:
        last = each.rungs[-1].value if each.rungs else None
        cells = (
            each.name,
            shown(each.overrides).replace(", ", "\n"),
            "–" if last is None else f"{last:.4g}",
            each.status.value,
            str(each.epochs),
            _loss(each, validated=validated),
        )
        result.add_row(*(cell for cell, here in zip(cells, wanted.values(), strict=True) if here))
    return result


def scenario_table(outcome: "Outcome") -> "Table":
    """On-model shares by scenario, targets met and verdicts: a column for each evaluated variant."""
    from rich.table import Table

    from onmodel.evaluation.compare import label

    evaluated = [each for each in outcome.variants if each.on_model]
    result = Table(title="on model", title_justify="left")
    result.add_column("scenario")
    for each in evaluated:
        result.add_column(each.name, justify="right", overflow="fold")
    for name in evaluated[0].on_model:
        cells = (f"{100 * each.on_model[name]:.0f} %" if name in each.on_model else "–" for each in evaluated)
        result.add_row(label(name), *cells)
    result.add_section()
    result.add_row("Targets met", *(f"{each.targets_met} of {each.targets}" for each in evaluated))
    result.add_row("Verdict", *(each.verdict.value if each.verdict else "–" for each in evaluated))
    return result


def _loss(each: "VariantOutcome", *, validated: bool) -> str:
    from onmodel.ablation.record import Status

    value = each.val_loss if validated else each.train_loss
    if value is None or each.status is not Status.FINISHED:
        return "–"
    difference = each.val_loss_difference
    return f"{value:.4f}" if difference is None else f"{value:.4f} ({difference:+.4f})"
