"""The replica's part of a trace, when traces are on, and that a broken collector does no harm."""

from __future__ import annotations

import asyncio
import subprocess
import sys
import threading
from collections.abc import Sequence
from datetime import timedelta

import pytest
from collected_spans import CLIENTS, NOON, UNKEPT, Collected, named, parent, place, read, times
from fakes import ANSWER, FakeClock
from opentelemetry.exporter.otlp.proto.http.trace_exporter import OTLPSpanExporter
from opentelemetry.sdk.trace import ReadableSpan
from opentelemetry.sdk.trace.export import SpanExportResult
from opentelemetry.sdk.trace.export.in_memory_span_exporter import InMemorySpanExporter
from opentelemetry.trace import StatusCode
from sample_records import MARK, RECORD

from deployments.replica.tracing import TracedHandler, spans_of, traces_asked_for
from gateway.model.messages import Answer, Emit, Failure, FailureKind, Work
from gateway.observability.tracing import Spans, Tracing, open_spans
from gateway.tasks.classify import ClassifyParameters


def work(traceparent: str | None, request_id: str = "r-1") -> Work:
    """Work as a replica receives it."""
    return Work("classify", (MARK,), ClassifyParameters(), 1.0, False, request_id, traceparent)


def handler(collected: Collected, *results: Answer | Failure | Exception | None) -> TracedHandler:
    """A replica that gives these results to a batch after 5 ms; never if one is None. It raises an exception."""
    clock = FakeClock()

    async def handle(batch: Sequence[Work], emit: Emit) -> Sequence[Answer | Failure]:
        clock.advance(0.005)
        if None in results:
            await asyncio.Event().wait()
        for one in results:
            if isinstance(one, Exception):
                raise one
        assert len(batch) == len(results)
        return [one for one in results if isinstance(one, Answer | Failure)]

    return TracedHandler(handle, "grand", collected.spans, clock, lambda: NOON + timedelta(seconds=clock() - 1000.0))


async def test_a_replica_hangs_its_spans_on_the_gateways() -> None:
    """A replica puts a span of its own under the gateway's, and under that the queueing and the engine's run."""
    collected = Collected()
    assert await handler(collected, ANSWER)([work(CLIENTS)]) == [ANSWER]
    spans = named(collected.ended())
    whole, queue, run = spans["replica grand"], spans["replica queue"], spans["engine run"]
    assert parent(whole) == read(CLIENTS).span_id
    assert parent(queue) == parent(run) == place(whole).span_id
    assert {place(span).trace_id for span in spans.values()} == {read(CLIENTS).trace_id}
    start, end = times(whole)
    assert (start, end) == (int(NOON.timestamp()) * 10**9, int(NOON.timestamp()) * 10**9 + 5_000_000)
    assert times(run) == (end - 2_000_000, end) and times(queue) == (end - 3_000_000, end - 2_000_000)
    assert (run.attributes or {})["punctual.batch_size"] == 1
    assert MARK not in str([span.to_json() for span in spans.values()])


async def test_each_request_of_a_batch_has_a_span_under_its_own() -> None:
    """Each traced request of a batch has a span in its own trace, with its own id and end; the others have none."""
    collected = Collected()
    others = [f"00-{str(at) * 32}-{'b' * 16}-01" for at in (1, 2)]
    batch = [
        work(CLIENTS, "r-1"),
        work(None, "r-2"),
        work(others[0], "r-3"),
        work(UNKEPT, "r-4"),
        work(others[1], "r-5"),
    ]
    results: list[Answer | Failure] = [ANSWER, ANSWER, Failure(FailureKind.EXPIRED), ANSWER, ANSWER]
    assert await handler(collected, *results)(batch) == results
    spans = collected.ended()
    wholes = {span.attributes["punctual.request_id"]: span for span in spans if span.attributes and not _is_part(span)}
    assert {name: place(span).trace_id for name, span in wholes.items()} == {
        "r-1": read(CLIENTS).trace_id, "r-3": read(others[0]).trace_id, "r-5": read(others[1]).trace_id,
    }  # fmt: skip
    assert {name: span.status.description for name, span in wholes.items()} == {
        "r-1": None,
        "r-3": "expired",
        "r-5": None,
    }
    runs = [span for span in spans if span.name == "engine run"]
    assert {parent(span) for span in runs} == {place(wholes[name]).span_id for name in ("r-1", "r-5")}


def _is_part(span: ReadableSpan) -> bool:
    return span.name in ("engine run", "replica queue")


@pytest.mark.parametrize("kind", FailureKind)
async def test_a_replicas_failure_is_in_the_status(kind: FailureKind) -> None:
    """The span of a failure has its kind as status, and not its detail."""
    collected = Collected()
    await handler(collected, Failure(kind, MARK))([work(CLIENTS)])
    (span,) = collected.ended()
    assert span.status.status_code is StatusCode.ERROR and span.status.description == kind.value
    assert MARK not in span.to_json()


