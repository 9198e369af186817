"""`onmodel submit -- VERB …`: any verb as a job on a Ray cluster."""

import json as jsonlib
import shlex
from collections.abc import Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

import typer

from onmodel.cli.jobs import AddressOption, address_of, follow, show
from onmodel.core.errors import UserError

if TYPE_CHECKING:
    from onmodel.jobs.request import Job, JobApi

app = typer.Typer(add_completion=False, rich_markup_mode=None)

GIB = 1 << 30


# What follows the verb is the verb's, with or without `--` before it.
@app.command(context_settings={"allow_interspersed_args": False})
def command(
    verb: Annotated[list[str], typer.Argument(metavar="VERB", help="A verb and its arguments.")],
    address: AddressOption = None,
    job_id: Annotated[
        str | None, typer.Option("--job-id", help="Name of the job; given again with the same verb, it is followed.")
    ] = None,
    num_cpus: Annotated[
        float, typer.Option(min=0, help="CPUs that the verb itself holds; 0 puts it on the cluster's head.")
    ] = 1,
    num_gpus: Annotated[float, typer.Option(min=0, help="GPUs that the verb itself holds.")] = 0,
    memory: Annotated[float, typer.Option(min=0, help="GiB of memory that the verb itself holds.")] = 0,
    workspace: Annotated[
        str | None, typer.Option(help="Folder that all nodes see, or s3:// prefix, to which paths are relative.")
    ] = None,
    scratch: Annotated[
        str | None,
        typer.Option(help="Folder that all nodes see, for what lies at s3://; else the job keeps to one node."),
    ] = None,
    code: Annotated[bool, typer.Option(help="Send this installation's code; else run what the nodes have.")] = True,
    wait: Annotated[
        bool, typer.Option("--follow/--no-wait", help="Follow the job to its end, or return at once.")
    ] = True,
    stop_on_interrupt: Annotated[bool, typer.Option(help="Ctrl-C stops the job too.")] = False,
    json: Annotated[
        bool, typer.Option("--json", help="Print the job as JSON; its log goes to standard error.")
    ] = False,
) -> None:
    """Run a verb as a job on a Ray cluster, follow its log, and end with its exit code.

    Code and configs go along; pictures and weights do not: name them by a folder that all nodes see, or by s3://.
    """
    paths = checked(verb)
    # These import Ray, which takes seconds: not before the command line is known to be good.
    from onmodel.core.config import validate
    from onmodel.jobs.bundle import check_size, package_folder
    from onmodel.jobs.client import open_jobs
    from onmodel.jobs.request import JobRequest, new_id
    from onmodel.jobs.shipping import Shipment, places

    shipment = Shipment(verb, paths, workspace=workspace is not None)
    places(shipment.arguments, shipment.files)
    request = validate(
        JobRequest,
        {
            "job_id": job_id or new_id(verb[0]),
            "arguments": shipment.arguments,
            "files": shipment.files,
            "command": shlex.join(["onmodel", *verb]),
            "workspace": workspace,
            "scratch": scratch,
            "resources": {"num_cpus": num_cpus, "num_gpus": num_gpus, "memory_bytes": int(memory * GIB)},
        },
        "submit",
    )
    package = package_folder() if code else None
    if package is not None:
        check_size(package)
    at = address_of(address)
    api = open_jobs(at)
    job, created = api.submit(request, package)
    typer.echo(f"job {job.id} {'asks for' if created else 'was given before, with'} {request.resources}", err=True)
    if wait:
        job = _followed(api, job, at, stop_on_interrupt=stop_on_interrupt, err=json)
    if json:
        typer.echo(jsonlib.dumps(show(job)))
    elif not wait:
        typer.echo(job.id)
    if wait:
        raise typer.Exit(job.shell_code)


def checked(verb: Sequence[str]) -> list[Path]:
    """Parse the verb's arguments as the command line does, and give those that it takes for paths.

    Raises UserError for a verb that is none, or none for a cluster, and what the parser raises for its arguments.
    """
    from onmodel.cli.main import VERBS, load_verb
    from onmodel.jobs.request import STARTS_ON_THIS_MACHINE

    name, *arguments = verb
    if name not in VERBS:
        raise UserError(f"{name}: not a verb of onmodel; it is one of {', '.join(VERBS)}")
    if name in STARTS_ON_THIS_MACHINE or (name == "curate" and "--export" not in arguments):
        raise UserError(f"{name}: is about the machine it is called on, and cannot be run as a job")
    context: Any = load_verb(name).make_context(name, arguments)
    values = [value for each in context.params.values() for value in (each if isinstance(each, list) else [each])]
    return [value for value in values if isinstance(value, Path)]


def _followed(api: "JobApi", job: "Job", at: str, *, stop_on_interrupt: bool, err: bool) -> "Job":
    """The job as it ended. Ctrl-C leaves it running, and says how to go on."""
    try:
        return follow(api, job.id, err=err)
    except KeyboardInterrupt:
        if stop_on_interrupt:
            api.stop(job.id)
            typer.echo(f"\nonmodel: asked {job.id} to stop", err=True)
        else:
            typer.echo(
                f"\nonmodel: {job.id} goes on; follow it with `onmodel jobs logs {job.id} --follow --address {at}`, "
                f"stop it with `onmodel jobs stop {job.id} --address {at}`",
                err=True,
            )
        raise typer.Exit(130) from None
