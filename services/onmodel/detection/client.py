"""Client of the detection service."""

from collections.abc import Callable, Sequence
from typing import Any

from onmodel.common.convert import ModelInfo
from onmodel.common.model_client import ModelClient
from onmodel.core.errors import ImageError
from onmodel.detection.convert import Detected, result_from_wire
from onmodel.detection.v1 import detection_pb2 as pb
from onmodel.detection.v1.detection_pb2_grpc import DetectionServiceStub

__all__ = ["Detected", "DetectionClient", "ModelInfo"]


class DetectionClient(ModelClient):
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
        results = self._results(self._stub.Detect, pb.DetectRequest, images, advance)
        return [result_from_wire(result) for result in results]

    def _info(self) -> tuple[Any, Any]:
        return self._stub.GetModelInfo, pb.GetModelInfoRequest()
