"""Summaries of an encoder-decoder whose texts share steps: equal to those alone, and in time."""

from __future__ import annotations

import asyncio
import threading
from collections.abc import Sequence
from dataclasses import dataclass

from fake_engines import STOP, FakeSeq2Seq, SharingSeq2Seq, says, says_head, text_tokens, words, writer_manifest
from fake_summaries import entry
from fakes import FakeClock
from hypothesis import given, settings
from hypothesis import strategies as st
from virtual_time import turns

from deployments.engines.base import Decoder, TokenIds
from deployments.replica.summarize.abstractive import AbstractiveSummarizer
from deployments.replica.summarize.replica import SummarizerReplica
from deployments.replica.writing.time_slicing import Together
from gateway.model.messages import Answer, Failure, Work
from gateway.model.tier import Tier
from gateway.tasks.decoding import MOST_TOGETHER
from gateway.tasks.summarize import SummarizeParameters

TEXTS = ("The river rose for hours.", "The bridge was closed.", "The town was dark for hours. People waited.")


@dataclass(frozen=True)
class Asked:
    """One request: its texts, its budget in seconds, and the beams that it wants."""

    texts: Sequence[str]
    remaining_s: float = 60.0
    beams: int = 4

    def work(self) -> Work:
        """The request as the replica gets it."""
        return Work(
            "summarize", tuple(self.texts), SummarizeParameters(num_beams=self.beams), self.remaining_s, False, ""
        )


async def answered(
    engine: FakeSeq2Seq, asked: Sequence[Asked], window: int = 64
) -> tuple[list[Answer | Failure], SummarizerReplica]:
    """The answers to requests that come at once, and the replica, stopped. The engine begins once all have come."""
    gate, encode = threading.Event(), engine.encode

    def held(token_ids: TokenIds) -> Decoder:
        assert gate.wait(60)
        return encode(token_ids)

    engine.encode = held  # type: ignore[method-assign, assignment]
    manifest = writer_manifest(window, sharing=isinstance(engine, SharingSeq2Seq))
    summarizer = AbstractiveSummarizer(manifest, engine, text_tokens())
    scribe = entry("scribe", Tier.BALANCED, 40.0)
    replica = SummarizerReplica(scribe, summarizer, 100, engine.clock, summarizer.together())
    replica.start()
    try:
        answers = asyncio.gather(*(replica.handle([one.work()]) for one in asked))
        await turns(20)
        gate.set()
        found = await answers
        return [answer for (answer,) in found], replica
    finally:
        gate.set()
        await replica.stop(60)


def texts(answers: Sequence[Answer | Failure]) -> list[list[str]]:
    """The summaries of each request."""
    assert all(isinstance(one, Answer) for one in answers)
    return [[summary.summary_text for summary in one.outputs] for one in answers if isinstance(one, Answer)]


async def test_texts_of_all_requests_step_together() -> None:
    """Texts of one request and of others share steps, at most so many, and each has the summary it has alone."""
    asked = [Asked(TEXTS), *(Asked([one], beams=beams) for one in TEXTS for beams in (1, 2, 4))]
    engine = SharingSeq2Seq(FakeClock(), says_head(3))
    found, _ = await answered(engine, asked)
    alone, _ = await answered(FakeSeq2Seq(FakeClock(), says_head(3)), asked)
    assert texts(found) == texts(alone) and len({one for row in texts(found) for one in row}) == len(TEXTS)
    assert 2 < max(engine.companies) <= MOST_TOGETHER
    assert {one.generation[0].beams for one in found[1:] if isinstance(one, Answer)} == {1, 2, 4}


async def test_pieces_of_long_texts_step_along() -> None:
    """A text that is read in pieces shares the steps of each, and has the summary that it has alone."""
    asked = [Asked(["The river rose. " * 12]), Asked(["The bridge was closed. " * 9]), Asked([TEXTS[0]])]
    engine = SharingSeq2Seq(FakeClock(), says_head(3))
    found, _ = await answered(engine, asked, window=16)
    alone, _ = await answered(FakeSeq2Seq(FakeClock(), says_head(3)), asked, window=16)
    assert texts(found) == texts(alone) and max(engine.companies) > 1
    assert [one.generation for one in found if isinstance(one, Answer)] != []
    pieces = [[one.generation[0].pieces for one in answers if isinstance(one, Answer)] for answers in (found, alone)]
    assert pieces[0] == pieces[1] and max(pieces[0]) > 2
    steps = [[one.generation[0].steps for one in answers if isinstance(one, Answer)] for answers in (found, alone)]
    assert steps[0] == steps[1]


async def test_who_fails_alone_fails_alone() -> None:
    """A step that fails in company is taken by each alone, so that a fault costs those texts only whose it is."""

    class Faulty(SharingSeq2Seq):
        """No step of several succeeds."""

        def step_together(self, decoders, pending):  # type: ignore[no-untyped-def]
            """Fail."""
            self.companies.append(len(decoders))
            raise ArithmeticError("secret")

    engine = Faulty(FakeClock(), says([*words(5), STOP]))
    found, _ = await answered(engine, [Asked([one]) for one in TEXTS])
    assert engine.companies and len(texts(found)) == len(TEXTS)


ASKED = st.lists(
    st.builds(
        Asked,
        st.lists(st.sampled_from(TEXTS), min_size=1, max_size=2),
        st.floats(0.03, 2.0),
        st.sampled_from([1, 2, 4]),
    ),
    min_size=1,
    max_size=10,
)


@settings(max_examples=40, deadline=None)
@given(ASKED, st.integers(1, 30))
def test_no_step_ends_late_for_company(asked: list[Asked], tokens: int) -> None:
    """Where steps take what was profiled, none of a text ends after its deadline, whoever steps along."""
    engine = SharingSeq2Seq(FakeClock(), says([*words(tokens), STOP]))
    found, replica = asyncio.run(answered(engine, asked))
    totals = replica.totals()
    assert len(found) == len(asked)
    assert getattr(totals, "late_steps") == 0 and getattr(totals, "engine_failures") == 0  # noqa: B009


def test_texts_that_cannot_share_steps_take_turns() -> None:
    """Neither a manifest of optimum's graph nor an engine without shared steps has a company."""
    for engine, sharing in ((FakeSeq2Seq(FakeClock()), True), (SharingSeq2Seq(FakeClock()), False)):
        summarizer = AbstractiveSummarizer(writer_manifest(sharing=sharing), engine, text_tokens())
        assert summarizer.together() is None
    summarizer = AbstractiveSummarizer(writer_manifest(sharing=True), SharingSeq2Seq(FakeClock()), text_tokens())
    together = summarizer.together()
    assert isinstance(together, Together) and together.most == MOST_TOGETHER
    assert together.step_s(2, 8) > together.step_s(1, 4)
