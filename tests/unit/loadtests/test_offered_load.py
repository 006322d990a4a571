"""Open-loop load: seeded arrivals, endings counted once, and a generator that reports its own delays."""

from __future__ import annotations

import asyncio
import io
import random
from collections.abc import Mapping
from dataclasses import dataclass, replace
from itertools import pairwise
from pathlib import Path
from statistics import mean, pstdev
from time import perf_counter

import pytest
from fakes import FakeClock
from hypothesis import given
from hypothesis import strategies as st
from rich.console import Console

from loadtests.bench.load import report_of
from loadtests.bench.measuring.report import present
from loadtests.client import Hung, NoReply, Reply, http_client
from loadtests.offered_load import Ending, LoadSettings, Shot, arrivals, ended, offered, summarised

OK = Reply(200, {"x-checkpoint": "student"}, b"[]")


class Server:
    """Answers each request with the next reply of a list, half a second after all requests have arrived."""

    def __init__(self, clock: FakeClock, count: int, *replies: Reply | NoReply | Hung) -> None:
        self.clock = clock
        self.count = count
        self.replies = list(replies)
        self.seen: list[tuple[bytes, Mapping[str, str]]] = []
        self.all_came = asyncio.Event()

    async def post(self, body: bytes, headers: Mapping[str, str]) -> Reply:
        self.seen.append((body, headers))
        reply = self.replies[(len(self.seen) - 1) % len(self.replies)]
        if len(self.seen) == self.count:
            self.clock.advance(0.5)
            self.all_came.set()
        await self.all_came.wait()
        if isinstance(reply, Reply):
            return reply
        raise reply


@dataclass
class Running(FakeClock):
    """A clock that, after its first reading at the start of the run, is late by this many seconds."""

    late_s: float = 0.0

    def __call__(self) -> float:
        """The time in seconds."""
        now_s = self.now_s
        self.now_s, self.late_s = now_s + self.late_s, 0.0
        return now_s


def problem(status: int, code: str) -> Reply:
    """A refusal as documented."""
    return Reply(status, {}, f'{{"type": "x", "status": {status}, "code": "{code}"}}'.encode())


def end(reply: Reply | NoReply | Hung, latency_s: float = 0.01, budget_ms: float | None = 50) -> Shot:
    """The ending of a request that was due at 1 s and sent on time."""
    return ended(reply, 1.0, 1.0, latency_s, budget_ms)


def test_equal_seeds_give_equal_arrivals() -> None:
    """Equal seeds give equal arrivals, so that a run can be repeated."""
    first, again = (list(arrivals(100, 10, random.Random(3))) for _ in range(2))
    assert first == again != list(arrivals(100, 10, random.Random(4)))


def test_arrivals_are_poisson() -> None:
    """Gaps between arrivals have the mean 1/rate and an equally large standard deviation."""
    times = list(arrivals(200, 50, random.Random(1)))
    gaps = [later - earlier for earlier, later in pairwise(times)]
    assert len(times) == pytest.approx(10_000, rel=0.03)
    assert mean(gaps) == pytest.approx(1 / 200, rel=0.03) and pstdev(gaps) == pytest.approx(1 / 200, rel=0.05)


@given(st.floats(0.1, 100), st.floats(0.01, 2), st.integers())
def test_arrivals_are_in_order_and_within_the_run(rate: float, seconds: float, seed: int) -> None:
    """Arrivals are in order, and none lies outside the run."""
    times = list(arrivals(rate, seconds, random.Random(seed)))
    assert times == sorted(times) and all(0 < at < seconds for at in times)


def test_the_budget_parts_the_answers() -> None:
    """An answer at the budget is in time, one after it is late; without a budget every answer is in time."""
    assert end(OK, 0.050).ending is Ending.IN_TIME
    assert end(OK, 0.051).ending is Ending.LATE
    assert end(OK, 9.0, budget_ms=None).ending is Ending.IN_TIME
    assert end(OK).checkpoint == "student"


def test_a_refusal_is_told_from_a_failure() -> None:
    """Only a problem with a refusal's code is a refusal; a 500, a proxy's page, silence and broken connections fail."""
    assert (end(problem(429, "overloaded")).ending, end(problem(429, "overloaded")).detail) == ("refused", "overloaded")
    assert end(problem(503, "checkpoint_unavailable")).ending is Ending.REFUSED
    assert end(problem(500, "inference_failed")).detail == "500 inference_failed"
    assert end(problem(500, "inference_failed")).ending is Ending.FAILED
    page = end(Reply(503, {}, b"<html><body><h1>503 Service Unavailable</h1>"))
    assert (page.ending, page.detail) == (Ending.FAILED, "503 without a code")
    assert (end(NoReply("ServerDisconnectedError")).ending, end(Hung("x")).ending) == (Ending.FAILED, Ending.HUNG)


