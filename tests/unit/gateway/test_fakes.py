"""The fakes keep the promises that other tests build on."""

from __future__ import annotations

import asyncio

import pytest
from fake_summaries import DOMAIN, GLANCE, OUTPUT_TOKENS, PAGE, SCRIBE, STUDY, SUMMARY
from fakes import ANSWER, EVEN, GRAND, MEDIANS_S, SWIFT, FakeBackend, FakeClock, dispatched, latency_profile, scripted
from worlds import summarizing, world

from gateway.model.messages import Failure, FailureKind, Work
from gateway.tasks.classify import ClassifyParameters

pytestmark = pytest.mark.virtual_time

WORK = Work("classify", ("a",), ClassifyParameters(), remaining_s=1.0, strict=False, request_id="r")
GONE = Failure(FailureKind.UNAVAILABLE)


def test_the_clock_stands_until_it_is_advanced() -> None:
    """Time passes only when a test says so."""
    clock = FakeClock()
    before = clock()
    assert clock() == before
    clock.advance(2.5)
    assert clock() == before + 2.5


async def test_the_backend_follows_its_script_and_keeps_to_the_last_line() -> None:
    """A scripted backend returns its results in order and repeats the last one; it notes every request."""
    backend = FakeBackend(scripted(GONE, ANSWER))
    results = [await dispatched(backend, *[WORK] * size, service_time_s=0.5 * size) for size in (1, 2)]
    assert results == [[GONE], [ANSWER, ANSWER]]
    assert [(one.checkpoint, one.work, one.service_time_s) for one in backend.dispatches] == [("c", WORK, 0.5)] * 3
    assert backend.cancelled == 0


async def test_a_hanging_backend_hangs_until_it_is_cancelled() -> None:
    """A batch with None in its script never ends, and its requests are counted when it is cancelled."""
    backend = FakeBackend(scripted(ANSWER, None))
    with pytest.raises(TimeoutError):
        async with asyncio.timeout(600):
            await dispatched(backend, WORK, WORK)
    assert backend.cancelled == 2


def test_a_slower_checkpoint_is_a_better_one() -> None:
    """In the shared catalog, quality, tier and service time rise together."""
    told = world()
    names = [SWIFT, EVEN, GRAND]
    entries = [told.service.router.entries[name] for name in names]
    assert [one.quality.value for one in entries] == sorted(one.quality.value for one in entries)
    assert [one.tier.rank for one in entries] == [0, 1, 2]
    assert [MEDIANS_S[name] for name in names] == sorted(MEDIANS_S.values())
    assert latency_profile(0.002).median_s(1, 16) == pytest.approx(0.002)
    assert told.service.missing() == ()
    assert world(up=False).service.missing() == tuple(names)


async def test_the_summarizers_are_of_three_kinds_and_answer_as_such() -> None:
    """The shared summarizers are of three kinds, each better than the one before, and all are up and answer."""
    told = summarizing()
    router, names = told.service.router, (GLANCE, STUDY, SCRIBE)
    entries, found = [router.entries[name] for name in names], [router.manifests[name] for name in names]
    assert [one.quality.value for one in entries] == sorted(one.quality.value for one in entries)
    assert [one.kind for one in found] == ["extractive", "extractive", "seq2seq"]
    assert [one.domain for one in entries] == [None, None, DOMAIN]
    assert [one.checkpoint for one in found] == [GLANCE, STUDY, SCRIBE]
    assert told.service.missing() == ()
    assert SUMMARY.generation[0].tokens < OUTPUT_TOKENS and 2900 < len(PAGE) < 3100
    assert (await told.service.handle(told.page())).answer is SUMMARY
    assert (await told.service.handle(told.request())).answer is ANSWER
