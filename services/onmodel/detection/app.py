"""Serve application "detection"."""

import asyncio
import os
from typing import TYPE_CHECKING, Any, NamedTuple

from pydantic import field_validator
from ray import serve
from ray.serve import Application

from onmodel.common.edge import rpc
from onmodel.common.metrics import PictureMetrics
from onmodel.common.pictures import Intake, count_items
from onmodel.common.reload import Reloading, by_model
from onmodel.core.config import Config, validate
from onmodel.core.images import RGB
from onmodel.detection.config import DetectorConfig
from onmodel.detection.convert import Detected
from onmodel.detection.v1 import detection_pb2 as pb

if TYPE_CHECKING:
    from onmodel.detection.model import Detector
    from onmodel.detection.service import DetectionService

NAME = "detection"


class DetectionArgs(Config):
    """The application's `args` in a Serve config."""

    intake: Intake = Intake()


class DetectionModel(Config):
    """The deployment's `user_config` in a Serve config: changed, it is loaded while the former model answers."""

    detector: DetectorConfig = DetectorConfig.preset("toybox")
    """In a file also a preset's name."""

    @field_validator("detector", mode="before")
    @classmethod
    def _preset(cls, value: Any) -> Any:
        return DetectorConfig.preset(value) if isinstance(value, str) else value


class _Loaded(NamedTuple):
    detector: "Detector"
    config: DetectorConfig
    service: "DetectionService"


@serve.deployment(
    name="Detection",
    # Requests of one picture each must be able to fill a batch.
    max_ongoing_requests=64,
    max_queued_requests=256,
    ray_actor_options={"num_cpus": 0.1},
    user_config={"detector": "toybox"},
)
class Detection:
    """One replica: a detector and a pool of decoding threads. Methods are named as the RPCs."""

    def __init__(self, args: DetectionArgs) -> None:
        self._intake = args.intake
        self._metrics = PictureMetrics()
        self._model = Reloading(self._load, self._metrics.loaded)

    async def reconfigure(self, user_config: dict[str, Any]) -> None:
        """Called by Serve with the first `user_config` and each later one."""
        await self._model.ask(user_config)
        batched: Any = self._detect
        batched.set_max_batch_size(self._model.loaded.config.batch_size)

    def _load(self, user_config: dict[str, Any]) -> _Loaded:
        wanted = validate(DetectionModel, user_config, "user_config of Detection").detector
        threads = wanted.threads or self._intake.model_threads or os.cpu_count() or 1
        # Ray sets this by the actor's share of a CPU, which would leave the model one thread. The runtimes
        # read it when they are first imported, which is below.
        os.environ["OMP_NUM_THREADS"] = str(threads)
        from onmodel.detection.model import load_detector
        from onmodel.detection.service import DetectionService

        config = wanted.model_copy(update={"threads": threads})
        detector = load_detector(config)

        async def detect(images: list[RGB]) -> list[Detected]:
            return await self._detect((loaded, images))

        service = DetectionService(detector, config, self._intake, detect, self._metrics)
        loaded = _Loaded(detector, config, service)
        return loaded

    @serve.batch(max_batch_size=8, batch_wait_timeout_s=0.005, batch_size_fn=count_items)
    async def _detect(self, pieces: list[tuple[_Loaded, list[RGB]]]) -> list[list[Detected]]:
        from onmodel.detection.service import detect_and_decide

        async def work(loaded: _Loaded, images: list[RGB]) -> list[Detected]:
            with self._metrics.batch(len(images), loaded.config.batch_size):
                return await asyncio.to_thread(detect_and_decide, loaded.detector, loaded.config, images)

        return await by_model(pieces, work)

    @rpc
    async def Detect(self, request: pb.DetectRequest) -> pb.DetectResponse:
        return await self._model.loaded.service.detect(request)

    @rpc
    async def GetModelInfo(self, request: pb.GetModelInfoRequest) -> pb.GetModelInfoResponse:
        return self._model.loaded.service.model_info(self._model.error)


def build(args: DetectionArgs) -> Application:
    """The application, from a Serve config's `args`."""
    return Detection.bind(args)
