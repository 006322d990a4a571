"""The access log: what each line contains, that none quotes a text, and that no request waits for the file."""

from __future__ import annotations

import io
import json
import logging
import os
import threading
from dataclasses import fields, replace
from datetime import UTC, datetime
from pathlib import Path

import httpx
import msgspec
import pytest
from fakes import EVEN, GRAND, Behaviour
from hypothesis import given
from hypothesis import strategies as st
from sample_records import MARK, RECORD
from waiting import wait_until
from worlds import client_of, world

from gateway.model.messages import Answer, Failure, FailureKind, Work
from gateway.model.outcome import Outcome
from gateway.observability.access_log import (
    AccessLog,
    EventLine,
    LineFormatter,
    LogFile,
    LogFormat,
    RequestLine,
    log_record_of,
)
from gateway.observability.record import RequestRecord

ENDED_S = 60.0
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


def written(record: RequestRecord, form: LogFormat = LogFormat.JSON) -> bytes:
    """Return the line of a record of a request that ended at noon."""
    told = log_record_of(record)
    told.created = NOON.timestamp()
    return LineFormatter(form).format(told).encode("utf-8", "backslashreplace") + b"\n"


def opened(path: Path, form: LogFormat = LogFormat.JSON, **bounds: int) -> AccessLog:
    """Return an access log that has been started."""
    log = AccessLog(LogFile(str(path)), form, **bounds)
    log.start()
    return log


def documents(path: Path) -> list[dict[str, object]]:
    """Return each line of a file as a JSON object."""
    return [json.loads(line) for line in path.read_bytes().splitlines()]


def test_a_line_tells_what_became_of_a_request() -> None:
    """A JSON line has the decision, the forecast and the durations in milliseconds, under the contract's names."""
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
    """A text line has the outcome, the budget, the checkpoint with tier and reason, and the durations."""
    told = "12:00:00.000 in_time  classify  12.346 of 50 ms, grand (quality, fits), route 0.3 queue 1.1 infer 2.3,"
    assert written(RECORD, LogFormat.TEXT).decode() == f"{told} batch 2, 12 tokens, id r-1\n"


@given(records)
def test_a_record_is_one_line_and_reads_back(record: RequestRecord) -> None:
    """A JSON line of any record is one line, has only documented names, and agrees with the record."""
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
    """A text line of any record is one printable line, whatever the client sent."""
    line = written(record, LogFormat.TEXT).decode()
    assert line.endswith("\n") and line[:-1].isprintable()


@pytest.mark.parametrize("outcome", Outcome)
def test_a_level_says_whose_matter_it_is(outcome: Outcome) -> None:
    """A failure or an outage is an error, a missed deadline or a refusal for load a warning, all else info."""
    level = json.loads(written(replace(RECORD, outcome=outcome)))["level"]
    assert (level == "error") == (outcome in (Outcome.FAILED, Outcome.UNAVAILABLE))
    assert (level == "warning") == (outcome in (Outcome.LEAD, Outcome.LATE, Outcome.SHED, Outcome.EXPIRED))


async def logged(
    log: AccessLog, behaviour: Behaviour | None = None, fault: Exception | None = None, **parts: object
) -> httpx.Response:
    """Send one request to a logging gateway, with the mark in its text, headers, query and parameters."""
    told = world(behaviour)
    told.backend.fault = fault
    client = client_of(told)
    told.service.observers = (log,)
    body = {"inputs": f"a {MARK} film", **parts}
    headers = {"Authorization": f"Bearer {MARK}", "X-Other": MARK, "Cookie": MARK}
    return await client.post(f"/classify?details=true&{MARK}=1", json=body, headers=headers)


def failing(checkpoint: str, work: Work) -> Answer | Failure | None:
    """Fail as a replica does whose failure quotes the text."""
    return Failure(FailureKind.ENGINE, work.inputs[0])


@pytest.mark.parametrize(
    ("behaviour", "fault", "parts", "status", "outcome"),
    [
        (None, None, {}, 200, "in_time"),
        (None, None, {"parameters": {MARK: MARK}}, 422, "invalid"),
        (None, None, {"inputs": [MARK, {MARK: 1}]}, 422, "invalid"),
        (failing, None, {}, 500, "failed"),
        (None, KeyError(f"a {MARK} film"), {}, 500, "failed"),
    ],
)
async def test_no_line_quotes_a_request(
    behaviour: Behaviour | None,
    fault: Exception | None,
    parts: dict[str, object],
    status: int,
    outcome: str,
    tmp_path: Path,
) -> None:
    """No line quotes a request's text, headers, query or parameters, nor an exception's message, however it ends."""
    log = opened(tmp_path / "log")
    logging.getLogger("punctual").addHandler(log.handler)
    try:
        response = await logged(log, behaviour, fault, **parts)
    finally:
        logging.getLogger("punctual").removeHandler(log.handler)
    log.close(ENDED_S)
    assert response.status_code == status
    lines = documents(tmp_path / "log")
    told = [one for one in lines if one["event"] == "request"]
    assert [one["outcome"] for one in told] == [outcome]
    assert told[0]["request_id"] == response.headers["x-request-id"]
    assert MARK not in (tmp_path / "log").read_text()
    events = [one for one in lines if one["event"] == "log"]
    assert [one["request_id"] for one in events] == [told[0]["request_id"]] * (fault is not None)


