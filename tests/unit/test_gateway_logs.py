"""The access log: what each line tells of a request, and that none ever tells its text."""

from __future__ import annotations

import json
import logging
from dataclasses import dataclass, field, fields, replace
from datetime import UTC, datetime

import httpx
import msgspec
import pytest
from fakes import ANSWER, EVEN, GRAND
from hypothesis import given
from hypothesis import strategies as st
from sample_records import MARK, RECORD
from worlds import client_of, world

from gateway.logs import AccessLog, EventLine, EventLog, LogFormat, RequestLine, dropped_notice
from gateway.model.messages import Answer, Failure, FailureKind, Work
from gateway.model.outcome import Outcome
from gateway.records import RequestRecord

NOON = datetime(2026, 11, 23, 12, 0, 0, 5, UTC)

ids = st.text(st.characters(exclude_categories=["Cs"]), min_size=1, max_size=40)
durations = st.none() | st.floats(0, 1e4)
names = st.none() | st.sampled_from([GRAND, EVEN])
counts = st.integers(0, 10**9)
records = st.builds(
    RequestRecord,
    request_id=ids | st.sampled_from(["a\nb", 'a"b', "a\\", "\u2028", "{}", "\x1b[2J"]),
    task=st.sampled_from(["classify", "summarize"]),
    outcome=st.sampled_from(Outcome),
    latency_s=st.floats(0, 1e4),
    budget_s=durations,
    checkpoint=names,
    tier=st.none() | st.sampled_from(["realtime", "quality"]),
    reason=st.none() | st.sampled_from(["fits", "congestion"]),
    predicted_s=durations,
    quantile_s=durations,
    route_s=durations,
    queueing_delay_s=durations,
    service_time_s=durations,
    batch_size=st.none() | counts,
    inputs=counts,
    tokens=counts,
    kept=counts,
    truncated=st.booleans(),
    output_tokens=counts,
    finish_reason=st.none() | st.sampled_from(["stop", "deadline"]),
    degraded=st.booleans(),
    attempts=counts,
    strict=st.booleans(),
    percentile=st.none() | st.floats(50, 99.9),
    price=st.none() | st.floats(0, 1e6),
    traceparent=st.none() | st.just(RECORD.traceparent),
)


@dataclass
class Taken:
    """Takes lines and keeps them."""

    lines: list[bytes] = field(default_factory=list)

    def put(self, line: bytes) -> None:
        self.lines.append(line)

    def documents(self) -> list[dict[str, object]]:
        """Each line as the JSON object that it is."""
        return [json.loads(line) for line in self.lines]


def written(record: RequestRecord, form: LogFormat = LogFormat.JSON) -> bytes:
    """The one line of a record."""
    taken = Taken()
    AccessLog(taken, form, lambda: NOON).observe(record)
    (line,) = taken.lines
    return line


def test_a_line_tells_what_became_of_a_request() -> None:
    """The decision, its premises and the time line, in milliseconds, under the names of the contract."""
    assert json.loads(written(RECORD)) == {
        "timestamp": "2026-11-23T12:00:00.000005Z",
        "level": "info",
        "event": "request",
        "request_id": "r-1",
        "trace_id": "a" * 32,
        "task": "classify",
        "outcome": "in_time",
        "checkpoint": GRAND,
        "tier": "quality",
        "reason": "fits",
        "strict": False,
        "percentile": 95.0,
        "budget_ms": 50.0,
        "latency_ms": 12.346,
        "predicted_ms": 10.0,
        "quantile_ms": 20.0,
        "route_ms": 0.3,
        "queue_ms": 1.1,
        "infer_ms": 2.3,
        "batch_size": 2,
        "inputs": 1,
        "tokens": 12,
        "kept": 12,
        "truncated": False,
        "degraded": False,
        "attempts": 1,
        "output_tokens": 0,
        "price": 1.25,
    }


def test_as_text_it_is_read_at_a_glance() -> None:
    """How it ended, against which budget, who answered and why, where the time went."""
    told = "12:00:00.000 in_time  classify  12.346 of 50 ms, grand (quality, fits), route 0.3 queue 1.1 infer 2.3,"
    assert written(RECORD, LogFormat.TEXT).decode() == f"{told} batch 2, 12 tokens, id r-1\n"


@given(records)
def test_a_record_is_one_line_and_reads_back(record: RequestRecord) -> None:
    """Whatever the client called its request, the line is one JSON object of the names that are listed, and no other.

    What it tells is what the record says.
    """
    line = written(record)
    assert line.endswith(b"\n") and line.count(b"\n") == 1
    told = msgspec.json.decode(line, type=RequestLine)
    assert set(json.loads(line)) <= {one.name for one in msgspec.structs.fields(RequestLine)}
    same = ("request_id", "task", "outcome", "checkpoint", "tier", "reason", "strict", "percentile", "batch_size")
    more = ("inputs", "tokens", "kept", "truncated", "degraded", "attempts", "output_tokens", "finish_reason")
    assert all(getattr(told, name) == getattr(record, name) for name in same + more)
    assert told.latency_ms == pytest.approx(record.latency_s * 1000, abs=0.0005)
    absent = [one.name for one in fields(record) if getattr(record, one.name) is None]
    assert (told.queue_ms is None) == ("queueing_delay_s" in absent)


