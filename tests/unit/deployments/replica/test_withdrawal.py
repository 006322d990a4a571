"""A client that leaves, over a real connection: its work stops wherever it is, and counts as wasted."""

from __future__ import annotations

import asyncio
import random
import threading
from collections.abc import AsyncIterator, Callable
from contextlib import asynccontextmanager
from dataclasses import dataclass, field
from pathlib import Path

import numpy as np
import pytest
from batches import result_of, results_of
from fake_engines import in_steps
from fakes import EVEN, FakeClock, catalog, entry, latency_profile, manifest
from prometheus_client.parser import text_string_to_metric_families
from tokenizers import Tokenizer, models
from waiting import until

from deployments.engines.base import Logits, TokenIds
from deployments.replica.classify import ClassifierReplica, LabelScorer, OpenClassifier
from deployments.replica.kinds import Server
from deployments.replica.replica import Replica
from deployments.replica.summarize.replica import SummarizerReplica
from deployments.replica.writing.job import TextBudget, WritingJob
from deployments.transport import Endpoint, TransportClient, TransportServer, UnixAddress
from gateway.model.messages import Answer, Failure, FailureKind, Work
from gateway.model.tier import Tier
from gateway.tasks.classify import ClassifyParameters
from gateway.tasks.summarize import SummarizeParameters

STEP_S = 1 / 1024
POISON = "poison"
OTHERS = [f"well{at}" for at in range(10)]
VOCABULARY = {"<unk>": 0, "well": 1, POISON: 2} | {word: 3 + at for at, word in enumerate(OTHERS)}


@dataclass
class GatedEngine:
    """An engine that waits while its gate is shut, and raises on poison. `runs` has the rows of each run.

    Each run takes `STEP_S` of its clock.
    """

    clock: FakeClock = field(default_factory=FakeClock)
    gate: threading.Event = field(default_factory=threading.Event)
    runs: list[int] = field(default_factory=list)

    def run(self, token_ids: TokenIds, attention_mask: TokenIds, token_types: TokenIds | None = None) -> Logits:
        """Runs a batch, behind the gate."""
        self.step(len(token_ids))
        if (token_ids == VOCABULARY[POISON]).any():
            raise ArithmeticError
        return np.zeros((len(token_ids), 2), np.float32)

    def step(self, rows: int = 1) -> None:
        """Runs a step of a text, behind the gate."""
        self.runs.append(rows)
        assert self.gate.wait(60)
        self.clock.advance(STEP_S)

    def begin(self, text: str, parameters: SummarizeParameters, room: TextBudget) -> WritingJob:
        """A text of nine steps, as a summarizer has it."""
        return in_steps(room, 9, self.step, STEP_S)


def classifier(engine: GatedEngine) -> Server:
    """A classifier's replica on that engine."""
    tokenizer = Tokenizer(models.WordLevel(VOCABULARY, unk_token="<unk>"))
    opened = OpenClassifier(
        manifest(EVEN, 0.01), engine, LabelScorer(tokenizer, ("negative", "positive"), 64), latency_profile(0.01)
    )
    return ClassifierReplica(catalog().checkpoints[1], opened, 99, engine.clock)


def summarizer(engine: GatedEngine) -> Server:
    """A summarizer's replica on that engine."""
    return SummarizerReplica(entry("scribe", Tier.BALANCED, 40.0), engine, 99, engine.clock)


@dataclass(frozen=True)
class Kind:
    """A kind of replica, its parameters, and how many engine runs one text takes."""

    made: Callable[[GatedEngine], Server]
    parameters: ClassifyParameters | SummarizeParameters
    runs: int

    def work(self, *texts: str) -> Work:
        """Strict work with time enough."""
        return Work("any", texts or ("well",), self.parameters, 60.0, True, "r")


CLASSIFIER = Kind(classifier, ClassifyParameters(), 1)
SUMMARIZER = Kind(summarizer, SummarizeParameters(), 9)


