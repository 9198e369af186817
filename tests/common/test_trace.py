"""Requests have names that can stand in a log, from the client through the service and back."""

import json
import logging
import re

import pytest
from hypothesis import given
from hypothesis import strategies as st

from onmodel.common import trace

KEYS = st.sampled_from([trace.REQUEST_ID, trace.SERVE_REQUEST_ID, trace.TRACEPARENT, trace.SUBMISSION_ID, "other"])


@given(st.lists(st.tuples(KEYS, st.text() | st.binary())))
def test_whatever_a_client_sends_the_log_gets_harmless_names(metadata: list[tuple[str, str | bytes]]) -> None:
    found = trace.incoming(metadata)
    assert re.fullmatch(r"[A-Za-z0-9._:/=+-]{1,128}", found.request_id)
    assert re.fullmatch(r"[A-Za-z0-9._:/=+-]{0,128}", found.submission_id)
    assert re.fullmatch(r"([0-9a-f]{32})?", found.trace_id)
    # A reply's metadata is ASCII, whatever the request's was.
    assert all(value and value.isascii() and value.isprintable() for _, value in found.trailing())


def test_what_the_client_sends_is_what_the_service_reads() -> None:
    sent = trace.outgoing()
    found = trace.incoming(sent)
    assert found.request_id == dict(sent)[trace.REQUEST_ID] == dict(sent)[trace.SERVE_REQUEST_ID]
    assert found.traceparent == dict(sent)[trace.TRACEPARENT]
    told = dict(found.trailing())
    assert told[trace.REQUEST_ID] == found.request_id and told[trace.TRACEPARENT] == found.traceparent


def test_requests_of_one_process_share_their_trace_and_nothing_else() -> None:
    first, second = trace.incoming(trace.outgoing()), trace.incoming(trace.outgoing())
    assert first.trace_id == second.trace_id != ""
    assert first.request_id != second.request_id and first.traceparent != second.traceparent


def test_a_caller_that_names_its_request_is_not_overruled() -> None:
    given_by_caller = [(trace.REQUEST_ID, "mine"), (trace.TRACEPARENT, f"00-{'a' * 32}-{'b' * 16}-01")]
    added = dict(trace.outgoing(given_by_caller))
    assert added == {trace.SERVE_REQUEST_ID: "mine"}


def test_work_that_is_part_of_other_work_says_so(monkeypatch: pytest.MonkeyPatch) -> None:
    trace._own_trace_id.cache_clear()  # pyright: ignore[reportPrivateUsage]
    trace.own_submission_id.cache_clear()
    monkeypatch.setenv("TRACEPARENT", f"00-{'c' * 32}-{'d' * 16}-01")
    monkeypatch.setenv("RAY_JOB_CONFIG_JSON_ENV_VAR", json.dumps({"metadata": {"job_submission_id": "job-1"}}))
    found = trace.incoming(trace.outgoing())
    assert found.trace_id == "c" * 32 and found.submission_id == "job-1"
    trace.own_submission_id.cache_clear()
    monkeypatch.setenv("RAY_JOB_CONFIG_JSON_ENV_VAR", "[1")
    assert trace.own_submission_id() == ""
    trace._own_trace_id.cache_clear()  # pyright: ignore[reportPrivateUsage]
    trace.own_submission_id.cache_clear()


def test_log_records_name_the_request_they_are_about() -> None:
    record = logging.LogRecord("x", logging.INFO, "x.py", 1, "text", None, None)
    assert trace.AddTrace().filter(record) and not hasattr(record, "trace_id")
    token = trace.current.set(trace.Trace("r", f"00-{'a' * 32}-{'b' * 16}-01", "job-1"))
    try:
        assert trace.AddTrace().filter(record)
    finally:
        trace.current.reset(token)
    assert (record.__dict__["trace_id"], record.__dict__["submission_id"]) == ("a" * 32, "job-1")