@given(records)
def test_as_text_too_a_record_is_one_line(record: RequestRecord) -> None:
    """Nothing that a terminal would obey, or that ends a line, gets there from a client's words."""
    line = written(record, LogFormat.TEXT).decode()
    assert line.endswith("\n") and line[:-1].isprintable()


@pytest.mark.parametrize("outcome", Outcome)
def test_a_level_says_whose_matter_it_is(outcome: Outcome) -> None:
    """What the gateway owed and could not do is an error, a promise not kept a warning, the rest is to be known."""
    level = json.loads(written(replace(RECORD, outcome=outcome)))["level"]
    assert (level == "error") == (outcome in (Outcome.FAILED, Outcome.UNAVAILABLE))
    assert (level == "warning") == (outcome in (Outcome.LATE, Outcome.SHED, Outcome.EXPIRED))


async def logged(taken: Taken, behaviour: object = None, **parts: object) -> httpx.Response:
    """One request to a gateway that logs, the mark in its text, its headers, its query and its parameters."""
    told = world(behaviour)  # type: ignore[arg-type]
    client = client_of(told)
    told.service.observers = (AccessLog(taken, LogFormat.JSON, lambda: NOON),)
    body = {"inputs": f"a {MARK} film", **parts}
    headers = {"Authorization": f"Bearer {MARK}", "X-Other": MARK, "Cookie": MARK}
    return await client.post(f"/classify?details=true&{MARK}=1", json=body, headers=headers)


def failing(checkpoint: str, work: Work) -> Answer | Failure | None:
    """A replica whose failure quotes the text."""
    return Failure(FailureKind.ENGINE, work.inputs[0])


def crashing(checkpoint: str, work: Work) -> Answer | Failure | None:
    """A fault of the gateway's own that quotes the text."""
    raise KeyError(work.inputs[0])


@pytest.mark.parametrize(
    ("behaviour", "parts", "status", "outcome"),
    [
        (lambda checkpoint, work: ANSWER, {}, 200, "in_time"),
        (lambda checkpoint, work: ANSWER, {"parameters": {MARK: MARK}}, 422, "invalid"),
        (lambda checkpoint, work: ANSWER, {"inputs": [MARK, {MARK: 1}]}, 422, "invalid"),
        (failing, {}, 500, "failed"),
        (crashing, {}, 500, "failed"),
    ],
)
async def test_no_line_quotes_a_request(behaviour: object, parts: dict[str, object], status: int, outcome: str) -> None:
    """However it ends: not its text, not a header, not its query, not its parameters; not the fault's own message."""
    taken = Taken()
    handler = EventLog(taken, LogFormat.JSON, lambda: NOON)
    logging.getLogger("punctual").addHandler(handler)
    try:
        response = await logged(taken, behaviour, **parts)
    finally:
        logging.getLogger("punctual").removeHandler(handler)
    assert response.status_code == status
    told = [one for one in taken.documents() if one["event"] == "request"]
    assert [one["outcome"] for one in told] == [outcome]
    assert told[0]["request_id"] == response.headers["x-request-id"]
    assert not [line for line in taken.lines if MARK.encode() in line]
    events = [one for one in taken.documents() if one["event"] == "log"]
    assert [one["request_id"] for one in events] == [told[0]["request_id"]] * (behaviour is crashing)


def raised() -> ValueError:
    """An exception that was raised here, and quotes a text."""
    try:
        raise ValueError(MARK)
    except ValueError as error:
        return error


@pytest.mark.parametrize("form", LogFormat)
def test_an_error_is_told_by_its_kind_and_place(form: LogFormat) -> None:
    """What the gateway logs of itself is a line of the same form; an exception's message may quote a text."""
    taken = Taken()
    logger = logging.Logger("punctual.of-this-test")
    logger.addHandler(EventLog(taken, form, lambda: NOON))
    logger.info("of no interest")
    logger.error("request %s failed", "r-1", exc_info=raised(), extra={"request_id": "r-1"})
    (line,) = taken.lines
    assert line.count(b"\n") == 1 and MARK.encode() not in line
    for told in (b"request r-1 failed", b"ValueError", b" in raised", b"r-1"):
        assert told in line
    if form is LogFormat.JSON:
        document = msgspec.json.decode(line, type=EventLine)
        assert (document.level, document.logger, document.request_id) == ("error", "punctual.of-this-test", "r-1")


@pytest.mark.parametrize("form", LogFormat)
def test_the_log_tells_what_it_lacks(form: LogFormat) -> None:
    """A notice of dropped lines is a line like any other, with their number."""
    line = dropped_notice(form, lambda: NOON)(17)
    assert line.count(b"\n") == 1 and b"17" in line
    if form is LogFormat.JSON:
        told = {"timestamp": "2026-11-23T12:00:00.000005Z", "level": "warning", "event": "lines_dropped", "dropped": 17}
        assert json.loads(line) == told
