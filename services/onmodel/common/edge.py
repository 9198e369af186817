"""The one edge at which an exception inside a service becomes a gRPC status."""

import asyncio
import functools
import logging
from collections.abc import Awaitable, Callable
from typing import Any, TypeVar

from onmodel.core.errors import OnModelError, status_code

logger = logging.getLogger("ray.serve")

Request = TypeVar("Request")
Response = TypeVar("Response")


def rpc(
    method: Callable[[Any, Request], Awaitable[Response]],
) -> Callable[[Any, Request, Any], Awaitable[Response]]:
    """Give a deployment's method `(self, request)` the signature that Serve calls, and map what it raises.

    An OnModelError travels as its status code (core.errors) and its sentence; anything else is a fault
    of ours: INTERNAL with the exception's type, the traceback in the service's log.
    """

    @functools.wraps(method)
    async def call(self: Any, request: Request, grpc_context: Any) -> Response:
        try:
            return await method(self, request)
        except asyncio.CancelledError:
            raise
        except Exception as error:
            grpc_context.set_code(status_code(error))
            if isinstance(error, OnModelError):
                grpc_context.set_details(str(error))
            else:
                logger.exception("%s failed", method.__name__)
                grpc_context.set_details(
                    f"{method.__name__} failed inside the service ({type(error).__name__}: {error}); see its log"
                )
            raise

    # Serve reads the signature to see whether to pass `grpc_context`; `wraps` would show it the inner one.
    del call.__wrapped__  # pyright: ignore[reportAttributeAccessIssue]
    return call
