"""A comparison as one self-contained HTML page, and as Markdown and JSON beside it."""

import base64
import hashlib
from collections import Counter
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

from jinja2 import Environment, FileSystemLoader, StrictUndefined
from markupsafe import Markup

from onmodel.core.files import write_text
from onmodel.core.markdown import plain
from onmodel.core.vocabulary import CATEGORIES
from onmodel.evaluation.charts import Line, panel
from onmodel.evaluation.compare import Comparison, Pair, label, met
from onmodel.evaluation.curves import SHOWN, Curve
from onmodel.evaluation.metrics import ALL, HEADLINE, METRICS, Figure, Outcome, TargetResult, number
from onmodel.evaluation.record import Evaluation
from onmodel.evaluation.statistics import Verdict
from onmodel.evaluation.thumbnails import thumbnails

TEMPLATES = Path(__file__).parent / "templates"

COLOURS = ("#8793a3", "#0f6e79", "#b7791f", "#6b4fa0", "#a8486b", "#4d7c2f")
"""A colour a model, told apart by lightness too."""
OUTCOME_COLOURS: dict[Outcome, str] = {
    Outcome.RIGHT: "#2f8f62",
    Outcome.NOT_OURS: "#e0a63a",
    Outcome.SEVERAL_OURS: "#9a7bc4",
    Outcome.OTHER_FRAMING: "#7d9cc0",
    Outcome.ALONE: "#c98a9d",
    Outcome.NO_CHARACTER: "#5b6069",
    Outcome.UNREADABLE: "#c9c4b8",
}
_SIGNS = {Verdict.BETTER: ("▲", "better"), Verdict.WORSE: ("▼", "worse"), Verdict.NOT_DECIDED: ("·", "undecided")}


def write_report(
    comparison: Comparison, folders: Mapping[str, Path], output: Path, *, title: str | None = None
) -> None:
    """Write `output` (HTML) with `.md` and `.json` of the same name beside it, each whole or not at all.

    Args:
        folders: where each model's pictures lie, by the comparison's model name.
    """
    write_text(output.with_suffix(".json"), comparison.model_dump_json(indent=1) + "\n")
    write_text(output.with_suffix(".md"), render_markdown(comparison))
    write_text(output, render_html(comparison, folders, title=title))


def render_html(comparison: Comparison, folders: Mapping[str, Path], *, title: str | None = None) -> str:
    """The page as text. It names no address, every text in it is escaped, and its policy lets no script run but the
    page's own, known by its hash; without scripts it shows all but the viewer and the filters."""
    environment = Environment(loader=FileSystemLoader(TEMPLATES), autoescape=True, undefined=StrictUndefined)
    script = (TEMPLATES / "comparison.js").read_text(encoding="utf-8")
    digest = base64.b64encode(hashlib.sha256(script.encode()).digest()).decode()
    view = _View(comparison, folders).build(title)
    template = environment.get_template("comparison.html.j2")
    return template.render(view, script=Markup(script), script_hash=digest)


