"""A replica's report on itself: its load with its memory, and its totals as a scrape reads them."""

from __future__ import annotations

from typing import Any

import pytest
from fake_engines import FakeReader, ranker, reader_manifest, text_tokens
from fakes import ANSWER, FakeClock, entry
from prometheus_client.parser import text_string_to_metric_families

from deployments.reader import Reader
from deployments.replica import MEMORY_AGE_S, Replica, Server
from deployments.summarizing import SummarizerReplica
from gateway.catalog import Tier
from gateway.work import LoadReport, SummarizeParameters, Work


class FakeServer:
    """A server that says what it is told to."""

    async def handle(self, work: Work) -> Any:
        """The same to everybody."""
        return ANSWER

    def start(self) -> None:
        """Nothing to start."""

    async def stop(self, grace_s: float) -> None:
        """Nothing to stop."""

    def load(self) -> LoadReport:
        """Some."""
        return LoadReport(1.5, 3, sharing=2)

    def totals(self) -> dict[str, float]:
        """Two."""
        return {"steps": 7, "busy_s": 0.5}


def scraped(text: str) -> dict[str, float]:
    """Samples by name."""
    return {sample.name: sample.value for one in text_string_to_metric_families(text) for sample in one.samples}


@pytest.mark.asyncio
async def test_the_load_has_the_memory_of_the_process() -> None:
    """Whatever the server reports, with resident memory, read again when it is a second old."""
    server: Server = FakeServer()
    clock = FakeClock()
    replica = Replica("scribe", server, clock)
    load = replica.load()
    assert (load.backlog_s, load.queued, load.sharing, load.draining) == (1.5, 3, 2, False)
    assert load.memory_bytes > 10_000_000
    ballast = bytearray(b"x" * 30_000_000)
    assert replica.load().memory_bytes == load.memory_bytes
    clock.advance(1.01 * MEMORY_AGE_S)
    assert replica.load().memory_bytes > load.memory_bytes + 10_000_000 and ballast
    assert await replica.handle(Work("summarize", ("x",), SummarizeParameters(), 1.0, False, "r")) is ANSWER


def test_the_metrics_parse() -> None:
    """Counters end in `_total`, durations are in `_seconds`, every sample names the checkpoint."""
    text = Replica("scribe", FakeServer(), FakeClock()).metrics()
    samples = scraped(text)
    assert samples["punctual_replica_steps_total"] == 7
    assert samples["punctual_replica_busy_seconds_total"] == 0.5
    assert samples["punctual_replica_backlog_seconds"] == 1.5 and samples["punctual_replica_queued_inputs"] == 3
    assert samples["punctual_replica_memory_bytes"] > 10_000_000
    families = text_string_to_metric_families(text)
    assert all(sample.labels == {"checkpoint": "scribe"} for one in families for sample in one.samples)


@pytest.mark.asyncio
async def test_a_summarizers_totals_are_in_the_scrape() -> None:
    """Every total of the interleaver, by its name."""
    clock = FakeClock()
    reader = Reader(reader_manifest(), FakeReader(clock), text_tokens(), ranker())
    server = SummarizerReplica(entry("scribe", Tier.BALANCED, 40.0), reader, 9, clock)
    replica = Replica("scribe", server, clock)
    server.start()
    await replica.handle(Work("summarize", ("The river rose.",), SummarizeParameters(), 1.0, False, "r"))
    samples = scraped(replica.metrics())
    assert samples["punctual_replica_steps_total"] == samples["punctual_replica_inputs_total"] == 1
    assert samples["punctual_replica_late_steps_total"] == 0
    assert samples["punctual_replica_busy_seconds_total"] == pytest.approx(0.01)
    assert {name.removeprefix("punctual_replica_") for name in samples} >= {
        "turns_total", "cancelled_total", "engine_failures_total", "wasted_seconds_total",
        "longest_overshoot_seconds",
    }  # fmt: skip
    await server.stop(1)
