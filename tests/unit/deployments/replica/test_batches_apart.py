"""Batches that the gateway sends stay apart on a replica if there is an idle thread for each, and are merged otherwise.

The tests follow them from the gateway, which numbers them, to the batcher, and in the simulator's replica.
"""

from __future__ import annotations

import asyncio
import threading
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field

import numpy as np
import pytest
from batching import PROFILE, SummingEngine, a_run_begins, batching, soon
from crowded_worlds import PATIENT, busy, crowded, opened, sent, waiting
from deployments.replica.batch_forming import Waiting, of_next_batch
from fakes import EVEN, FakeClock, catalog, manifest
from hypothesis import given
from hypothesis import strategies as st
from played_replicas import BATCHING, LIMITS, Watched, asked
from tokenizers import Tokenizer, models
from waiting import until

from deployments.engines.base import Logits, TokenIds
from deployments.replica.batcher import Batcher, Scored
from deployments.replica.classify import ClassifierReplica, LabelScorer, OpenClassifier
from gateway.model.messages import Answer, Failure, Work
from gateway.tasks.classify import ClassifyParameters
from loadtests.simulator.replica import BatchingReplica
from loadtests.simulator.world import World
from loadtests.workload.arrivals import Offered


def queue(runs: Sequence[int]) -> dict[int, Waiting]:
    """The waiting inputs in order of arrival, each with the number of the gateway's batch, as a replica holds them."""
    return {
        place: Waiting(place, tokens=8, deadline=100.0, strict=False, enqueued_at=0.0, batch=run)
        for place, run in enumerate(runs)
    }


def formed(runs: Sequence[int], idle: int) -> list[int]:
    """The places of the inputs that the next batch is formed of."""
    return [entry.sequence for entry in of_next_batch(queue(runs).values(), idle)]


queued_runs = st.lists(st.integers(0, 5), max_size=20)


@given(queued_runs.filter(lambda runs: len(set(runs)) > 1), st.integers(0, 3))
def test_where_each_run_has_an_idle_thread_the_first_is_formed_alone(runs: list[int], spare: int) -> None:
    """If each of the gateway's batches has an idle thread, the first to arrive is formed alone, whole and in order."""
    theirs = [place for place, run in enumerate(runs) if run == runs[0]]
    assert formed(runs, idle=len(set(runs)) + spare) == theirs


@given(queued_runs, st.integers(0, 6))
def test_where_there_are_fewer_idle_threads_than_runs_all_are_formed_of(runs: list[int], missing: int) -> None:
    """If there are fewer idle threads than batches of the gateway, all waiting inputs may join the next batch."""
    assert formed(runs, idle=max(len(set(runs)) - 1 - missing, 0)) == list(range(len(runs)))


@given(st.integers(0, 9), st.integers(0, 20), st.integers(0, 6))
def test_a_single_run_is_formed_of_whole(run: int, inputs: int, idle: int) -> None:
    """A single batch of the gateway is formed whole, however many threads are idle."""
    assert formed([run] * inputs, idle) == list(range(inputs))


@given(queued_runs, st.integers(1, 8))
def test_over_repeated_forming_nothing_is_lost(runs: list[int], idle: int) -> None:
    """If every idle thread takes what it is offered, each input is offered exactly once, and no thread is missing.

    Each thread takes one of the gateway's batches if there are threads for all; otherwise the first takes all inputs.
    """
    left = queue(runs)
    taken: list[list[Waiting]] = []
    while left and idle > len(taken):
        taken.append(list(of_next_batch(left.values(), idle - len(taken))))
        for entry in taken[-1]:
            del left[entry.sequence]
    first_come = list(dict.fromkeys(runs))
    groups = [[place for place, run in enumerate(runs) if run == one] for one in first_come]
    expected = groups if len(first_come) <= idle else [list(range(len(runs)))]
    assert not left
    assert [[entry.sequence for entry in batch] for batch in taken] == expected


