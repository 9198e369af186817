"""Do the services answer, all the way through?"""

import time
from collections.abc import Callable, Iterator

import numpy as np

from onmodel.common.trace import SERVER_TIME_MS
from onmodel.core.errors import NotFoundError, OnModelError
from onmodel.core.images import encode_png
from onmodel.detection.client import DetectionClient
from onmodel.doctor.finding import Finding, ok, warning, wrong
from onmodel.jobs.client import problem_at
from onmodel.scoring.client import ScoringClient

TIMEOUT_S = 30.0
PAYLOAD_BYTES = 5_000_000
SKEW_WARNING_S = 5.0
"""Tokens and certificates are judged by the clock; logs of several machines are read side by side."""


def check_services(address: str | None) -> Iterator[Finding]:
    """Each application's model and clock, and a picture of 5 MB through gRPC; `address` None = none are running."""
    if address is None:
        yield ok("services", "none running here; a verb starts what it needs")
        return
    for name, kind in (("detection", DetectionClient), ("scoring", ScoringClient)):
        with kind(address, timeout_s=TIMEOUT_S) as client:
            yield from _guarded(name, lambda client=client, name=name: _application(name, client))
    with ScoringClient(address, timeout_s=TIMEOUT_S) as client:
        yield from _guarded("5 MB payload", lambda: iter([_payload(client)]))
    yield from _guarded("jobs", lambda: iter([_jobs(address)]))


def _guarded(checked: str, check: Callable[[], Iterator[Finding]]) -> Iterator[Finding]:
    """What `check` finds; what it raises is found to be wrong."""
    try:
        yield from check()
    except OnModelError as error:
        # The services' sentences end with what to do.
        found, _, advice = str(error).rpartition("; ")
        yield wrong(checked, found or advice, advice if found else "see `onmodel serve status` and the services' log")


def _application(name: str, client: DetectionClient | ScoringClient) -> Iterator[Finding]:
    model, error = client.model_info(), client.reload_error()
    shown = f"{model.name} ({model.hash[:12]}) at {client.address}"
    if error:
        yield warning(name, f"{shown}, which is not the model asked for last", f"mend this and give it again: {error}")
    else:
        yield ok(name, shown)
    sent = time.time()
    told = client.trailing().get(SERVER_TIME_MS)
    if told is not None:
        # Anything within the time that the request took may be the way rather than the clock.
        way = time.time() - sent
        skew = max(0.0, abs(int(told) / 1000 - (sent + way / 2)) - way / 2)
        if skew > SKEW_WARNING_S:
            yield warning(
                f"clock of {name}", f"differs by {skew:.0f} s from here", "run an NTP client on both machines"
            )


def _jobs(address: str) -> Finding:
    try:
        problem = problem_at(address, timeout_s=TIMEOUT_S)
    except NotFoundError:
        return ok("jobs", "no job service there; `onmodel submit` uses Ray's own job API")
    if problem is None:
        return ok("jobs", f"the job service at {address} answers")
    found, _, advice = problem.rpartition("; ")
    return wrong("jobs", found or advice, advice if found else "see whether the cluster's dashboard runs")


def _payload(client: ScoringClient) -> Finding:
    """One picture of noise, which no compression makes smaller, there and back."""
    side = int((PAYLOAD_BYTES / 3) ** 0.5) + 1
    noise = np.random.default_rng(0).integers(0, 256, (side, side, 3), dtype=np.uint8)
    data = encode_png(noise)
    begun = time.monotonic()
    (result,) = client.embed_images([data])
    seconds = time.monotonic() - begun
    if isinstance(result, Exception):
        return wrong(
            "5 MB payload", f"{len(data)} bytes went through and were refused ({result})", "see the service's log"
        )
    return ok("5 MB payload", f"{len(data) / 1e6:.1f} MB picture embedded in {seconds:.2f} s")
