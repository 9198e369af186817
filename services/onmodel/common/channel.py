"""One gRPC client for all services: deadlines, retries, the application's name, errors as sentences."""

import collections
import contextlib
import json
import os
from collections.abc import Callable, Generator, Iterable, Iterator, Sequence
from pathlib import Path
from types import TracebackType
from typing import Any, Self, TypeVar

import grpc

from onmodel.common import trace
from onmodel.core.errors import (
    ConflictError,
    ForbiddenError,
    NotFoundError,
    OnModelError,
    ResourceError,
    ServiceError,
    UserError,
)

Response = TypeVar("Response")

MAX_MESSAGE_BYTES = 256 << 20
"""Largest request or reply, 256 MiB, here and at the services' proxy; a bare channel stops at 4 MB, the proxy's own
choice is 2 GiB, of which a few at once fill a machine."""
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


class _Metadata(grpc.UnaryUnaryClientInterceptor, grpc.UnaryStreamClientInterceptor):
    """Adds what a request is called by (common.trace) and the key by which Serve's proxy finds the application.

    With a single application deployed the proxy accepts any value and none, so leaving it out works
    until a second one is there.
    """

    def __init__(self, application: str, token: str | None) -> None:
        self._entries = [("application", application)]
        if token is not None:
            self._entries.append(("authorization", f"Bearer {token}"))

    def intercept_unary_unary(self, continuation: Any, client_call_details: Any, request: Any) -> Any:
        given = [*(client_call_details.metadata or ()), *self._entries]
        return continuation(client_call_details._replace(metadata=[*given, *trace.outgoing(given)]), request)

    def intercept_unary_stream(self, continuation: Any, client_call_details: Any, request: Any) -> Any:
        return self.intercept_unary_unary(continuation, client_call_details, request)


def open_channel(address: str, application: str) -> grpc.Channel:
    """A channel to the proxy at `address` whose calls name `application`.

    `grpcs://HOST:PORT` speaks TLS, checked against the system's authorities or those in the file that
    ONMODEL_TLS_CA names; HOST:PORT does not. A token (ONMODEL_TOKEN, or in the file that ONMODEL_TOKEN_FILE
    names) is sent as `authorization: Bearer` with every call.

    Raises UserError for a malformed address, a file that cannot be read, and a token that would cross a network in
    the clear.
    """
    target, secure = split_address(address)
    token = _token()
    if token is not None and not secure and not _is_loopback(target):
        raise UserError(
            f"{address}: a token is set (ONMODEL_TOKEN or ONMODEL_TOKEN_FILE) and this connection would carry it in "
            f"the clear; use grpcs://{target}, or unset it"
        )
    options: list[tuple[str, str | int]] = [
        ("grpc.service_config", _SERVICE_CONFIG),
        ("grpc.enable_retries", 1),
        ("grpc.max_send_message_length", MAX_MESSAGE_BYTES),
        ("grpc.max_receive_message_length", MAX_MESSAGE_BYTES),
        # A proxy configured for the outside world cannot reach this machine's own loopback.
        ("grpc.enable_http_proxy", 0 if _is_loopback(target) else 1),
    ]
    if secure:
        authorities = os.environ.get("ONMODEL_TLS_CA")
        roots = _read(authorities, "ONMODEL_TLS_CA") if authorities else None
        channel = grpc.secure_channel(target, grpc.ssl_channel_credentials(roots), options=options)
    else:
        channel = grpc.insecure_channel(target, options=options)
    return grpc.intercept_channel(channel, _Metadata(application, token))


def _token() -> str | None:
    file = os.environ.get("ONMODEL_TOKEN_FILE")
    token = _read(file, "ONMODEL_TOKEN_FILE").decode("ascii", "replace") if file else os.environ.get("ONMODEL_TOKEN")
    token = (token or "").strip()
    if token and not (token.isascii() and token.isprintable() and " " not in token):
        raise UserError("the token in ONMODEL_TOKEN or ONMODEL_TOKEN_FILE is not one line of plain characters")
    return token or None


