"""The report of the experiment: the table, the claims with their verdicts, the correlation, figures and pictures."""

import json
import math
from collections import defaultdict
from collections.abc import Sequence
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

import numpy as np

from onmodel.core.files import write_text
from onmodel.core.markdown import plain
from onmodel.core.vocabulary import CATEGORIES
from onmodel.dataset.recommended import LABELS
from onmodel.evaluation.identity import RECOGNISED
from onmodel.evaluation.metrics import Outcome
from onmodel.experiments.dose_report import dose_sections
from onmodel.experiments.figures import bars, contact_sheet
from onmodel.experiments.hypotheses import Finding, Measured, judge_all
from onmodel.experiments.judge import Figures, PictureFigure, read_figures
from onmodel.experiments.plan import STRATEGIES, TITLES, Layout, Settings
from onmodel.experiments.rate import with_rate
from onmodel.experiments.shares import tensor
from onmodel.experiments.statistics import DRAWS, LEVELS, Estimate, bootstrap, ends, estimate, means, points, spearman

NAME = "four_strategies"
BOUNDS = (0.5, 0.6, 0.7, 0.8, 0.85, 0.9, 0.95)
"""Identities from which a character could count as ours."""
FIGURE, SHEET = "shares.svg", "pictures.png"


def write_report(settings: Settings, layout: Layout) -> Path:
    """Write `report/<name>.md`, `.json` and figures from `figures.jsonl`; the Markdown file.

    Raises:
        UserError: nothing is judged yet, or no unit has all its trials.
    """
    figures, settings = read_figures(layout), with_rate(settings, layout)
    name = "dose_response" if settings.dose else NAME
    target = layout.report / f"{name}.md"
    if settings.dose:
        sections, facts = dose_sections(settings, figures, layout.report)
    else:
        sections, facts = _strategies(settings, layout, figures)
    write_text(layout.report / f"{name}.json", json.dumps(_plain(facts), indent=1) + "\n")
    write_text(target, "\n\n".join(sections) + "\n")
    return target


def _plain(value: Any) -> Any:
    """JSON has no NaN."""
    if isinstance(value, dict):
        return {str(key): _plain(each) for key, each in value.items()}
    if isinstance(value, list | tuple):
        return [_plain(each) for each in value]
    if isinstance(value, float):
        return None if math.isnan(value) or math.isinf(value) else round(value, 5)
    return value


def _strategies(settings: Settings, layout: Layout, figures: Figures) -> tuple[list[str], dict[str, Any]]:
    trials = [trial for trial in STRATEGIES if trial in settings.strategies]
    shares, units = tensor(figures.pictures, trials, CATEGORIES)
    characters = [character for character, _ in units]
    measured = Measured(
        tuple(trials), means(shares, characters), bootstrap(shares, characters), _correlation(figures, units, trials)
    )
    findings = judge_all(measured)
    bounds = by_bound(figures.pictures)
    series = {
        TITLES[trial]: [estimate(*measured.of(trial, scenario)) for scenario in (*CATEGORIES, None)]
        for trial in trials
    }  # fmt: skip
    bars(layout.report / FIGURE, [_label(name) for name in (*CATEGORIES, None)], series)
    drawn = contact_sheet(layout, settings, units[0], trials, layout.report / SHEET)
    sections = [
        "# The four strategies: what came of it",
        _about(settings, figures, units),
        "## Pictures on model, by truth",
        _shares_table(measured),
        _renders(figures),
        f"![Shares of pictures on model by scenario and trial, with 95 % intervals]({FIGURE})",
        "## Against the baseline",
        _gains_table(measured),
        "## The claims",
        _claims_table(findings),
        "## Consistency and truth",
        _correlation_text(figures, units, trials, measured.correlation),
        "## From which identity on a picture is on model",
        _bounds_text(bounds),
    ]
    if drawn:
        sections += ["## Pictures", f"![{drawn}]({SHEET})", drawn]
    facts = {
        "settings": settings.model_dump(),
        "units": units,
        "draws": DRAWS,
        "shares": {
            trial: {_key(scenario): asdict(estimate(*measured.of(trial, scenario))) for scenario in (*CATEGORIES, None)}
            for trial in trials
        },
        "claims": [asdict(finding) for finding in findings],
        "bounds": [asdict(each) for each in bounds],
        **figures.facts,
    }
    return sections, facts


