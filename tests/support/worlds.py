"""A gateway in one process, without and with HTTP: every part is real except time and the replicas."""

from __future__ import annotations

import asyncio
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace

import fake_embedders
import fake_fillers
import fake_summaries
import fake_taggers
import fake_translators
import fake_writers
import httpx
from fakes import ANSWER, MEDIANS_S, TERMS, Behaviour, FakeBackend, FakeClock, Kept, catalog, manifest, reraise
from starlette.types import Message, Scope

from gateway.api import app
from gateway.api.access import Access
from gateway.catalogs.catalog import Catalog, Limits
from gateway.forecasting.load import LoadTracker
from gateway.model.deadline import Clock
from gateway.model.faults import Note
from gateway.model.manifest import VariantManifest
from gateway.model.messages import Answer, Failure, LoadReport, Work
from gateway.model.request import Request, Terms
from gateway.observability.metrics import Process, RequestMetrics, one_scrape
from gateway.router import Router
from gateway.service import Finished, Service
from gateway.tasks.classify import ClassifyParameters
from gateway.tasks.summarize import SummarizeParameters

SMALL = Limits(max_body_bytes=1000, max_inputs=2)
"""Limits that a test can exceed."""


@dataclass
class World:
    """A gateway without HTTP, with one backend for its replicas and one clock for its time."""

    catalog: Catalog
    clock: FakeClock
    load: LoadTracker
    backend: FakeBackend
    kept: Kept
    service: Service

    def request(self, terms: Terms = TERMS, inputs: Sequence[str] = ("a good film",)) -> Request:
        """Return a request that arrives now."""
        return Request("classify", tuple(inputs), ClassifyParameters(), terms, self.clock())

    def page(self, terms: Terms = TERMS, domain: str | None = None) -> Request:
        """Return a page to summarise, which arrives now."""
        return Request(
            "summarize", (fake_summaries.PAGE,), SummarizeParameters(), replace(terms, domain=domain), self.clock()
        )

    def up(self, checkpoint: str, backlog_s: float = 0.0, sharing: int | None = None, memory_bytes: int = 0) -> None:
        """Report the checkpoint's one replica as up; its backlog is another gateway's."""
        callers = 2 if backlog_s else 1
        report = LoadReport(
            backlog_s, 0, sharing=sharing, memory_bytes=memory_bytes, callers=callers, cores=2.0 * callers
        )
        self.load.reported(checkpoint, "replica", report, self.clock())

    def down(self, checkpoint: str) -> None:
        """Lose the checkpoint's one replica."""
        self.load.left(checkpoint, "replica")


def world(
    behaviour: Behaviour | None = None,
    limits: Limits | None = None,
    *,
    up: bool = True,
    note: Note = reraise,
    coming: Sequence[str] = (),
) -> World:
    """Return a gateway over `catalog()`, every checkpoint idle and, by default, up; those `coming` have no manifest."""
    manifests = {name: manifest(name, median_s) for name, median_s in MEDIANS_S.items() if name not in coming}
    return _world(catalog(limits), manifests, behaviour or FakeBackend().behaviour, up=up, note=note)


def summarizing(behaviour: Behaviour = fake_summaries.by_task, limits: Limits | None = None) -> World:
    """Return a gateway over the catalog of `fake_summaries`: classifiers and summarizers, all up and idle."""
    return _world(fake_summaries.catalog(limits), fake_summaries.manifests(), behaviour, up=True)


def embedding(
    behaviour: Behaviour = fake_embedders.by_task,
    default: str | None = None,
    *,
    note: Note = reraise,
    also: tuple[str, ...] = ("similarity",),
) -> World:
    """Return a gateway over the catalog of `fake_embedders`, all up and idle; `default` answers `/embed`."""
    return _world(fake_embedders.catalog(default, also), fake_embedders.manifests(), behaviour, up=True, note=note)


def tagging(
    behaviour: Behaviour = fake_taggers.answered,
    default: str | None = fake_taggers.DOMAIN,
    others: tuple[str, ...] = (),
) -> World:
    """Return a gateway over the catalog of `fake_taggers`, up and idle; `default` is the domain of who names none."""
    return _world(fake_taggers.catalog(default, others), fake_taggers.manifests(others), behaviour, up=True)


