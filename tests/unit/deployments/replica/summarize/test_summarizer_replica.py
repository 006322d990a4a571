"""A summarizer's replica: what a request ends with, in time and out of it."""

from __future__ import annotations

import asyncio
import threading
from typing import Any

import msgspec
import pytest
from fake_engines import (
    CONDENSED,
    FakeReader,
    FakeSeq2Seq,
    in_steps,
    ranker,
    reader_manifest,
    says,
    text_tokens,
    words,
    writer_manifest,
)
from fakes import FakeClock, entry
from virtual_time import loop_clock, turns
from waiting import until

from deployments.replica.summarize.abstractive import AbstractiveSummarizer
from deployments.replica.summarize.extractive import ExtractiveSummarizer
from deployments.replica.summarize.replica import Summarizer, SummarizerReplica
from deployments.replica.writing.answers import reserve_s
from deployments.replica.writing.job import TextBudget, WritingJob, WritingResult
from deployments.replica.writing.step_log import VARIABLE, read_log
from gateway.model.deadline import Clock
from gateway.model.messages import Answer, Failure, FailureKind, InputReport, Work
from gateway.model.tier import Tier
from gateway.tasks.summarize import SummarizeParameters

ENTRY = entry("scribe", Tier.BALANCED, 40.0)
TEXT = "The river rose. The bridge was closed for hours."


def work(*inputs: str, remaining_s: float = 60.0, strict: bool = False, **parameters: Any) -> Work:
    """A request to summarise."""
    return Work("summarize", inputs or (TEXT,), SummarizeParameters(**parameters), remaining_s, strict, "r-1")


def writer(clock: FakeClock, **how: Any) -> AbstractiveSummarizer:
    """An abstractive summarizer that writes five words and a full stop."""
    return AbstractiveSummarizer(writer_manifest(), FakeSeq2Seq(clock, **how), text_tokens())


def reader(clock: FakeClock, **how: Any) -> ExtractiveSummarizer:
    """An extractive summarizer."""
    return ExtractiveSummarizer(reader_manifest(), FakeReader(clock, **how), text_tokens(), ranker())


async def answered(replica: SummarizerReplica, work: Work) -> Answer | Failure:
    """The replica's answer to a batch of this request alone."""
    (result,) = await replica.handle([work])
    return result


async def handled(summarizer: Summarizer, clock: Clock, *works: Work) -> list[Answer | Failure]:
    """The replica's answers to these requests, one after the other; the replica is idle afterwards."""
    replica = SummarizerReplica(ENTRY, summarizer, 100, clock)
    replica.start()
    try:
        results = [await answered(replica, one) for one in works]
        await until(lambda: replica.load().sharing == 0)
        assert replica.load().backlog_s == 0 and replica.load().queued == 0
        return results
    finally:
        await replica.stop(60)


class Scripted:
    """A summarizer whose every text takes the scripted number of steps of `step_s`."""

    def __init__(
        self, clock: FakeClock, steps: int = 3, step_s: float = 0.1, condensed: WritingResult = CONDENSED
    ) -> None:
        self.clock, self.steps, self.step_s, self.summary = clock, steps, step_s, condensed
        self.begun: list[str] = []
        self.ran: list[str] = []
        self.gate = threading.Event()
        self.gate.set()

    def begin(self, text: str, parameters: SummarizeParameters, room: TextBudget) -> WritingJob:
        """Begins a text of the scripted number of steps."""
        self.begun.append(text)

        def run() -> None:
            self.ran.append(text)
            assert self.gate.wait(60)
            if text.startswith("poison"):
                raise ArithmeticError(text)
            self.clock.advance(self.step_s)

        return in_steps(room, self.steps, run, self.step_s)


@pytest.mark.asyncio
async def test_an_answer_has_a_summary_for_each_input_in_order() -> None:
    """An answer has a summary for each input in order, with its origin, summed input reports and consistent times."""
    clock = FakeClock()
    texts = [TEXT, "People waited.", "The town was dark. " * 9]
    (answer,) = await handled(writer(clock), clock, work(*texts))
    assert isinstance(answer, Answer) and len(answer.outputs) == len(answer.generation) == 3
    counts = [len(text_tokens().encode(text)) for text in texts]
    assert answer.input == InputReport(sum(counts), sum(counts), False)
    times = answer.timings
    assert times.service_time_s > 0 and times.queueing_delay_s >= 0
    assert times.queueing_delay_s + times.service_time_s <= times.total_s + 1e-9
    assert times.service_time_s == pytest.approx(times.total_s)


