"""What the scoring service does with more than it can do, with callers that give up, and with replicas that die.

    python tests/benchmarks/bench_load.py [--seconds 300]

A client in a process of its own offers requests of 16 pictures at a fixed rate, whatever comes back (an open loop, so
that a slow service cannot slow its callers): 1, 2 and 4 times what a closed loop got answered before. No request is
sent again, except where replicas are killed: there the client is OnModel's own. Latencies count from the moment that a
request was due, so a client that falls behind does not look quick (coordinated omission, Gil Tene).
"""

import argparse
import asyncio
import collections
import contextlib
import json
import subprocess
import sys
import threading
import time
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from typing import Any, NamedTuple

import grpc
import grpc.aio
import numpy as np
import psutil

from onmodel.common.v1 import common_pb2
from onmodel.core.errors import OnModelError
from onmodel.core.images import encode_png
from onmodel.scoring.client import ScoringClient
from onmodel.scoring.v1 import scoring_pb2 as pb
from onmodel.scoring.v1.scoring_pb2_grpc import ScoringServiceStub
from onmodel.serving.admission import LEAST, WAIT_S
from onmodel.serving.local import Services, plan_apps

PICTURES = 16
CALLERS = 32
"""Of the closed loop: enough that a replica never waits for the next request."""
DEADLINE_S = 120.0
REPLICAS = 2
SETTLED = 0.2
"""Share of a run after which it counts as settled; before, the gate learns how fast the service is."""
GIVE_UP_S = 0.05
KILL_EVERY_S = 10.0
METHOD = "/onmodel.scoring.v1.ScoringService/EmbedImages"
METADATA = (("application", "scoring"),)
OPTIONS = (("grpc.enable_http_proxy", 0), ("grpc.enable_retries", 0))


class Outcome(NamedTuple):
    """What came of one request; times in seconds."""

    status: str
    latency: float
    ended: float
    """After the run began."""


def request() -> Any:
    """Pictures of noise, 96 px."""
    rng = np.random.default_rng(0)
    pictures = [encode_png(rng.integers(0, 256, (96, 96, 3), dtype=np.uint8)) for _ in range(PICTURES)]
    return pb.EmbedImagesRequest(images=[common_pb2.Image(data=data) for data in pictures])


async def closed_loop(address: str, seconds: float) -> float:
    """Requests a second that are answered when CALLERS always have one under way."""
    end, answered, message = time.monotonic() + seconds, 0, request()
    async with grpc.aio.insecure_channel(address, options=OPTIONS) as channel:
        stub: Any = ScoringServiceStub(channel)

        async def caller() -> None:
            nonlocal answered
            while time.monotonic() < end:
                await stub.EmbedImages(message, timeout=DEADLINE_S, metadata=METADATA)
                answered += 1

        begin = time.monotonic()
        await asyncio.gather(*(caller() for _ in range(CALLERS)))
        return answered / (time.monotonic() - begin)


async def open_loop(address: str, rate: float, seconds: float, cancel: float) -> list[Outcome]:
    """What came of each request; a share `cancel` of them is given up after GIVE_UP_S.

    The message is made into bytes once: making load should not be the load.
    """
    message, outcomes = request().SerializeToString(), list[Outcome]()
    give_up = np.random.default_rng(1).random(int(rate * seconds)) < cancel
    async with grpc.aio.insecure_channel(address, options=OPTIONS) as channel:
        method: Any = channel.unary_unary(METHOD, response_deserializer=pb.EmbedImagesResponse.FromString)

        async def one(due: float, gives_up: bool) -> None:
            call = method(message, timeout=DEADLINE_S, metadata=METADATA)
            if gives_up:
                await asyncio.sleep(GIVE_UP_S)
                call.cancel()
            try:
                reply = await call
                well = len(reply.results) == PICTURES
                status = "OK" if well else "INCOMPLETE"
            except asyncio.CancelledError:
                status = "CANCELLED"
            except grpc.aio.AioRpcError as error:
                status = error.code().name
            ended = time.monotonic()
            outcomes.append(Outcome(status, ended - due, ended - begin))

        tasks: list[asyncio.Task[None]] = []
        begin = time.monotonic()
        for number, gives_up in enumerate(give_up):
            due = begin + number / rate
            await asyncio.sleep(max(0.0, due - time.monotonic()))
            tasks.append(asyncio.create_task(one(due, bool(gives_up))))
        await asyncio.wait_for(asyncio.gather(*tasks), timeout=2 * DEADLINE_S)
    return outcomes


def offered(address: str, rate: float, seconds: float, cancel: float = 0.0) -> list[Outcome]:
    """`open_loop` in a process of its own."""
    command = [sys.executable, __file__, "--client", address, str(rate), str(seconds), str(cancel)]
    done = subprocess.run(command, capture_output=True, text=True, check=True, timeout=seconds + 3 * DEADLINE_S)
    return [Outcome(*row) for row in json.loads(done.stdout)]


def replicas() -> list[psutil.Process]:
    """The scoring replicas below this process."""
    found: list[psutil.Process] = []
    for process in psutil.Process().children(recursive=True):
        with contextlib.suppress(psutil.Error):
            if "ServeReplica:scoring" in " ".join(process.cmdline()):
                found.append(process)
    return found


def memory_mib() -> float:
    """Of all processes of the services, proxy included. Shared pages count once each, so growth is what matters."""
    total = 0
    for process in psutil.Process().children(recursive=True):
        with contextlib.suppress(psutil.Error):
            total += process.memory_info().rss
    return total / 2**20