@dataclass
class ParallelEngine(SummingEngine):
    """A `SummingEngine` on which a batch that begins with `FIRST` waits at its own gate and is not recorded."""

    FIRST = 1
    first: threading.Event = field(default_factory=threading.Event)

    def run(self, token_ids: TokenIds, mask: TokenIds) -> Logits:
        """Runs the batch, so that one run can end while another goes on."""
        if token_ids[0, 0] != self.FIRST:
            return super().run(token_ids, mask)
        self.begun.release()
        assert self.first.wait(60)
        return np.zeros((len(mask), 2), np.float32)


def send(clients: asyncio.TaskGroup, batcher: Batcher, *runs: int) -> list[asyncio.Task[Scored | Failure]]:
    """Submits an input for each of these batches in one turn of the event loop; its ids are the batch's number."""
    return [clients.create_task(batcher.submit([run] * 8, soon(), False, run)) for run in runs]


def rows(run: int, inputs: int) -> list[list[int]]:
    """A batch of `inputs` inputs of one of the gateway's batches, as the engine sees it."""
    return [[run] * 8] * inputs


@pytest.mark.asyncio
async def test_two_runs_on_two_idle_threads_are_two_batches_at_once() -> None:
    """Two of the gateway's batches, mixed in arrival, start at once on two idle threads, each whole and alone."""
    engine = SummingEngine()
    async with batching(engine, busy=True, threads=2) as batcher, asyncio.TaskGroup() as clients:
        send(clients, batcher, 7, 3, 7, 3)
        await a_run_begins(engine)
        await a_run_begins(engine)
        assert sorted(engine.batches) == [rows(3, 2), rows(7, 2)]
        assert batcher.load().queued == 0
        engine.gate.set()
    assert len(engine.batches) == 2


@pytest.mark.asyncio
@pytest.mark.parametrize(("threads", "runs"), [(1, (3, 7, 3, 7)), (2, (3, 3, 3, 3)), (2, (3, 5, 7, 3))])
async def test_runs_without_a_thread_each_are_one_batch(threads: int, runs: tuple[int, ...]) -> None:
    """If the gateway's batches have too few threads, or are only one, all inputs run together."""
    engine = SummingEngine()
    async with batching(engine, threads=threads) as batcher, asyncio.TaskGroup() as clients:
        send(clients, batcher, *runs)
    assert [len(batch) for batch in engine.batches] == [4]


@pytest.mark.asyncio
async def test_who_names_no_run_is_of_one_run() -> None:
    """Inputs without a batch number share a batch, though another thread is idle."""
    engine = SummingEngine()
    async with batching(engine, threads=2) as batcher:
        await asyncio.gather(*(batcher.submit([1] * 8, soon(), False) for _ in range(4)))
    assert [len(batch) for batch in engine.batches] == [4]


@pytest.mark.asyncio
async def test_runs_that_wait_for_a_thread_are_merged_when_one_ends() -> None:
    """If two of the gateway's batches wait for a busy engine, the first thread that is idle takes both."""
    engine = ParallelEngine()
    async with batching(engine, busy=True, threads=2) as batcher, asyncio.TaskGroup() as clients:
        for run in (engine.FIRST, 2):
            send(clients, batcher, run)
            await a_run_begins(engine)
        send(clients, batcher, 3, 3, 7, 7)
        await until(lambda: batcher.load().queued == 4)
        engine.first.set()
        await a_run_begins(engine)
        assert engine.batches == [rows(2, 1), rows(3, 2) + rows(7, 2)]
        engine.gate.set()
    assert len(engine.batches) == 2


@dataclass
class SentForRuns(Watched):
    """A node that sends each request with the batch number that `runs` has for it."""

    runs: Mapping[int, int] = field(default_factory=dict)

    def arrived(self, request: Offered) -> None:
        self.replica.enter(request, self._told, self.runs[request.sequence])


def simulated(offered: Sequence[Offered], runs: Sequence[int], slots: int) -> list[float]:
    """When each request is answered, in order, with these batch numbers and a core for each slot."""
    world = World(slots, seed=1)
    replica = BatchingReplica(world, BATCHING, slots, LIMITS)
    watched = SentForRuns(world, replica, runs=dict(enumerate(runs)))
    world.play(offered, watched)
    assert all(end.answered for end in watched.ends.values())
    return [watched.ends[request.sequence].at_s for request in offered]