@pytest.mark.asyncio
@pytest.mark.parametrize("make", [writer, reader])
@pytest.mark.parametrize("remaining_s", [-5.0, 0.0, 0.001, 0.01])
async def test_without_time_strict_work_expires_and_the_rest_gets_the_lead(make: Any, remaining_s: float) -> None:
    """Without time a strict request expires, and another gets the lead of its source, marked as no summary."""
    clock = FakeClock()
    strict, patient = await handled(
        make(clock), clock, work(remaining_s=remaining_s, strict=True), work(remaining_s=remaining_s)
    )
    assert strict == Failure(FailureKind.EXPIRED)
    assert isinstance(patient, Answer) and [one.summary_text for one in patient.outputs] == ["The river rose."]
    assert patient.generation[0].lead and patient.generation[0].finish_reason == "deadline"
    assert patient.generation[0].steps == 0 and patient.input.truncated


@pytest.mark.asyncio
async def test_a_usable_part_is_an_answer_in_either_mode() -> None:
    """A usable text cut by the deadline is answered in either mode, and is not called late."""
    clock = FakeClock()
    slow = AbstractiveSummarizer(
        writer_manifest(step_s=0.1, output_tokens=20.0), FakeSeq2Seq(clock, says(words(100)), step_s=0.1), text_tokens()
    )
    for answer in await handled(slow, clock, work(remaining_s=1.0, strict=True), work(remaining_s=1.0)):
        assert isinstance(answer, Answer)
        (generation,) = answer.generation
        assert generation.finish_reason == "deadline" and not generation.lead
        assert generation.headroom_s >= reserve_s(1.0) and answer.timings.total_s <= 1.0


@pytest.mark.asyncio
async def test_who_asks_for_one_token_gets_one_word() -> None:
    """A client's own small limit is no lack of time: strict requests do not expire for it, and no lead exceeds it."""
    clock = FakeClock()
    for make in (writer, reader):
        strict, none = await handled(
            make(clock), clock, work(strict=True, max_new_tokens=1), work(remaining_s=0.0, max_new_tokens=2)
        )
        assert isinstance(strict, Answer) and strict.generation[0].finish_reason == "length"
        assert isinstance(none, Answer) and none.outputs[0].summary_text == "The"


@pytest.mark.asyncio
@pytest.mark.parametrize("text", ["word", "...", "\x00word", "a\ud800b", "x" * 200_000, "\ud800"])
async def test_no_text_with_anything_in_it_is_answered_with_nothing(text: str) -> None:
    """A text with something in it is never answered with nothing, and every answer can be encoded."""
    clock = FakeClock()
    for make in (writer, reader):
        for answer in await handled(make(clock), clock, work(text), work(text, remaining_s=0.0)):
            assert isinstance(answer, Answer)
            assert msgspec.msgpack.decode(msgspec.msgpack.encode(answer.outputs))[0]["summary_text"]


@pytest.mark.asyncio
@pytest.mark.parametrize("blank", [" ", "\x00", "\u200b", "\n\t\x00"])
@pytest.mark.parametrize("strict", [True, False])
async def test_a_text_that_says_nothing_costs_the_others_nothing(blank: str, strict: bool) -> None:
    """A text that says nothing has an empty summary, and the others of its list have theirs, strict or not."""
    clock = FakeClock()
    for make in (writer, reader):
        (answer,) = await handled(make(clock), clock, work(TEXT, blank, strict=strict))
        assert isinstance(answer, Answer)
        assert answer.outputs[0].summary_text and answer.outputs[1].summary_text == ""
        assert [one.finish_reason for one in answer.generation] == ["stop", "short"]
        assert not any(one.lead for one in answer.generation)