class _View:
    """Turns a comparison into what the template shows: texts, positions in per cent, colours."""

    def __init__(self, comparison: Comparison, folders: Mapping[str, Path]) -> None:
        self.c = comparison
        self.models = list(zip(comparison.models, comparison.evaluations, strict=True))
        self.colours = {name: COLOURS[n % len(COLOURS)] for n, name in enumerate(comparison.models)}
        self.pictures = thumbnails(comparison, folders)

    def build(self, title: str | None) -> dict[str, Any]:
        first = self.models[0][1]
        verdicts = self.c.verdict.split(". ", 1)
        return {
            "title": title or f"{' against '.join(self.c.models)}",
            "verdicts": [verdicts[0] + "." if len(verdicts) > 1 else verdicts[0], *verdicts[1:]],
            "facts": self._facts(),
            "warnings": sorted({w for _, e in self.models for w in e.warnings}),
            "models": [self._card(name, e) for name, e in self.models],
            "outcomes": [{"name": o.value, "colour": OUTCOME_COLOURS[o]} for o in self._outcomes()],
            "scenarios": [self._scenario(s) for s in first.scenarios],
            "targets": self._targets(),
            **self._training(),
            "curve_blocks": [block for by in ("epoch", "scale") if (block := self._curves(by))],
            "figure_blocks": [self._block(s) for s in (*first.scenarios, ALL)],
            "meanings": _meanings(self.c),
            "footer": self._footer(),
        }

    def _outcomes(self) -> list[Outcome]:
        seen = {p.outcome for _, e in self.models for p in e.pictures}
        return [o for o in OUTCOME_COLOURS if o.value in seen or o is Outcome.RIGHT]

    def _facts(self) -> str:
        first = self.models[0][1]
        base = Path(first.base).name if Path(first.base).is_absolute() else first.base
        return (
            f"Suite {first.suite}: {len(first.scenarios)} scenarios, {len(first.prompts)} prompts, "
            f"{len(first.seeds)} variations each, {len(first.pictures)} pictures a model. "
            f"Base model {base}, {first.steps} steps, guidance {first.guidance_scale:g}."
        )

    def _footer(self) -> str:
        parts = [
            f"{name}: {e.checkpoint} (SHA-256 {e.checkpoint_hash[:12]}) at scale {e.scale:g}" for name, e in self.models
        ]
        return f"OnModel {self.models[0][1].onmodel_version} · " + " · ".join(parts)

    def _card(self, name: str, e: Evaluation) -> dict[str, Any]:
        done, of = met(e)
        shown = ("identity", "found", "framing", "count_right", "prompt_fidelity", "memorisation")
        return {
            "name": name,
            "colour": self.colours[name],
            "headline": interval_view(e.overall[HEADLINE], HEADLINE),
            "pips": "●" * done + "○" * (of - done),
            "met": f"{done} of {of}",
            "rows": [(METRICS[m].label, interval_view(e.overall[m], m)["short"]) for m in shown],
        }

    def _verdicts(self, scenario: str) -> list[dict[str, str]]:
        found = [(name, self.c.pair(name, scenario)) for name in self.c.models[1:]]
        several = len(found) > 1
        return [chip_view(pair, name if several else "") for name, pair in found if pair]

    def _scenario(self, scenario: str) -> dict[str, Any]:
        return {
            "id": scenario,
            "label": label(scenario),
            "verdicts": self._verdicts(scenario),
            "bars": [self._bar(name, e, scenario) for name, e in self.models],
            "prompts": [self._prompt(scenario, index) for index in self._prompt_indices(scenario)],
        }

    def _bar(self, name: str, e: Evaluation, scenario: str) -> dict[str, Any]:
        counts = Counter(p.outcome for p in e.pictures if p.scenario == scenario)
        total = counts.total()
        stack = [
            {"width": round(100 * counts[o.value] / total, 2), "colour": OUTCOME_COLOURS[o], "text": text}
            for o in OUTCOME_COLOURS
            if counts[o.value] and (text := f"{o.value}: {counts[o.value]} of {total}")
        ]
        return {
            "name": name,
            "colour": self.colours[name],
            "figure": interval_view(e.scenarios[scenario][HEADLINE], HEADLINE),
            "stack": stack,
            "stack_text": "; ".join(str(part["text"]) for part in stack),
        }

    def _prompt_indices(self, scenario: str) -> list[int]:
        return sorted({p.prompt for p in self.models[0][1].pictures if p.scenario == scenario})

    def _prompt(self, scenario: str, index: int) -> dict[str, Any]:
        texts = list(dict.fromkeys(e.prompts[index] for _, e in self.models))
        rows = [(name, [row for row in e.pictures if row.prompt == index]) for name, e in self.models]
        strips = [
            {"name": name, "colour": self.colours[name], "pictures": [self._picture(name, row) for row in own]}
            for name, own in rows
        ]
        right = [tuple(row.outcome == Outcome.RIGHT.value for row in own) for _, own in rows]
        return {
            "id": f"p{index:03d}",
            "text": " / ".join(texts),
            "strips": strips,
            "outcomes": sorted({row.outcome for _, own in rows for row in own}),
            "differs": len(set(right)) > 1,
        }

    def _picture(self, name: str, row: Any) -> dict[str, Any]:
        data, width, height = self.pictures.get((name, row.file), (None, 0, 0))
        seen = [row.shot_type or "not read", *row.attributes]
        count = f"{row.characters} character{'' if row.characters == 1 else 's'}"
        identity = "" if row.identity is None else f" · {100 * row.identity:.0f} %"
        return {
            "variation": row.variation,
            "data": data,
            "width": width,
            "height": height,
            "outcome": row.outcome,
            "colour": OUTCOME_COLOURS[Outcome(row.outcome)],
            "caption": f"{row.outcome}{identity}",
            "title": f"{row.file}: seen as {', '.join(s.replace('_', ' ') for s in seen)}; {count}",
        }

    def _targets(self) -> list[dict[str, Any]]:
        rows: list[dict[str, Any]] = []
        for position, target in enumerate(self.models[0][1].targets):
            cells = [self._target_cell(name, e.targets[position]) for name, e in self.models]
            rows.append({"label": target_label(target), "target": f"{100 * target.target:.0f} %", "cells": cells})
        return rows

    def _target_cell(self, name: str, t: TargetResult) -> dict[str, Any]:
        figure = Figure(mean=t.value, low=t.low, high=t.high, count=0, values=())
        view = interval_view(figure, "consistency", target=t.target)
        return {"met": t.met, "sure": t.sure, "figure": view, "colour": self.colours[name]}

    def _training(self) -> dict[str, Any]:
        known = [(name, e, self.c.mixes[name]) for name, e in self.models if name in self.c.mixes]
        rows: list[dict[str, Any]] = []
        for category in CATEGORIES if known else ():
            low, high = self.c.recommended.get(category, (0.0, 100.0))
            cells: list[dict[str, Any]] = []
            for name, e, mix in known:
                share = mix.shares.get(category, 0.0)
                figure = e.scenarios.get(category, {}).get(HEADLINE)
                result = interval_view(figure, HEADLINE)["short"] if figure else "–"
                cells.append(
                    {
                        "share": f"{share:.1f} %",
                        "width": _clamp(2 * share),
                        "colour": self.colours[name],
                        "outside": not low <= share <= high,
                        "result": result,
                    }
                )
            # Half of a hundred per cent is the most that any recommended share comes near.
            bracket = {"low": _clamp(2 * low), "width": _clamp(2 * (high - low))}
            rows.append({"label": label(category), "range": f"{low:g}–{high:g} %", "cells": cells, **bracket})
        return {
            "mix_models": [{"name": n, "colour": self.colours[n], "pictures": m.pictures} for n, _, m in known],
            "mix_rows": rows,
            "explanations": [
                {"name": name, "colour": self.colours[name], "sentences": sentences}
                for name, sentences in self.c.explanations.items()
                if sentences
            ],
        }

    def _curves(self, by: str) -> dict[str, Any] | None:
        """Panels of one axis: what comes out right in each scenario, and the other figures over all of them."""
        drawn = [curve for curve in self.c.curves if curve.by == by]
        if not drawn:
            return None
        wanted = [(s, HEADLINE) for s in (*self.models[0][1].scenarios, ALL)]
        wanted += [(ALL, m) for m in SHOWN if m != HEADLINE]
        heads = {
            "epoch": ("By epoch", "epoch", "Checkpoints of one trial, at the strength that is compared."),
            "scale": ("By LoRA strength", "strength", "The compared checkpoint at other strengths; 1 is as trained."),
        }
        title, axis, note = heads[by]
        panels = [self._panel(drawn, axis, scenario, metric) for scenario, metric in wanted]
        legend = [{"name": c.model, "colour": self.colours[c.model]} for c in drawn]
        return {"id": f"by-{by}", "title": title, "note": note, "legend": legend, "panels": [p for p in panels if p]}

    def _panel(self, drawn: Sequence[Curve], axis: str, scenario: str, metric: str) -> dict[str, Any] | None:
        lines: list[Line] = []
        for curve in drawn:
            spans = [(p.x, s) for p in curve.points if (s := p.figures.get(scenario, {}).get(metric)) is not None]
            if len(spans) < 2:
                continue
            xs, values = zip(*spans, strict=True)
            means, lows, highs = (tuple(getattr(v, part) for v in values) for part in ("mean", "low", "high"))
            lines.append(Line(curve.model, self.colours[curve.model], xs, means, lows, highs))
        if not lines:
            return None
        of = METRICS[metric]
        told = [
            f"{line.name}: "
            + ", ".join(f"{x:g}: {number(m, metric)}" for x, m in zip(line.xs, line.means, strict=True))
            for line in lines
        ]
        return {
            "label": label(scenario) if metric == HEADLINE else of.label,
            "text": "; ".join(told),
            # Its own drawing, whose texts matplotlib escapes.
            "svg": Markup(panel(f"{axis}-{scenario}-{metric}", lines, axis=axis, percent=of.percent)),
        }

    def _block(self, scenario: str) -> dict[str, Any]:
        rows: list[dict[str, Any]] = []
        figures = [e.overall if scenario == ALL else e.scenarios[scenario] for _, e in self.models]
        for metric in figures[0]:
            if all(f[metric].mean is None for f in figures):
                continue
            pair = self.c.pair(self.c.models[1], scenario, metric)
            change = chip_view(pair) if pair else None
            rows.append(
                {
                    "label": METRICS[metric].label,
                    "cells": [interval_view(f[metric], metric) for f in figures],
                    "change": change or {"value": "", "kind": "", "sign": "", "text": ""},
                }
            )
        return {"label": label(scenario), "rows": rows}


