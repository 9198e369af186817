"""`onmodel caption`: captions checked against the pictures, put right, or written in variants."""

from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

import typer

from onmodel.cli.measuring import ServicesOption

if TYPE_CHECKING:
    from onmodel.dataset.analysis import Row
    from onmodel.dataset.folder import Dataset
    from onmodel.dataset.recaption import CaptionConfig, CaptionResult

SHOWN = 40
"""Findings that are printed; `--json` has all."""


def command(
    dataset: Annotated[Path, typer.Argument(help="Folder of pictures, or an sd-scripts dataset TOML; not changed.")],
    output_dir: Annotated[Path | None, typer.Option(help="Write the set with new captions here, whole.")] = None,
    check: Annotated[
        bool, typer.Option("--check", help="Write nothing; print findings. Exit code 1 when a caption is false.")
    ] = False,
    fix: Annotated[bool, typer.Option("--fix", help="Change wrong captions alone, by no more than is wrong.")] = False,
    trigger: Annotated[str | None, typer.Option(help="Word for the character; else read from the captions.")] = None,
    class_word: Annotated[str | None, typer.Option(help="What the character is, e.g. boy.")] = None,
    age: Annotated[str | None, typer.Option(help="Its age in words, e.g. 'teenage boy'.")] = None,
    variants: Annotated[int | None, typer.Option(min=1, max=16, help="Captions a picture, one a line.")] = None,
    config: Annotated[Path | None, typer.Option(help="TOML or JSON with wording: template, shots, context.")] = None,
    captioner: Annotated[Path | None, typer.Option(help="Folder of an image-to-text model for empty captions.")] = None,
    captioner_prompt: Annotated[str | None, typer.Option(help="What the captioning model is told.")] = None,
    recaption: Annotated[bool, typer.Option("--recaption", help="Let the model describe every picture.")] = False,
    words_only: Annotated[bool, typer.Option("--words-only", help="Do not look at the pictures.")] = False,
    detector: Annotated[
        str | None, typer.Option(help="Detector preset: toybox or film; else the one the set was looked at with.")
    ] = None,
    detector_config: Annotated[Path | None, typer.Option(help="TOML with all detector settings instead.")] = None,
    services: ServicesOption = None,
    json: Annotated[bool, typer.Option("--json", help="Print findings and result as JSON.")] = False,
) -> None:
    """Check captions for contradictions, put them right, or write variants of them."""
    from onmodel.core.config import load
    from onmodel.core.errors import UserError
    from onmodel.core.progress import bar
    from onmodel.dataset import recaption as work
    from onmodel.dataset.derived import check_place
    from onmodel.dataset.folder import load_dataset

    if check == (output_dir is not None):
        raise UserError(
            "caption: give either --check (write nothing) or --output-dir D (write a derived set); "
            "the given dataset is never changed"
        )
    if check and (fix or captioner):
        raise UserError(f"caption: --check writes nothing, so leave out {'--fix' if fix else '--captioner'}")
    if fix and captioner is not None and recaption:
        raise UserError("caption: --fix keeps what is right and --recaption replaces all; give one of them")
    wording = load(work.CaptionConfig, config) if config is not None else work.CaptionConfig()
    given = {"trigger": trigger, "class_word": class_word, "age": age, "variants": variants}
    wording = _with(
        wording, {k: v for k, v in given.items() if v is not None} | ({"recaption": True} if recaption else {})
    )
    loaded = load_dataset(dataset)
    _ = wording.expected.ages
    if output_dir is not None:
        check_place([loaded.path], output_dir)
    rows = {} if words_only else _look(loaded, detector, detector_config, services)
    if output_dir is None:
        result = work.check(loaded, rows, wording)
        _report(result, json)
        if result.contradictions:
            # As linters do: 1 says that there are findings; what a user gave wrongly is 2.
            raise typer.Exit(1)
        return
    describe = None
    if captioner is not None:
        from onmodel.dataset.captioner import Captioner, CaptionerConfig

        describe = Captioner(CaptionerConfig(path=captioner, prompt=captioner_prompt)).describe
    with bar("writing captions", len(loaded.pictures)) as shown:
        result = work.write_captions(
            loaded,
            rows,
            output_dir,
            wording,
            mode="fix" if fix else "template",
            describe=describe,
            advance=shown.advance,
        )
    _report(result, json, wording)


