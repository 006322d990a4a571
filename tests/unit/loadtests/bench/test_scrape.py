"""The cost of being scraped: scrapes at fixed instants, ratios within rounds, and what makes a measurement invalid."""

from __future__ import annotations

import io
import json
import threading
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import replace
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path

import pytest
from fakes import FakeClock
from hypothesis import given
from hypothesis import strategies as st
from rich.console import Console
from waiting import wait_until

from loadtests.bench.measuring.report import present
from loadtests.bench.measuring.rounds import Slot, Turn, Turns
from loadtests.bench.peers.wrk import Sample
from loadtests.bench.scrape import (
    ALONE,
    LOGGED,
    SCRAPED,
    IdleCost,
    Scrape,
    Scrapes,
    ScrapeSettings,
    Scraping,
    cautions,
    next_due,
    report_of,
    scraper,
    series_in,
)

TEXT = b'# HELP a What it is.\n# TYPE a counter\na{b="c"} 1\na{b="d"} 2\n\nz 3\n'


def turn(number: int, contestant: str, per_s: float, errors: int = 0) -> Turn[Sample]:
    """A turn of ten seconds with this many answers per second."""
    return Turn(Slot(number, 16, contestant), Sample(round(per_s * 10), errors, 10.0, 0.01, 0.01, 0.01))


def report(*ratios: float, failures: tuple[str, ...] = ()) -> Scraping:
    """A warm-up that must not count, then a round per ratio: 100 requests/s alone, `ratio` times that when scraped."""
    turns = [turn(0, ALONE, 100), turn(0, SCRAPED, 1)]
    for number, ratio in enumerate(ratios, start=1):
        turns += [turn(number, SCRAPED, 100 * ratio), turn(number, ALONE, 100)]
    scrapes = tuple(Scrape(at, 0.02 + 0.01 * (at == 3), 1000 + at, 30) for at in range(10 * (len(ratios) + 1)))
    idle = IdleCost(rest_share=0.1, scrape_cpu_s=0.02, others=0.01, cores=2)
    settings = ScrapeSettings(rounds=len(ratios), seconds=10)
    return Scraping(settings, "here", "fast", Turns(tuple(turns)), scrapes, failures, idle, 100.0)


@contextmanager
def exposing(answers: Callable[[], object] = lambda: None) -> Iterator[tuple[str, list[str]]]:
    """A server that calls `answers`, then exposes `TEXT`; gives its URL and the paths that were requested."""
    asked: list[str] = []

    class Handler(BaseHTTPRequestHandler):
        def do_GET(self) -> None:
            asked.append(self.path)
            answers()
            self.send_response(200)
            self.end_headers()
            self.wfile.write(TEXT)

        def log_message(self, *_: object) -> None:
            """Logs nothing."""

    server = ThreadingHTTPServer(("127.0.0.1", 0), Handler)
    thread = threading.Thread(target=server.serve_forever, kwargs={"poll_interval": 0.01})
    thread.start()
    try:
        yield f"http://127.0.0.1:{server.server_port}", asked
    finally:
        server.shutdown()
        thread.join()
        server.server_close()


@given(
    due_s=st.floats(0, 1e3, allow_nan=False),
    passed_s=st.floats(0, 1e3, allow_nan=False),
    every_s=st.sampled_from([0.25, 0.5, 1.0, 15.0]),
)
def test_the_next_scrape_is_due_at_the_first_instant_to_come(due_s: float, passed_s: float, every_s: float) -> None:
    """The next scrape is due at the first instant of the fixed grid after now; missed instants are not made up for."""
    now_s = due_s + passed_s
    found = next_due(due_s, now_s, every_s)
    assert now_s < found + 1e-9 and found - every_s <= now_s + 1e-9 and found > due_s
    assert ((found - due_s) / every_s) == pytest.approx(round((found - due_s) / every_s), abs=1e-6)


def test_a_scraper_scrapes_for_as_long_as_it_is_there() -> None:
    """A scraper scrapes only within its context and never early; a scrape has its duration, bytes and series."""
    scrapes = Scrapes()
    with exposing() as (url, asked):
        with scraper(url, scrapes, every_s=0.05):
            wait_until(lambda: len(scrapes.made) >= 4)
        assert "scraper" not in {thread.name for thread in threading.enumerate()}
        assert set(asked) == {"/metrics"} and len(asked) == len(scrapes.made)
    assert not scrapes.failures
    assert {(one.size_bytes, one.series) for one in scrapes.made} == {(len(TEXT), 3)}
    instants = [one.at_s / 0.05 for one in scrapes.made]
    assert all(instant >= number for number, instant in enumerate(instants, start=1)), "none before it is due"
    assert all(one.took_s > 0 for one in scrapes.made)


