"""Traces: where a request belongs in one, which spans it has, and that a collector can do no harm."""

from __future__ import annotations

import re
from collections.abc import Iterator
from dataclasses import replace
from datetime import timedelta

import httpx
import pytest
from collected_spans import CLIENTS, NOON, UNKEPT, Collected, named, parent, place, read, times
from fakes import ANSWER, TERMS, scripted
from hypothesis import given
from hypothesis import strategies as st
from opentelemetry.sdk.trace import ReadableSpan
from opentelemetry.sdk.trace import Span as RecordedSpan
from opentelemetry.sdk.trace.sampling import ALWAYS_OFF, ALWAYS_ON, ParentBased, Sampler, TraceIdRatioBased
from opentelemetry.trace import Span, SpanKind, StatusCode
from sample_records import MARK, RECORD
from worlds import OwnMetrics, World, client_of, world

from gateway.api import app
from gateway.model.messages import Failure, FailureKind
from gateway.model.outcome import Outcome
from gateway.observability.record import RequestRecord
from gateway.observability.tracing import Tracing

pytestmark = pytest.mark.virtual_time

TRACEPARENT = re.compile(r"00-[0-9a-f]{32}-[0-9a-f]{16}-0[0-3]")


@pytest.fixture(scope="module")
def open_ended() -> Iterator[Collected]:
    """Spans that are never ended, for tests of the header alone."""
    collected = Collected()
    yield collected
    collected.ended()


@given(trace_id=st.integers(1, 2**128 - 1), span_id=st.integers(1, 2**64 - 1), sampled=st.booleans())
def test_a_place_is_handed_on_in_a_well_formed_header(
    open_ended: Collected, trace_id: int, span_id: int, sampled: bool
) -> None:
    """The traceparent handed on is well-formed, has the client's trace and flag, and names a span of the gateway."""
    client = f"00-{trace_id:032x}-{span_id:016x}-{int(sampled):02x}"
    handed = open_ended.tracing.begin(replace(TERMS, traceparent=client)).traceparent
    assert handed is not None and TRACEPARENT.fullmatch(handed)
    there = read(handed)
    assert (there.trace_id, there.trace_flags.sampled) == (trace_id, sampled) and there.span_id != span_id


def test_of_a_later_version_the_known_part_is_read(open_ended: Collected) -> None:
    """A traceparent of a later version is read as far as this version knows it."""
    later = open_ended.tracing.begin(replace(TERMS, traceparent=f"cc-{'a' * 32}-{'b' * 16}-03-more-0"))
    assert read(later.traceparent).trace_id == read(CLIENTS).trace_id and read(later.traceparent).trace_flags.sampled
    assert isinstance(later.span, RecordedSpan)
    assert parent(later.span) == read(CLIENTS).span_id


@pytest.mark.parametrize(
    ("sampler", "client", "kept"),
    [
        (ParentBased(ALWAYS_ON), CLIENTS, True),
        (ParentBased(ALWAYS_ON), UNKEPT, False),
        (ParentBased(ALWAYS_ON), None, True),
        (ParentBased(ALWAYS_OFF), CLIENTS, True),
        (ParentBased(ALWAYS_OFF), None, False),
        (TraceIdRatioBased(0.0), CLIENTS, False),
        (ALWAYS_ON, UNKEPT, True),
    ],
)
def test_the_sampler_says_what_is_kept(sampler: Sampler, client: str | None, kept: bool) -> None:
    """The sampler decides what is kept, and spans are sent exactly if the flag handed on is set."""
    collected = Collected(sampler)
    terms = collected.tracing.begin(replace(TERMS, traceparent=client))
    own = read(terms.traceparent)
    assert isinstance(terms.span, Span) and own.span_id == terms.span.get_span_context().span_id
    collected.tracing.observe(replace(RECORD, traceparent=terms.traceparent, span=terms.span))
    ended = named(collected.ended())
    assert own.trace_flags.sampled == kept == bool(ended)
    if client is not None:
        assert own.trace_id == read(client).trace_id and own.span_id != read(client).span_id
    if kept:
        assert parent(ended["POST /classify"]) == (read(client).span_id if client else None)


def observed(record: RequestRecord) -> dict[str, ReadableSpan]:
    """Return the spans of a request that arrived at noon and was recorded an hour later."""
    collected = Collected()
    terms = collected.tracing.begin(replace(TERMS, traceparent=CLIENTS))
    collected.now += timedelta(hours=1)
    collected.tracing.observe(replace(record, traceparent=terms.traceparent, span=terms.span))
    return named(collected.ended())


def test_a_request_is_a_span_with_its_parts_below() -> None:
    """A request's span is a child of the client's; route, queue and infer follow one another within it.

    It starts at the arrival, however late the record is made, so that no replica's span starts before it.
    """
    spans = observed(RECORD)
    request = spans["POST /classify"]
    assert parent(request) == read(CLIENTS).span_id and request.kind is SpanKind.SERVER
    start, end = times(request)
    assert (end - start) / 1e9 == pytest.approx(RECORD.latency_s, abs=1e-6)
    assert start == int(NOON.timestamp()) * 10**9
    at = start
    for name, seconds in (
        ("route", RECORD.route_s),
        ("queue", RECORD.queueing_delay_s),
        ("infer", RECORD.service_time_s),
    ):
        span = spans.pop(name)
        assert parent(span) == place(request).span_id and place(span).trace_id == place(request).trace_id
        began, ended = times(span)
        assert began == at and (ended - began) / 1e9 == pytest.approx(seconds, abs=1e-6) and ended <= end
        at = ended
    assert set(spans) == {"POST /classify"}


