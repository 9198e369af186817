"""The constants of docs/scaling.md: what a request, a megabyte and a picture cost, and two replicas against one.

    python tests/benchmarks/bench_scaling.py

Each is the median of several turns on a warm service. A proxy's cost is that of requests that need no model; a
megabyte's is that of bytes which are no picture, so that decoding costs nothing.
"""

import statistics
import time
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor

import numpy as np

from onmodel.core.images import encode_png
from onmodel.detection.config import DetectorConfig
from onmodel.scoring.config import ScorerConfig
from onmodel.serving.local import TIMEOUT_S, Services, plan_apps

TURNS, CALLERS, REQUESTS = 5, 8, 200
SHORT, MEGABYTES = 16, 8
PICTURES = 512
PER_REQUEST = 64


def seconds(work: Callable[[], object], turns: int = TURNS) -> float:
    """The median over turns, after one to warm up."""
    work()
    taken: list[float] = []
    for _ in range(turns):
        start = time.perf_counter()
        work()
        taken.append(time.perf_counter() - start)
    return statistics.median(taken)


def pictures() -> list[bytes]:
    """Noise, 96 px, as PNG: about 27 kB each."""
    rng = np.random.default_rng(0)
    return [encode_png(rng.integers(0, 256, (96, 96, 3), dtype=np.uint8)) for _ in range(PICTURES)]


def together(work: Callable[[int], object], count: int) -> Callable[[], object]:
    """`count` calls from CALLERS threads."""

    def run() -> None:
        with ThreadPoolExecutor(CALLERS) as pool:
            list(pool.map(work, range(count)))

    return run


def service_rates(replicas: int) -> tuple[float, float]:
    """Pictures a second of detection, a core a replica, and of scoring, all cores a replica."""
    encoded = pictures()
    plan = plan_apps(DetectorConfig.preset("toybox"), ScorerConfig(), detection_replicas=2)
    for name, app in plan.items():
        plan[name] = app.model_copy(update={"replicas": replicas})
    services = Services(None, plan, TIMEOUT_S)
    try:
        services.start("detection", "scoring")
        detection = PICTURES / seconds(lambda: services.detection.detect(encoded))
        scoring = PICTURES / seconds(lambda: services.scoring.embed_images(encoded))
    finally:
        services.close()
    return detection, scoring


def proxy_rates() -> tuple[float, float]:
    """Short requests a second, and megabytes a second, through one proxy."""
    services = Services(None, plan_apps(None, None), TIMEOUT_S)
    try:
        services.start("scoring")
        client = services.scoring
        short = seconds(together(lambda _: client.model_info(), REQUESTS)) / REQUESTS
        junk = bytes(MEGABYTES << 20)
        long = seconds(together(lambda _: client.embed_images([junk]), SHORT)) / SHORT
    finally:
        services.close()
    return 1 / short, MEGABYTES / max(1e-9, long - short)


def main() -> None:
    """Print the constants, and what follows from them."""
    print("name | value | target | met")
    requests, megabytes = proxy_rates()
    print(f"one proxy: short requests | {requests:.0f} /s | |")
    print(f"one proxy: bytes | {megabytes:.0f} MB/s | |")
    one, two = service_rates(1), service_rates(2)
    for name, first, second in zip(("detection", "scoring"), one, two, strict=True):
        print(f"{name}: one replica | {first:.0f} pictures/s | |")
        print(f"{name}: two replicas against one | {second / first:.2f} | |")
    for kilobytes in (30, 500, 2000):
        through = 1 / (1 / requests / PER_REQUEST + kilobytes / 1024 / megabytes)
        carried = f"{through / one[0]:.0f} of detection, {through / one[1]:.0f} of scoring"
        print(f"one proxy, pictures of {kilobytes} kB | {through:.0f} pictures/s: replicas {carried} | |")


if __name__ == "__main__":
    main()