@pytest.mark.asyncio
async def test_a_text_too_long_is_named_by_its_index() -> None:
    """Of a list in which one text is over the window, the failure has its index and its tokens."""
    clock = FakeClock()
    (failure,) = await handled(writer(clock), clock, work(TEXT, "the river " * 300, TEXT, truncation="error"))
    assert isinstance(failure, Failure) and failure.kind is FailureKind.TOO_LONG
    assert (failure.index, failure.tokens) == (1, 602)


@pytest.mark.asyncio
async def test_a_writer_that_says_nothing_with_time_to_spare_misses_no_deadline() -> None:
    """Nothing written with time to spare is no missed deadline: the first sentence stands in, and the reason stays."""
    clock = FakeClock()
    silent = AbstractiveSummarizer(writer_manifest(), FakeSeq2Seq(clock, says([])), text_tokens())
    (answer,) = await handled(silent, clock, work(strict=True))
    assert isinstance(answer, Answer) and answer.outputs[0].summary_text == "The river rose."
    assert (answer.generation[0].finish_reason, answer.generation[0].lead) == ("stop", True)


@pytest.mark.asyncio
async def test_one_failure_fails_the_work_and_withdraws_the_rest() -> None:
    """If one text fails, the whole request fails and its other texts are withdrawn."""
    clock = FakeClock()
    scripted = Scripted(clock, steps=50, step_s=1 / 64)
    scripted.gate.clear()
    replica = SummarizerReplica(ENTRY, scripted, 100, clock)
    replica.start()
    task = asyncio.create_task(answered(replica, work("long", "poison", "longer", remaining_s=600.0)))
    await until(lambda: replica.load().sharing == 3 and bool(scripted.ran))
    scripted.gate.set()
    assert await task == Failure(FailureKind.ENGINE, "ArithmeticError")
    await until(lambda: replica.load().sharing == 0)
    await replica.stop(60)
    assert len(scripted.ran) < 20 and replica.totals().inputs == 3


@pytest.mark.asyncio
async def test_the_requests_of_a_batch_share_the_engine_and_end_each_for_itself() -> None:
    """Each request of a batch has its own answer or failure, and one that fails withdraws no texts of another."""
    clock = FakeClock()
    scripted = Scripted(clock, steps=3, step_s=1 / 64)
    replica = SummarizerReplica(ENTRY, scripted, 100, clock)
    replica.start()
    first, failed, last = await replica.handle([work("a", "b"), work("poison", "c"), work("d")])
    assert [len(one.outputs) for one in (first, last) if isinstance(one, Answer)] == [2, 1]
    assert failed == Failure(FailureKind.ENGINE, "ArithmeticError")
    await until(lambda: replica.load().sharing == 0)
    await replica.stop(60)


@pytest.mark.asyncio
async def test_cancelling_a_batch_withdraws_the_texts_of_all_its_requests() -> None:
    """Cancelling a batch withdraws the texts of all its requests, and none of another batch."""
    scripted = Scripted(FakeClock())
    scripted.gate.clear()
    replica = SummarizerReplica(ENTRY, scripted, 100, scripted.clock)
    replica.start()
    leaving = asyncio.create_task(replica.handle([work("a", "b"), work("c")]))
    staying = asyncio.create_task(replica.handle([work("d"), work("e")]))
    await until(lambda: replica.load().sharing == 5 and bool(scripted.ran))
    leaving.cancel()
    await asyncio.gather(leaving, return_exceptions=True)
    await until(lambda: replica.load().sharing == 2)
    scripted.gate.set()
    assert [isinstance(one, Answer) for one in await staying] == [True, True]
    await replica.stop(60)
    assert leaving.cancelled() and replica.totals().cancelled == 3


@pytest.mark.asyncio
async def test_a_queue_without_room_for_all_takes_none() -> None:
    """A queue that cannot take all texts of a request refuses it with QUEUE_FULL and withdraws those already queued."""
    clock = FakeClock()
    scripted = Scripted(clock, steps=50, step_s=1 / 64)
    scripted.gate.clear()
    replica = SummarizerReplica(ENTRY, scripted, 3, clock)
    replica.start()
    assert await answered(replica, work(*"abcdefgh", remaining_s=600.0)) == Failure(FailureKind.QUEUE_FULL)
    await until(lambda: replica.load().sharing == 0)
    scripted.gate.set()
    await replica.stop(60)
    assert len(scripted.ran) <= 1