def raised() -> ValueError:
    """Return an exception that was raised here and quotes a text."""
    try:
        raise ValueError(MARK)
    except ValueError as error:
        return error


@pytest.mark.parametrize("form", LogFormat)
def test_an_error_is_told_by_its_kind_and_place(form: LogFormat, tmp_path: Path) -> None:
    """A logged exception has its type and place but not its message, which may quote a text."""
    log = opened(tmp_path / "log", form)
    logger = logging.Logger("punctual.of-this-test")
    logger.addHandler(log.handler)
    logger.info("of no interest")
    logger.error("request %s failed", "r-1", exc_info=raised(), extra={"request_id": "r-1"})
    log.close(ENDED_S)
    (line,) = (tmp_path / "log").read_bytes().splitlines()
    assert MARK.encode() not in line
    for told in (b"request r-1 failed", b"ValueError", b" in raised", b"r-1"):
        assert told in line
    if form is LogFormat.JSON:
        document = msgspec.json.decode(line, type=EventLine)
        assert (document.level, document.logger, document.request_id) == ("error", "punctual.of-this-test", "r-1")


def test_a_message_is_worded_when_it_is_logged(tmp_path: Path) -> None:
    """A log message is formatted when it is logged, and other handlers receive it whole."""
    log = opened(tmp_path / "log")
    logger = logging.Logger("punctual.of-this-test")
    told = io.StringIO()
    logger.addHandler(log.handler)
    logger.addHandler(logging.StreamHandler(told))
    waiting = ["one"]
    logger.warning("these wait: %s", waiting)
    waiting.append("two")
    log.close(ENDED_S)
    assert [one["message"] for one in documents(tmp_path / "log")] == ["these wait: ['one']"]
    assert told.getvalue() == "these wait: ['one']\n"


@pytest.mark.parametrize("form", LogFormat)
def test_the_log_tells_what_it_lacks(form: LogFormat) -> None:
    """A notice of dropped lines is one line with their number."""
    line = LineFormatter(form).dropped(17, NOON)
    assert "\n" not in line and "17" in line
    if form is LogFormat.JSON:
        told = {"timestamp": "2026-11-23T12:00:00.000005Z", "level": "warning", "event": "lines_dropped", "dropped": 17}
        assert json.loads(line) == told


def numbered(count: int) -> list[RequestRecord]:
    """Return records with different ids."""
    return [replace(RECORD, request_id=f"r-{at}") for at in range(count)]


def test_what_was_taken_is_written_in_order(tmp_path: Path) -> None:
    """Closing the log writes every queued line once, in order."""
    log = opened(tmp_path / "log")
    for record in numbered(500):
        log.observe(record)
    log.close(ENDED_S)
    assert [one["request_id"] for one in documents(tmp_path / "log")] == [one.request_id for one in numbered(500)]
    assert log.dropped == 0


def filled(pipe: Path) -> tuple[int, int]:
    """Create a full pipe; return its reading end and how many bytes it holds."""
    os.mkfifo(pipe)
    reader = os.open(pipe, os.O_RDONLY | os.O_NONBLOCK)
    writer = os.open(pipe, os.O_WRONLY | os.O_NONBLOCK)
    held = 0
    try:
        while True:
            held += os.write(writer, b"x" * 4096)
    except BlockingIOError:
        os.close(writer)
    os.set_blocking(reader, True)
    return reader, held


def test_a_stuck_file_costs_lines_and_keeps_nobody_waiting(tmp_path: Path) -> None:
    """A file that blocks drops and counts the lines over the bound, and the log reports them once it can write."""
    reader, held = filled(tmp_path / "pipe")
    log = opened(tmp_path / "pipe", most_waiting=10)
    for record in numbered(1000):
        log.observe(record)
    log.close(0.01)  # returns although the file takes nothing
    taken = 1000 - log.dropped
    assert 10 <= taken <= 30
    read = b""
    while some := os.read(reader, 65536):
        read += some
    os.close(reader)
    log.close(ENDED_S)
    lines = [json.loads(line) for line in read[held:].splitlines()]
    told = [one["request_id"] for one in lines if one["event"] == "request"]
    assert len(told) == taken and told[:10] == [one.request_id for one in numbered(10)]
    assert sum(one["dropped"] for one in lines if one["event"] == "lines_dropped") == log.dropped


