"""Traces and the access log of a running gateway: a collector of the test's own receives the spans."""

from __future__ import annotations

import json
import threading
from collections.abc import Iterator
from dataclasses import dataclass, field
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path

import httpx
import pytest
from live import Live, await_ready, free_port, mark_of, start, stop
from opentelemetry.proto.collector.trace.v1.trace_service_pb2 import ExportTraceServiceRequest
from opentelemetry.proto.trace.v1.trace_pb2 import Span, Status
from sample_records import MARK
from waiting import wait_until

pytestmark = pytest.mark.ray

TRACE, LOGGED, UNKEPT = (digit * 32 for digit in "abc")
"""Traces of clients, one a test: the collector sorts its spans by them."""

CLIENT = "b7ad6b7169203331"


@dataclass
class Collector:
    """What was sent to `/v1/traces`: each body as it came, and the spans in it."""

    bodies: list[bytes] = field(default_factory=list)

    def take(self, body: bytes) -> None:
        """Keeps one body."""
        self.bodies.append(body)

    def spans(self) -> list[Span]:
        """All spans that came so far, each once: an export that a busy machine timed out is sent again, whole."""
        requests = [ExportTraceServiceRequest.FromString(body) for body in self.bodies]
        scopes = [
            scope for request in requests for resource in request.resource_spans for scope in resource.scope_spans
        ]
        return list({span.span_id: span for scope in scopes for span in scope.spans}.values())

    def trace(self, request_id: str, count: int) -> dict[str, Span]:
        """The spans of that request's trace by name, once there are `count` of them."""
        wait_until(lambda: len(self.of(request_id)) >= count, describe=lambda: f"of {request_id}: {self.spans()}")
        found = self.of(request_id)
        assert len({one.trace_id for one in found}) == 1
        assert len({one.name for one in found}) == len(found) == count
        return {one.name: one for one in found}

    def of(self, request_id: str) -> list[Span]:
        """The spans so far of that request's traces."""
        spans = self.spans()
        traces = {one.trace_id for one in spans if attributes(one).get("punctual.request_id") == request_id}
        return [one for one in spans if one.trace_id in traces]


@dataclass(frozen=True)
class Traced:
    """A gateway whose traces go to a collector."""

    live: Live
    collector: Collector
    folder: Path

    def post(self, path: str, text: str, **headers: str) -> httpx.Response:
        """Posts one request, with the mark in its text, a header and its query."""
        sent = {"Authorization": f"Bearer {MARK}", **{name.replace("_", "-"): value for name, value in headers.items()}}
        return httpx.post(f"{self.live.url}{path}?{MARK}", json={"inputs": text}, headers=sent, timeout=60)

    def lines(self) -> list[dict[str, object]]:
        """The access log, as it was output where the gateway was started."""
        return [json.loads(line) for line in self.live.log.read_text().splitlines() if line.startswith("{")]


@pytest.fixture(scope="module")
def traced(small_catalog: tuple[Path, Path], tmp_path_factory: pytest.TempPathFactory) -> Iterator[Traced]:
    """A gateway for this module that traces."""
    collector = Collector()

    class Receiver(BaseHTTPRequestHandler):
        def do_POST(self) -> None:
            collector.take(self.rfile.read(int(self.headers["Content-Length"])))
            self.send_response(200 if self.path == "/v1/traces" else 404)
            self.end_headers()

        def log_message(self, format: str, *arguments: object) -> None:
            pass

    catalog, cache = small_catalog
    with ThreadingHTTPServer(("127.0.0.1", 0), Receiver) as server, pytest.MonkeyPatch.context() as environment:
        threading.Thread(target=server.serve_forever, daemon=True).start()
        environment.setenv("OTEL_BSP_SCHEDULE_DELAY", "200")
        environment.setenv("NO_PROXY", "127.0.0.1")
        url = f"http://127.0.0.1:{server.server_address[1]}"
        running = start(catalog, cache, free_port(), tmp_path_factory.mktemp("traced") / "log", "--traces", url)
        try:
            await_ready(running)
            folders = {folder for process in running.family() if (folder := mark_of(process))}
            yield Traced(running, collector, Path(folders.pop()))
        finally:
            stop(running)
            server.shutdown()


def attributes(span: Span) -> dict[str, str]:
    """The span's string attributes by name."""
    return {one.key: one.value.string_value for one in span.attributes if one.value.HasField("string_value")}


def inside(span: Span, whole: Span) -> bool:
    """True if the span lies within the other and does not end before it begins."""
    begun, ended = span.start_time_unix_nano, span.end_time_unix_nano
    return whole.start_time_unix_nano <= begun <= ended <= whole.end_time_unix_nano


