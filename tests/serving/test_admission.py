"""The gate in front of a service: what it lets in, and that what it refuses is not read."""

import asyncio
from collections.abc import AsyncIterator, Awaitable, Callable
from typing import Any

import grpc
import grpc.aio
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from onmodel.common.v1 import common_pb2
from onmodel.scoring.v1 import scoring_pb2 as pb
from onmodel.scoring.v1.scoring_pb2_grpc import ScoringServiceStub
from onmodel.serving import admission
from onmodel.serving.admission import LEAST, MOST, UNKNOWN, WAIT_S, Gate, add_scoring

OPTIONS = (("grpc.enable_http_proxy", 0), ("grpc.enable_retries", 0))


class Clock:
    def __init__(self) -> None:
        self.now = 100.0

    def __call__(self) -> float:
        return self.now


def work(gate: Gate, clock: Clock, rate: float, seconds: float, offered: float) -> tuple[list[float], int]:
    """A service of a fixed rate, first come first served, with evenly spaced offers: (waits in seconds, refusals)."""
    end, step = clock.now + seconds, 0.001
    arrived: list[float] = []
    waits: list[float] = []
    owed = due = 0.0
    refused = 0
    while clock.now < end:
        clock.now += step
        due += offered * step
        while due >= 1:
            due -= 1
            if gate.enter():
                arrived.append(clock.now)
            else:
                refused += 1
        owed = min(owed + rate * step, 1.0) if not arrived else owed + rate * step
        while owed >= 1 and arrived:
            owed -= 1
            waits.append(clock.now - arrived.pop(0))
            gate.leave(answered=True)
    while arrived:
        arrived.pop()
        gate.leave(answered=False)
    return waits, refused


def test_while_no_rate_is_known_there_is_a_limit_all_the_same() -> None:
    clock = Clock()
    gate = Gate(clock)
    assert [gate.enter() for _ in range(UNKNOWN + 3)] == [True] * UNKNOWN + [False] * 3


@settings(deadline=None, max_examples=20)
@given(rate=st.floats(20, 90), times=st.floats(1.5, 4))
def test_a_busy_service_is_given_what_it_can_do_in_time(rate: float, times: float) -> None:
    clock = Clock()
    gate = Gate(clock)
    work(gate, clock, rate, 30, times * rate)
    waits, refused = work(gate, clock, rate, 20, times * rate)
    assert refused > 0
    # At no time idle: all that it can do is done; nobody waits much longer than intended.
    assert len(waits) >= 0.97 * rate * 20
    assert max(waits) <= 1.3 * max(WAIT_S, LEAST / rate)


def test_a_service_that_grows_is_given_more() -> None:
    clock = Clock()
    gate = Gate(clock)
    work(gate, clock, 20, 30, 200)
    before = gate.limit
    work(gate, clock, 80, 30, 200)
    assert before < 120
    assert gate.limit > 350


def test_what_fails_at_once_does_not_look_quick() -> None:
    clock = Clock()
    gate = Gate(clock)
    work(gate, clock, 20, 30, 200)
    assert all(gate.enter() for _ in range(LEAST))
    for _ in range(2000):
        clock.now += 0.005
        gate.leave(answered=False)
        assert gate.enter()
    assert gate.limit == LEAST


@given(st.lists(st.tuples(st.sampled_from(["enter", "answer", "fail"]), st.floats(0, 20)), max_size=400))
def test_counts_never_drift_and_limits_hold(events: list[tuple[str, float]]) -> None:
    clock = Clock()
    gate = Gate(clock)
    inside = 0
    for event, seconds in events:
        clock.now += seconds
        if event == "enter":
            let_in = gate.enter()
            assert let_in == (inside < gate.limit)
            inside += let_in
        elif inside:
            gate.leave(answered=event == "answer")
            inside -= 1
        assert gate.inside == inside
        assert LEAST <= gate.limit <= MOST


class Servicer:
    """Answers when it is told to."""

    def __init__(self) -> None:
        self.seen = 0
        self.go = asyncio.Event()

    async def EmbedImages(self, request: pb.EmbedImagesRequest, context: Any) -> pb.EmbedImagesResponse:
        self.seen += 1
        await self.go.wait()
        if not request.images:
            context.set_code(grpc.StatusCode.INVALID_ARGUMENT)
        return pb.EmbedImagesResponse()

    def __getattr__(self, name: str) -> Any:
        return self.EmbedImages


