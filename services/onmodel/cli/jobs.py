"""`onmodel jobs list|get|logs|stop`."""

import json
import os
from dataclasses import asdict
from datetime import datetime
from typing import TYPE_CHECKING, Annotated, Any

import typer

if TYPE_CHECKING:
    from onmodel.jobs.request import Job, JobApi

app = typer.Typer(add_completion=False, no_args_is_help=True, rich_markup_mode=None)

ADDRESS_VARIABLE = "RAY_API_SERVER_ADDRESS"
DEFAULT_ADDRESS = "http://127.0.0.1:8265"

AddressOption = Annotated[
    str | None,
    typer.Option(
        help=f"http://HOST:8265 of a Ray dashboard, or grpc://HOST:PORT of the job service; else {ADDRESS_VARIABLE}, "
        f"else {DEFAULT_ADDRESS}."
    ),
]
JobArgument = Annotated[str, typer.Argument(metavar="JOB", help="The job's id.")]
JsonOption = Annotated[bool, typer.Option("--json", help="Print a machine's answer.")]


@app.command("list")
def list_jobs(
    address: AddressOption = None,
    limit: Annotated[int, typer.Option(min=0, help="At most so many; 0 = all.")] = 20,
    as_json: JsonOption = False,
) -> None:
    """Show jobs, the newest first."""
    jobs = _open(address).list(limit)
    if as_json:
        typer.echo(json.dumps([show(job) for job in jobs]))
        return
    width = max((len(job.id) for job in jobs), default=0)
    # One line a job, whatever the terminal's width: the command is last and may run over.
    for job in jobs:
        state = f"{job.state.value} ({job.exit_code})" if job.exit_code else job.state.value
        typer.echo(f"{job.id:<{width}}  {state:<12}  {_time(job.start_time_ms)}  {_took(job):>8}  {job.command}")
    if not jobs:
        typer.echo("no jobs yet")


@app.command()
def get(job_id: JobArgument, address: AddressOption = None, as_json: JsonOption = False) -> None:
    """Show one job."""
    job = _open(address).get(job_id)
    if as_json:
        typer.echo(json.dumps(show(job)))
        return
    typer.echo(f"{job.id}: {job.state.value}{f', {job.message}' if job.message else ''}")
    typer.echo(f"  {job.command}")
    typer.echo(f"  started {_time(job.start_time_ms)}, took {_took(job)}")


@app.command()
def logs(
    job_id: JobArgument,
    address: AddressOption = None,
    wait: Annotated[
        bool, typer.Option("--follow", help="Go on until the job ends, and end with its exit code.")
    ] = False,
) -> None:
    """Print what a job has printed."""
    job = follow(_open(address), job_id, wait=wait)
    if wait:
        raise typer.Exit(job.shell_code)


@app.command()
def stop(job_id: JobArgument, address: AddressOption = None, as_json: JsonOption = False) -> None:
    """Ask a job to end."""
    stopped = _open(address).stop(job_id)
    if as_json:
        typer.echo(json.dumps({"stopped": stopped}))
    else:
        typer.echo(f"{job_id}: {'asked to stop' if stopped else 'had ended already'}")


def address_of(given: str | None) -> str:
    """The address that a command goes to."""
    return given or os.environ.get(ADDRESS_VARIABLE) or DEFAULT_ADDRESS


def follow(api: "JobApi", job_id: str, *, wait: bool = True, err: bool = False) -> "Job":
    """Print a job's log as it comes, on standard error if `err`; gives the job as it ended, or as it is now."""
    from onmodel.jobs.request import Job, State

    for event in api.follow(job_id, wait=wait):
        if not isinstance(event, Job):
            typer.echo(str(event), err=err)
            continue
        if wait and event.state is not State.SUCCEEDED:
            typer.echo(f"job {job_id} {event.state.value}{f': {event.message}' if event.message else ''}", err=True)
        return event
    raise AssertionError("following ends with the job")


def show(job: "Job") -> dict[str, Any]:
    """A job for a machine."""
    return asdict(job)


def _open(address: str | None) -> "JobApi":
    from onmodel.jobs.client import open_jobs

    return open_jobs(address_of(address))


def _time(ms: int | None) -> str:
    return "–" if ms is None else datetime.fromtimestamp(ms / 1000).astimezone().strftime("%Y-%m-%d %H:%M:%S")


def _took(job: "Job") -> str:
    if job.start_time_ms is None:
        return "–"
    end = job.end_time_ms or datetime.now().timestamp() * 1000
    seconds = max(0, int(end - job.start_time_ms) // 1000)
    return f"{seconds // 3600}:{seconds // 60 % 60:02d}:{seconds % 60:02d}"
