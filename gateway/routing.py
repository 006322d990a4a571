"""From a request to a decision: its budget anchored, every checkpoint of its task forecast, then `policy.decide`.

It gathers the snapshot that the pure decision is made on; `/classify`, `/route` and `punctual explain` share it.
"""

from __future__ import annotations

import math
from collections import defaultdict
from collections.abc import Iterable, Mapping
from dataclasses import dataclass, field
from functools import partial

from gateway.catalog import Catalog, CatalogEntry, Task
from gateway.costs import Asked, cost_of
from gateway.deadline import Clock, Deadline
from gateway.desk import Desk, Offer, beside_one_another
from gateway.forecast import Forecaster, Surroundings
from gateway.load import LoadBook
from gateway.manifest import VariantManifest
from gateway.policy import Decision, Terms
from gateway.problems import UnknownCheckpoint, UnknownTask
from gateway.room import Release, Waiter
from gateway.terms import RequestTerms
from gateway.work import Parameters

LEAST_STEP = 0.5
"""How many points of quality a checkpoint is worth more, at the least, than the next below it in rank."""


@dataclass(frozen=True, slots=True)
class Request:
    """One request as it came in. `arrived_s` is on the gateway's clock; `domain` is what the client says of it.

    `asked` is what of it decides its cost.
    """

    task: str
    inputs: tuple[str, ...]
    parameters: Parameters
    terms: RequestTerms
    arrived_s: float
    domain: str | None = None
    asked: Asked = field(init=False, repr=False, compare=False)

    def __post_init__(self) -> None:
        object.__setattr__(self, "asked", Asked(tuple(map(len, self.inputs)), self.parameters))


@dataclass(frozen=True, slots=True)
class Served:
    """A checkpoint as it is served: its catalog entry, the manifest of its variant, its forecaster."""

    entry: CatalogEntry
    manifest: VariantManifest
    forecaster: Forecaster


def worths_of(entries: Iterable[CatalogEntry]) -> dict[str, float]:
    """What each checkpoint of one task is worth, by name: its score in points, made to rise with its quality.

    Where ranks order checkpoints their scores may stem from several data sets and run against the order; a better one
    is then worth `LEAST_STEP` more than the one below it.
    """
    worths: dict[str, float] = {}
    standing = worth = -math.inf
    for entry in sorted(entries, key=lambda one: (one.quality.standing, one.quality.value)):
        quality = entry.quality
        if quality.value > worth:
            worth = quality.value
        elif quality.standing > standing:
            worth += LEAST_STEP
        standing, worths[entry.name] = quality.standing, worth
    return worths


def served_of(catalog: Catalog, manifests: Mapping[str, VariantManifest]) -> dict[str, Served]:
    """Every checkpoint of the catalog by its name, each with a forecaster of its own in the surroundings of its kind.

    How long a summary gets is uncertain in ways that the scoring of labels is not, so kinds do not stand in for one
    another.
    """
    surroundings: defaultdict[str, Surroundings] = defaultdict(Surroundings)
    served: dict[str, Served] = {}
    for entry in catalog.checkpoints:
        manifest = manifests[entry.name]
        forecaster = Forecaster(cost_of(manifest), surroundings[manifest.kind], entry.threads)
        served[entry.name] = Served(entry, manifest, forecaster)
    return served


class Router:
    """Decides requests on what the forecasters and the load book know at this moment. It runs nothing."""

    def __init__(self, catalog: Catalog, served: Mapping[str, Served], load: LoadBook, clock: Clock) -> None:
        self.served = served
        self._catalog = catalog
        self._load = load
        self._clock = clock
        self._tasks = catalog.tasks
        self.desks = {task.value: self._desk(task) for task in self._tasks}
        beside_one_another(self.desks.values())

    def task(self, name: str) -> Task:
        """The task of that name. Raises UnknownTask where no checkpoint has it."""
        if name not in self._tasks:
            raise UnknownTask(self._tasks)
        return Task(name)

    def deadline(self, request: Request) -> Deadline:
        """Anchors the request's budget, or its task's default, at its arrival. Raises UnknownTask."""
        task = self.task(request.task)
        budget_s = request.terms.budget_s
        if budget_s is None:
            budget_s = self._catalog.budget_s(task)
        return Deadline(request.arrived_s, budget_s)

    def arrived(self, request: Request, deadline: Deadline) -> None:
        """Takes note of a request that is to be answered, whatever becomes of it."""
        self.desks[request.task].arrived(request.asked, deadline.budget_s, request.arrived_s)

    def decide(
        self, request: Request, deadline: Deadline, price: float | None = None, *, every: bool = False
    ) -> Decision:
        """Forecasts the checkpoints of the task and decides on that snapshot. Raises UnknownCheckpoint.

        `price` is what a core-second costs, in points of quality: that of the moment where none is given. Checkpoints
        are looked at no further than can matter, unless `every` one is to be told.
        """
        desk, terms = self.desks[request.task], request.terms
        if terms.pinned is not None and terms.pinned not in desk.by_name:
            raise UnknownCheckpoint([entry.name for entry in self._catalog.of_task(request.task)])
        asked_for = Terms(terms.strict, terms.min_tier, terms.pinned, request.domain)
        return desk.decide(request.asked, asked_for, terms.percentile, deadline, self._clock(), price, every=every)

    def held(self, request: Request, decision: Decision, deadline: Deadline) -> Waiter:
        """The request as it waits in its task's room."""
        desk = self.desks[request.task]
        return desk.held(request.asked, decision, request.terms.percentile, deadline, self._clock())

    def settle(self, request: Request, decision: Decision, release: Release, deadline: Deadline) -> Decision:
        """What is decided now that the request's run can begin."""
        desk = self.desks[request.task]
        return desk.settle(request.asked, decision, release, request.terms.percentile, deadline, self._clock())

    def _desk(self, task: Task) -> Desk:
        entries = self._catalog.of_task(task)
        worths = worths_of(entries)
        names = tuple(entry.name for entry in entries)
        offers = [
            Offer(
                name=entry.name,
                tier=entry.tier,
                quality=entry.quality.standing,
                worth=worths[entry.name],
                domain=entry.domain,
                forecaster=self.served[entry.name].forecaster,
                lanes=partial(self._lanes, entry),
                threads=entry.threads,
                others_s=partial(self._load.others_s, entry.name),
            )
            for entry in entries
        ]
        return Desk(offers, self._load.ahead, partial(self._load.cores, names))

    def _lanes(self, entry: CatalogEntry) -> int:
        return self._load.replicas(entry.name) * entry.runs
