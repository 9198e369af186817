"""Serve application "detection"."""

import asyncio
import os
from typing import Any

from pydantic import field_validator
from ray import serve
from ray.serve import Application

from onmodel.common.edge import rpc
from onmodel.common.pictures import Intake, count_items
from onmodel.core.config import Config
from onmodel.core.images import RGB
from onmodel.detection.config import DetectorConfig
from onmodel.detection.convert import Detected
from onmodel.detection.v1 import detection_pb2 as pb

NAME = "detection"


class DetectionArgs(Config):
    """The application's `args` in a Serve config."""

    detector: DetectorConfig = DetectorConfig.preset("toybox")
    """In a file also a preset's name."""
    intake: Intake = Intake()

    @field_validator("detector", mode="before")
    @classmethod
    def _preset(cls, value: Any) -> Any:
        return DetectorConfig.preset(value) if isinstance(value, str) else value


@serve.deployment(
    name="Detection",
    # Requests of one picture each must be able to fill a batch.
    max_ongoing_requests=64,
    max_queued_requests=256,
    ray_actor_options={"num_cpus": 0.1},
)
class Detection:
    """One replica: a detector and a pool of decoding threads. Methods are named as the RPCs."""

    def __init__(self, args: DetectionArgs) -> None:
        threads = args.detector.threads or args.intake.model_threads or os.cpu_count() or 1
        # Ray sets this by the actor's share of a CPU, which would leave the model one thread. The runtimes
        # read it when they are first imported, which is below.
        os.environ["OMP_NUM_THREADS"] = str(threads)
        from onmodel.detection.model import load_detector
        from onmodel.detection.service import DetectionService

        self._config = args.detector.model_copy(update={"threads": threads})
        self._detector = load_detector(self._config)
        size = args.detector.batch_size
        batched: Any = self._detect
        batched.set_max_batch_size(size)
        self._service = DetectionService(self._detector, self._config, args.intake, self._detect)

    @serve.batch(max_batch_size=8, batch_wait_timeout_s=0.005, batch_size_fn=count_items)
    async def _detect(self, pieces: list[list[RGB]]) -> list[list[Detected]]:
        from onmodel.detection.service import detect_and_decide

        flat = [image for piece in pieces for image in piece]
        found = iter(await asyncio.to_thread(detect_and_decide, self._detector, self._config, flat))
        return [[next(found) for _ in piece] for piece in pieces]

    @rpc
    async def Detect(self, request: pb.DetectRequest) -> pb.DetectResponse:
        return await self._service.detect(request)

    @rpc
    async def GetModelInfo(self, request: pb.GetModelInfoRequest) -> pb.GetModelInfoResponse:
        return self._service.model_info()


def build(args: DetectionArgs) -> Application:
    """The application, from a Serve config's `args`."""
    return Detection.bind(args)
