#!/usr/bin/env python3
"""A Ray cluster of several nodes on this one machine, to try `onmodel` on and to break: see `--help`.

python cluster/local/nodes.py up --workers 2 --cpus 2
python cluster/local/nodes.py exec -- onmodel train trial.toml
python cluster/local/nodes.py kill worker1
python cluster/local/nodes.py down
"""

import os
import sys
from typing import Annotated

import typer

from onmodel.core.errors import OnModelError, ResourceError, exit_code
from onmodel.serving import local_cluster
from onmodel.serving.local_node import HEAD, LocalConfig

app = typer.Typer(add_completion=False, no_args_is_help=True, rich_markup_mode=None, help=__doc__)

NameOption = Annotated[str, typer.Option(help="The cluster's name, for several at once.")]
NodeArgument = Annotated[str, typer.Argument(help="head, worker1, worker2, …, or redis.")]


@app.command()
def up(
    name: NameOption = "local",
    workers: Annotated[int, typer.Option(min=0, max=99, help="Nodes beside the head.")] = 2,
    cpus: Annotated[int, typer.Option(min=1, help="CPUs of each worker, as Ray counts them.")] = 2,
    head_cpus: Annotated[int, typer.Option(min=0, help="CPUs of the head; 0 keeps work off it.")] = 0,
    object_store_mb: Annotated[int, typer.Option(min=100, help="Shared memory of each node.")] = 200,
    dashboard: Annotated[bool, typer.Option("--dashboard", help="With dashboard and job API.")] = False,
    redis: Annotated[bool, typer.Option("--redis", help="With GCS fault tolerance: the head may die.")] = False,
    isolate: Annotated[
        bool | None, typer.Option("--isolate/--no-isolate", help="Network namespaces; else where root allows.")
    ] = None,
) -> None:
    """Start a head and workers, and leave them running."""
    from onmodel.core.config import validate

    given = {
        "name": name,
        "workers": workers,
        "cpus": cpus,
        "head_cpus": head_cpus,
        "object_store_mb": object_store_mb,
        "dashboard": dashboard,
        "redis": redis,
        "isolate": isolate,
    }
    cluster = local_cluster.up(validate(LocalConfig, given, "options"))
    if not cluster.isolated:
        typer.echo(
            "no network namespaces (they need root): all nodes share the loopback interface; cut and heal do not work"
        )
    _show(cluster)
    option = "" if name == "local" else f" --name {name}"
    typer.echo(f"use: {sys.argv[0]} exec{option} -- onmodel …   end: {sys.argv[0]} down{option}")


@app.command()
def status(
    name: NameOption = "local", as_json: Annotated[bool, typer.Option("--json", help="For a machine.")] = False
) -> None:
    """Show every node: its address, whether it is up, its processes and memory."""
    cluster = local_cluster.find(name)
    if as_json:
        typer.echo(local_cluster.as_json(cluster))
    else:
        _show(cluster)


@app.command()
def kill(node: NodeArgument, name: NameOption = "local") -> None:
    """End all processes of a node at once, as a power cut would."""
    typer.echo(f"{node}: {local_cluster.find(name).kill(node)} processes killed")


@app.command()
def start(node: NodeArgument, name: NameOption = "local") -> None:
    """Start a killed node again, at its old address."""
    local_cluster.find(name).start(node)
    typer.echo(f"{node}: up")


@app.command()
def cut(node: NodeArgument, name: NameOption = "local") -> None:
    """Pull a node's network cable; its processes go on."""
    local_cluster.find(name).cut(node)
    typer.echo(f"{node}: cut off")


@app.command()
def heal(node: NodeArgument, name: NameOption = "local") -> None:
    """Plug a node's network cable in again."""
    local_cluster.find(name).heal(node)
    typer.echo(f"{node}: connected")


@app.command("exec", context_settings={"ignore_unknown_options": True})
def execute(
    command: Annotated[list[str], typer.Argument(help="The command, after --.")],
    name: NameOption = "local",
    node: Annotated[str, typer.Option(help="Where to run it.")] = HEAD,
) -> None:
    """Run a command on a node, with RAY_ADDRESS and the token set; it dies with the node."""
    cluster = local_cluster.find(name)
    argv = cluster.command(command, node)
    try:
        os.execvpe(argv[0], argv, cluster.environment())
    except OSError as error:
        raise ResourceError(f"{argv[0]}: cannot be run ({error.strerror}); check the command") from None


@app.command()
def down(name: NameOption = "local") -> None:
    """End a cluster, whole or crashed, and remove its networks, folders and processes."""
    typer.echo(f"cluster `{name}` is gone" if local_cluster.remove(name) else "nothing to take down")


def _show(cluster: local_cluster.LocalCluster) -> None:
    typer.echo(
        f"cluster `{cluster.config.name}` at {cluster.address}"
        + (f", dashboard {cluster.dashboard}" if cluster.dashboard else "")
    )
    for node in cluster.status():
        size = f"{node.processes:>3} processes {node.memory_mb:>6.0f} MB"
        typer.echo(f"  {node.name:<10} {node.address:<15} {node.state:<8} {size}")


def main() -> None:
    """One sentence for what goes wrong, and its exit code."""
    try:
        app()
    except OnModelError as error:
        typer.echo(f"error: {error}", err=True)
        sys.exit(exit_code(error))


if __name__ == "__main__":
    main()
