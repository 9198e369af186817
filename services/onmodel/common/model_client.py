"""What the clients of services with a model share: results of any number of pictures, and what the model is."""

from abc import ABC, abstractmethod
from collections.abc import Callable, Iterator, Sequence
from typing import Any

from onmodel.common.channel import ServiceClient, chunks
from onmodel.common.convert import ModelInfo, image_to_wire, model_info_from_wire


class ModelClient(ServiceClient, ABC):
    """A connection to an application with a `GetModelInfo` method."""

    @abstractmethod
    def _info(self) -> tuple[Any, Any]:
        """The service's `GetModelInfo` and a request for it."""

    def model_info(self) -> ModelInfo:
        """Which model answers, under which settings."""
        return model_info_from_wire(self.call(*self._info()).model)

    def reload_error(self) -> str:
        """Why the model asked for last could not take the place of the one that answers; empty when it has."""
        return self.call(*self._info()).reload_error

    def trailing(self) -> dict[str, str]:
        """The trailing metadata of one short request: its id, and the service's clock (common.trace)."""
        return self.call_with_trailing(*self._info())[1]

    def _results(
        self, method: Any, request: Any, images: Sequence[bytes], advance: Callable[[int], object] | None
    ) -> Iterator[Any]:
        """A result for each picture, in order, of a method whose request (a message's type) holds `images`."""
        for response in self.pipeline(method, (request(images=map(image_to_wire, part)) for part in chunks(images))):
            yield from response.results
            if advance is not None:
                advance(len(response.results))
