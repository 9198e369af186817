"""What a project did and what came of it, as one self-contained page, and as Markdown beside it."""

from pathlib import Path
from typing import Any

from jinja2 import Environment, FileSystemLoader, StrictUndefined

from onmodel import __version__
from onmodel.core.files import write_text
from onmodel.core.markdown import plain
from onmodel.core.vocabulary import CATEGORIES
from onmodel.dataset.recommended import LABELS, RECOMMENDED
from onmodel.diagnosis.journal import Decision, Journal, Result
from onmodel.diagnosis.lineage import draw, lineage_of, write_lineage
from onmodel.diagnosis.project import Project
from onmodel.evaluation.metrics import ALL, HEADLINE, number
from onmodel.evaluation.report import interval_view, target_label

HTML_FILE, MARKDOWN_FILE = "report.html", "report.md"


def write_improvement(project: Project, journal: Journal, stopped: str) -> None:
    """Write the page, its Markdown and the lineage, each whole or not at all. `stopped` is empty while it goes on."""
    lineage = lineage_of(project, journal)
    write_lineage(lineage, journal.folder)
    environment = Environment(
        loader=FileSystemLoader(Path(__file__).parent / "templates"), autoescape=True, undefined=StrictUndefined
    )
    view = _view(project, journal, stopped)
    page = environment.get_template("improvement.html.j2").render(**view, drawing=draw(lineage))
    write_text(journal.folder / HTML_FILE, page)
    write_text(journal.folder / MARKDOWN_FILE, _markdown(view))


def _view(project: Project, journal: Journal, stopped: str) -> dict[str, Any]:
    results = journal.results()
    rounds = [_round(result, journal.decision(result.number), results) for result in results]
    # Decided, and ended before it was done: nothing was left to apply, or somebody is to curate.
    undone = journal.decision(len(results) + 1)
    return {
        "title": f"Improvement of {project.name}",
        "stopped": stopped or "The loop is not at its end yet; run the command again to go on.",
        "facts": f"Dataset {project.dataset.name}, suite {Path(project.test_suite).stem}, references "
        f"{project.references.name}; allowed: {', '.join(project.allowed) or 'nothing'}.",
        "best": results[-1].best if results else None,
        "rounds": rounds,
        "undone": _decision(undone) if undone is not None else None,
        "footer": f"OnModel {__version__}",
    }


def _round(result: Result, decision: Decision | None, results: list[Result]) -> dict[str, Any]:
    assert decision is not None
    targets = [
        {
            "label": target_label(target),
            "least": f"{100 * target.target:.0f} %",
            "value": number(target.value, "consistency"),
            "met": target.met,
        }
        for target in result.targets
    ]
    counted = [t for t in result.targets if t.scenario != ALL and t.met is not None]
    return {
        "number": result.number,
        "is_best": result.number == results[-1].best,
        "verdict": result.verdict,
        "sentence": result.sentence,
        "figure": interval_view(result.headline, HEADLINE),
        "met": f"{sum(bool(t.met) for t in counted)} of {len(counted)}",
        "targets": targets,
        "made": list(result.made),
        "pictures": result.pictures,
        "shares": [
            {
                "label": LABELS[name],
                "share": f"{result.shares[name]:.0f} %",
                "range": "{:g}–{:g} %".format(*RECOMMENDED.range(name)),
                "outside": not RECOMMENDED.range(name)[0] <= result.shares[name] <= RECOMMENDED.range(name)[1],
            }
            for name in CATEGORIES
        ],
        "recommended": result.recommended,
        "trial": result.trial,
        "checkpoint": Path(result.checkpoint).name,
        "hash": result.checkpoint_hash[:12],
        **_decision(decision),
    }


def _decision(decision: Decision) -> dict[str, Any]:
    return {
        "from": f"trial {Path(decision.trial).name}" if decision.trial else "the dataset as it was given",
        "conclusion": decision.conclusion,
        "choices": [
            {
                "rule": choice.rule,
                "cause": choice.cause,
                "gain": f"≤ {100 * choice.expected_gain:.1f}",
                "evidence": list(choice.evidence),
                "action": choice.action,
                "step": choice.step or "",
                "why": choice.why,
            }
            for choice in decision.choices
        ],
    }


def _markdown(view: dict[str, Any]) -> str:
    lines = [f"# {plain(view['title'])}", "", plain(view["stopped"]), "", plain(view["facts"]), ""]
    lines += [
        "| round | on model | interval | targets met | against the best before |",
        "| --- | --- | --- | --- | --- |",
    ]
    for each in view["rounds"]:
        figure = each["figure"]
        best = " (best)" if each["is_best"] else ""
        cells = (f"{each['number']}{best}", figure["short"], figure["range_short"], each["met"], each["verdict"])
        lines.append(f"| {' | '.join(cells)} |")
    for each in view["rounds"]:
        lines += ["", f"## Round {each['number']}", "", plain(each["sentence"]), ""]
        lines += [*_choices(each), ""]
        lines += [f"- {plain(text)}" for text in each["made"]]
        lines.append(f"- {plain(each['recommended'])}")
        lines += [f"- Trial {plain(each['trial'])}, {each['checkpoint']}, SHA-256 {each['hash']}"]
    if view["undone"] is not None:
        lines += ["", "## Decided, and nothing done", "", *_choices(view["undone"])]
    return "\n".join(lines) + "\n"


def _choices(decision: dict[str, Any]) -> list[str]:
    lines = [f"From {plain(decision['from'])}. {plain(decision['conclusion'])}", ""]
    if not decision["choices"]:
        return lines[:1]
    lines += ["| cause | evidence | gain in points | decided | why |", "| --- | --- | --- | --- | --- |"]
    for choice in decision["choices"]:
        evidence = "; ".join(choice["evidence"])
        decided = f"{choice['action']}, {choice['step']}" if choice["step"] else choice["action"]
        lines.append(
            f"| {plain(choice['cause'])} | {plain(evidence)} | {choice['gain']} | {decided} | {plain(choice['why'])} |"
        )
    return lines