def generating(behaviour: Behaviour = fake_writers.answered) -> World:
    """Return a gateway over the catalog of `fake_writers`, all up and idle."""
    return _world(fake_writers.catalog(), fake_writers.manifests(), behaviour, up=True)


def translating(behaviour: Behaviour = fake_translators.answered) -> World:
    """Return a gateway over the catalog of `fake_translators`, all up and idle."""
    return _world(fake_translators.catalog(), fake_translators.manifests(), behaviour, up=True)


def filling(behaviour: Behaviour = fake_fillers.answered) -> World:
    """Return a gateway over the catalog of `fake_fillers`, up and idle."""
    return _world(fake_fillers.catalog(), fake_fillers.manifests(), behaviour, up=True)


def _world(
    made: Catalog,
    manifests: Mapping[str, VariantManifest],
    behaviour: Behaviour,
    *,
    up: bool,
    note: Note = reraise,
) -> World:
    clock, load, backend, kept = FakeClock(), LoadTracker(), FakeBackend(behaviour), Kept()
    service = Service(
        router=Router(made, manifests, load, clock, note),
        backend=backend,
        load=load,
        max_concurrent_requests=made.limits.max_concurrent_requests,
        observers=(kept,),
        clock=clock,
        note=note,
    )
    told = World(made, clock, load, backend, kept, service)
    for name in manifests if up else ():
        told.up(name)
    return told


def strict(budget_s: float = 1.0, pinned: str | None = None) -> Terms:
    """Return strict terms."""
    return replace(TERMS, budget_s=budget_s, strict=True, pinned=pinned)


def took(told: World, seconds: float, result: Answer | Failure = ANSWER) -> Behaviour:
    """Return a behaviour that gives this result after this many seconds of the world's clock."""

    def behave(checkpoint: str, work: Work) -> Answer | Failure:
        told.clock.advance(seconds)
        return result

    return behave


async def ended(told: World, terms: Terms = TERMS, inputs: tuple[str, ...] = ("a good film",)) -> Finished:
    """Handle one request to its end, and check that its record is the only one."""
    finished = await told.service.handle(told.request(terms, inputs))
    assert told.kept.records == [finished.record]
    assert (finished.answer is None) == (finished.problem is not None)
    return finished


class OwnMetrics:
    """A `Scrape` of one process."""

    def __init__(self, of: Catalog) -> None:
        self.metrics = RequestMetrics(of)

    async def gather(self) -> bytes:
        """Return this process's metrics."""
        return one_scrape([Process("only", "gateway", self.metrics.text())])


def client_of(told: World, access: Access = app.EVERYWHERE) -> httpx.AsyncClient:
    """Return a client of the application over this world, whose requests are counted and kept."""
    scrape = OwnMetrics(told.catalog)
    told.service.observers = (told.kept, scrape.metrics)
    application = app.build(told.service, scrape, told.catalog.limits, told.clock, access=access)
    transport = httpx.ASGITransport(application, raise_app_exceptions=False)
    return httpx.AsyncClient(transport=transport, base_url="http://gateway")


async def called(
    told: World, messages: list[Message], clock: Clock | None = None, path: str = "/classify"
) -> list[Message]:
    """Return the application's answer to a POST to a path whose client sends these messages, then no more.

    `clock` replaces the world's clock at the edge alone.
    """
    application = app.build(told.service, OwnMetrics(told.catalog), told.catalog.limits, clock or told.clock)
    sent: list[Message] = []
    left = list(messages)

    async def receive() -> Message:
        if not left:
            await asyncio.Event().wait()
        return left.pop(0)

    async def send(message: Message) -> None:
        sent.append(message)

    scope: Scope = {"type": "http", "method": "POST", "path": path, "query_string": b"", "headers": []}
    await application(scope, receive, send)
    return sent


def gateway(behaviour: Behaviour | None = None) -> tuple[World, httpx.AsyncClient]:
    """Return a world with small limits and its client."""
    told = world(behaviour, SMALL)
    return told, client_of(told)


def is_problem(response: httpx.Response, code: str, status: int) -> bool:
    """Return whether the response is that problem, complete and of the right type."""
    document = response.json()
    return (
        response.status_code == status == document["status"]
        and response.headers["content-type"] == "application/problem+json"
        and document["code"] == code
        and document["type"].endswith(code)
        and bool(document["title"] and document["detail"])
    )