@pytest.mark.parametrize(
    ("runs", "slots", "inputs"),
    [((7, 3, 7, 3), 2, (2, 2, 2, 2)), ((7, 3, 7, 3), 1, (4,) * 4), ((3,) * 4, 2, (4,) * 4), ((3, 5, 7, 3), 2, (4,) * 4),
     ((3, 7, 7, 7), 3, (1, 3, 3, 3))],
)  # fmt: skip
def test_the_simulated_replica_keeps_runs_apart_likewise(runs: list[int], slots: int, inputs: list[int]) -> None:
    """The simulated replica keeps the gateway's batches apart, and merges them, as the real one does."""
    ends_s = simulated([asked(place) for place in range(4)], runs, slots)
    assert ends_s == pytest.approx([0.008 + 0.002 * size for size in inputs])


def test_the_simulated_replica_merges_runs_that_wait() -> None:
    """The slot of the simulated replica that is idle first takes both batches that came meanwhile, as one of four."""
    offered = [asked(0), asked(1, tokens=400), *(asked(place, 0.001) for place in range(2, 6))]
    ends_s = simulated(offered, (1, 2, 3, 3, 7, 7), slots=2)
    assert ends_s == pytest.approx([0.010, 0.048, *[0.010 + 0.016] * 4])


@pytest.mark.parametrize("texts", [1, 2])
@pytest.mark.parametrize(("runs", "sizes"), [((7, 3, 7, 3), 2), ((5, 5, 5, 5), 4)])
async def test_a_classifier_passes_the_run_of_its_work_on(runs: tuple[int, ...], sizes: int, texts: int) -> None:
    """A classifier passes the batch number of its work on to the batcher, for one text or two."""
    engine = SummingEngine()
    engine.gate.set()
    words = {"<unk>": 0, **{f"run{run}.{n}": 10 * run + n for run in runs for n in range(texts)}}
    task = LabelScorer(Tokenizer(models.WordLevel(words, unk_token="<unk>")), ("negative", "positive"), 64)
    entry = catalog().checkpoints[1].model_copy(update={"cpus": 2.0})
    replica = ClassifierReplica(entry, OpenClassifier(manifest(EVEN, 0.01), engine, task, PROFILE), 99, FakeClock())
    replica.start()
    works = [
        Work(
            "classify", tuple(f"run{run}.{n}" for n in range(texts)), ClassifyParameters(), 60.0, False, "r", batch=run
        )
        for run in runs
    ]
    answers = await asyncio.gather(*map(replica.handle, works))
    await replica.stop(60)
    assert all(isinstance(answer, Answer) for answer in answers)
    expected = [[run] * (sizes * texts) for run in sorted(set(runs))]
    assert sorted([ids[0] // 10 for ids in batch] for batch in engine.batches) == expected


async def test_the_gateway_sends_the_members_of_one_release_for_one_run() -> None:
    """Requests that were queued and are sent together share one batch number, which differs from the one before."""
    told = crowded(FakeClock())
    first = await busy(told)
    held = [sent(told, PATIENT) for _ in range(3)]
    await until(lambda: waiting(told) == 3)
    opened(told)
    await asyncio.gather(first, *held)
    before, *together = [dispatch.work.batch for dispatch in told.backend.dispatches]
    assert len(together) == 3 and len(set(together)) == 1
    assert before not in together


async def test_the_gateway_sends_two_releases_of_one_instant_for_two_runs() -> None:
    """Two requests that are sent at one instant to two idle cores have two batch numbers."""
    told = crowded(FakeClock(), cores=2.0)
    opened(told)
    await asyncio.gather(*(sent(told, PATIENT) for _ in range(2)))
    runs = [dispatch.work.batch for dispatch in told.backend.dispatches]
    assert len(runs) == len(set(runs)) == 2