def _read(file: str, variable: str) -> bytes:
    try:
        return Path(file).read_bytes()
    except OSError as error:
        raise UserError(f"{variable}={file}: cannot be read ({error.strerror}); check the path") from None


def _is_loopback(target: str) -> bool:
    host = target.rsplit(":", 1)[0].strip("[]")
    return host in ("localhost", "::1") or host.startswith("127.")


def split_address(address: str) -> tuple[str, bool]:
    """(HOST:PORT, whether to speak TLS) of HOST:PORT or grpcs://HOST:PORT. Raises UserError for anything else."""
    target = address.removeprefix("grpcs://")
    host, _, port = target.rpartition(":")
    if not host or "/" in host or not port.isdigit() or not 0 < int(port) < 65536:
        raise UserError(f"{address}: not an address of the form HOST:PORT; for example 127.0.0.1:9000")
    return target, target != address


class ServiceClient:
    """A connection to one application. Safe to use from several threads; close it or use it as a context."""

    def __init__(self, address: str, application: str, *, timeout_s: float) -> None:
        self.address = address
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
            return self._again(method, request, lambda: method(request, timeout=self._timeout_s))

    def call_with_trailing(self, method: Any, request: Any) -> tuple[Any, dict[str, str]]:
        """As `call`, and the reply's trailing metadata (common.trace)."""
        with self._errors():
            response, call = method.with_call(request, timeout=self._timeout_s)
        return response, {key: value for key, value in call.trailing_metadata() if isinstance(value, str)}

    def pipeline(self, method: Any, requests: Iterable[Any]) -> Iterator[Any]:
        """Replies to `requests` in their order, with IN_FLIGHT of them under way at once.

        Raises as `call`; the requests still under way are then cancelled.
        """
        window: collections.deque[tuple[Any, Any]] = collections.deque()

        def first() -> Any:
            request, call = window.popleft()
            return self._again(method, request, call.result)

        try:
            with self._errors():
                for request in requests:
                    window.append((request, method.future(request, timeout=self._timeout_s)))
                    if len(window) >= IN_FLIGHT:
                        yield first()
                while window:
                    yield first()
        finally:
            for _, call in window:
                call.cancel()

    def _again(self, method: Callable[..., Response], request: Any, answer: Callable[[], Response]) -> Response:
        """What `answer` gives; where the replica died under the request, it is sent once more, to another one.

        Serve's proxy tells that death as INTERNAL and not as UNAVAILABLE, after it has sent headers, so gRPC's own
        retry leaves it. Our requests are pure (a job's is known by its id), so sending one again is always right.
        """
        try:
            return answer()
        except grpc.RpcError as error:
            told: Any = error
            if told.code() is not grpc.StatusCode.INTERNAL or "actor died" not in (told.details() or ""):
                raise
        return method(request, timeout=self._timeout_s)

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
            case grpc.StatusCode.UNAUTHENTICATED:
                return UserError(
                    f"{self.address}: refuses the token ({details}); give one that counts there in ONMODEL_TOKEN or "
                    "ONMODEL_TOKEN_FILE"
                )
            case grpc.StatusCode.PERMISSION_DENIED:
                return ForbiddenError(details)
            case grpc.StatusCode.ALREADY_EXISTS:
                return ConflictError(details)
            case grpc.StatusCode.NOT_FOUND if "pplication" in details:
                return NotFoundError(
                    f"{self.address}: no application `{self._application}` is deployed there; "
                    "see `onmodel serve status`"
                )
            case grpc.StatusCode.NOT_FOUND:
                return NotFoundError(details)
            case grpc.StatusCode.RESOURCE_EXHAUSTED if "larger than max" in details:
                return UserError(
                    f"{self.address}: a message to or from {self._application} is too large ({details}); "
                    "send fewer or smaller pictures at once"
                )
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
