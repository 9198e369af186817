"""The detection service's answers, made of a Detector and the rules. Knows messages; knows nothing of Ray."""

from collections.abc import Awaitable, Callable, Sequence

from onmodel.common.convert import ModelInfo, model_info_to_wire
from onmodel.common.pictures import Intake, Observer, Pipeline
from onmodel.core.images import RGB
from onmodel.detection.config import DetectorConfig
from onmodel.detection.convert import Detected, result_to_wire
from onmodel.detection.model import Detector
from onmodel.detection.rules import decide
from onmodel.detection.v1 import detection_pb2 as pb


def detect_and_decide(detector: Detector, config: DetectorConfig, images: Sequence[RGB]) -> list[Detected]:
    """Boxes from the model, then shot type and attributes from the rules, a picture each."""
    found = detector.detect(images)
    return [
        Detected(detections, decide(image, detections, config.shots))
        for image, detections in zip(images, found, strict=True)
    ]


class DetectionService:
    """One method per RPC, named in snake case. `detect` answers for decoded pictures, batched by the caller."""

    def __init__(
        self,
        detector: Detector,
        config: DetectorConfig,
        intake: Intake,
        detect: Callable[[list[RGB]], Awaitable[list[Detected]]],
        observer: Observer | None = None,
    ) -> None:
        self._detector = detector
        self._config = config
        self._pipeline = Pipeline[RGB, Detected](intake, config.batch_size, lambda image: image, detect, observer)

    async def detect(self, request: pb.DetectRequest) -> pb.DetectResponse:
        """A finding or an error per image."""
        outcomes = await self._pipeline.run(request.images)
        return pb.DetectResponse(results=map(result_to_wire, outcomes))

    def model_info(self, reload_error: str = "") -> pb.GetModelInfoResponse:
        """Which detector answers, under which settings, and why it is not the one asked for last."""
        info = ModelInfo(self._detector.name, self._detector.hash, self._config.hash)
        return pb.GetModelInfoResponse(model=model_info_to_wire(info), reload_error=reload_error)