def pairs(
    figures: Figures, units: Sequence[tuple[str, int]], trials: Sequence[str], figure: str = "consistency"
) -> dict[str, tuple[list[float], list[float]]]:
    """By character: a product's figure and the true share, over all trials and scenarios that have both."""
    hits: dict[tuple[str, int, str, str], list[bool]] = defaultdict(list)
    for row in figures.pictures:
        hits[row.character, row.seed, row.trial, row.scenario].append(row.on_model)
    found: dict[str, tuple[list[float], list[float]]] = defaultdict(lambda: ([], []))
    for row in figures.scenarios:
        value = row.figures.get(figure)
        if (row.character, row.seed) in set(units) and row.trial in trials and value is not None:
            said, true = found[row.character]
            said.append(value)
            true.append(float(np.mean(hits[row.character, row.seed, row.trial, row.scenario])))
    return dict(found)


def _correlation(
    figures: Figures, units: Sequence[tuple[str, int]], trials: Sequence[str], figure: str = "consistency"
) -> Estimate | None:
    """Spearman's correlation of a product's figure and truth; its interval from drawing trials with scenarios anew."""
    sides = pairs(figures, units, trials, figure)
    said = [value for first, _ in sides.values() for value in first]
    true = [value for _, second in sides.values() for value in second]
    if len(said) < 3:
        return None
    value = spearman(said, true)
    if math.isnan(value):
        return None
    rng = np.random.default_rng(0)
    rows = rng.integers(len(said), size=(2000, len(said)))
    draws = np.array([spearman([said[i] for i in row], [true[i] for i in row]) for row in rows.tolist()])
    return estimate(value, draws[~np.isnan(draws)])


@dataclass(frozen=True, slots=True)
class Bound:
    """The product's verdict on pictures, were a character recognised from another identity on."""

    identity: float
    share: float
    """Of pictures on model by the product."""
    true_share: float
    agreement: float
    """Share of pictures on which product and truth agree."""
    correlation: float
    """Spearman's, over trials and scenarios."""


def by_bound(pictures: Sequence[PictureFigure]) -> list[Bound]:
    """One for each of `BOUNDS`; empty where the product was not asked.

    Pictures of several characters are left out: which one of them is ours depends on the identities of all.
    """
    told = [each for each in pictures if each.product is not None and each.scenario != "multi_character"]
    if not told:
        return []
    able = np.array([each.product in (Outcome.RIGHT.value, Outcome.NOT_OURS.value) for each in told])
    identity = np.array([-np.inf if each.identity is None else each.identity for each in told])
    true = np.array([each.on_model for each in told])
    names = [f"{each.character} {each.seed} {each.trial} {each.scenario}" for each in told]
    group = np.unique(names, return_inverse=True)[1]
    size = np.bincount(group)
    found: list[Bound] = []
    for bound in BOUNDS:
        said = able & (identity >= bound)
        shares, true_shares = (np.bincount(group, weights=each) / size for each in (said, true))
        found.append(
            Bound(
                bound, float(said.mean()), float(true.mean()), float((said == true).mean()),
                spearman(shares.tolist(), true_shares.tolist()),
            )
        )  # fmt: skip
    return found


def _bounds_text(bounds: Sequence[Bound]) -> str:
    if not bounds:
        return "The product was not asked."
    lines = [
        f"`onmodel evaluate` takes a character for ours from {RECOGNISED:g} on, or from less where its references are "
        f"less like one another. Were it another bound (all scenarios but multi-character; "
        f"{100 * bounds[0].true_share:.0f} % of these pictures are on model by truth):",
        "",
        "| from | on model by the product | agrees with truth | correlation over trials and scenarios |",
        "|---|---|---|---|",
    ]
    lines += [
        f"| {each.identity:g} | {100 * each.share:.0f} % | {100 * each.agreement:.0f} % | {each.correlation:.2f} |"
        for each in bounds
    ]
    return "\n".join(lines)


def _correlation_text(
    figures: Figures, units: Sequence[tuple[str, int]], trials: Sequence[str], overall: Estimate | None
) -> str:
    if overall is None:
        return "Too few figures for a correlation."
    lines = [
        "Spearman's correlation of each of the product's figures with the true share, over all trials and scenarios "
        "(intervals from drawing these anew; they are not independent, so intervals are too narrow):",
        "",
        "| figure | correlation | 95 % |",
        "|---|---|---|",
    ]
    for figure in sorted({name for row in figures.scenarios for name in row.figures}):
        found = _correlation(figures, units, trials, figure)
        if found is not None:
            low, high = found.intervals["95"]
            lines.append(f"| {figure.replace('_', ' ')} | {found.value:.2f} | {low:.2f} to {high:.2f} |")
    return "\n".join(lines)