def hangs_together(spans: dict[str, Span], request: str, replica: str) -> None:
    """Checks that gateway and replica have spans under the request's, with their parts below and all within it."""
    whole, served = spans[request], spans[replica]
    assert whole.kind == Span.SPAN_KIND_SERVER
    assert {name for name, one in spans.items() if one.parent_span_id == whole.span_id} == {
        "route",
        "queue",
        "infer",
        replica,
    }
    below = {name for name, one in spans.items() if one.parent_span_id == served.span_id}
    assert below == {"replica queue", "engine run"}
    assert all(inside(one, whole) for one in spans.values())
    assert all(inside(spans[name], served) for name in below)
    assert not [one for one in spans.values() if one.status.code == Status.STATUS_CODE_ERROR]


def test_a_clients_trace_goes_on_through_gateway_and_replica(traced: Traced) -> None:
    """A client's trace goes on through gateway and replica, with their spans below the client's."""
    headers = {"X_Request_Id": "with", "traceparent": f"00-{TRACE}-{CLIENT}-01", "X_Latency_SLA_Ms": "5000"}
    assert traced.post("/classify", f"a {MARK} film", **headers).status_code == 200
    spans = traced.collector.trace("with", 7)
    hangs_together(spans, "POST /classify", "replica slow")
    whole = spans["POST /classify"]
    assert whole.trace_id.hex() == TRACE and whole.parent_span_id.hex() == CLIENT
    told = attributes(whole)
    assert (told["punctual.checkpoint"], told["punctual.reason"]) == ("slow", "fits")


def test_a_request_without_a_trace_begins_one(traced: Traced) -> None:
    """A request without a trace begins a new one, which has the replica's spans too."""
    response = traced.post("/summarize", f"A {MARK} film. It is long. It is good. It ends.", X_Request_Id="without")
    assert response.status_code == 200
    spans = traced.collector.trace("without", 7)
    hangs_together(spans, "POST /summarize", f"replica {response.headers['x-checkpoint']}")
    assert spans["POST /summarize"].parent_span_id == b"" and spans["POST /summarize"].trace_id.hex() != TRACE


def test_what_a_client_does_not_keep_is_not_sent(traced: Traced) -> None:
    """A request whose trace is not sampled is answered, and makes no spans."""
    headers = {"X_Request_Id": "unkept", "traceparent": f"00-{UNKEPT}-{CLIENT}-00"}
    assert traced.post("/classify", "a good film", **headers).status_code == 200
    traced.post("/classify", "a good film", X_Request_Id="after")
    traced.collector.trace("after", 7)
    assert not [span for span in traced.collector.spans() if span.trace_id.hex() == UNKEPT]


def test_each_request_is_a_line_where_the_gateway_was_started(traced: Traced) -> None:
    """Each request, even an invalid one, is a line of the log where the gateway was started, with its trace if any."""
    awkward = "},{$(x)|"
    headers = {"X_Request_Id": awkward, "traceparent": f"00-{LOGGED}-{CLIENT}-01", "X_Latency_SLA_Ms": "5000"}
    assert traced.post("/classify", f"a {MARK} film", **headers).status_code == 200
    assert traced.post("/classify", "", X_Request_Id="empty").status_code == 422
    wait_until(lambda: "empty" in [one["request_id"] for one in traced.lines()])
    (line,) = [one for one in traced.lines() if one["request_id"] == awkward]
    assert (line["event"], line["outcome"], line["trace_id"]) == ("request", "in_time", LOGGED)
    assert line["checkpoint"] == "slow" and isinstance(line["infer_ms"], float)
    (line,) = [one for one in traced.lines() if one["request_id"] == "empty"]
    assert (line["outcome"], line["level"]) == ("invalid", "info")


def test_nothing_that_leaves_the_gateway_quotes_a_request(traced: Traced) -> None:
    """No request's text appears in exported traces, in the access log or in the logs of Ray's processes."""
    traced.post("/classify", f"a {MARK} film", X_Request_Id="last")
    traced.post("/classify", f"{MARK} " * 100_000, X_Request_Id="too-long")
    traced.collector.trace("last", 7)
    logs = [path for path in (traced.folder / "ray").rglob("*") if path.is_file() and "logs" in path.parts]
    assert len(logs) > 5, "Ray's logs are where they are thought to be"
    quoting = [path for path in [traced.live.log, *logs] if MARK.encode() in path.read_bytes()]
    assert not quoting
    assert not [body for body in traced.collector.bodies if MARK.encode() in body]
