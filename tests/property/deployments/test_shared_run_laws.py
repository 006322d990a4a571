"""Laws of equal texts that share a run: each is as well off as if all had been written one by one, or better."""

from __future__ import annotations

import asyncio
import tempfile
import threading
from collections.abc import Callable, Sequence
from dataclasses import dataclass, field
from functools import cache
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np
import pytest
from byte_prompts import Scribbler, manifest, prompts, says_text
from fake_engines import FakeSeq2Seq, says_head, text_tokens, writer_manifest
from fake_summaries import entry
from fake_translators import manifest as translator_manifest
from fakes import FakeClock
from hypothesis import given, settings
from hypothesis import strategies as st
from virtual_time import run_virtually, turns
from waiting import until

from deployments.engines.base import Logits, TokenIds
from deployments.replica.generate.prompts import Prompts
from deployments.replica.generate.replica import GeneratorReplica
from deployments.replica.generate.writing import Scribe
from deployments.replica.summarize.abstractive import AbstractiveSummarizer
from deployments.replica.summarize.replica import SummarizerReplica
from deployments.replica.translate.replica import TranslatorReplica
from deployments.replica.translate.translating import Translator
from deployments.replica.writing.answers import WritingReplica
from deployments.replica.writing.shared_runs import Run
from gateway.catalogs.catalog import CatalogEntry
from gateway.model.messages import Answer, Delta, Failure, Generation, Parameters, Work
from gateway.model.tier import Tier
from gateway.tasks.generate import GenerateParameters
from gateway.tasks.summarize import SummarizeParameters
from gateway.tasks.translate import TranslateParameters

BUDGETS_S = (0.03, 0.06, 0.1, 0.2, 60.0, 60.0)


class Asked(NamedTuple):
    """A request: when it comes, about which text, its budget, and for how long its client stays if it hangs up."""

    comes_s: float
    text: int
    budget_s: float
    stays_s: float | None
    streamed: bool


class Ended(NamedTuple):
    """How a request ended, when, and what was streamed of it."""

    answer: Answer | Failure
    at_s: float
    streamed: str

    @property
    def generation(self) -> Generation:
        """How it was written."""
        assert isinstance(self.answer, Answer)
        return self.answer.generation[0]

    @property
    def text(self) -> str:
        """What was written."""
        assert isinstance(self.answer, Answer)
        (output,) = self.answer.outputs
        return str(next(getattr(output, name) for name in output.__struct_fields__))


class Stage(FakeClock):
    """A clock that engines move, on which requests come and clients hang up at their instants."""

    def __init__(self) -> None:
        super().__init__()
        self.loop: asyncio.AbstractEventLoop | None = None
        self.events: list[tuple[float, Callable[[], None]]] = []
        self._moving = threading.Lock()

    def advance(self, seconds: float) -> None:
        """Move on, and stop at each instant on the way at which something happens, until the loop has dealt with it."""
        with self._moving:
            until_s = self() + seconds
            while self.events and self.events[0][0] <= until_s:
                at_s = self.events[0][0]
                super().advance(max(at_s - self(), 0.0))
                due = [do for when_s, do in self.events if when_s == at_s]
                del self.events[: len(due)]
                self._on_the_loop(due)
            super().advance(max(until_s - self(), 0.0))
            self._on_the_loop([])

    def _on_the_loop(self, due: Sequence[Callable[[], None]]) -> None:
        async def done() -> None:
            for do in due:
                do()
            await turns(5)

        assert self.loop is not None
        asyncio.run_coroutine_threadsafe(done(), self.loop).result(60)


@dataclass
class Played:
    """A replica on a stage, and all that was asked of it."""

    replica: WritingReplica[Any]
    stage: Stage
    task: str
    texts: Sequence[str]
    parameters: Parameters
    asked: Sequence[Asked]
    ended: dict[int, Ended] = field(default_factory=dict)
    tasks: dict[int, asyncio.Task[None]] = field(default_factory=dict)

    async def play(self) -> dict[int, Ended]:
        """Have all requests come, and wait until each has ended."""
        self.stage.loop = asyncio.get_running_loop()
        began_s = self.stage()
        events = [(began_s + one.comes_s, lambda at=at: self._come(at)) for at, one in enumerate(self.asked)]
        for at, one in enumerate(self.asked):
            if one.stays_s is not None:
                events.append((began_s + one.comes_s + one.stays_s, lambda at=at: self._leave(at)))
        self.stage.events = sorted(events, key=lambda event: event[0])
        self.replica.start()
        while self.stage.events or not all(task.done() for task in self.tasks.values()):
            if all(task.done() for task in self.tasks.values()):  # nobody moves the clock, once the last step is over
                await until(lambda: self.replica.totals().inputs == len(self.tasks))
                at_s = self.stage.events[0][0]
                await asyncio.to_thread(self.stage.advance, max(at_s - self.stage(), 0.0))
            else:
                await asyncio.wait(
                    [one for one in self.tasks.values() if not one.done()], return_when="FIRST_COMPLETED"
                )
        await self.replica.stop(60)
        return self.ended

    def _come(self, at: int) -> None:
        self.tasks[at] = asyncio.create_task(self._handled(at))

    def _leave(self, at: int) -> None:
        if at in self.tasks:
            self.tasks[at].cancel()

    async def _handled(self, at: int) -> None:
        asked, told = self.asked[at], list[str]()
        work = Work(
            self.task,
            (self.texts[asked.text],),
            self.parameters,
            asked.budget_s,
            False,
            str(at),
            streamed=asked.streamed,
        )

        def emit(_: int, delta: Delta) -> None:
            told.append(delta.text)

        (answer,) = await self.replica.handle([work], emit)
        self.ended[at] = Ended(answer, self.stage(), "".join(told))


