"""Serve application "jobs". Optional: it needs a head with a dashboard, whose job API it stands on."""

from collections.abc import AsyncIterator

from ray import serve
from ray.serve import Application

from onmodel.common.edge import rpc, rpc_stream
from onmodel.jobs.service import JobsArgs, JobService
from onmodel.jobs.v1 import jobs_pb2 as pb

NAME = "jobs"


@serve.deployment(
    name="Jobs",
    # A followed job holds one for as long as it runs.
    max_ongoing_requests=64,
    max_queued_requests=64,
    ray_actor_options={"num_cpus": 0.1},
)
class JobsDeployment:
    """One replica. Methods are named as the RPCs."""

    def __init__(self, args: JobsArgs) -> None:
        self._service = JobService(args)

    @rpc
    async def Submit(self, request: pb.SubmitRequest) -> pb.SubmitResponse:
        return await self._service.submit(request)

    @rpc
    async def Get(self, request: pb.GetRequest) -> pb.GetResponse:
        return await self._service.get(request)

    @rpc
    async def List(self, request: pb.ListRequest) -> pb.ListResponse:
        return await self._service.list(request)

    @rpc
    async def Stop(self, request: pb.StopRequest) -> pb.StopResponse:
        return await self._service.stop(request)

    @rpc_stream
    def Follow(self, request: pb.FollowRequest) -> AsyncIterator[pb.FollowResponse]:
        return self._service.follow(request)


def build(args: JobsArgs) -> Application:
    """The application, from a Serve config's `args`."""
    return JobsDeployment.bind(args)
