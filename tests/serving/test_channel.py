"""What clients do with deadlines, retries, the application's name and failures, against a server in this process."""

from collections.abc import Iterator
from concurrent import futures
from typing import Any

import grpc
import pytest

from onmodel.common import channel
from onmodel.core.errors import ForbiddenError, ImageError, NotFoundError, ResourceError, ServiceError, UserError
from onmodel.scoring.client import ScoringClient
from onmodel.scoring.v1 import scoring_pb2 as pb
from onmodel.scoring.v1.scoring_pb2_grpc import ScoringServiceServicer, add_ScoringServiceServicer_to_server
from onmodel.serving.private_ray import free_port


class Fake(ScoringServiceServicer):
    """Embeds a picture as its length; an empty one is broken. Fails as it is told."""

    def __init__(self) -> None:
        self.applications: list[str] = []
        self.failures: list[tuple[grpc.StatusCode, str]] = []
        self.sizes: list[int] = []
        self.calls = 0

    def _enter(self, context: Any) -> None:
        self.calls += 1
        self.applications += [value for key, value in context.invocation_metadata() if key == "application"]
        if self.failures:
            code, details = self.failures.pop(0)
            context.abort(code, details)

    def EmbedImages(self, request: Any, context: Any) -> Any:
        self._enter(context)
        self.sizes.append(len(request.images))
        response = pb.EmbedImagesResponse()
        for image in request.images:
            if image.data:
                response.results.add().embedding.values.append(len(image.data))
            else:
                response.results.add().error.message = "picture: the file is empty"
        return response

    def GetModelInfo(self, request: Any, context: Any) -> Any:
        self._enter(context)
        response = pb.GetModelInfoResponse()
        response.model.name = "fake"
        return response


@pytest.fixture
def fake() -> Iterator[tuple[Fake, ScoringClient]]:
    servicer = Fake()
    server = grpc.server(futures.ThreadPoolExecutor(4), options=[("grpc.max_receive_message_length", -1)])
    add_ScoringServiceServicer_to_server(servicer, server)
    port = server.add_insecure_port("127.0.0.1:0")
    server.start()
    with ScoringClient(f"127.0.0.1:{port}", timeout_s=20) as client:
        yield servicer, client
    server.stop(None)


def test_many_pictures_are_cut_up_and_answered_in_order(fake: tuple[Fake, ScoringClient]) -> None:
    servicer, client = fake
    seen: list[int] = []
    pictures = [b"x" * (n + 1) for n in range(channel.CHUNK_IMAGES * 3 + 5)]
    results = client.embed_images(pictures, advance=seen.append)
    assert [int(r[0]) for r in results if not isinstance(r, ImageError)] == [len(p) for p in pictures]
    assert sorted(servicer.sizes) == [5, *[channel.CHUNK_IMAGES] * 3]
    assert sum(seen) == len(pictures)
    assert set(servicer.applications) == {"scoring"}


def test_big_pictures_are_cut_up_by_bytes() -> None:
    big = b"x" * (channel.CHUNK_BYTES // 2 + 1)
    assert [len(part) for part in channel.chunks([big, big, b"", b"", big, big * 3, b""])] == [1, 3, 1, 1, 1]
    assert list(channel.chunks([])) == []


def test_errors_come_back_per_picture(fake: tuple[Fake, ScoringClient]) -> None:
    _, client = fake
    good, broken = client.embed_images([b"abc", b""])
    assert not isinstance(good, ImageError)
    assert isinstance(broken, ImageError) and "empty" in str(broken)


@pytest.mark.parametrize("code", [grpc.StatusCode.UNAVAILABLE, grpc.StatusCode.RESOURCE_EXHAUSTED])
def test_passing_failures_are_tried_again(fake: tuple[Fake, ScoringClient], code: grpc.StatusCode) -> None:
    servicer, client = fake
    servicer.failures = [(code, "replica is gone")] * 2
    assert client.model_info().name == "fake"
    assert servicer.calls == 3


DIED = (grpc.StatusCode.INTERNAL, "The actor died unexpectedly before finishing this task.\n\tclass_name: Scoring")


def test_a_request_whose_replica_died_is_sent_once_more(fake: tuple[Fake, ScoringClient]) -> None:
    servicer, client = fake
    servicer.failures = [DIED]
    assert client.model_info().name == "fake"
    assert servicer.calls == 2
    servicer.failures = [DIED]
    pictures = [b"x" * (n + 1) for n in range(channel.CHUNK_IMAGES * 2)]
    results = client.embed_images(pictures)
    assert [int(r[0]) for r in results if not isinstance(r, ImageError)] == [len(p) for p in pictures]
    servicer.failures = [DIED, DIED]
    with pytest.raises(ServiceError, match="actor died"):
        client.model_info()


@pytest.mark.parametrize(
    ("code", "details", "kind"),
    [
        (grpc.StatusCode.INVALID_ARGUMENT, "too many images", UserError),
        (grpc.StatusCode.PERMISSION_DENIED, "not below a root", ForbiddenError),
        (grpc.StatusCode.NOT_FOUND, "Application 'scoring' not found.", NotFoundError),
        (grpc.StatusCode.INTERNAL, "a fault", ServiceError),
        (grpc.StatusCode.DEADLINE_EXCEEDED, "late", ServiceError),
    ],
)
def test_lasting_failures_are_raised_at_once(
    fake: tuple[Fake, ScoringClient], code: grpc.StatusCode, details: str, kind: type[Exception]
) -> None:
    servicer, client = fake
    servicer.failures = [(code, details)]
    with pytest.raises(kind):
        client.embed_images([b"x"])
    assert servicer.calls == 1


def test_a_full_queue_that_stays_full_is_a_resource_error(fake: tuple[Fake, ScoringClient]) -> None:
    servicer, client = fake
    servicer.failures = [(grpc.StatusCode.RESOURCE_EXHAUSTED, "queue is full")] * 10
    with pytest.raises(ResourceError, match="try later"):
        client.model_info()


def test_nobody_there_is_a_sentence_that_says_what_to_do() -> None:
    address = f"127.0.0.1:{free_port()}"
    with ScoringClient(address, timeout_s=10) as client, pytest.raises(ServiceError) as caught:
        client.model_info()
    assert address in str(caught.value) and "onmodel serve up" in str(caught.value)


@pytest.mark.parametrize("address", ["localhost", "localhost:", ":9000", "host:port", "host:70000", ""])
def test_malformed_addresses(address: str) -> None:
    with pytest.raises(UserError, match="HOST:PORT"):
        ScoringClient(address)