def _with(wording: "CaptionConfig", changes: dict[str, Any]) -> "CaptionConfig":
    from onmodel.core.config import validate

    return validate(type(wording), {**wording.model_dump(), **changes}, "caption")


def _look(
    dataset: "Dataset", detector: str | None, detector_config: Path | None, services: str | None
) -> "dict[str, Row]":
    """What every picture shows, from the facts beside the dataset or the detection service."""
    from onmodel.cli.measuring import detector_for
    from onmodel.core.progress import bar
    from onmodel.dataset.analysis import analyze
    from onmodel.dataset.facts import Facts
    from onmodel.detection.weights import local_model
    from onmodel.serving.local import open_services

    facts = Facts.open(dataset.path)
    settings = detector_for(facts, detector, detector_config)
    model = None
    if services is None:
        model = local_model(settings)
    with open_services(services, detector=settings) as opened, bar("looking", len(dataset.pictures)) as shown:
        analysis = analyze(dataset, opened, model=model, facts=facts, advance=shown.advance)
    return {row.file: row for row in analysis.rows}


def _report(result: "CaptionResult", as_json: bool, wording: "CaptionConfig | None" = None) -> None:
    import json as jsonlib

    from rich.table import Table

    from onmodel.dataset.report import terminal

    if as_json:
        typer.echo(jsonlib.dumps(_answer(result)))
        return
    out = terminal()
    trigger = "no trigger" if result.trigger is None else f"trigger {result.trigger!r}"
    # A set that is written has them no longer; what is left of them is told below.
    shown = result.findings if result.output_dir is None else ()
    if shown:
        table = Table(title=f"{len(result.findings)} findings in {result.pictures} captions, {trigger}")
        table.title_justify = "left"
        for heading in ("file", "problem", "evidence", "fix"):
            table.add_column(heading, overflow="fold")
        # What makes a caption false first.
        for each in sorted(shown, key=lambda f: f.is_note)[:SHOWN]:
            name = each.file if each.line == 1 else f"{each.file} line {each.line}"
            table.add_row(name, each.problem.value, each.evidence, each.fix, style="dim" if each.is_note else None)
        out.print(table)
    lines = [f"{len(shown) - SHOWN} more; --json prints all"] if len(shown) > SHOWN else []
    counts = ", ".join(f"{problem} {count}" for problem, count in result.counts.items())
    lines.append(f"{result.pictures} captions, {trigger}: {counts or 'nothing is wrong'}.")
    if result.unreadable:
        lines.append(f"{result.unreadable} pictures cannot be read and are left out.")
    if result.output_dir is not None:
        described = f", {result.described} described by the model" if result.described else ""
        lines.append(f"{result.output_dir}: {result.changed} captions changed{described}.")
        lines += [
            f"left as it is: {each.file}: {each.problem.value}: {each.evidence}; {each.fix}"
            for each in result.left[:10]
        ]
        lines.append(_settings(result, wording))
    for line in lines:
        out.print(line, markup=False, highlight=False, soft_wrap=True)


def _settings(result: "CaptionResult", wording: "CaptionConfig | None") -> str:
    keep = 1 if wording is None or wording.expected.subject is None else 2
    lines = (
        ", enable_wildcard = true (one of the lines each time)" if wording is not None and wording.variants > 1 else ""
    )
    return f"For sd-scripts: caption_extension = '.txt', shuffle_caption = true, keep_tokens = {keep}{lines}."


def _answer(result: "CaptionResult") -> dict[str, Any]:
    def rows(findings: Any) -> list[dict[str, Any]]:
        return [
            {"file": f.file, "line": f.line, "problem": f.problem.value, "is_note": f.is_note, "caption": f.caption,
             "evidence": f.evidence, "fix": f.fix}
            for f in findings
        ]  # fmt: skip

    return {
        "pictures": result.pictures,
        "unreadable": result.unreadable,
        "trigger": result.trigger,
        "counts": result.counts,
        "contradictions": len(result.contradictions),
        "findings": rows(result.findings),
        "output_dir": None if result.output_dir is None else str(result.output_dir),
        "changed": result.changed,
        "described": result.described,
        "left": rows(result.left),
    }