def test_a_request_tells_how_it_was_decided() -> None:
    """A request's span has the checkpoint, tier, reason, budget, forecast and price as attributes."""
    told = observed(RECORD)["POST /classify"].attributes or {}
    expected = {
        "http.request.method": "POST",
        "http.route": "/classify",
        "http.response.status_code": 200,
        "punctual.request_id": "r-1",
        "punctual.task": "classify",
        "punctual.checkpoint": "grand",
        "punctual.tier": "quality",
        "punctual.reason": "fits",
        "punctual.outcome": "in_time",
        "punctual.budget_s": 0.05,
        "punctual.predicted_s": 0.01,
        "punctual.price": 1.25,
    }
    assert {name: told.get(name) for name in expected} == expected
    assert None not in told.values()


@pytest.mark.parametrize("outcome", Outcome)
def test_a_failure_is_in_the_status(outcome: Outcome) -> None:
    """A span has the status error only if the gateway failed, not for a refusal or a client's error."""
    span = observed(RequestRecord(request_id="r", task="classify", outcome=outcome, latency_s=0.1))["POST /classify"]
    failed = outcome in (Outcome.FAILED, Outcome.UNAVAILABLE, Outcome.EXPIRED)
    assert span.status.status_code is (StatusCode.ERROR if failed else StatusCode.UNSET)
    assert (span.attributes or {}).get("error.type") == (outcome.value if failed else None)


@given(st.floats(0, 100), st.none() | st.floats(0, 100), st.none() | st.floats(0, 100), st.none() | st.floats(0, 100))
def test_parts_stay_inside_the_whole(
    latency: float, route: float | None, queue: float | None, infer: float | None
) -> None:
    """Whatever the times in a record, each part of a span starts and ends within it."""
    record = replace(RECORD, latency_s=latency, route_s=route, queueing_delay_s=queue, service_time_s=infer)
    spans = observed(record)
    start, end = times(spans["POST /classify"])
    assert all(start <= times(span)[0] <= times(span)[1] <= end for span in spans.values())
    assert len(spans) == 1 + sum(part is not None for part in (route, queue, infer))


def traced(told: World, tracing: Tracing) -> httpx.AsyncClient:
    """Return a client of the world's application with tracing."""
    told.service.observers = (told.kept, tracing)
    application = app.build(
        told.service, OwnMetrics(told.catalog), told.catalog.limits, told.clock, trace=tracing.begin
    )
    return httpx.AsyncClient(
        transport=httpx.ASGITransport(application, raise_app_exceptions=False), base_url="http://gateway"
    )


async def test_a_replica_is_handed_the_requests_own_span() -> None:
    """A replica receives the request's own span as its parent, within the client's trace or a new one."""
    told, collected = world(), Collected()
    client = traced(told, collected.tracing)
    body = {"inputs": f"a {MARK} film"}
    await client.post("/classify", json=body, headers={"traceparent": CLIENTS})
    await client.post("/classify", json=body)
    spans = {place(span).span_id: span for span in collected.ended() if span.name == "POST /classify"}
    handed = [read(one.work.traceparent) for one in told.backend.dispatches]
    assert [one.span_id for one in handed] == list(spans) and len(spans) == 2
    assert [one.trace_id for one in handed] == [place(span).trace_id for span in spans.values()]
    first, second = spans.values()
    assert parent(first) == read(CLIENTS).span_id and parent(second) is None
    assert handed[0].trace_id == read(CLIENTS).trace_id != handed[1].trace_id
    assert MARK not in str([span.to_json() for span in spans.values()])


async def test_a_request_that_is_refused_at_the_door_keeps_its_trace() -> None:
    """A request with an invalid body has a span in the client's trace."""
    told, collected = world(), Collected()
    await traced(told, collected.tracing).post("/classify", json={}, headers={"traceparent": CLIENTS})
    (span,) = collected.ended()
    assert parent(span) == read(CLIENTS).span_id
    assert (span.attributes or {})["punctual.outcome"] == "invalid"


@pytest.mark.parametrize("client", [CLIENTS, UNKEPT, f"cc-{'a' * 32}-{'b' * 16}-03-more", None])
async def test_untraced_a_clients_place_is_handed_on_as_it_came(client: str | None) -> None:
    """Without tracing the client's traceparent is handed on unchanged."""
    told = world()
    await told.service.handle(told.request(replace(TERMS, traceparent=client)))
    assert told.backend.dispatches[0].work.traceparent == client


async def test_traced_or_not_the_answer_is_the_same() -> None:
    """Tracing changes no answer and no problem."""
    for behaviour in (scripted(ANSWER), scripted(Failure(FailureKind.ENGINE))):
        plain, observed_too = world(behaviour), world(behaviour)
        collected = Collected()
        untraced = client_of(plain)
        answers = [
            await client.post("/classify", json={"inputs": "a"}, headers={"X-Request-Id": "one"})
            for client in (untraced, traced(observed_too, collected.tracing))
        ]
        assert answers[0].content == answers[1].content and answers[0].status_code == answers[1].status_code
        assert collected.ended()
