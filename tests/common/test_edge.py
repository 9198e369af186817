"""Every request is counted and logged once, and what it fails of becomes a status."""

import asyncio
import logging
from typing import Any

import grpc
import pytest

from onmodel.common import metrics, trace
from onmodel.common.edge import rpc
from onmodel.core.errors import UserError


class Counted(metrics.RequestMetrics):
    """Keeps what would go to Prometheus."""

    def __init__(self) -> None:
        self.ended: list[tuple[str, str]] = []
        self.open = 0

    def begin(self) -> float:
        self.open += 1
        return 0.0

    def end(self, method: str, code: str, begun: float) -> float:
        self.open -= 1
        self.ended.append((method, code))
        return 0.25


class Context:
    """What Serve hands to a method."""

    def __init__(self, **metadata: str) -> None:
        self._metadata = list(metadata.items())
        self.trailing: list[tuple[str, str]] = [("request_id", "made-by-serve")]
        self.code: grpc.StatusCode | None = None
        self.details = ""

    def invocation_metadata(self) -> list[tuple[str, str]]:
        return self._metadata

    def trailing_metadata(self) -> list[tuple[str, str]]:
        return self.trailing

    def set_trailing_metadata(self, value: list[tuple[str, str]]) -> None:
        self.trailing = value

    def set_code(self, code: grpc.StatusCode) -> None:
        self.code = code

    def set_details(self, details: str) -> None:
        self.details = details


def ask(request: Any, context: Context) -> Any:
    async def go() -> Any:
        return await Service().Ask(request, context)

    return asyncio.run(go())


class Service:
    @rpc
    async def Ask(self, request: Any) -> Any:
        if isinstance(request, BaseException):
            raise request
        await asyncio.sleep(request)
        return trace.current.get()


@pytest.fixture
def counted(monkeypatch: pytest.MonkeyPatch) -> Counted:
    made = Counted()
    monkeypatch.setattr(metrics, "requests", lambda: made)
    return made


def test_an_answer_knows_its_request(counted: Counted, caplog: pytest.LogCaptureFixture) -> None:
    context = Context(request_id="r-1")
    with caplog.at_level(logging.INFO, logger="ray.serve"):
        found = ask(0, context)
    assert found.request_id == "r-1" and dict(context.trailing)["x-request-id"] == "r-1"
    assert counted.ended == [("Ask", "OK")] and counted.open == 0
    (record,) = caplog.records
    assert (record.__dict__["method"], record.__dict__["code"], record.__dict__["duration_ms"]) == ("Ask", "OK", 250.0)
    assert trace.current.get() is None


def test_who_names_nothing_gets_serves_id(counted: Counted) -> None:
    assert ask(0, Context()).request_id == "made-by-serve"


@pytest.mark.parametrize(
    ("error", "code", "says"),
    [
        (UserError("too many images"), grpc.StatusCode.INVALID_ARGUMENT, "too many images"),
        (ValueError("broken"), grpc.StatusCode.INTERNAL, "request r-2"),
    ],
)
def test_failures_have_a_code_and_a_sentence(
    counted: Counted, error: Exception, code: grpc.StatusCode, says: str
) -> None:
    context = Context(request_id="r-2")
    with pytest.raises(type(error)):
        ask(error, context)
    assert context.code is code and says in context.details
    assert counted.ended == [("Ask", code.name)] and counted.open == 0


def test_a_request_that_is_broken_off_is_counted_as_that(counted: Counted) -> None:
    async def go() -> None:
        call = asyncio.ensure_future(Service().Ask(60, Context()))
        await asyncio.sleep(0.01)
        call.cancel()
        await asyncio.gather(call, return_exceptions=True)

    asyncio.run(go())
    assert counted.ended == [("Ask", "CANCELLED")] and counted.open == 0