def target_label(target: TargetResult) -> str:
    """A target's name: "Close-up consistency", "Occlusion handling"."""
    if target.scenario == ALL:
        return "Average of the five"
    own = METRICS[target.metric].label
    return f"{label(target.scenario)} {own.lower()}" if target.metric == "consistency" else own


def _clamp(value: float) -> float:
    return round(min(100.0, max(0.0, value)), 2)


def interval_view(figure: Figure, metric: str, *, target: float | None = None) -> dict[str, Any]:
    """Texts, and positions in per cent of a track from 0 to 1."""
    view: dict[str, Any] = {
        "mean": figure.mean,
        "short": number(figure.mean, metric),
        "range": "not measured",
        "range_short": "",
        "target_pos": None if target is None else _clamp(100 * target),
        "text": "not measured",
        "pos": 0.0,
        "low_pos": 0.0,
        "span": 0.0,
    }
    if figure.mean is None:
        return view
    low, high = figure.ends
    digits = [f"{100 * v:.0f}" if METRICS[metric].percent else f"{v:.2f}" for v in (low, high)]
    unit = " %" if METRICS[metric].percent else ""
    has_range = figure.low is not None
    view |= {
        "range": f"95 % interval {digits[0]} to {digits[1]}{unit}, {figure.count} pictures" if has_range else "",
        "range_short": f"{digits[0]}–{digits[1]}" if has_range else "",
        "text": f"{number(figure.mean, metric)}, 95 % interval {digits[0]} to {digits[1]}{unit}",
        "pos": _clamp(100 * figure.mean),
        "low_pos": _clamp(100 * low),
        "span": round(_clamp(100 * high) - _clamp(100 * low), 2),
    }
    return view