def entry_of(name: str, shares: bool) -> CatalogEntry:
    """The entry of a checkpoint whose equal texts share runs, or do not."""
    return entry(name, Tier.BALANCED, 40.0).model_copy(update={"prefixes": shares})


@cache
def read_prompts() -> Prompts:
    """A tokenizer of bytes."""
    with tempfile.TemporaryDirectory() as folder:
        return prompts(Path(folder))


class Searching:
    """A search that always has a further step."""

    pending = (np.zeros(1, np.int64), np.zeros(1, np.int64))
    done = False
    steps = 1

    def feed(self, logits: Logits) -> None:
        """Takes logits."""
        self.steps += 1


class Stager(NamedTuple):
    """A task's replica, with shared runs or without, and what it is asked; its engine's runs are counted by `work`."""

    task: str
    texts: Sequence[str]
    parameters: Parameters
    make: Callable[[Stage, bool], tuple[WritingReplica[Any], Callable[[], int]]]


def generator(stage: Stage, shares: bool) -> tuple[WritingReplica[Any], Callable[[], int]]:
    """A generator, and the tokens that its engine wrote."""
    engine = Scribbler(stage, says_text(" all is well."))
    made = Scribe(manifest(), engine, read_prompts())
    return GeneratorReplica(entry_of("scribbler", shares), made, 100, stage), lambda: engine.steps


def summarizer(stage: Stage, shares: bool) -> tuple[WritingReplica[Any], Callable[[], int]]:
    """A summarizer, and the steps of its engine."""
    engine = FakeSeq2Seq(stage, says_head(5))
    made = AbstractiveSummarizer(writer_manifest(), engine, text_tokens())
    return SummarizerReplica(entry_of("scribe", shares), made, 100, stage), lambda: len(engine.rows)


def translator(stage: Stage, shares: bool) -> tuple[WritingReplica[Any], Callable[[], int]]:
    """A translator, and the steps of its engine."""
    engine = FakeSeq2Seq(stage, says_head(5))
    made = Translator(translator_manifest(), engine, text_tokens())
    return TranslatorReplica(entry_of("scribe", shares), made, 100, stage), lambda: len(engine.rows)


LONG = ("The river rose for hours. The bridge was closed.", "People waited. The town was dark for hours.")
SENTENCES = ("The river rose for hours, and the bridge was closed.", "People waited until the town was dark.")
STAGERS = {
    "generate": Stager("generate", ("Say:", "Tell:"), GenerateParameters(), generator),
    "summarize": Stager("summarize", LONG, SummarizeParameters(), summarizer),
    "translate": Stager("translate", SENTENCES, TranslateParameters(), translator),
}
OF_SEVERAL_PIECES = Stager("translate", LONG, TranslateParameters(), translator)


def played(task: str, asked: Sequence[Asked], *, shares: bool) -> tuple[dict[int, Ended], int, float]:
    """How requests end, the work of the engine, and the texts that followed."""
    return played_on(STAGERS[task], asked, shares=shares)


def played_on(stager: Stager, asked: Sequence[Asked], *, shares: bool) -> tuple[dict[int, Ended], int, float]:
    """The same of a stager."""
    stage = Stage()
    replica, work = stager.make(stage, shares)
    shown = Played(replica, stage, stager.task, stager.texts, stager.parameters, asked)
    ended = run_virtually(shown.play(), stage, flows=False)
    return ended, work(), replica.totals().figures()["followed"]


def asked_at_random(texts: int, budgets_s: Sequence[float]) -> st.SearchStrategy[list[Asked]]:
    """Requests about so many texts: each has one of these budgets, or its client hangs up."""
    comes_s, text = st.sampled_from([0.0, 0.0, 0.005, 0.025, 0.05, 0.09, 0.3]), st.integers(0, texts - 1)
    staying = st.builds(Asked, comes_s, text, st.sampled_from(budgets_s), st.none(), st.booleans())
    leaving = st.builds(Asked, comes_s, text, st.just(60.0), st.sampled_from([0.015, 0.04, 0.1]), st.booleans())
    return st.lists(staying | leaving, min_size=2, max_size=7)


