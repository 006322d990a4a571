"""The load under which an engine is shared: texts with set numbers of tokens, long ones without a pause, short ones
as they come; and what a batch would take instead.

It drives the replica's own interleaver over an engine. Of what a writer does, only budgets are left out: each text
writes exactly as many tokens as it is told, so that every arrangement has the same to do.

A batch of texts at different places is only bounded here, not run: the graphs that optimum exports take one length of
past for all rows, no positions and no mask of the past, so rows that have not written equally much share no step. What
can be measured is a step of several rows of one text at one place, the cheapest batch there is, for its rows also
share one text's keys and values.
"""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator, Mapping
from contextlib import asynccontextmanager
from dataclasses import dataclass
from statistics import median
from time import perf_counter

import numpy as np

from deployments.engines.base import Decoder, Seq2SeqEngine, TokenIds
from deployments.replica.summarize.beam_search import BeamSearch, SearchRules
from deployments.replica.summarize.job import Condensed, Steps, SummaryJob, TextBudget
from deployments.replica.summarize.time_slicing import TimeSlicer
from gateway.model.messages import Failure, Generation, InputReport
from loadtests.client import NoReply, Reply
from loadtests.errors import EngineFailed
from loadtests.offered_load import LoadReport, LoadSettings, Quantiles, offered, summarised
from loadtests.sharing_turns import Arrangement, BatchTurn

NO_DEADLINE_S = 3600.0
STEP_S = 0.01
"""What a step still to come is told to take: no deadline is near, so nothing hangs on it but that some are left."""
MOST_QUEUED = 10_000
STOP_WITHIN_S = 60.0
WARM_STEPS = 4
ALONE_TIMES = 5


@dataclass(frozen=True)
class Text:
    """A text: the token ids that are read, and the rules by which so many are written."""

    token_ids: tuple[int, ...]
    rules: SearchRules

    @classmethod
    def of(cls, token_ids: tuple[int, ...], tokens: int, start_id: int, end_id: int) -> Text:
        """One that is written greedily and ends after exactly so many tokens."""
        rules = SearchRules(
            decoder_start_token_id=start_id,
            eos_token_ids=(end_id,),
            pad_token_id=end_id,
            max_new_tokens=tokens,
            min_new_tokens=tokens,
        )
        return cls(token_ids, rules)


@dataclass(frozen=True)
class Load:
    """The texts of a turn, and how the short ones come; the long ones are always so many."""

    long: Text
    short: Text
    longs: int
    arriving: LoadSettings


@dataclass(frozen=True)
class Seen:
    """What a turn saw: the short texts' endings, the latencies of the long ones that ended in it, and its tokens/s."""

    short: LoadReport
    long: Quantiles | None
    tokens_per_s: float


class Desk:
    """Texts on their way through one interleaver. Belongs to the loop that the interleaver was started on."""

    def __init__(self, time_slicer: TimeSlicer, engine: Seq2SeqEngine, load: Load) -> None:
        """Takes a started interleaver."""
        self._interleaver = time_slicer
        self._engine = engine
        self._load = load
        self.written: list[float] = []
        """The instant of every token, of whichever text."""
        self.longs: list[tuple[float, float]] = []
        """From when to when each long text took that ended."""
        self.failed: list[str] = []

    async def post(self, body: bytes, headers: Mapping[str, str]) -> Reply:
        """One short text, as an open loop's client sends one; body and headers say nothing. Raises NoReply."""
        failure = await self._submit("short", self._load.short)
        if failure is not None:
            raise NoReply(failure)
        return Reply(200, {}, b"")

    async def keep_busy(self) -> None:
        """Long texts, one after the other until it is cancelled or one fails."""
        while True:
            began = perf_counter()
            failure = await self._submit("long", self._load.long)
            if failure is not None:
                return
            self.longs.append((began, perf_counter()))

    async def _submit(self, name: str, text: Text) -> str | None:
        """Sees a text through; why it failed, if it did."""
        room = TextBudget(perf_counter() + NO_DEADLINE_S, 0.0, perf_counter)
        room.left_s = text.rules.max_new_tokens * STEP_S
        result = await self._interleaver.submit(name, SummaryJob(room, way(self._engine, text, room, self.written)))
        if not isinstance(result, Failure):
            return None
        self.failed.append(f"{result.kind} {result.detail}".strip())
        return self.failed[-1]