async def test_withdrawn_work_has_a_span() -> None:
    """Each request of a withdrawn batch has a span that ends as cancelled, and the cancellation goes on."""
    collected = Collected()
    task = asyncio.create_task(handler(collected, None, None)([work(CLIENTS), work(CLIENTS)]))
    await asyncio.sleep(0)
    task.cancel()
    with pytest.raises(asyncio.CancelledError):
        await task
    assert [span.status.description for span in collected.ended()] == ["cancelled"] * 2


async def test_a_handler_that_raises_has_failed_in_the_trace() -> None:
    """If the handler raises, each request's span ends as the engine's failure, without the message."""
    collected = Collected()
    with pytest.raises(ArithmeticError):
        await handler(collected, ArithmeticError(MARK), ANSWER)([work(CLIENTS), work(CLIENTS)])
    spans = collected.ended()
    assert [span.status.description for span in spans] == ["engine"] * 2
    assert MARK not in str([span.to_json() for span in spans])


@pytest.mark.parametrize("traceparent", [UNKEPT, None])
async def test_what_is_not_kept_makes_no_spans_at_a_replica(traceparent: str | None) -> None:
    """Work that is not sampled, or came without a trace, makes no spans at a replica."""
    collected = Collected()
    assert await handler(collected, ANSWER)([work(traceparent)]) == [ANSWER]
    assert not collected.ended()


@pytest.mark.parametrize(
    ("environ", "asked"),
    [
        ({}, False),
        ({"OTEL_TRACES_SAMPLER": "always_on"}, False),
        ({"OTEL_EXPORTER_OTLP_ENDPOINT": "http://127.0.0.1:1"}, True),
        ({"OTEL_EXPORTER_OTLP_TRACES_ENDPOINT": "http://127.0.0.1:1"}, True),
        ({"OTEL_EXPORTER_OTLP_ENDPOINT": "http://127.0.0.1:1", "OTEL_SDK_DISABLED": "true"}, False),
        ({"OTEL_EXPORTER_OTLP_ENDPOINT": "http://127.0.0.1:1", "OTEL_TRACES_EXPORTER": "none"}, False),
    ],
)
def test_traces_are_asked_for_by_naming_a_collector(environ: dict[str, str], asked: bool) -> None:
    """Traces are on only if a collector is named and OpenTelemetry's own switches do not turn them off."""
    assert traces_asked_for(environ) == asked
    if not asked:
        assert spans_of("gateway", "one", environ) is None


def test_who_has_no_traces_does_not_load_opentelemetry() -> None:
    """OpenTelemetry is not imported, by gateway or replica, until traces are asked for."""
    modules = "gateway.api.app, gateway.service, gateway.observability.access_log, punctual"
    modules += ", deployments.replica.replica, deployments.replica.tracing, deployments.serve.observing"
    asked = "deployments.serve.observing.observing('one', {'PUNCTUAL_ACCESS_LOG': '/dev/null'})"
    loaded = "[name for name in sys.modules if name.startswith('opentelemetry')]"
    script = f"import sys, {modules}; {asked}; print({loaded})"
    ran = subprocess.run([sys.executable, "-c", script], capture_output=True, text=True, check=True)
    assert ran.stdout.strip() == "[]"


def test_a_collector_that_is_not_there_costs_nobody_anything() -> None:
    """A collector that cannot be reached costs nothing: spans are taken at once, old ones go, and closing ends."""
    spans = Spans(OTLPSpanExporter("http://127.0.0.1:9/v1/traces"))
    tracing = Tracing(spans, lambda: NOON)
    for _ in range(1500):  # more spans than the queue holds
        tracing.observe(RECORD)
    spans.close(0.2)


def test_a_collector_that_hangs_keeps_nobody_from_ending() -> None:
    """A collector that hangs is given up when the time for closing is over."""

    class Hanging(InMemorySpanExporter):
        """An exporter that sends until it is shut down."""

        def __init__(self) -> None:
            super().__init__()
            self.given_up = threading.Event()

        def export(self, spans: Sequence[ReadableSpan]) -> SpanExportResult:
            assert self.given_up.wait(60)
            return SpanExportResult.FAILURE

        def shutdown(self) -> None:
            self.given_up.set()

    hanging = Hanging()
    spans = Spans(hanging)
    Tracing(spans, lambda: NOON).observe(RECORD)
    spans.close(0.05)
    assert hanging.given_up.is_set()


def test_an_operators_names_win(monkeypatch: pytest.MonkeyPatch) -> None:
    """The service is named `punctual` unless OpenTelemetry's variables name it, which also choose the sampler."""
    monkeypatch.delenv("OTEL_SERVICE_NAME", raising=False)
    monkeypatch.setenv("OTEL_TRACES_SAMPLER", "always_off")
    spans = open_spans("gateway", "one")
    assert not spans.open("request", None, NOON).is_recording()
    assert spans.resource.attributes["service.name"] == "punctual"
    assert spans.resource.attributes["service.instance.id"] == "one"
    spans.close(0.1)
    monkeypatch.setenv("OTEL_SERVICE_NAME", "mine")
    spans = open_spans("gateway", "one")
    assert spans.resource.attributes["service.name"] == "mine"
    spans.close(0.1)