@asynccontextmanager
async def served(
    kind: Kind, directory: Path
) -> AsyncIterator[tuple[GatedEngine, Replica, TransportClient, TransportClient]]:
    """A replica behind its socket, and two clients of it."""
    engine, address = GatedEngine(), UnixAddress(str(directory / "s"))
    replica = Replica(entry("scribe", Tier.BALANCED, 40.0), 1.0, kind.made(engine), engine.clock)
    replica.server.start()
    server = TransportServer(replica.handle, replica.load)
    await server.start(address)
    endpoint = Endpoint("replica", "here", address)
    clients = [TransportClient(endpoint, "here", lambda load: None, random.Random(1)) for _ in range(2)]
    for client in clients:
        await client.connect()
    try:
        yield engine, replica, clients[0], clients[1]
    finally:
        engine.gate.set()
        for client in clients:
            await client.close()
        await replica.server.stop(60)
        await server.close()


def scraped(replica: Replica) -> dict[str, float]:
    """The replica's samples by name, without their common prefix."""
    families = text_string_to_metric_families(replica.metrics())
    return {one.name.removeprefix("punctual_replica_"): one.value for family in families for one in family.samples}


@pytest.mark.asyncio
@pytest.mark.parametrize("hangs_up", [False, True])
@pytest.mark.parametrize("kind", [CLASSIFIER, SUMMARIZER])
async def test_who_leaves_frees_the_queue_and_the_engine(kind: Kind, hangs_up: bool, tmp_path: Path) -> None:
    """A client that cancels or hangs up frees the queue and the engine, and another client is served.

    Its queued request never runs, its running one runs no further, and what it ran counts as wasted in the scrape.
    """
    async with served(kind, tmp_path) as (engine, replica, leaver, stayer):
        leaving = [asyncio.create_task(result_of(leaver, kind.work()))]
        await until(lambda: len(engine.runs) == 1)
        leaving.append(asyncio.create_task(result_of(leaver, kind.work())))
        await until(lambda: replica.load().queued == 1)
        staying = asyncio.create_task(result_of(stayer, kind.work()))
        await until(lambda: replica.load().queued == 2)
        if hangs_up:
            await leaver.close()
        for task in leaving:
            task.cancel()
        await until(lambda: scraped(replica)["cancelled_total"] == 2 and replica.load().queued == 1)
        engine.gate.set()
        assert isinstance(await staying, Answer)
        await until(lambda: replica.load().backlog_s == 0.0)
        assert engine.runs == [1] * (1 + kind.runs)
        samples = scraped(replica)
        assert samples["engine_failures_total"] == 0
        assert samples["wasted_seconds_total"] == STEP_S
        assert samples["busy_seconds_total"] == (1 + kind.runs) * STEP_S


@pytest.mark.asyncio
async def test_a_batch_that_is_cancelled_leaves_others_alone(tmp_path: Path) -> None:
    """Cancelling a batch stops all of its requests, running and queued, and none of another batch."""
    async with served(CLASSIFIER, tmp_path) as (engine, replica, leaver, stayer):
        running = asyncio.create_task(results_of(leaver, *[CLASSIFIER.work()] * 3))
        await until(lambda: len(engine.runs) >= 1)
        waiting = asyncio.create_task(results_of(leaver, *[CLASSIFIER.work()] * 3))
        await until(lambda: replica.load().queued >= 3)
        before = replica.load().queued
        staying = asyncio.create_task(results_of(stayer, *[CLASSIFIER.work()] * 2))
        await until(lambda: replica.load().queued == before + 2)
        for task in (running, waiting):
            task.cancel()
        await until(lambda: scraped(replica)["cancelled_total"] == 6 and replica.load().queued == 2)
        engine.gate.set()
        assert [isinstance(one, Answer) for one in await staying] == [True, True]
        await until(lambda: replica.load().backlog_s == 0.0)
        assert sum(engine.runs[1:]) == 2


@pytest.mark.asyncio
async def test_a_request_that_the_engine_cannot_run_fails_alone(tmp_path: Path) -> None:
    """A request with a text on which the engine raises fails alone, and the others of its batch are answered."""
    async with served(CLASSIFIER, tmp_path) as (engine, _, client, _):
        engine.gate.set()
        works = [CLASSIFIER.work(*texts) for texts in (("well",), (OTHERS[0], POISON), OTHERS[1:3])]
        first, failed, last = await results_of(client, *works)
    assert failed == Failure(FailureKind.ENGINE, "ArithmeticError")
    assert [len(one.outputs) for one in (first, last) if isinstance(one, Answer)] == [1, 2]
