"""A replica's report on itself: its load with its memory, and its totals as a scrape reads them."""

from __future__ import annotations

from collections import Counter
from collections.abc import Sequence
from datetime import UTC, datetime, timedelta
from mmap import PAGESIZE, mmap
from typing import Any

import pytest
from fake_engines import FakeReader, ranker, reader_manifest, text_tokens, writer_manifest
from fakes import ANSWER, FakeClock, entry, manifest
from prometheus_client.parser import text_string_to_metric_families

from deployments.replica.kinds import Server
from deployments.replica.replica import MEMORY_AGE_S, Replica
from deployments.replica.summarize.extractive import ExtractiveSummarizer
from deployments.replica.summarize.replica import SummarizerReplica
from deployments.replica.totals import TimeSlicerTotals, Totals
from gateway.model.messages import Emit, LoadReport, Work, to_nobody
from gateway.model.tier import Tier
from gateway.tasks.summarize import SummarizeParameters


class FakeServer:
    """A server whose answers a test sets."""

    async def handle(self, batch: Sequence[Work], emit: Emit = to_nobody) -> Any:
        """Gives every request one answer."""
        return [ANSWER] * len(batch)

    def start(self) -> None:
        """Does nothing."""

    async def stop(self, grace_s: float) -> None:
        """Does nothing."""

    def load(self) -> LoadReport:
        """Reports a fixed load."""
        return LoadReport(1.5, 3, sharing=2)

    def totals(self) -> Totals:
        """Reports fixed totals."""
        return TimeSlicerTotals(steps=7, busy_s=0.5, longest_overshoot_s=0.25, sizes=Counter({1: 2, 3: 1}))


SCRIBE = entry("scribe", Tier.BALANCED, 40.0)


def scraped(text: str) -> dict[str, float]:
    """Samples by name."""
    return {sample.name: sample.value for one in text_string_to_metric_families(text) for sample in one.samples}


@pytest.mark.asyncio
async def test_the_load_has_the_memory_of_the_process() -> None:
    """The load report is the server's, with resident memory that is read again once it is a second old."""
    server: Server = FakeServer()
    clock = FakeClock()
    replica = Replica(SCRIBE, 1.0, server, clock)
    load = replica.load()
    assert (load.backlog_s, load.queued, load.sharing, load.draining) == (1.5, 3, 2, False)
    assert load.memory_bytes > 10_000_000
    ballast = mmap(-1, 30_000_000)  # pages of its own: a heap may have as much that is free
    for page in range(0, len(ballast), PAGESIZE):
        ballast[page] = 1
    assert replica.load().memory_bytes == load.memory_bytes
    clock.advance(1.01 * MEMORY_AGE_S)
    assert replica.load().memory_bytes > load.memory_bytes + 10_000_000 and ballast
    work = Work("summarize", ("x",), SummarizeParameters(), 1.0, False, "r")
    assert await replica.handle([work, work]) == [ANSWER, ANSWER]


def test_the_metrics_parse() -> None:
    """The metrics parse: counters end in `_total`, durations in `_seconds`, and every sample names its checkpoint."""
    text = Replica(SCRIBE, 0.97, FakeServer(), FakeClock()).metrics()
    samples = scraped(text)
    assert samples["punctual_replica_steps_total"] == 7
    assert samples["punctual_replica_busy_seconds_total"] == 0.5
    assert samples["punctual_replica_backlog_seconds"] == 1.5 and samples["punctual_replica_queued_inputs"] == 3
    assert samples["punctual_replica_memory_bytes"] > 10_000_000
    assert samples["punctual_replica_longest_overshoot_seconds"] == 0.25
    assert samples["punctual_replica_batch_size_count"] == 3 and samples["punctual_replica_batch_size_sum"] == 5
    assert samples["punctual_replica_self_test_agreement_ratio"] == 0.97
    began = datetime.fromtimestamp(samples["punctual_replica_start_time_seconds"], UTC)
    assert timedelta() < datetime.now(UTC) - began < timedelta(hours=9)
    families = text_string_to_metric_families(text)
    whose = {"checkpoint": "scribe", "task": "classify", "tier": "balanced"}
    assert all(whose.items() <= sample.labels.items() for one in families for sample in one.samples)


@pytest.mark.asyncio
async def test_a_summarizers_totals_are_in_the_scrape() -> None:
    """Every total of the time slicer is in the scrape, by its name."""
    clock = FakeClock()
    reader = ExtractiveSummarizer(reader_manifest(), FakeReader(clock), text_tokens(), ranker())
    server = SummarizerReplica(entry("scribe", Tier.BALANCED, 40.0), reader, 9, clock)
    replica = Replica(SCRIBE, 1.0, server, clock)
    server.start()
    await replica.handle([Work("summarize", ("The river rose.",), SummarizeParameters(), 1.0, False, "r")])
    samples = scraped(replica.metrics())
    assert samples["punctual_replica_steps_total"] == samples["punctual_replica_inputs_total"] == 1
    assert samples["punctual_replica_late_steps_total"] == 0
    assert samples["punctual_replica_batch_size_count"] == samples["punctual_replica_batch_size_sum"] == 1
    assert samples["punctual_replica_busy_seconds_total"] == pytest.approx(0.01)
    assert {name.removeprefix("punctual_replica_") for name in samples} >= {
        "turns_total", "cancelled_total", "engine_failures_total", "wasted_seconds_total",
        "longest_overshoot_seconds",
    }  # fmt: skip
    await server.stop(1)


def test_an_agreement_is_what_was_compared_for_the_kind() -> None:
    """The agreement in the scrape is what the manifest's kind compares: labels, chosen sentences or tokens."""
    label_agreement = manifest("scribe", 0.01).verification.model_copy(update={"label_agreement": 0.99})
    assert manifest("scribe", 0.01).model_copy(update={"verification": label_agreement}).agreement == 0.99
    same_choice = reader_manifest().verification.model_copy(update={"same_choice": 0.98})
    assert reader_manifest().model_copy(update={"verification": same_choice}).agreement == 0.98
    same_tokens = writer_manifest().verification.model_copy(update={"same_tokens": 0.97})
    assert writer_manifest().model_copy(update={"verification": same_tokens}).agreement == 0.97