def percentile(values: list[float], share: float) -> float:
    return float(np.percentile(values, share)) if values else float("nan")


class Report:
    """Prints a figure a line, and keeps them."""

    def __init__(self) -> None:
        self.rows: list[str] = []
        print("name | value | target | met")

    def add(self, name: str, value: str, target: str = "", met: bool | None = None) -> None:
        row = f"{name} | {value} | {target} | {'' if met is None else 'yes' if met else 'no'}"
        self.rows.append(row)
        print(row, flush=True)


def load(services: Services, seconds: float, report: Report) -> None:
    """Offer 1, 2 and 4 times what can be done, then half of it cancelled."""
    assert services.address is not None
    asyncio.run(closed_loop(services.address, min(10.0, seconds)))
    capacity = asyncio.run(closed_loop(services.address, min(60.0, seconds)))
    bound = 1.5 * max(WAIT_S, LEAST / capacity)
    report.add("capacity, closed loop", f"{capacity:.1f} requests/s of {PICTURES} pictures")
    before = memory_mib()
    for times in (1, 2, 4):
        outcomes = offered(services.address, times * capacity, seconds)
        by = collections.Counter(each.status for each in outcomes)
        accepted = [each.latency for each in outcomes if each.status == "OK"]
        refused = [each.latency for each in outcomes if each.status == "RESOURCE_EXHAUSTED"]
        other = {status: count for status, count in by.items() if status not in ("OK", "RESOURCE_EXHAUSTED")}
        name = f"{times} x offered"
        counted = sum(each.status == "OK" and SETTLED * seconds <= each.ended < seconds for each in outcomes)
        rate = counted / ((1 - SETTLED) * seconds)
        report.add(f"{name}: answered, of capacity", f"{rate / capacity:.2f}", ">= 0.9", rate >= 0.9 * capacity)
        report.add(f"{name}: accepted, 99 %", f"{percentile(accepted, 99):.1f} s", f"<= {bound:.1f} s",
                   percentile(accepted, 99) <= bound)  # fmt: skip
        if refused:
            report.add(f"{name}: refused", f"{len(refused)} of {len(outcomes)}")
            late = percentile(refused, 99)
            report.add(f"{name}: refused after, 99 %", f"{late:.2f} s", "<= 1 s", late <= 1)
        report.add(f"{name}: neither answered nor refused", f"{sum(other.values())} {other or ''}", "0", not other)
    outcomes = offered(services.address, 0.8 * capacity, min(60.0, seconds), cancel=0.5)
    kept = [each.status for each in outcomes if each.status != "CANCELLED"]
    well = sum(status == "OK" for status in kept)
    report.add("half cancelled: the others answered", f"{well} of {len(kept)}", "all", well == len(kept))
    grown = memory_mib() / before - 1
    report.add("memory after all of it, against before", f"{100 * grown:+.0f} %", "<= 10 %", grown <= 0.1)


def kills(services: Services, seconds: float, report: Report) -> None:
    """Kill a replica every KILL_EVERY_S under half of the load; the client sends again what is UNAVAILABLE."""
    assert services.address is not None
    stop, killed = threading.Event(), 0

    def killer() -> None:
        nonlocal killed
        while not stop.wait(KILL_EVERY_S):
            alive = replicas()
            # One is left to answer, as in a deployment that is sized for the loss of one.
            if len(alive) >= REPLICAS:
                alive[killed % len(alive)].kill()
                killed += 1

    data = [image.data for image in request().images]
    failures, answered = collections.Counter[str](), 0

    def caller(client: ScoringClient) -> None:
        nonlocal answered
        end = time.monotonic() + seconds
        while time.monotonic() < end:
            try:
                client.embed_images(data)
                answered += 1
            except OnModelError as error:
                failures[str(error)] += 1

    thread = threading.Thread(target=killer)
    thread.start()
    with ScoringClient(services.address) as client, ThreadPoolExecutor(CALLERS // 4) as pool:
        list(pool.map(caller, [client] * (CALLERS // 4)))
    stop.set()
    thread.join()
    report.add("replicas killed, one each 10 s", f"{killed}", ">= 1", killed >= 1)
    report.add("replicas killed: requests answered", f"{answered}")
    report.add("replicas killed: failures past the retries", f"{sum(failures.values())} {dict(failures) or ''}", "0",
               not failures)  # fmt: skip


def main() -> None:
    if sys.argv[1:2] == ["--client"]:
        address, rate, seconds, cancel = sys.argv[2], *map(float, sys.argv[3:6])
        sys.stdout.write(json.dumps(asyncio.run(open_loop(address, rate, seconds, cancel))))
        return
    parser = argparse.ArgumentParser()
    parser.add_argument("--seconds", type=float, default=300.0, help="Of each rate, and of the kills.")
    parser.add_argument("--only", choices=("load", "kills"))
    given = parser.parse_args()
    plan = plan_apps(None, None)
    plan["scoring"] = plan["scoring"].model_copy(update={"replicas": REPLICAS})
    services = Services(None, plan, DEADLINE_S)
    parts: dict[str, Callable[[Services, float, Report], None]] = {"load": load, "kills": kills}
    report = Report()
    try:
        services.start("scoring")
        for name, part in parts.items():
            if given.only in (None, name):
                part(services, given.seconds, report)
    finally:
        services.close()


if __name__ == "__main__":
    main()