class Counted:
    """In place of Ray's counter, which needs a cluster."""

    def __init__(self) -> None:
        self.tags: list[dict[str, str]] = []

    def inc(self, tags: dict[str, str]) -> None:
        self.tags.append(tags)


def served(test: Callable[[Servicer, Any, Gate, str], Awaitable[None]], monkeypatch: pytest.MonkeyPatch) -> None:
    """Run `test` with a servicer behind a gate that holds two, a stub for it, the gate and the address."""
    monkeypatch.setattr(admission, "LEAST", 2)
    monkeypatch.setattr(admission, "UNKNOWN", 2)
    gates: list[Gate] = []

    def made() -> Gate:
        gates.append(Gate())
        return gates[-1]

    monkeypatch.setattr(admission, "Gate", made)

    async def run() -> None:
        server, servicer = grpc.aio.server(), Servicer()
        add_scoring(servicer, server)
        port = server.add_insecure_port("127.0.0.1:0")
        await server.start()
        async with grpc.aio.insecure_channel(f"127.0.0.1:{port}", options=OPTIONS) as channel:
            await test(servicer, ScoringServiceStub(channel), gates[0], f"127.0.0.1:{port}")
        await server.stop(None)

    asyncio.run(run())


REQUEST = pb.EmbedImagesRequest(images=[common_pb2.Image(data=b"x")])


async def until(condition: Callable[[], bool]) -> None:
    async with asyncio.timeout(30):
        while not condition():
            await asyncio.sleep(0.005)


def test_one_too_many_is_refused_before_it_is_read(monkeypatch: pytest.MonkeyPatch) -> None:
    async def test(servicer: Servicer, stub: Any, gate: Gate, address: str) -> None:
        counted = Counted()
        monkeypatch.setattr(admission, "_refused", lambda: counted)
        inside = [stub.EmbedImages(REQUEST), stub.EmbedImages(REQUEST)]
        await until(lambda: servicer.seen == 2)

        # A caller that sends a header and never a message: were the message waited for, no answer would come.
        async def nothing() -> AsyncIterator[bytes]:
            await asyncio.sleep(60)
            yield b""

        async with grpc.aio.insecure_channel(address, options=OPTIONS) as channel:
            call = channel.stream_unary("/onmodel.scoring.v1.ScoringService/EmbedImages")(nothing())
            with pytest.raises(grpc.aio.AioRpcError) as caught:
                await asyncio.wait_for(call, 30)
        assert caught.value.code() is grpc.StatusCode.RESOURCE_EXHAUSTED
        assert caught.value.details() == "2 requests are at scoring already, about 5 s of work"
        assert int(dict(caught.value.trailing_metadata() or ())["grpc-retry-pushback-ms"]) >= 500
        assert counted.tags == [{"application": "scoring"}]
        servicer.go.set()
        await asyncio.gather(*inside)
        assert (servicer.seen, gate.inside) == (2, 0)
        await stub.EmbedImages(REQUEST)

    served(test, monkeypatch)


def test_who_gives_up_or_fails_leaves(monkeypatch: pytest.MonkeyPatch) -> None:
    async def test(servicer: Servicer, stub: Any, gate: Gate, address: str) -> None:
        calls = [stub.EmbedImages(REQUEST), stub.EmbedImages(REQUEST)]
        await until(lambda: servicer.seen == 2)
        for call in calls:
            call.cancel()
        await until(lambda: gate.inside == 0)
        servicer.go.set()
        with pytest.raises(grpc.aio.AioRpcError) as caught:
            await stub.EmbedImages(pb.EmbedImagesRequest())
        assert caught.value.code() is grpc.StatusCode.INVALID_ARGUMENT
        async with grpc.aio.insecure_channel(address, options=OPTIONS) as channel:
            raw = channel.unary_unary("/onmodel.scoring.v1.ScoringService/EmbedImages")
            with pytest.raises(grpc.aio.AioRpcError) as caught:
                await raw(b"\xff" * 9)
            assert caught.value.code() is grpc.StatusCode.UNKNOWN
            empty = channel.stream_unary("/onmodel.scoring.v1.ScoringService/EmbedImages")
            with pytest.raises(grpc.aio.AioRpcError) as caught:
                await empty(_none())
            assert caught.value.code() is grpc.StatusCode.INVALID_ARGUMENT
        await until(lambda: gate.inside == 0)

    served(test, monkeypatch)


async def _none() -> AsyncIterator[bytes]:
    for nothing in ():
        yield nothing
