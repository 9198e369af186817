"""Refuses, in Serve's gRPC proxy, what a service could only answer late, before the request is read.

Serve refuses a request when its own queue is full, but only after the proxy has received, parsed and routed it. Where
more is offered than can be done, that work for requests which are then refused takes the time of those that are not:
pictures are large. Here a request is refused on its header: HTTP/2's flow control then leaves most of its body with the
caller. How many are let in follows from how fast they are answered: no more than WAIT_S of work, so that what is
accepted is answered soon (Little's law: requests inside = rate x time inside).

The functions `add_…` are what Serve's `grpc_servicer_functions` names; each proxy counts for itself.
"""

import math
import random
import time
from collections.abc import AsyncGenerator, AsyncIterator, Callable
from contextlib import asynccontextmanager
from functools import cache
from typing import Any

import grpc

WAIT_S = 5.0
"""A request is let in while those inside can be answered within so many seconds."""
LEAST = 64
"""So many are always let in: what one replica takes at once."""
MOST = 2048
"""So many at most, whatever the rate."""
UNKNOWN = 256
"""So many while no rate is known."""
REMEMBERED_S = 5.0
"""Seconds of busy time over which the rate is averaged, with weights that fall exponentially."""
KNOWN_S = 1.0
"""Busy time after which the rate counts as known."""
AGAIN_MS = (500, 2000)
"""When a refused caller that tries again should: between these, drawn anew each time, so that not all come at once."""


class Gate:
    """How many requests of one application are inside, and whether another one may come in.

    The rate of answers is taken while at least half of LEAST are inside: only a busy service shows what it can do.
    For one event loop; `clock` gives seconds.
    """

    def __init__(self, clock: Callable[[], float] = time.monotonic) -> None:
        self._clock = clock
        self._last = clock()
        self._busy_s = 0.0
        self._answered = 0.0
        self.inside = 0

    @property
    def rate(self) -> float | None:
        """Answers a second of a busy service, or None while it is not known."""
        return self._answered / self._busy_s if self._busy_s >= KNOWN_S else None

    @property
    def limit(self) -> int:
        """Requests that may be inside at once: from LEAST to MOST."""
        rate = self.rate
        return UNKNOWN if rate is None else max(LEAST, min(MOST, math.ceil(rate * WAIT_S)))

    def enter(self) -> bool:
        """Let one in, or not."""
        self._pass_time()
        if self.inside >= self.limit:
            return False
        self.inside += 1
        return True

    def leave(self, *, answered: bool) -> None:
        """One that was let in has ended: answered well, or with an error or given up by its caller."""
        self._pass_time()
        # What fails at once says nothing of how fast the service works.
        if answered and self._is_busy():
            self._answered += 1.0
        self.inside -= 1

    def _is_busy(self) -> bool:
        return self.inside >= LEAST // 2

    def _pass_time(self) -> None:
        now = self._clock()
        elapsed, self._last = now - self._last, now
        if self._is_busy():
            kept = math.exp(-elapsed / REMEMBERED_S)
            self._busy_s = self._busy_s * kept + REMEMBERED_S * (1 - kept)
            self._answered *= kept


def add_detection(servicer: Any, server: Any) -> None:
    """Detection, with a gate. Called by each of Serve's proxies with its server."""
    from onmodel.detection.v1.detection_pb2_grpc import add_DetectionServiceServicer_to_server

    add_DetectionServiceServicer_to_server(servicer, _Gated(server, "detection"))


def add_scoring(servicer: Any, server: Any) -> None:
    """Scoring, with a gate. Called by each of Serve's proxies with its server."""
    from onmodel.scoring.v1.scoring_pb2_grpc import add_ScoringServiceServicer_to_server

    add_ScoringServiceServicer_to_server(servicer, _Gated(server, "scoring"))


class _Gated:
    """What generated code sees in place of a grpc.aio server: adds the methods of one service behind one gate."""

    def __init__(self, server: Any, application: str) -> None:
        self._server = server
        self._application = application
        self._gate = Gate()

    def add_generic_rpc_handlers(self, handlers: Any) -> None:
        self._server.add_generic_rpc_handlers(handlers)
        # Only now: adding them, Serve has put its own behaviour into the dict in place of the servicer's.
        for handler in handlers:
            methods = handler._method_handlers
            handler._method_handlers = {name: self._behind(name, method) for name, method in methods.items()}

    def add_registered_method_handlers(self, service: str, handlers: Any) -> None:
        """Nothing: gRPC would look here first, and the generic handlers above have all methods."""

    def _behind(self, name: str, method: Any) -> Any:
        """A method that is asked before its message is read, and otherwise the same.

        On the wire a stream of one request is a single request, but gRPC calls its behaviour at once.
        """
        assert not method.request_streaming, name

        async def unary(requests: AsyncIterator[Any], context: Any) -> Any:
            async with self._let_in(context):
                return await method.unary_unary(await _only(requests, context), context)

        async def stream(requests: AsyncIterator[Any], context: Any) -> AsyncIterator[Any]:
            async with self._let_in(context):
                async for response in method.unary_stream(await _only(requests, context), context):
                    yield response

        if method.response_streaming:
            return grpc.stream_stream_rpc_method_handler(
                stream, method.request_deserializer, method.response_serializer
            )
        return grpc.stream_unary_rpc_method_handler(unary, method.request_deserializer, method.response_serializer)

    @asynccontextmanager
    async def _let_in(self, context: Any) -> AsyncGenerator[None]:
        """Around a request: refused here, or inside until it ends."""
        if not self._gate.enter():
            _refused().inc(tags={"application": self._application})
            # It raises. gRPC's clients with a retry policy wait as long as the metadata says (gRFC A6).
            await context.abort(
                grpc.StatusCode.RESOURCE_EXHAUSTED,
                f"{self._gate.inside} requests are at {self._application} already, about {WAIT_S:g} s of work",
                (("grpc-retry-pushback-ms", str(random.randint(*AGAIN_MS))),),
            )
        answered = False
        try:
            yield
            answered = not context.code()
        finally:
            self._gate.leave(answered=answered)


@cache
def _refused() -> Any:
    from ray.util.metrics import Counter

    # Serve's own count of errors begins behind the gate.
    return Counter(
        "onmodel_requests_refused_total",
        description="Requests refused before they were read, since the service has too much to do.",
        tag_keys=("application",),
    )


async def _only(requests: AsyncIterator[Any], context: Any) -> Any:
    async for request in requests:
        return request
    return await context.abort(grpc.StatusCode.INVALID_ARGUMENT, "a request without a message")
