"""What a request is called by on its way: sent by the client, logged by the service, returned in the trailing metadata.

`x-request-id` names one request, `traceparent` (W3C Trace Context, https://www.w3.org/TR/trace-context/) the work that
it is part of, `x-submission-id` the Ray job that the client runs in. A client makes what its caller has not given; a
service takes what it is given if it is harmless in a log, and passes over what is not.
"""

import json
import logging
import os
import re
import secrets
import time
import uuid
from collections.abc import Iterable
from contextvars import ContextVar
from dataclasses import dataclass
from functools import cache

REQUEST_ID = "x-request-id"
TRACEPARENT = "traceparent"
SUBMISSION_ID = "x-submission-id"
SERVER_TIME_MS = "x-server-time-ms"
"""Trailing metadata: the service's clock when it answered, in milliseconds since 1970."""
JOB_CONFIG = "RAY_JOB_CONFIG_JSON_ENV_VAR"
"""Where Ray leaves a job's description for its entry point and what that starts, as JSON."""
SERVE_REQUEST_ID = "request_id"
"""Serve's own key for the same: its logs name the request by it."""
_HARMLESS = re.compile(r"[A-Za-z0-9._:/=+-]{1,128}")
_TRACEPARENT = re.compile(r"[0-9a-f]{2}-([0-9a-f]{32})-([0-9a-f]{16})-[0-9a-f]{2}")

Metadata = list[tuple[str, str]]


@dataclass(frozen=True)
class Trace:
    """One request's names; empty where none was given."""

    request_id: str = ""
    traceparent: str = ""
    submission_id: str = ""

    @property
    def trace_id(self) -> str:
        """The 32 hex digits in `traceparent` that all requests of one piece of work share."""
        found = _TRACEPARENT.fullmatch(self.traceparent)
        return found[1] if found else ""

    def trailing(self) -> Metadata:
        """What a reply tells of its request, and the time at the service. Serve adds its own `request_id`."""
        now_ms = str(time.time_ns() // 1_000_000)
        named = [(REQUEST_ID, self.request_id), (TRACEPARENT, self.traceparent), (SERVER_TIME_MS, now_ms)]
        return [(key, value) for key, value in named if value]


current: ContextVar[Trace | None] = ContextVar("trace", default=None)
"""The request that this task works for."""


def outgoing(given: Iterable[tuple[str, str]] = ()) -> Metadata:
    """The metadata that a client adds to one request, beside what its caller has `given`."""
    has = dict(given)
    request_id = has.get(REQUEST_ID) or uuid.uuid4().hex
    made = {
        REQUEST_ID: request_id,
        SERVE_REQUEST_ID: request_id,
        TRACEPARENT: f"00-{_own_trace_id()}-{secrets.token_hex(8)}-01",
        SUBMISSION_ID: own_submission_id(),
    }
    return [(key, value) for key, value in made.items() if value and key not in has]


def incoming(metadata: Iterable[tuple[str, str | bytes]]) -> Trace:
    """The names in a request's metadata; what could not stand in a log is left out, and an id made where none is."""
    has = {key: value for key, value in metadata if isinstance(value, str) and _HARMLESS.fullmatch(value)}
    traceparent = has.get(TRACEPARENT, "")
    return Trace(
        request_id=has.get(REQUEST_ID) or has.get(SERVE_REQUEST_ID) or uuid.uuid4().hex,
        traceparent=traceparent if _TRACEPARENT.fullmatch(traceparent) else "",
        submission_id=has.get(SUBMISSION_ID, ""),
    )


@cache
def _own_trace_id() -> str:
    """This process's work: what TRACEPARENT in the environment names, else a new one."""
    found = _TRACEPARENT.fullmatch(os.environ.get("TRACEPARENT", ""))
    return found[1] if found else secrets.token_hex(16)


@cache
def own_submission_id() -> str:
    """The id of the Ray job whose entry point this process descends from; empty outside of one."""
    try:
        metadata = json.loads(os.environ.get(JOB_CONFIG, "{}")).get("metadata", {})
        return str(metadata.get("job_submission_id", ""))
    except (ValueError, AttributeError):
        return ""


class AddTrace(logging.Filter):
    """Gives each record the names of the request it is about. Serve itself adds `request_id`."""

    def filter(self, record: logging.LogRecord) -> bool:
        """Always true: it only adds."""
        trace = current.get()
        if trace is not None:
            record.x_request_id = trace.request_id
            if trace.trace_id:
                record.trace_id = trace.trace_id
            if trace.submission_id:
                record.submission_id = trace.submission_id
        return True
