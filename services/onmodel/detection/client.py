"""Client of the detection service."""

from collections.abc import Callable, Sequence

from onmodel.common.channel import ServiceClient, chunks
from onmodel.common.convert import ModelInfo, image_to_wire, model_info_from_wire
from onmodel.core.errors import ImageError
from onmodel.detection.convert import Detected, result_from_wire
from onmodel.detection.v1 import detection_pb2 as pb
from onmodel.detection.v1.detection_pb2_grpc import DetectionServiceStub

__all__ = ["Detected", "DetectionClient", "ModelInfo"]


class DetectionClient(ServiceClient):
    """Findings from a running service. Pictures are encoded bytes, as they lie on disk.

    Every method raises ServiceError when the service does not answer in time, UserError when it refuses.
    """

    def __init__(self, address: str, *, timeout_s: float = 120.0) -> None:
        super().__init__(address, "detection", timeout_s=timeout_s)
        self._stub = DetectionServiceStub(self._channel)

    def detect(
        self, images: Sequence[bytes], *, advance: Callable[[int], object] | None = None
    ) -> list[Detected | ImageError]:
        """What is in each picture, or its error, in order. Any number of pictures.

        `advance` is called with the number of pictures that each answer brought.
        """
        requests = (pb.DetectRequest(images=map(image_to_wire, part)) for part in chunks(images))
        outcomes: list[Detected | ImageError] = []
        for response in self.pipeline(self._stub.Detect, requests):
            outcomes.extend(map(result_from_wire, response.results))
            if advance is not None:
                advance(len(response.results))
        return outcomes

    def model_info(self) -> ModelInfo:
        """Which detector answers, under which settings."""
        response = self.call(self._stub.GetModelInfo, pb.GetModelInfoRequest())
        return model_info_from_wire(response.model)

    def reload_error(self) -> str:
        """Why the model asked for last could not take the place of the one that answers; empty when it has."""
        return self.call(self._stub.GetModelInfo, pb.GetModelInfoRequest()).reload_error

    def trailing(self) -> dict[str, str]:
        """The trailing metadata of one short request: its id, and the service's clock (common.trace)."""
        return self.call_with_trailing(self._stub.GetModelInfo, pb.GetModelInfoRequest())[1]
