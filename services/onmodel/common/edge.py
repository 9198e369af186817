"""The one edge at which an exception inside a service becomes a gRPC status, and a request is counted and logged."""

import asyncio
import contextlib
import functools
import logging
from collections.abc import AsyncIterator, Awaitable, Callable, Generator
from typing import Any, TypeVar

import grpc

from onmodel.common import metrics, trace
from onmodel.core.errors import OnModelError, status_code

logger = logging.getLogger("ray.serve")
logger.addFilter(trace.AddTrace())

Request = TypeVar("Request")
Response = TypeVar("Response")


def rpc(
    method: Callable[[Any, Request], Awaitable[Response]],
) -> Callable[[Any, Request, Any], Awaitable[Response]]:
    """Give a deployment's method `(self, request)` the signature that Serve calls, and map what it raises.

    An OnModelError travels as its status code (core.errors) and its sentence; anything else is a fault
    of ours: INTERNAL with the exception's type and the request's id, the traceback in the service's log.
    Each request leaves one line there and counts in common.metrics.
    """

    @functools.wraps(method)
    async def call(self: Any, request: Request, grpc_context: Any) -> Response:
        with _edge(method.__name__, grpc_context):
            return await method(self, request)

    # Serve reads the signature to see whether to pass `grpc_context`; `wraps` would show it the inner one.
    del call.__wrapped__  # pyright: ignore[reportAttributeAccessIssue]
    return call


def rpc_stream(
    method: Callable[[Any, Request], AsyncIterator[Response]],
) -> Callable[[Any, Request, Any], AsyncIterator[Response]]:
    """`rpc` for a server-streaming method. The line in the log and the count come when the stream ends."""

    @functools.wraps(method)
    async def call(self: Any, request: Request, grpc_context: Any) -> AsyncIterator[Response]:
        with _edge(method.__name__, grpc_context):
            async for response in method(self, request):
                yield response

    del call.__wrapped__  # pyright: ignore[reportAttributeAccessIssue]
    return call


@contextlib.contextmanager
def _edge(name: str, grpc_context: Any) -> Generator[None]:
    # Serve's id, which it makes where it is given none, stands in the trailing metadata already.
    named = trace.incoming([*grpc_context.trailing_metadata(), *grpc_context.invocation_metadata()])
    outer = trace.current.get(None)
    trace.current.set(named)
    grpc_context.set_trailing_metadata(named.trailing())
    begun = metrics.requests().begin()
    code = grpc.StatusCode.OK
    try:
        yield
    except (asyncio.CancelledError, GeneratorExit):
        code = grpc.StatusCode.CANCELLED
        raise
    except Exception as error:
        code = status_code(error)
        grpc_context.set_code(code)
        if isinstance(error, OnModelError):
            grpc_context.set_details(str(error))
        else:
            logger.exception("%s failed", name)
            grpc_context.set_details(
                f"{name} failed inside the service ({type(error).__name__}: {error}); "
                f"see its log, request {named.request_id}"
            )
        raise
    finally:
        seconds = metrics.requests().end(name, code.name, begun)
        logger.info(
            "%s %s %.1fms",
            name,
            code.name,
            seconds * 1000,
            extra={"method": name, "code": code.name, "duration_ms": round(seconds * 1000, 1)},
        )
        trace.current.set(outer)
