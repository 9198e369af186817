"""One gRPC client for all services: deadlines, retries, the application's name, errors as sentences."""

import collections
import contextlib
import json
from collections.abc import Callable, Generator, Iterable, Iterator, Sequence
from types import TracebackType
from typing import Any, Self, TypeVar

import grpc

from onmodel.core.errors import (
    ForbiddenError,
    NotFoundError,
    OnModelError,
    ResourceError,
    ServiceError,
    UserError,
)

Response = TypeVar("Response")

MAX_MESSAGE_BYTES = 1 << 30
"""Largest request or reply, 1 GiB; a bare channel stops at 4 MB."""
CHUNK_IMAGES = 64
CHUNK_BYTES = 16 << 20
"""A client cuts its work into requests of at most this many pictures and about this many bytes."""
IN_FLIGHT = 4
"""Requests that a client keeps going at once: enough that the service never waits for the wire."""

_SERVICE_CONFIG = json.dumps(
    {
        "methodConfig": [
            {
                "name": [{}],
                "retryPolicy": {
                    "maxAttempts": 5,
                    "initialBackoff": "0.1s",
                    "maxBackoff": "2s",
                    "backoffMultiplier": 2,
                    # UNAVAILABLE: a replica or proxy is being replaced. RESOURCE_EXHAUSTED: its queue is
                    # full; our requests are pure, so sending one again is always right.
                    "retryableStatusCodes": ["UNAVAILABLE", "RESOURCE_EXHAUSTED"],
                },
            }
        ]
    }
)


class _Application(grpc.UnaryUnaryClientInterceptor):
    """Adds the metadata key by which Serve's proxy finds the application.

    With a single application deployed the proxy accepts any value and none, so leaving it out works
    until a second one is there.
    """

    def __init__(self, name: str) -> None:
        self._entry = ("application", name)

    def intercept_unary_unary(self, continuation: Any, client_call_details: Any, request: Any) -> Any:
        metadata = [*(client_call_details.metadata or ()), self._entry]
        return continuation(client_call_details._replace(metadata=metadata), request)


def open_channel(address: str, application: str) -> grpc.Channel:
    """A channel to the proxy at `address` (HOST:PORT) whose calls name `application`."""
    options: list[tuple[str, str | int]] = [
        ("grpc.service_config", _SERVICE_CONFIG),
        ("grpc.enable_retries", 1),
        ("grpc.max_send_message_length", MAX_MESSAGE_BYTES),
        ("grpc.max_receive_message_length", MAX_MESSAGE_BYTES),
        # A proxy configured for the outside world cannot reach this machine's own loopback.
        ("grpc.enable_http_proxy", 0 if _is_loopback(address) else 1),
    ]
    channel = grpc.insecure_channel(address, options=options)
    return grpc.intercept_channel(channel, _Application(application))


def _is_loopback(address: str) -> bool:
    host = address.rsplit(":", 1)[0].strip("[]")
    return host in ("localhost", "::1") or host.startswith("127.")


def check_address(address: str) -> str:
    """`address` itself when it reads HOST:PORT. Raises UserError otherwise."""
    host, _, port = address.rpartition(":")
    if not host or not port.isdigit() or not 0 < int(port) < 65536:
        raise UserError(f"{address}: not an address of the form HOST:PORT; for example 127.0.0.1:9000")
    return address


class ServiceClient:
    """A connection to one application. Safe to use from several threads; close it or use it as a context."""

    def __init__(self, address: str, application: str, *, timeout_s: float) -> None:
        self.address = check_address(address)
        self._application = application
        self._timeout_s = timeout_s
        self._channel = open_channel(address, application)

    def close(self) -> None:
        """Close the connection; calls under way are cancelled."""
        self._channel.close()

    def __enter__(self) -> Self:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self.close()

    def call(self, method: Callable[..., Response], request: Any) -> Response:
        """One request with a deadline. Raises an OnModelError of the kind its status says."""
        with self._errors():
            return method(request, timeout=self._timeout_s)

    def pipeline(self, method: Any, requests: Iterable[Any]) -> Iterator[Any]:
        """Replies to `requests` in their order, with IN_FLIGHT of them under way at once.

        Raises as `call`; the requests still under way are then cancelled.
        """
        window: collections.deque[Any] = collections.deque()
        try:
            with self._errors():
                for request in requests:
                    window.append(method.future(request, timeout=self._timeout_s))
                    if len(window) >= IN_FLIGHT:
                        yield window.popleft().result()
                while window:
                    yield window.popleft().result()
        finally:
            for call in window:
                call.cancel()

    @contextlib.contextmanager
    def _errors(self) -> Generator[None]:
        try:
            yield
        except grpc.RpcError as error:
            raise self._explain(error) from None

    def _explain(self, error: Any) -> OnModelError:
        code: grpc.StatusCode = error.code()
        details: str = error.details() or code.name
        match code:
            case grpc.StatusCode.INVALID_ARGUMENT:
                return UserError(details)
            case grpc.StatusCode.PERMISSION_DENIED:
                return ForbiddenError(details)
            case grpc.StatusCode.NOT_FOUND if "pplication" in details:
                return NotFoundError(
                    f"{self.address}: no application `{self._application}` is deployed there; "
                    "see `onmodel serve status`"
                )
            case grpc.StatusCode.NOT_FOUND:
                return NotFoundError(details)
            case grpc.StatusCode.RESOURCE_EXHAUSTED:
                return ResourceError(f"{self.address}: {self._application} has too much to do ({details}); try later")
            case grpc.StatusCode.UNAVAILABLE:
                return ServiceError(
                    f"{self.address}: the {self._application} service does not answer ({details}); "
                    "start it with `onmodel serve up` or check the address"
                )
            case grpc.StatusCode.DEADLINE_EXCEEDED:
                return ServiceError(
                    f"{self.address}: no answer from {self._application} within {self._timeout_s:g} s; "
                    "it may be overloaded: send less at once or wait longer"
                )
            case _:
                return ServiceError(f"{self.address}: {self._application} answered {code.name}: {details}")


def chunks(images: Sequence[bytes]) -> Iterator[Sequence[bytes]]:
    """Cut `images` into runs of at most CHUNK_IMAGES and about CHUNK_BYTES (a larger picture goes alone)."""
    start = size = 0
    for index, image in enumerate(images):
        if index > start and (index - start >= CHUNK_IMAGES or size + len(image) > CHUNK_BYTES):
            yield images[start:index]
            start, size = index, 0
        size += len(image)
    if start < len(images):
        yield images[start:]