def test_a_slow_scrape_has_none_beside_it() -> None:
    """Scrapes never overlap: instants that pass during a slow scrape are skipped, as by Prometheus."""
    scrapes, clock = Scrapes(), FakeClock()
    with exposing(lambda: clock.advance(0.12)) as (url, asked), scraper(url, scrapes, every_s=0.05, clock=clock):
        wait_until(lambda: len(scrapes.made) >= 4)
    assert len(asked) == len(scrapes.made)
    assert [one.at_s for one in scrapes.made] == pytest.approx([0.12 * number for number in range(len(asked))])
    assert [one.took_s for one in scrapes.made] == pytest.approx([0.12] * len(asked))


def test_a_scrape_without_an_answer_is_a_failure() -> None:
    """A scrape without an answer is recorded as a failure with its reason, and the scraper goes on."""
    scrapes = Scrapes()
    with scraper("http://127.0.0.1:1", scrapes, every_s=0.02):
        wait_until(lambda: len(scrapes.failures) >= 2)
    assert not scrapes.made and "URLError" in scrapes.failures[0]


def test_series_are_lines_but_for_comments() -> None:
    """The number of series is the number of lines that are neither comments nor empty."""
    assert (series_in(TEXT), series_in(b"")) == (3, 0)


def test_the_target_is_met_by_the_median_round() -> None:
    """The target is met if the median loss is below 2 % and no scrape failed; the warm-up does not count."""
    assert report_of(report(0.5, 0.985, 1.1)).met
    assert not report_of(report(0.98)).met and not report_of(report(0.97, 0.975, 1.0)).met
    (none,) = report_of(report()).verdicts
    assert not none.met and "not measured" in none.sentence
    assert not report_of(report(1.0, failures=("URLError",))).met
    assert not report_of(replace(report(1.0), scrapes=())).met


def test_a_round_with_an_error_does_not_count() -> None:
    """A round with an error does not count for the verdict, and a caution says so."""
    good = report(0.99)
    spoilt = replace(good, turns=Turns((*good.turns.taken, turn(2, ALONE, 100), turn(2, SCRAPED, 10, errors=3))))
    assert report_of(spoilt).met and any("round 2 does not count" in said for said in cautions(spoilt))


def test_what_a_reader_must_know_is_said() -> None:
    """Cautions name rounds that differ too much, too few rounds or scrapes, failed scrapes and a busy machine."""
    good = report(0.99, 1.0)
    assert cautions(good) == []
    assert "too unlike" in cautions(report(0.9, 1.1))[0] and "too few" in cautions(report(1.0))[0]
    assert "only 3 scrapes in 30 s" in cautions(replace(good, scrapes=good.scrapes[:3]))[0]
    assert "the last: b" in cautions(replace(good, failures=("a", "b")))[0]
    assert "not quiet: 50%" in cautions(replace(good, idle=replace(good.idle, others=0.5)))[0]


def test_a_report_is_shown_and_written(tmp_path: Path) -> None:
    """A report shows every round, the medians, the cost of a scrape, the log's cost where measured, and the verdict."""
    good = report(0.99, 0.97, 1.0)
    logged = Turns((*good.turns.taken, *(turn(number, LOGGED, 95) for number in range(4))))
    good = replace(good, turns=logged, settings=replace(good.settings, access_log=True))
    told = io.StringIO()
    present(report_of(good), Console(file=told, width=180), json=tmp_path / "out.json")
    text = told.getvalue()
    for part in (
        "100 (100 to 100)",
        "0.990 (0.970 to 1.000)",
        "0.950 (0.950 to 0.950)",
        "40 scrapes under load: median 20 ms, longest 30 ms; the last had 30 series in 1039 bytes",
        "20.0 ms of processor time: each second, 1.0% of 2 cores",
        "an access log costs +5.0% ± 0.0%",
        "less than 2% of requests/s: met: +1.0% ± 1.1% (+0.0% to +3.0% over the rounds)",
    ):
        assert part in text, (part, text)
    assert not any("log" in said for said in report_of(report(1.0)).remarks)
    document = json.loads((tmp_path / "out.json").read_bytes())
    assert document["cost_below"] == 0.02 and document["verdicts"][0]["met"] and len(document["turns"]["taken"]) == 12