def nobody_is_worse_off(task: str, asked: Sequence[Asked]) -> None:
    """Compare how requests end with how they do where no text shares a run."""
    shared, work, followed = played(task, asked, shares=True)
    apart, work_apart, none = played(task, asked, shares=False)
    cut = len(apart) < len(asked) or any(one.generation.finish_reason == "deadline" for one in apart.values())
    assert none == 0 and followed < len(asked) and (work <= work_apart or cut)  # who is cut may have come further
    for at, one in apart.items():
        assert at in shared, "who was answered before its client left is so still"
        mine, its = shared[at].generation, one.generation
        assert mine.tokens >= its.tokens and mine.beams >= its.beams and mine.max_new_tokens >= its.max_new_tokens
        if its.finish_reason != "deadline":  # else its time was over anyway
            assert mine.finish_reason == its.finish_reason and shared[at].at_s <= one.at_s + 1e-9
        assert not asked[at].streamed or shared[at].streamed == shared[at].text


@settings(max_examples=25, deadline=None)
@given(asked=asked_at_random(1, BUDGETS_S))
def test_nobody_is_worse_off_for_going_along(asked: list[Asked]) -> None:
    """Of equal prompts with any deadlines each ends no later than if all were written, with no less, for less work."""
    nobody_is_worse_off("generate", asked)


@pytest.mark.parametrize("task", ["summarize", "translate"])
@settings(max_examples=10, deadline=None)
@given(asked=asked_at_random(1, [60.0]))
def test_nobody_is_worse_off_for_going_along_with_a_search(task: str, asked: list[Asked]) -> None:
    """So it is with texts that are searched for, whose plans are equal."""
    nobody_is_worse_off(task, asked)


@pytest.mark.parametrize("task", STAGERS)
@settings(max_examples=10, deadline=None)
@given(asked=asked_at_random(2, BUDGETS_S))
def test_each_text_is_what_it_is_alone(task: str, asked: list[Asked]) -> None:
    """Whoever ends by itself has the text that it has alone, in whatever company; none is of another's text."""
    shared, _, _ = played(task, asked, shares=True)
    for at, one in shared.items():
        alone, _, _ = played(task, [Asked(0.0, asked[at].text, 60.0, None, False)], shares=True)
        if one.generation.finish_reason == "stop" and one.generation.beams == alone[0].generation.beams:
            assert one.text == alone[0].text
            assert one.generation.steps == alone[0].generation.steps
        assert not asked[at].streamed or one.streamed == one.text


@pytest.mark.parametrize("task", STAGERS)
def test_equal_requests_at_once_take_the_engine_of_one(task: str) -> None:
    """Twenty equal requests have the steps of one, more than may be under way at once; each has its answer."""
    one, work, _ = played(task, [Asked(0.0, 0, 60.0, None, False)], shares=True)
    many, work_of_many, followed = played(task, [Asked(0.0, 0, 60.0, None, False)] * 20, shares=True)
    assert {ended.text for ended in many.values()} == {one[0].text} and len(many) == 20
    assert work_of_many == work and followed == 19


def test_texts_of_several_pieces_share_no_run() -> None:
    """Equal ones could be at different pieces, each with keys and values that nobody has reserved."""
    found, _, followed = played_on(OF_SEVERAL_PIECES, [Asked(0.0, 0, 60.0, None, False)] * 3, shares=True)
    assert len({ended.text for ended in found.values()}) == 1 and followed == 0


def test_a_run_goes_no_further_after_a_step_that_failed() -> None:
    """What the decoder has done of that step is unknown, so no later one is run for any of its texts."""

    class Breaking:
        """A decoder that fails once, having taken the half of a step."""

        steps = 0

        def step(self, tokens: TokenIds, origins: TokenIds) -> Logits:
            self.steps += 1
            raise ValueError("no memory")

    engine = Breaking()
    run = Run(engine, Searching(), 0.01, lambda given: given.took_s)
    with pytest.raises(ValueError, match="no memory"):
        run.step(FakeClock())
    with pytest.raises(RuntimeError, match="an earlier step"):
        run.step(FakeClock())
    assert engine.steps == 1


@pytest.mark.parametrize("task", STAGERS)
def test_a_run_outlives_who_began_it(task: str) -> None:
    """Where the first client hangs up, or its time is over, the run goes on for the one that follows."""
    alone, work, _ = played(task, [Asked(0.0, 0, 60.0, None, False)], shares=True)
    for first in (Asked(0.0, 0, 60.0, 0.1, False), Asked(0.0, 0, 0.06 if task == "generate" else 60.0, 0.1, True)):
        found, work_of_both, followed = played(task, [first, Asked(0.0, 0, 60.0, None, True)], shares=True)
        assert found[1].text == alone[0].text == found[1].streamed
        assert (work_of_both, followed) == (work, 1)
