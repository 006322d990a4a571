"""Summaries that somebody reads while they are written: what a replica emits of them, and until when."""

from __future__ import annotations

import asyncio
import threading
from collections import defaultdict
from collections.abc import Callable, Sequence
from dataclasses import dataclass, field
from functools import partial
from typing import Any

import pytest
from fake_engines import (
    CONDENSED,
    STOP,
    FakeReader,
    FakeSeq2Seq,
    ranker,
    reader_manifest,
    says,
    says_head,
    text_tokens,
    words,
    writer_manifest,
)
from fake_summaries import entry
from fakes import FakeClock
from msgspec.structs import replace
from waiting import until

from deployments.replica.summarize.abstractive import AbstractiveSummarizer
from deployments.replica.summarize.extractive import ExtractiveSummarizer
from deployments.replica.summarize.replica import Summarizer, SummarizerReplica
from deployments.replica.writing.job import Steps, TextBudget, WritingJob
from gateway.model.messages import Answer, Delta, Failure, FailureKind, Work
from gateway.model.tier import Tier
from gateway.tasks.summarize import SummarizeParameters

ENTRY = entry("scribe", Tier.BALANCED, 40.0)
TEXT = "The river rose for hours. The bridge was closed. People waited in the dark town."


def work(*inputs: str, remaining_s: float = 60.0, strict: bool = False, **parameters: Any) -> Work:
    """A streamed request to summarise."""
    given = SummarizeParameters(**parameters)
    return Work("summarize", inputs or (TEXT,), given, remaining_s, strict, "r-1", streamed=True)


@dataclass
class Told:
    """What a replica emitted: the texts of the deltas by the request's place and the input's index."""

    deltas: dict[tuple[int, int], list[str]] = field(default_factory=lambda: defaultdict(list))

    def __call__(self, place: int, delta: Delta) -> None:
        """Take a delta."""
        self.deltas[place, delta.index].append(delta.text)


async def told(
    summarizer: Summarizer, clock: Callable[[], float], *batch: Work
) -> tuple[Sequence[Answer | Failure], Told]:
    """The results of a batch, and what was emitted before them."""
    replica, heard = SummarizerReplica(ENTRY, summarizer, 100, clock), Told()
    replica.start()
    try:
        return await replica.handle(batch, heard), heard
    finally:
        await replica.stop(60)


def writer(clock: FakeClock, **how: Any) -> AbstractiveSummarizer:
    """A summarizer that writes two sentences."""
    saying = says([*words(4), STOP, *words(3), STOP])
    return AbstractiveSummarizer(writer_manifest(), FakeSeq2Seq(clock, saying, **how), text_tokens())


def reader(clock: FakeClock) -> ExtractiveSummarizer:
    """A summarizer that picks sentences."""
    return ExtractiveSummarizer(reader_manifest(), FakeReader(clock), text_tokens(), ranker())


@pytest.mark.parametrize("make", [writer, reader])
@pytest.mark.parametrize("beams", [1, 4])
async def test_the_deltas_of_each_input_are_its_summary(make: Any, beams: int) -> None:
    """Joined, what is emitted of each input of each request is its summary; the summaries are those of any request."""
    clock = FakeClock()
    batch = [work(TEXT, "The town was dark. " * 9, num_beams=beams), work("People waited.", num_beams=beams)]
    results, heard = await told(make(clock), clock, *batch)
    joined = [
        ["".join(heard.deltas[place, index]) for index in range(len(one.inputs))] for place, one in enumerate(batch)
    ]
    plain, nothing = await told(make(clock), clock, *(replace(one, streamed=False) for one in batch))
    for given in (results, plain):
        answers = [one for one in given if isinstance(one, Answer)]
        assert joined == [[one.summary_text for one in answer.outputs] for answer in answers]
    assert not nothing.deltas


async def test_a_sentence_is_told_word_by_word_and_the_rest_by_sentences() -> None:
    """The first sentence comes word by word; what was not settled before comes at the end, a sentence at a time."""
    clock = FakeClock()
    _, heard = await told(writer(clock), clock, work(num_beams=1))
    assert heard.deltas == {(0, 0): ["the", " river", " rose", " bridge.", " the river rose."]}


