"""How a gateway stands at the moment of a scrape: gauges read from its parts, which keep nothing for them."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from typing import Protocol

from prometheus_client.core import Metric

from gateway.catalogs.catalog import Catalog, CatalogEntry
from gateway.forecasting.load import LoadTracker
from gateway.metrics.gauges import Reading, gauge, text_of
from gateway.model.deadline import Clock
from gateway.router import Router


class Gateway(Protocol):
    """What is looked at: `gateway.service.Service` is one."""

    router: Router
    load: LoadTracker

    @property
    def underway(self) -> int:
        """Requests in this process now."""


class GatewayState:
    """Reads the gauges of one gateway process."""

    def __init__(self, gateway: Gateway, catalog: Catalog, version: str, clock: Clock) -> None:
        """`version` is the gateway's own."""
        self._gateway = gateway
        self._catalog = catalog
        self._version = version
        self._clock = clock

    def text(self) -> str:
        """The gauges of this moment, in the text format."""
        return text_of(self._families(self._clock()))

    def _families(self, now_s: float) -> Iterator[Metric]:
        task_routers = self._gateway.router.task_routers.items()
        build = Reading((self._version, self._catalog.name), 1.0)
        yield gauge("build_info", "The gateway's version and its catalog.", ("version", "catalog"), [build])
        underway = Reading((), self._gateway.underway)
        yield gauge("requests_underway", "Requests in this gateway process now.", (), [underway])
        waiting = (Reading((task,), len(task_router.scheduler)) for task, task_router in task_routers)
        yield gauge("waiting_requests", "Requests that wait for their run to begin.", ("task",), waiting)
        prices = (Reading((task,), task_router.price(now_s)) for task, task_router in task_routers)
        yield gauge("congestion_price", "Points of quality asked for a core-second.", ("task",), prices)
        yield from self._of_checkpoints(now_s)

    def _of_checkpoints(self, now_s: float) -> Iterator[Metric]:
        load, router = self._gateway.load, self._gateway.router

        def of_each(name: str, about: str, value: Callable[[CatalogEntry], float | None]) -> Metric:
            entries = self._catalog.checkpoints
            readings = (Reading((one.task, one.name, one.tier.value), value(one)) for one in entries)
            return gauge(f"checkpoint_{name}", about, ("task", "checkpoint", "tier"), readings)

        yield of_each(
            "quality", "What an answer in time is worth, in points.", lambda one: router.served[one.name].utility
        )
        yield of_each("threads", "Processors that one run of its engine uses.", lambda one: one.threads)
        yield of_each("replicas_expected", "Replicas by the catalog.", lambda one: one.replicas)
        yield of_each(
            "replicas_up", "Replicas that are connected to this gateway.", lambda one: load.replicas(one.name)
        )
        yield of_each(
            "backlog_seconds",
            "Service time queued at the least loaded replica, as far as this gateway knows.",
            lambda one: load.backlog_s(one.name, now_s),
        )
        yield of_each(
            "pace_ratio",
            "Live service time by that of the latency profile.",
            lambda one: router.served[one.name].forecaster.model.slowdown.value,
        )