@pytest.mark.asyncio
@pytest.mark.parametrize("inputs", [1, 3])
async def test_cancelling_the_work_withdraws_all_its_texts(inputs: int) -> None:
    """Cancelling a request withdraws all its texts: no further step runs and nothing is left of the load."""
    scripted = Scripted(FakeClock())
    scripted.gate.clear()
    replica = SummarizerReplica(ENTRY, scripted, 100, scripted.clock)
    replica.start()
    task = asyncio.create_task(answered(replica, work(*(str(at) for at in range(inputs)))))
    await until(lambda: bool(scripted.ran))
    assert replica.load().sharing == inputs
    task.cancel()
    await asyncio.gather(task, return_exceptions=True)
    await asyncio.sleep(0)
    assert task.cancelled() and replica.load().sharing == 0 and replica.load().backlog_s == 0
    scripted.gate.set()
    await replica.stop(60)
    assert len(scripted.ran) == 1 and replica.totals().cancelled == replica.totals().inputs == inputs


@pytest.mark.asyncio
async def test_a_stopped_replica_is_unavailable() -> None:
    """A stopped replica answers UNAVAILABLE, so that the request may be tried elsewhere."""
    clock = FakeClock()
    replica = SummarizerReplica(ENTRY, Scripted(clock), 100, clock)
    replica.start()
    await replica.stop(1)
    failure = await answered(replica, work("a", "b"))
    assert isinstance(failure, Failure) and failure.kind is FailureKind.UNAVAILABLE


@pytest.mark.virtual_time(flows=False)
async def test_work_behind_a_stuck_engine_is_answered_by_its_deadline() -> None:
    """A text that waits behind a stuck engine gets its lead by its deadline."""
    clock, began = loop_clock(), threading.Event()

    def hang() -> None:
        began.set()
        assert stuck.gate.wait(60)

    class Stuck(Scripted):
        """A summarizer whose first text never ends."""

        def begin(self, text: str, parameters: SummarizeParameters, room: TextBudget) -> WritingJob:
            """A text of one step, which hangs the first time and takes a millisecond afterwards."""
            return in_steps(room, 1, hang if text == "stuck" else (lambda: None), 0.001)

    stuck = Stuck(clock)
    stuck.gate.clear()
    replica = SummarizerReplica(ENTRY, stuck, 100, clock)
    replica.start()
    hanging = asyncio.create_task(answered(replica, work("stuck", remaining_s=600.0)))
    assert await asyncio.to_thread(began.wait, 60)
    behind = [asyncio.create_task(answered(replica, work("x", remaining_s=0.4))) for _ in range(12)]
    await turns()
    clock.advance(0.4 - reserve_s(0.4))
    await turns()
    assert not any(task.done() for task in behind)
    clock.advance(0.9 * reserve_s(0.4))
    assert all(isinstance(answer, Answer) for answer in await asyncio.gather(*behind))
    stuck.gate.set()
    await hanging
    await replica.stop(60)


@pytest.mark.asyncio
async def test_the_step_log_has_the_requests_id(tmp_path: Any, monkeypatch: pytest.MonkeyPatch) -> None:
    """The step log has an entry for each text, and no step began late or ended within the reserve."""
    monkeypatch.setenv(VARIABLE, str(tmp_path))
    clock = FakeClock()
    await handled(reader(clock), clock, work(TEXT, TEXT * 9, remaining_s=1.0))
    entries = read_log(tmp_path)
    assert [one.request_id for one in entries] == ["r-1", "r-1"]
    steps = [step for one in entries for step in one.steps]
    assert steps and all(step.began_s < step.ended_s <= -reserve_s(1.0) for step in steps)


def test_the_reserve() -> None:
    """The reserve is 8 ms plus 2 % of what is left, at most 50 ms or a quarter of it, and never negative."""
    assert reserve_s(-1.0) == reserve_s(0.0) == 0.0
    assert reserve_s(0.02) == 0.005
    assert reserve_s(0.2) == pytest.approx(0.012)
    assert reserve_s(60.0) == 0.05
    room = TextBudget(10.0, reserve_s(0.2), lambda: 9.8)
    assert room.stop_at == pytest.approx(9.988)