def _key(scenario: str | None) -> str:
    return scenario or "all"


def _label(scenario: str | None) -> str:
    return "all" if scenario is None else LABELS[scenario]


def _about(settings: Settings, figures: Figures, units: Sequence[tuple[str, int]]) -> str:
    seeds: dict[str, list[int]] = defaultdict(list)
    for character, seed in units:
        seeds[character].append(seed)
    who = "; ".join(f"{character} {', '.join(map(str, own))}" for character, own in seeds.items())
    facts = figures.facts
    return (
        f"Units, each a character with a seed: {who}. {len(settings.strategies)} trials each, {settings.steps} steps "
        f"of {settings.batch_size} pictures, rank {settings.rank}, base rate {settings.learning_rate:g}; "
        f"{len(figures.pictures)} pictures judged in all. Trained and drawn on {', '.join(facts['devices'])} in "
        f"{facts['training_s'] + facts['drawing_s']:.0f} s of single trials. Base model {facts['base_hash'][:12]}, "
        f"{', '.join(f'{name} {version}' for name, version in facts['versions'].items())}."
    )


def _renders(figures: Figures) -> str:
    shares = ", ".join(f"{LABELS[name]} {100 * share:.0f} %" for name, share in figures.facts["renders"].items())
    return (
        f"Of held-back renders of the characters, as large as the pictures, the probe takes for on model: {shares}. "
        "No trial can be expected to reach more."
    )


def _shares_table(measured: Measured) -> str:
    return _table(measured, lambda trial, scenario: estimate(*measured.of(trial, scenario)), measured.trials)


def _table(measured: Measured, figure: Any, trials: Sequence[str]) -> str:
    names = (*CATEGORIES, None)
    lines = [
        "Per cent, with 95 % intervals and in brackets 99.3 % ones.",
        "",
        f"| trial | {' | '.join(_label(name) for name in names)} |",
        f"|---|{'---|' * len(names)}",
    ]
    for trial in trials:
        cells: list[str] = []
        for name in names:
            found = figure(trial, name)
            cells.append(f"**{points(found.value)}** {ends(found)} ({ends(found, '99.3')})")
        lines.append(f"| {TITLES[trial]} | {' | '.join(cells)} |")
    return "\n".join(lines)


def _gains_table(measured: Measured) -> str:
    others = [trial for trial in measured.trials if trial != "baseline"]
    if "baseline" not in measured.trials or not others:
        return "There is no baseline to compare with."
    names = (*CATEGORIES, None)
    lines = [
        "Points that a trial has more than the baseline, with 95 % intervals and in brackets 99.3 % ones; behind the "
        "semicolon the same over the baseline's share.",
        "",
        f"| trial | {' | '.join(_label(name) for name in names)} |",
        f"|---|{'---|' * len(names)}",
    ]
    for trial in others:
        cells: list[str] = []
        for name in names:
            gain, relative = measured.gain("baseline", trial, name), measured.relative("baseline", trial, name)
            over = "no share" if relative is None else f"{points(relative.value):+d} %"
            cells.append(
                f"**{points(gain.value):+d}** {ends(gain)} ({ends(gain, '99.3')}); {over}"
            )  # fmt: skip
        lines.append(f"| {TITLES[trial]} | {' | '.join(cells)} |")
    return "\n".join(lines)


def _claims_table(findings: Sequence[Finding]) -> str:
    lines = [
        "| | claim | measured | 95 % | 99.3 % | verdict | at 99.3 % |",
        "|---|---|---|---|---|---|---|",
    ]
    for found in findings:
        lines.append(
            f"| {found.name} | {plain(found.claim)} | {_figure(found)} | "
            f"{' | '.join(_ends(found, level) for level in LEVELS)} | "
            f"{' | '.join(found.verdicts[level].value for level in LEVELS)} |"
        )
    return "\n".join(lines)


def _figure(found: Finding) -> str:
    if found.gain is None:
        return ""
    if found.name == "H7":
        return f"{found.gain.value:.2f}"
    text = f"{points(found.gain.value):+d} points"
    if found.relative is not None:
        text += f", {points(found.relative.value):+d} %"
    return "; ".join((text, *found.notes))


def _ends(found: Finding, level: str) -> str:
    if found.gain is None:
        return ""
    low, high = found.gain.intervals[level]
    if found.name == "H7":
        return f"{low:.2f} to {high:.2f}"
    text = f"{points(low):+d} to {points(high):+d}"
    if found.relative is not None:
        low, high = found.relative.intervals[level]
        text += f" points, {points(low):+d} to {points(high):+d} %"
    return text