async def test_an_extract_is_told_by_sentences() -> None:
    """Sentences that are picked come one by one, once all of the text was read."""
    clock = FakeClock()
    text = "The river rose for hours. People waited in the dark town. The bridge was closed for hours. " * 2
    (answer,), heard = await told(reader(clock), clock, work(text))
    assert isinstance(answer, Answer)
    (emitted,) = heard.deltas.values()
    assert len(emitted) > 1 and all(sentence.endswith(".") for sentence in emitted)


async def test_of_a_long_text_only_the_last_reading_is_told() -> None:
    """What is written of the pieces of a long text is no part of the summary, and is not told."""
    clock = FakeClock()
    engine = FakeSeq2Seq(clock, says_head(6))
    summarizer = AbstractiveSummarizer(writer_manifest(window=24), engine, text_tokens())
    (answer,), heard = await told(summarizer, clock, work(TEXT * 5, num_beams=1))
    assert isinstance(answer, Answer) and answer.generation[0].pieces > 1
    assert "".join(heard.deltas[0, 0]) == answer.outputs[0].summary_text


@pytest.mark.parametrize("remaining_s", [0.0, 0.05])
@pytest.mark.parametrize("strict", [True, False])
async def test_nothing_is_told_of_what_is_not_usable(remaining_s: float, strict: bool) -> None:
    """Where time runs out before a summary is usable, a strict request has told nothing, and another its lead alone."""
    clock = FakeClock()
    slow = AbstractiveSummarizer(
        writer_manifest(step_s=0.02), FakeSeq2Seq(clock, says(words(20)), step_s=0.02), text_tokens()
    )
    (result,), heard = await told(slow, clock, work(remaining_s=remaining_s, strict=strict, num_beams=1))
    if strict:
        assert result == Failure(FailureKind.EXPIRED) and not heard.deltas
    else:
        assert isinstance(result, Answer) and result.generation[0].lead
        assert heard.deltas == {(0, 0): ["The river rose for hours."]}


class Changing:
    """A summarizer that tells what its summary does not begin with, which none may do."""

    def begin(self, text: str, parameters: SummarizeParameters, budget: TextBudget) -> WritingJob:
        """Begins a text that is told as nonsense."""

        def steps() -> Steps:
            yield lambda: "nonsense"
            return CONDENSED

        return WritingJob(budget, steps())


async def test_a_summary_that_does_not_begin_as_it_was_told_fails() -> None:
    """A summarizer that breaks its word fails the request: no client reads another text than the one it was sent."""
    clock = FakeClock()
    (result,), heard = await told(Changing(), clock, work())
    assert isinstance(result, Failure) and result.kind is FailureKind.ENGINE and "nonsense" not in result.detail
    assert heard.deltas == {(0, 0): ["nonsense"]}
    (plain,), _ = await told(Changing(), clock, replace(work(), streamed=False))
    assert isinstance(plain, Answer)


class Gated:
    """A summarizer whose steps wait at a gate, and tell how many of them have run."""

    def __init__(self) -> None:
        self.gate = threading.Semaphore(0)
        self.ran = 0

    def begin(self, text: str, parameters: SummarizeParameters, budget: TextBudget) -> WritingJob:
        """Begins a text of many steps."""

        def steps() -> Steps:
            while True:
                assert self.gate.acquire(timeout=60)
                self.ran += 1
                yield partial("x".__mul__, self.ran)

        return WritingJob(budget, steps())


async def test_a_reader_that_leaves_stops_the_text_within_one_step() -> None:
    """Once a streamed request is cancelled, only the step that has begun still runs, and nothing more is told."""
    summarizer, heard = Gated(), Told()
    replica = SummarizerReplica(ENTRY, summarizer, 100, FakeClock())
    replica.start()
    handling = asyncio.create_task(replica.handle([work()], heard))
    summarizer.gate.release()
    await until(lambda: heard.deltas == {(0, 0): ["x"]})
    handling.cancel()
    await asyncio.wait([handling])
    for _ in range(9):
        summarizer.gate.release()
    await until(lambda: replica.load().sharing == 0)
    await replica.stop(60)
    assert summarizer.ran <= 2 and "".join(heard.deltas[0, 0]) in ("x", "xx")
