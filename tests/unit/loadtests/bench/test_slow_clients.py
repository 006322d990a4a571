"""Slow clients: a crowd on real sockets, ratios within rounds, and invalid runs."""

from __future__ import annotations

import io
import json
from dataclasses import replace
from pathlib import Path

import pytest
from rich.console import Console
from small_gateway import NEVER, SmallGateway, Told

from loadtests.bench.measuring.company import ALONE
from loadtests.bench.measuring.report import present
from loadtests.bench.measuring.rounds import Slot, Turn, Turns
from loadtests.bench.peers.crowd import PIPELINED, Crowd, Kind, beginning, crowd, part
from loadtests.bench.slow_clients import Run, Sample, Settings, faults, report_of, verdicts
from loadtests.offered_load import Ending, LoadSettings, Shot, summarised

HELD = Crowd(clients=10, connections=10, looks=2, open_seen=20)
"""A crowd that was there throughout."""


def turn(
    number: int,
    company: str,
    latency_ms: float,
    ending: Ending = Ending.IN_TIME,
    lag_ms: float = 0.1,
    held: Crowd = HELD,
) -> Turn[Sample]:
    """A turn of a hundred requests of one latency; the last one ends as given."""
    shots = [Shot(at / 50, at / 50 + lag_ms / 1000, latency_ms / 1000, Ending.IN_TIME) for at in range(100)]
    shots[-1] = replace(shots[-1], ending=ending)
    load = summarised(shots, LoadSettings(rate=50, seconds=2.0))
    return Turn(Slot(number, 1, company), Sample(load, None if company == ALONE else held))


def turns(**beside_ms: float) -> Turns[Sample]:
    """A warm-up that must not count, then a round: 4 ms alone, and these latencies beside each crowd."""
    warming = [turn(0, name, 400) for name in (ALONE, *Kind)]
    return Turns((*warming, turn(1, ALONE, 4), *(turn(1, kind, beside_ms.get(kind.name, 4)) for kind in Kind)))


def test_each_crowd_has_a_verdict() -> None:
    """The p95 beside each crowd is compared with the p95 alone of its round."""
    heads, bodies, readers = verdicts(turns(HEADS=4.4, BODIES=4.8, READERS=6.0))
    assert heads.met and bodies.met and not readers.met
    assert readers.sentence == (
        "p95 beside slow readers: at most 1.2 × the client alone's: missed by 25%: 1.50 (1.50 to 1.50)"
    )


@pytest.mark.parametrize(
    ("odd", "said"),
    [
        (turn(1, ALONE, 4, lag_ms=30), "round 1, alone: the generator sent late, p99 30.0 ms"),
        (turn(1, ALONE, 4, Ending.REFUSED), "round 1, alone: 1 requests refused"),
        (turn(1, Kind.HEADS, 4, held=Crowd(10)), "round 1, slow heads: of 10 slow clients 0 were connected"),
    ],
)
def test_a_run_that_is_not_valid_meets_nothing(odd: Turn[Sample], said: str) -> None:
    """A run is invalid if the generator sent late, a request was lost, or the crowd was not there."""
    taken = Turns((*(one for one in turns().taken if one.slot != odd.slot), odd))
    assert faults(taken) == [said]
    assert not any(one.met for one in verdicts(taken))


def test_a_report_is_shown_and_written(tmp_path: Path) -> None:
    """A report has a row for each company, how many slow clients were connected, and all ratios."""
    report = report_of(Run(Settings(clients=10, rounds=1), "a host", "fast", turns(BODIES=4.4), 1.0))
    console = Console(width=200, file=(shown := io.StringIO()))
    assert present(report, console, json=tmp_path / "slow.json") == 0
    assert "slow bodies" in shown.getvalue() and "1.10 (1.10 to 1.10)" in shown.getvalue()
    written = json.loads((tmp_path / "slow.json").read_text())
    assert written["p95_ratios"]["slow bodies"] == pytest.approx([1.1])
    assert [row[4] for row in report.tables[0].rows] == ["-", "10", "10", "10"]


def test_what_is_slow_is_never_whole() -> None:
    """A slow head has no empty line, a slow body lacks bytes, and a slow reader has asked for all at once."""
    assert b"\r\n\r\n" not in beginning(Kind.HEADS, "a") + part(Kind.HEADS)
    assert beginning(Kind.BODIES, "a").count(b"\r\n\r\n") == 1 and len(part(Kind.BODIES)) == 1
    assert beginning(Kind.READERS, "a").count(b"GET ") == PIPELINED and part(Kind.READERS) == b""


@pytest.mark.parametrize("kind", [Kind.HEADS, Kind.READERS])
def test_a_crowd_is_there_until_it_is_ended(kind: Kind) -> None:
    """Every client of a crowd holds a connection, and the crowd tells of them at its end."""
    server = SmallGateway(lambda asked: Told(after_s=NEVER))
    with server.elsewhere() as url, crowd(url, kind, 3) as end:
        told = end()
    assert server.connections == 3
    assert (told.clients, told.connections, told.ended, told.open) == (3, 3, 0, 3)