def chip_view(pair: Pair, name: str = "") -> dict[str, str]:
    """A verdict as a chip, and its difference as text."""
    sign, kind = _SIGNS[pair.verdict]
    value = ""
    if pair.difference is not None and METRICS[pair.metric].percent:
        value = f"{100 * pair.difference:+z.0f} points"
    elif pair.difference is not None:
        value = f"{pair.difference:+z.2f}"
    prefix = f"{name}: " if name else ""
    return {"kind": kind, "sign": sign, "text": f"{prefix}{pair.verdict.value}", "value": value}


def _meanings(comparison: Comparison) -> list[dict[str, str]]:
    found = [{"label": m.label, "text": m.meaning} for m in METRICS.values()]
    scale = comparison.evaluations[0].calibration
    if scale is not None:
        text = (
            f"0 % is a raw cosine of {scale.impostor:.3f} ({scale.impostors} crops: {scale.impostor_source}), 100 % is "
            f"{scale.genuine:.3f} ({scale.references} crops of {scale.reference_source}), each framing on its own "
            "where there are enough. A reference scores above a stranger with a chance of "
            f"{100 * scale.separation:.0f} %; a character counts as recognised from {100 * scale.recognised:.0f} % on."
        )
        found.append({"label": "Scale of identity", "text": text})
    found.append(
        {
            "label": "Intervals and verdicts",
            "text": "95 % bootstrap over prompts, widened for few prompts (t distribution); shares are at least as "
            "wide as Wilson's. Better or worse is said only where the interval of the differences on the same prompts "
            "and noise leaves zero out. Of many figures without a difference, about one in twenty gets a verdict.",
        }
    )
    return found


def render_markdown(comparison: Comparison) -> str:
    """The comparison as Markdown tables, for pull requests and terminals."""
    names = comparison.models
    lines = [f"# {' against '.join(names)}", "", plain(comparison.verdict), ""]
    lines += _table(
        ["On model", *names, *(f"{n} vs {names[0]}" for n in names[1:])],
        [_scenario_row(comparison, s) for s in (*comparison.evaluations[0].scenarios, ALL)],
    )
    targets: list[list[str]] = []
    for position, target in enumerate(comparison.evaluations[0].targets):
        name = (
            "average" if target.scenario == ALL else f"{label(target.scenario)}: {METRICS[target.metric].label.lower()}"
        )
        results = [e.targets[position] for e in comparison.evaluations]
        cells = ["–" if t.met is None else f"{number(t.value, 'consistency')} {'✓' if t.met else '✗'}" for t in results]
        targets.append([target_label(target), f"{100 * target.target:.0f} %", *cells])
    lines += ["", *_table(["Target", "at least", *names], targets)]
    for name, sentences in comparison.explanations.items():
        if sentences:
            lines += ["", f"## What the mix of {plain(name)} explains", "", *(f"- {plain(s)}" for s in sentences)]
    return "\n".join(lines) + "\n"


def _scenario_row(comparison: Comparison, scenario: str) -> list[str]:
    cells = [label(scenario)]
    for e in comparison.evaluations:
        view = interval_view((e.overall if scenario == ALL else e.scenarios[scenario])[HEADLINE], HEADLINE)
        cells.append(f"{view['short']} ({view['range_short']})")
    for name in comparison.models[1:]:
        pair = comparison.pair(name, scenario)
        cells.append(pair.verdict.value if pair else "–")
    return cells


def _table(head: Sequence[str], rows: Sequence[Sequence[str]]) -> list[str]:
    lines = [head, ["---"] * len(head), *rows]
    return ["| " + " | ".join(plain(cell) for cell in row) + " |" for row in lines]
