"""`onmodel doctor`: what is wrong with this installation, and what to do."""

from pathlib import Path
from typing import Annotated

import typer


def command(
    services: Annotated[
        str | None, typer.Option(help="HOST:PORT or grpcs://HOST:PORT; else what `serve up` started, if anything.")
    ] = None,
    out: Annotated[Path, typer.Option(help="Folder that outputs are meant for.")] = Path("runs"),
    constraints: Annotated[
        Path | None, typer.Option(help="Compare what is installed with the pins of this file (constraints.txt).")
    ] = None,
    as_json: Annotated[bool, typer.Option("--json", help="Print a machine's answer.")] = False,
) -> None:
    """Check this installation; exit code 1 when something in it cannot work."""
    import json
    from dataclasses import asdict

    from onmodel.common.channel import split_address
    from onmodel.doctor.run import examine
    from onmodel.serving.state import recall

    if services is not None:
        split_address(services)
    elif (running := recall()) is not None:
        services = running.address
    findings = []
    for finding in examine(services=services, out=out, constraints=constraints):
        findings.append(finding)
        if not as_json:
            typer.echo(f"{finding.level:<8} {finding.checked:<18} {finding.found}")
            if finding.advice:
                typer.echo(f"{'':<27} -> {finding.advice}")
    counts = {level: sum(finding.level == level for finding in findings) for level in ("ok", "warning", "wrong")}
    if as_json:
        typer.echo(json.dumps({"findings": [asdict(finding) for finding in findings], "counts": counts}))
    else:
        typer.echo(f"{counts['ok']} ok, {counts['warning']} warnings, {counts['wrong']} wrong")
    if counts["wrong"]:
        raise typer.Exit(1)