def test_a_file_that_fails_costs_what_it_did_not_take(tmp_path: Path) -> None:
    """A full disk loses only the lines that it refused; they are counted, and later lines are written."""
    path = tmp_path / "log"
    path.symlink_to("/dev/full")
    log = opened(path)
    lost, found = numbered(2)
    log.observe(lost)
    wait_until(lambda: log.dropped == 1)
    path.unlink()
    log.observe(found)
    log.close(ENDED_S)
    request, notice = documents(path)
    assert (request["request_id"], notice["event"], notice["dropped"]) == (found.request_id, "lines_dropped", 1)
    assert log.dropped == 1


def test_a_file_that_fails_is_said_once(tmp_path: Path, caplog: pytest.LogCaptureFixture) -> None:
    """That lines are lost is said once for each time that the file fails, where the file is not needed for it."""
    path = tmp_path / "log"
    path.symlink_to("/dev/full")
    log = opened(path)
    for number in (3, 2):
        before = log.dropped
        for one in numbered(number):
            log.observe(one)
        wait_until(lambda: log.dropped == before + number)  # noqa: B023 - waited for within the turn
        path.unlink()
        log.observe(RECORD)
        wait_until(lambda: path.is_file() and path.read_text().endswith("\n"))
        path.rename(tmp_path / "kept")
        path.symlink_to("/dev/full")
    log.close(ENDED_S)
    said = [one.getMessage() for one in caplog.records]
    assert said == ["the access log loses lines: No space left on device"] * 2


def test_what_cannot_be_a_line_costs_no_other(tmp_path: Path) -> None:
    """A record that JSON cannot encode is counted as dropped, and later lines are written."""
    log = opened(tmp_path / "log")
    log.observe(replace(RECORD, request_id="\ud800"))
    log.observe(RECORD)
    log.close(ENDED_S)
    assert [one["event"] for one in documents(tmp_path / "log")] == ["request", "lines_dropped"]
    assert log.dropped == 1


def test_nothing_is_taken_after_the_end(tmp_path: Path) -> None:
    """A line after closing is counted as dropped."""
    log = opened(tmp_path / "log")
    log.close(ENDED_S)
    log.observe(RECORD)
    assert log.dropped == 1 and not (tmp_path / "log").read_bytes()


def test_a_file_that_was_moved_away_is_opened_anew(tmp_path: Path) -> None:
    """A log file that was moved away stays complete, and the next line begins a new file."""
    path = tmp_path / "access.log"
    file = LogFile(str(path))
    file.write("one\ntwo\n")
    path.rename(tmp_path / "access.log.1")
    file.write("three\n")
    path.unlink()
    file.write("four\n")
    file.close()
    assert (tmp_path / "access.log.1").read_bytes() == b"one\ntwo\n" and path.read_bytes() == b"four\n"


def test_a_file_is_added_to(tmp_path: Path) -> None:
    """An existing log file is appended to, and others than its owner and group cannot access it."""
    path = tmp_path / "access.log"
    for line in ("one\n", "two\n"):
        file = LogFile(str(path))
        file.write(line)
        file.close()
    assert path.read_bytes() == b"one\ntwo\n" and path.stat().st_mode & 0o007 == 0


def test_lines_of_several_processes_do_not_mix_in_a_pipe(tmp_path: Path) -> None:
    """Lines that several processes write to one pipe never mix."""
    path = tmp_path / "pipe"
    os.mkfifo(path)
    reader = os.open(path, os.O_RDONLY | os.O_NONBLOCK)
    os.set_blocking(reader, True)
    held_open = os.open(path, os.O_WRONLY)

    def write(letter: str) -> None:
        log = opened(path, LogFormat.TEXT)
        for _ in range(200):
            log.observe(replace(RECORD, request_id=letter * 1499))
        log.close(ENDED_S)

    writers = [threading.Thread(target=write, args=(letter,)) for letter in "abc"]
    for writer in writers:
        writer.start()
    read = b""
    while read.count(b"\n") < 600:
        read += os.read(reader, 4096)
    for writer in writers:
        writer.join(ENDED_S)
    os.close(held_open)
    os.close(reader)
    told = sorted(line.rpartition(b" id ")[2] for line in read.splitlines())
    assert told == [letter * 1499 for letter in (b"a", b"b", b"c") for _ in range(200)]


def test_a_pipe_that_nobody_reads_is_an_error_at_once(tmp_path: Path) -> None:
    """Opening a pipe without a reader fails at once, so that neither the thread nor closing blocks."""
    path = tmp_path / "pipe"
    os.mkfifo(path)
    with pytest.raises(OSError, match="No such device"):
        LogFile(str(path)).write("one\n")
