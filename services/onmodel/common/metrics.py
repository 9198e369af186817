"""The services' own metrics, as Prometheus sees them with `ray_` before each name.

Ray's agent on each node collects them from the replicas and exports them (8080 on KubeRay); Serve adds the tags
`deployment`, `replica` and `application`. Rules and the dashboard in cluster/monitoring are made of these names.
"""

import time
from collections.abc import Generator
from contextlib import contextmanager
from functools import cache
from typing import Any

SECONDS = [0.005, 0.01, 0.025, 0.05, 0.1, 0.25, 0.5, 1.0, 2.5, 5.0, 10.0, 30.0, 60.0, 120.0, 300.0]
FILL = [0.0625, 0.125, 0.25, 0.375, 0.5, 0.625, 0.75, 0.875, 1.0]


def _serve_metrics() -> Any:
    # Its hints say that there can be one tag alone.
    from ray.serve import metrics

    return metrics


@cache
def requests() -> "RequestMetrics":
    """The one set of request metrics of this replica."""
    return RequestMetrics()


class RequestMetrics:
    """What every RPC counts. Made in a replica: the tags are known there."""

    def __init__(self) -> None:
        metrics = _serve_metrics()
        self._requests = metrics.Counter(
            "onmodel_requests_total",
            description="Requests answered, by the RPC's name and its gRPC status code.",
            tag_keys=("method", "code"),
        )
        self._seconds = metrics.Histogram(
            "onmodel_request_seconds",
            description="Time from a request's arrival in a replica to its answer.",
            boundaries=SECONDS,
            tag_keys=("method",),
        )
        self._gauge = metrics.Gauge("onmodel_requests_in_progress", description="Requests that a replica works on.")
        self._in_progress = 0

    def begin(self) -> float:
        """A request has arrived; gives the time to hand to `end`."""
        self._change(1)
        return time.monotonic()

    def end(self, method: str, code: str, begun: float) -> float:
        """It was answered with this status code; gives the seconds that it took."""
        self._change(-1)
        seconds = time.monotonic() - begun
        self._requests.inc(tags={"method": method, "code": code})
        self._seconds.observe(seconds, tags={"method": method})
        return seconds

    def _change(self, by: int) -> None:
        # All requests of a replica run in one event loop, so no two change it at once.
        self._in_progress += by
        self._gauge.set(self._in_progress)


class PictureMetrics:
    """What a service counts of pictures and batches. Made in a replica."""

    def __init__(self) -> None:
        metrics = _serve_metrics()
        self._images = metrics.Counter(
            "onmodel_images_total",
            description="Pictures answered: computed, or refused with an error of their own.",
            tag_keys=("outcome",),
        )
        self._waiting: Any = metrics.Gauge(
            "onmodel_images_waiting", description="Pictures that a replica has taken in and not yet answered."
        )
        self._fill = metrics.Histogram(
            "onmodel_batch_fill_ratio",
            description="Pictures in a batch over the most that the model takes at once.",
            boundaries=FILL,
        )
        self._seconds = metrics.Histogram(
            "onmodel_batch_seconds", description="Time of the model for one batch.", boundaries=SECONDS
        )
        self._reloads = metrics.Counter(
            "onmodel_model_loads_total",
            description="Models loaded, or kept because the one asked for could not be loaded.",
            tag_keys=("outcome",),
        )
        self._count = 0

    def taken(self, count: int) -> None:
        """A request has brought this many pictures."""
        self._change(count)

    def done(self, computed: int, refused: int, broken_off: int = 0) -> None:
        """So many of them are answered, or given up with their request."""
        self._change(-(computed + refused + broken_off))
        for outcome, count in (("computed", computed), ("refused", refused)):
            if count:
                self._images.inc(count, tags={"outcome": outcome})

    @contextmanager
    def batch(self, count: int, most: int) -> Generator[None]:
        """Around the model's work on one batch."""
        begun = time.monotonic()
        yield
        # A picture list that is longer than the batch is cut up by the model itself.
        self._fill.observe(min(1.0, count / most))
        self._seconds.observe(time.monotonic() - begun)

    def loaded(self, well: bool) -> None:
        """A model was asked for, and loaded or not."""
        self._reloads.inc(tags={"outcome": "loaded" if well else "failed"})

    def _change(self, by: int) -> None:
        self._count += by
        self._waiting.set(self._count)
