"""The gateway's gauges, read from its parts at each scrape."""

from __future__ import annotations

from collections.abc import Callable, Iterator

from gateway.catalogs.catalog import Catalog, CatalogEntry
from gateway.model.deadline import Clock
from gateway.observability.metrics import Collector, Metric, Reading, gauge
from gateway.service import Service


class GatewayState(Collector):
    """Reads the gauges of one gateway process."""

    def __init__(self, service: Service, catalog: Catalog, version: str, clock: Clock) -> None:
        """`version` is the gateway's own."""
        self._service = service
        self._catalog = catalog
        self._version = version
        self._clock = clock

    def collect(self) -> Iterator[Metric]:
        """Yields every gauge, for `exposition`."""
        now_s = self._clock()
        scheduler = self._service.router.scheduler
        build = Reading((self._version, self._catalog.name), 1.0)
        yield gauge("build_info", "The gateway's version and its catalog.", ("version", "catalog"), [build])
        underway = Reading((), self._service.underway)
        yield gauge("requests_underway", "Requests in this gateway process now.", (), [underway])
        waiting = (Reading((task,), len(one.queue)) for task, one in scheduler.deciders.items())
        yield gauge("waiting_requests", "Queued requests: their batch has not begun.", ("task",), waiting)
        prices = (Reading((task,), scheduler.price(task, now_s)) for task in scheduler.deciders)
        yield gauge("congestion_price", "Capacity price: points of quality for a core-second.", ("task",), prices)
        yield from self._of_checkpoints(now_s)

    def _of_checkpoints(self, now_s: float) -> Iterator[Metric]:
        """The gauges of checkpoints; those of replicas are under the first task of one that serves several."""
        load, router = self._service.load, self._service.router
        labels = ("task", "checkpoint", "tier")

        def of_each(name: str, about: str, value: Callable[[CatalogEntry], float | None]) -> Metric:
            entries = [one for one in self._catalog.checkpoints if one.name in router.served]
            readings = (Reading((one.task, one.name, one.tier.value), value(one)) for one in entries)
            return gauge(f"checkpoint_{name}", about, labels, readings)

        deciders = router.scheduler.deciders.items()
        utilities = (
            Reading((task, one.name, one.tier.value), one.utility)
            for task, each in deciders
            for one in each.checkpoints
        )
        yield gauge("checkpoint_quality", "Utility of an answer in time, in points of quality.", labels, utilities)
        yield of_each("threads", "Processors that one run of its engine uses.", lambda one: one.threads)
        yield of_each("replicas_expected", "Replicas by the catalog.", lambda one: one.replicas)
        yield of_each("replicas_up", "Replicas that this gateway is connected to.", lambda one: load.replicas(one.name))
        yield of_each(
            "backlog_seconds",
            "Service time queued at the least loaded replica, as far as this gateway knows.",
            lambda one: load.backlog_s(one.name, now_s),
        )
        yield of_each(
            "pace_ratio",
            "Slowdown: live service time divided by that of the latency profile.",
            lambda one: router.served[one.name].forecaster.model.slowdown.value,
        )