def way(engine: Seq2SeqEngine, text: Text, room: TextBudget, written: list[float]) -> Steps:
    """A text's way in steps, of which the first also reads it, as a writer's does; adds the instant of every token."""
    decoder, search = None, BeamSearch(text.rules)
    while not search.done:
        decoder = decoder or engine.encode(np.asarray(text.token_ids, dtype=np.int64))
        search.feed(decoder.step(*search.pending))
        written.append(room.clock())
        room.left_s = (text.rules.max_new_tokens - search.steps) * STEP_S
        yield
    read, tokens = len(text.token_ids), text.rules.max_new_tokens
    report = Generation("length", room.steps, tokens, 1, tokens, 1, room.headroom_s)
    return Condensed("", report, InputReport(read, read, truncated=False))


async def shared(engine: Seq2SeqEngine, arrangement: Arrangement, load: Load) -> Seen:
    """One turn: so long as short texts come, and until the last has ended. Raises EngineFailed for any that fails.

    Tokens are counted while short texts come, and so are the long ones that end then.
    """
    time_slicer = TimeSlicer(arrangement.slots, perf_counter, MOST_QUEUED, turn_s=arrangement.turn_s)
    time_slicer.start()
    task_router = Desk(time_slicer, engine, load)
    try:
        async with _kept_busy(task_router, load.longs):
            began = perf_counter()
            shots = await offered(task_router, [b""], load.arriving, perf_counter)
    finally:
        await time_slicer.stop(STOP_WITHIN_S)
    if task_router.failed:
        raise EngineFailed(f"{arrangement.name}: {len(task_router.failed)} texts failed: {task_router.failed[0]}")
    seconds = load.arriving.seconds
    tokens = sum(0 <= at - began < seconds for at in task_router.written)
    took_s = [ended - start for start, ended in task_router.longs if ended - began < seconds]
    return Seen(summarised(shots, load.arriving), Quantiles.of(took_s), tokens / seconds)


def alone_s(engine: Seq2SeqEngine, text: Text) -> float:
    """The median of what one text takes that has the engine to itself. Blocking."""
    took = []
    for _ in range(1 + ALONE_TIMES):  # the first is slower
        room = TextBudget(perf_counter() + NO_DEADLINE_S, 0.0, perf_counter)
        began, condensing = perf_counter(), SummaryJob(room, way(engine, text, room, []))
        while not condensing.step():
            pass
        took.append(perf_counter() - began)
    return median(took[1:])


def batch_turn(engine: Seq2SeqEngine, text: Text, number: int, rows: int, steps: int) -> BatchTurn:
    """A step of so many rows against as many steps of one row each, at the same places, step by step. Blocking.

    The rows of the batch are of one text, those of the others of one each; who is first alternates.
    """
    start = np.array([text.rules.decoder_start_token_id])
    ids = np.asarray(text.token_ids, dtype=np.int64)
    batch, *singles = (engine.encode(ids) for _ in range(1 + rows))
    for decoder in (batch, *singles):
        decoder.step(start, np.zeros(1, dtype=np.int64))
    batch.step(np.repeat(start, rows), np.zeros(rows, dtype=np.int64))  # here the one row becomes many
    for decoder in singles:
        decoder.step(start, np.zeros(1, dtype=np.int64))
    together, apart = [], []
    for at in range(WARM_STEPS + steps):
        if at % 2:
            together.append(_step_s(batch, start, rows))
        apart.append(sum(_step_s(decoder, start, 1) for decoder in singles))
        if not at % 2:
            together.append(_step_s(batch, start, rows))
    return BatchTurn(number, rows, median(together[WARM_STEPS:]), median(apart[WARM_STEPS:]))


def _step_s(decoder: Decoder, start: TokenIds, rows: int) -> float:
    began = perf_counter()
    decoder.step(np.repeat(start, rows), np.arange(rows))
    return perf_counter() - began


@asynccontextmanager
async def _kept_busy(task_router: Desk, longs: int) -> AsyncIterator[None]:
    """So many long texts under way all the time; those that are at the end are withdrawn."""
    tasks = [asyncio.create_task(task_router.keep_busy()) for _ in range(longs)]
    try:
        yield
    finally:
        for task in tasks:
            task.cancel()
        await asyncio.gather(*tasks, return_exceptions=True)
