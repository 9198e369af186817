"""`onmodel serve up|status|down`, and the keys and tokens of a gateway: `onmodel serve key|keys|token`."""

import contextlib
import json
from dataclasses import asdict
from pathlib import Path
from typing import Annotated, Any

import typer

app = typer.Typer(add_completion=False, no_args_is_help=True, rich_markup_mode=None)

JsonOption = Annotated[bool, typer.Option("--json", help="Print a machine's answer.")]


@app.command()
def up(
    config: Annotated[Path | None, typer.Option(help="Serve config (YAML), in place of cluster/serve.yaml.")] = None,
    detector: Annotated[str | None, typer.Option(help="Detector preset: toybox or film.")] = None,
    detector_config: Annotated[Path | None, typer.Option(help="TOML with all detector settings instead.")] = None,
    scorer: Annotated[
        str | None, typer.Option(help="Scorer: toybox, an open_clip architecture, hf-hub:OWNER/NAME, or a folder.")
    ] = None,
    scorer_pretrained: Annotated[
        str | None, typer.Option(help="Checkpoint tag or file for an open_clip architecture.")
    ] = None,
    host: Annotated[str, typer.Option(help="Interface of the gRPC port; there is no password on it.")] = "127.0.0.1",
    port: Annotated[int | None, typer.Option(min=1, max=65535, help="gRPC port; else the config's.")] = None,
    metrics_port: Annotated[
        int | None, typer.Option(min=1, max=65535, help="Let Prometheus read the metrics at this port of 127.0.0.1.")
    ] = None,
    block: Annotated[bool, typer.Option("--block", help="Stay, and stop the services on Ctrl-C.")] = False,
    as_json: JsonOption = False,
) -> None:
    """Start the services and leave them running, or give running ones another config or model."""
    from onmodel.core.config import load
    from onmodel.core.errors import UserError
    from onmodel.core.progress import console
    from onmodel.detection.config import DetectorConfig
    from onmodel.scoring.config import ScorerConfig
    from onmodel.serving import lifecycle
    from onmodel.serving.serve_config import DEFAULT_CONFIG, read_serve_config
    from onmodel.serving.state import recall

    wanted: dict[str, Any] = read_serve_config(config or DEFAULT_CONFIG)
    seeing = load(DetectorConfig, detector_config) if detector_config else None
    if detector is not None and seeing is None:
        seeing = DetectorConfig.preset(detector)
    scoring = None if scorer is None else ScorerConfig(model=scorer, pretrained=scorer_pretrained)
    if scoring is not None:
        # Raises for a path that is none before anything starts or changes.
        scoring.folder()
    wanted = lifecycle.with_models(wanted, seeing, scoring)
    running = recall()
    if running is not None:
        if block or metrics_port or (port is not None and not running.address.endswith(f":{port}")):
            raise UserError(
                f"services already run at {running.address}: their ports stay as they are, and --block is for new ones;"
                " stop them with `onmodel serve down` first"
            )
        with console.status(f"changing the services at {running.address}"):
            lifecycle.update(wanted, running)
        shown = {"address": running.address, "pid": running.pid, "log": running.log}
        typer.echo(json.dumps(shown) if as_json else f"the services at {running.address} run the new config")
        return
    port = port or int(wanted.get("grpc_options", {}).get("port", 9000))
    with console.status(f"starting the services at {host}:{port}"):
        process = lifecycle.start(wanted, host=host, port=port, detached=not block, metrics_port=metrics_port)
    address = f"{process.options.connect_host}:{port}"
    typer.echo(
        json.dumps({"address": address, "pid": process.pid, "log": str(process.log)})
        if as_json
        else f"the services answer at {address}; " + ("Ctrl-C stops them" if block else "stop: onmodel serve down")
    )
    if not block:
        process.let_go()
        return
    try:
        process.wait()
    finally:
        process.stop()
        lifecycle.forget()


@app.command()
def status(
    services: Annotated[str | None, typer.Option(help="HOST:PORT; else what `up` started, or 127.0.0.1:9000.")] = None,
    as_json: JsonOption = False,
) -> None:
    """Ask both services which model they run, and a job service whether it answers; exit code 4 when one does not."""
    from onmodel.core.errors import NotFoundError
    from onmodel.jobs.client import problem_at
    from onmodel.serving import lifecycle
    from onmodel.serving.state import recall

    running = recall()
    address = services or (running.address if running else "127.0.0.1:9000")
    found = lifecycle.status(address)
    jobs: dict[str, str | None] = {}
    with contextlib.suppress(NotFoundError):
        jobs["jobs"] = problem_at(address, timeout_s=lifecycle.PING_TIMEOUT_S)
    if as_json:
        apps: dict[str, dict[str, Any]] = {
            name: {
                "ok": app.model is not None,
                "model": asdict(app.model) if app.model else None,
                "error": app.problem,
                "reload_error": app.reload_error or None,
            }
            for name, app in found.items()
        }
        apps |= {name: {"ok": problem is None, "error": problem} for name, problem in jobs.items()}
        typer.echo(json.dumps({"address": address, "applications": apps}))
    else:
        typer.echo(f"services at {address}")
        for name, app in found.items():
            typer.echo(f"  {name:<10} {f'{app.model.name} ({app.model.hash[:12]})' if app.model else app.problem}")
            if app.reload_error:
                typer.echo(f"  {'':<10} the model asked for last is not it: {app.reload_error}")
        for name, problem in jobs.items():
            typer.echo(f"  {name:<10} {problem or 'answers'}")
    if any(app.model is None for app in found.values()) or any(jobs.values()):
        raise typer.Exit(4)


@app.command()
def down(as_json: JsonOption = False) -> None:
    """Stop what `onmodel serve up` started, and nothing else."""
    from onmodel.serving import lifecycle

    stopped = lifecycle.stop()
    if as_json:
        typer.echo(json.dumps({"stopped": stopped is not None, "address": stopped.address if stopped else None}))
    else:
        typer.echo(f"stopped the services at {stopped.address}" if stopped else "nothing to stop")


@app.command()
def key(out: Annotated[Path, typer.Option(help="Where the private key goes.")]) -> None:
    """Make a private key that tokens are signed with. Keep it to yourself: no cluster needs it."""
    from onmodel.serving.tokens import make_key

    make_key(out)
    typer.echo(f"{out}: a new private key")


@app.command()
def keys(
    private: Annotated[list[Path], typer.Argument(help="Private keys whose tokens are to count.")],
    out: Annotated[Path, typer.Option(help="Where the public key set goes (jwks.json).")],
) -> None:
    """Write the public keys, by which a gateway knows tokens."""
    from onmodel.core.files import write_text
    from onmodel.serving.tokens import key_set, read_key

    write_text(out, json.dumps(key_set([read_key(path).public_key() for path in private]), indent=1) + "\n")
    typer.echo(f"{out}: {len(private)} public key{'s' if len(private) > 1 else ''}")


@app.command()
def token(
    key: Annotated[Path, typer.Option(help="Private key.")],
    subject: Annotated[str, typer.Option("--for", help="Who it is for; the gateway's log names them.")],
    days: Annotated[float, typer.Option(help="How long it counts, 365 at most.")] = 30,
) -> None:
    """Print a token for a client of a gateway."""
    from onmodel.serving.tokens import make_token, read_key

    typer.echo(make_token(read_key(key), subject, days))
