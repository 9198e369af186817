"""Wire ↔ domain for jobs."""

from onmodel.core.progress import Told
from onmodel.jobs.request import Event, Job, JobRequest, Resources, State, new_id
from onmodel.jobs.v1 import jobs_pb2 as pb

STATES: dict[State, pb.JobState] = {
    State.PENDING: pb.JOB_STATE_PENDING,
    State.RUNNING: pb.JOB_STATE_RUNNING,
    State.SUCCEEDED: pb.JOB_STATE_SUCCEEDED,
    State.FAILED: pb.JOB_STATE_FAILED,
    State.STOPPED: pb.JOB_STATE_STOPPED,
}
_STATE_OF = {value: key for key, value in STATES.items()}


def request_to_wire(request: JobRequest, code: bytes) -> pb.SubmitRequest:
    """A request with its code ("" = what the nodes have)."""
    wanted = request.resources
    return pb.SubmitRequest(
        job_id=request.job_id,
        arguments=request.arguments,
        files=[pb.ConfigFile(name=name, text=text) for name, text in request.files.items()],
        code=code,
        resources=pb.Resources(num_cpus=wanted.num_cpus, num_gpus=wanted.num_gpus, memory_bytes=wanted.memory_bytes),
        workspace=request.workspace or "",
        scratch=request.scratch or "",
    )


def request_from_wire(message: pb.SubmitRequest, roots: tuple[str, ...]) -> JobRequest:
    """The request that `message` makes; pydantic's ValidationError where it is none."""
    wanted = message.resources
    return JobRequest(
        job_id=message.job_id or new_id(next(iter(message.arguments), "job")),
        arguments=tuple(message.arguments),
        files={file.name: file.text for file in message.files},
        workspace=message.workspace or None,
        scratch=message.scratch or None,
        resources=Resources(
            num_cpus=wanted.num_cpus if message.HasField("resources") else 1.0,
            num_gpus=wanted.num_gpus,
            memory_bytes=wanted.memory_bytes,
        ),
        roots=roots,
    )


def job_to_wire(job: Job) -> pb.Job:
    """The message of `job`."""
    message = pb.Job(job_id=job.id, state=STATES[job.state], command=job.command, message=job.message)
    if job.exit_code is not None:
        message.exit_code = job.exit_code
    if job.start_time_ms is not None:
        message.start_time_ms = job.start_time_ms
    if job.end_time_ms is not None:
        message.end_time_ms = job.end_time_ms
    return message


def job_from_wire(message: pb.Job) -> Job:
    """The domain value of `message`. A state newer than this code counts as running: it is not known to have ended."""
    return Job(
        message.job_id,
        _STATE_OF.get(message.state, State.RUNNING),
        message.command,
        message.message,
        message.exit_code if message.HasField("exit_code") else None,
        message.start_time_ms if message.HasField("start_time_ms") else None,
        message.end_time_ms if message.HasField("end_time_ms") else None,
    )


def event_to_wire(event: Event) -> pb.FollowResponse:
    """One message of a followed job."""
    if isinstance(event, Job):
        return pb.FollowResponse(job=job_to_wire(event))
    if isinstance(event, str):
        return pb.FollowResponse(line=event)
    progress = pb.Progress(task=event.task, done=event.done, note=event.note, values=event.values)
    if event.total is not None:
        progress.total = event.total
    return pb.FollowResponse(progress=progress)


def event_from_wire(message: pb.FollowResponse) -> Event:
    """The domain value of `message`."""
    match message.WhichOneof("event"):
        case "job":
            return job_from_wire(message.job)
        case "progress":
            told = message.progress
            total = told.total if told.HasField("total") else None
            return Told(told.task, told.done, total, told.note, dict(told.values))
        case _:
            return message.line