async def test_every_request_that_is_due_is_sent_and_ends_once() -> None:
    """Every due request is sent and ends once, even if the server answers none before all have arrived."""
    settings = LoadSettings(rate=200, seconds=0.2, budget_ms=1000, headers={"X-Checkpoint": "student"})
    due = list(arrivals(200, 0.2, random.Random(settings.seed)))
    clock = Running(late_s=0.2)
    server = Server(clock, len(due), OK, problem(429, "overloaded"), NoReply("ClientOSError"), Hung("10 s"))
    shots = await offered(server, [b"a", b"b"], settings, clock)
    assert [shot.due_s for shot in shots] == due
    assert [body for body, _ in server.seen[:4]] == [b"a", b"b", b"a", b"b"]
    assert all(headers == {"X-Checkpoint": "student", "X-Latency-SLA-Ms": "1000"} for _, headers in server.seen)
    report = summarised(shots, settings)
    assert sum(report.endings.values()) == report.offered == len(due)
    assert [shot.sent_s for shot in shots] == pytest.approx([0.2] * len(due))
    assert [shot.latency_s for shot in shots] == pytest.approx([0.2 + 0.5 - due_s for due_s in due])


async def test_no_request_is_sent_before_it_is_due() -> None:
    """No request is sent before it is due by the machine's own clock."""
    settings = LoadSettings(rate=200, seconds=0.2)
    server = Server(FakeClock(), len(list(arrivals(200, 0.2, random.Random(settings.seed)))), OK)
    shots = await offered(server, [b"a"], settings, perf_counter)
    assert all(shot.sent_s >= shot.due_s for shot in shots)


def test_a_report_counts_each_ending_apart(tmp_path: Path) -> None:
    """A report counts endings by kind and second; attainment is over all offered, latency over the answered."""
    shots = [
        Shot(0.1, 0.1, 0.010, Ending.IN_TIME, checkpoint="student"),
        Shot(0.2, 0.2, 0.020, Ending.IN_TIME, checkpoint="teacher"),
        Shot(0.9, 0.9, 0.900, Ending.LATE, checkpoint="student"),
        Shot(1.1, 1.1, 0.001, Ending.REFUSED, "overloaded"),
        Shot(1.2, 1.2, 0.001, Ending.FAILED, "ClientOSError"),
        Shot(2.9, 2.9, 10.0, Ending.HUNG),
    ]
    report = summarised(shots, LoadSettings(rate=2, seconds=3.0, budget_ms=50))
    assert report.endings == {"in_time": 2, "late": 1, "refused": 1, "failed": 1, "hung": 1}
    assert (report.refused, report.failed) == ({"overloaded": 1}, {"ClientOSError": 1})
    assert report.checkpoints == {"student": 2, "teacher": 1}
    assert report.attainment == pytest.approx(2 / 6) and report.goodput == pytest.approx(2 / 3)
    assert report.latency is not None and (report.latency.p50_s, report.latency.max_s) == (0.020, 0.900)
    assert report.by_second == ({"in_time": 2, "late": 1}, {"refused": 1, "failed": 1}, {"hung": 1})
    console = Console(width=120, file=(shown := io.StringIO()))
    present(report_of(report), console, json=tmp_path / "load.json")
    assert "overloaded" in shown.getvalue() and '"valid": true' in (tmp_path / "load.json").read_text()


def test_a_generator_that_sends_late_makes_the_run_invalid() -> None:
    """A run is invalid if more than 1 % of its requests were sent later than the bound."""
    settings = LoadSettings(rate=100, seconds=2.0, lag_bound_s=0.010)
    on_time = [Shot(at / 100, at / 100 + 0.001, 0.01, Ending.IN_TIME) for at in range(200)]
    late = [replace(shot, sent_s=shot.due_s + 0.1) for shot in on_time[:5]]
    assert summarised(on_time, settings).valid
    assert not summarised(late + on_time[5:], settings).valid
    assert not summarised([], settings).valid


@pytest.mark.virtual_time
async def test_a_real_client_tells_answers_closed_connections_and_silence_apart() -> None:
    """A real client returns an answer whole, and raises NoReply on a closed connection and Hung on silence."""
    handlers: list[asyncio.Task[None] | None] = []

    async def serve(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        handlers.append(asyncio.current_task())
        head = await reader.readuntil(b"\r\n\r\n")
        body = await reader.readexactly(4)
        if body == b"good":
            assert b"Content-Type: application/json" in head
            writer.write(b"HTTP/1.1 200 OK\r\nX-Checkpoint: student\r\n")
            writer.write(b"Connection: close\r\nContent-Length: 2\r\n\r\n[]")
        elif body == b"hang":
            await reader.read()  # until the client gives up
        writer.close()
        await writer.wait_closed()

    server = await asyncio.start_server(serve, "127.0.0.1", 0)
    port = server.sockets[0].getsockname()[1]
    async with server, http_client(f"http://127.0.0.1:{port}/classify", within_s=10) as client:
        reply = await client.post(b"good", {})
        assert (reply.status, reply.headers["x-checkpoint"], reply.body) == (200, "student", b"[]")
        with pytest.raises(NoReply, match=r"ServerDisconnectedError|ClientOSError"):
            await client.post(b"shut", {})
        with pytest.raises(Hung):
            await client.post(b"hang", {})
        await asyncio.gather(*filter(None, handlers))
    async with http_client(f"http://127.0.0.1:{port}/classify", within_s=2) as client:
        with pytest.raises(NoReply, match="ClientConnectorError"):
            await client.post(b"gone", {})
