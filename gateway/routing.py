"""From a request to a decision: its budget anchored, every checkpoint of its task forecast, then `policy.decide`.

It gathers the snapshot that the pure decision is made on; `/classify`, `/route` and `punctual explain` share it.
"""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Mapping
from dataclasses import dataclass

from gateway.catalog import Catalog, CatalogEntry, Task
from gateway.costs import Asked, cost_of
from gateway.deadline import Clock, Deadline
from gateway.forecast import Forecaster, Surroundings
from gateway.load import LoadBook
from gateway.manifest import VariantManifest
from gateway.policy import Candidate, Decision, Terms, decide
from gateway.problems import UnknownCheckpoint, UnknownTask
from gateway.terms import RequestTerms
from gateway.work import Parameters


@dataclass(frozen=True, slots=True)
class Request:
    """One request as it came in. `arrived_s` is on the gateway's clock; `domain` is what the client says of it."""

    task: str
    inputs: tuple[str, ...]
    parameters: Parameters
    terms: RequestTerms
    arrived_s: float
    domain: str | None = None

    @property
    def asked(self) -> Asked:
        """What of it decides its cost."""
        return Asked(tuple(map(len, self.inputs)), self.parameters)


@dataclass(frozen=True, slots=True)
class Served:
    """A checkpoint as it is served: its catalog entry, the manifest of its variant, its forecaster."""

    entry: CatalogEntry
    manifest: VariantManifest
    forecaster: Forecaster


def served_of(catalog: Catalog, manifests: Mapping[str, VariantManifest]) -> dict[str, Served]:
    """Every checkpoint of the catalog by its name, each with a forecaster of its own in the surroundings of its kind.

    How long a summary gets is uncertain in ways that the scoring of labels is not, so kinds do not stand in for one
    another.
    """
    surroundings: defaultdict[str, Surroundings] = defaultdict(Surroundings)
    served: dict[str, Served] = {}
    for entry in catalog.checkpoints:
        manifest = manifests[entry.name]
        served[entry.name] = Served(entry, manifest, Forecaster(cost_of(manifest), surroundings[manifest.kind]))
    return served


class Router:
    """Decides requests on what the forecasters and the load book know at this moment. It runs nothing."""

    def __init__(self, catalog: Catalog, served: Mapping[str, Served], load: LoadBook, clock: Clock) -> None:
        self.served = served
        self._catalog = catalog
        self._load = load
        self._clock = clock
        self._tasks = catalog.tasks
        self._of_task = {task: [served[entry.name] for entry in catalog.of_task(task)] for task in self._tasks}

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

    def decide(self, request: Request, deadline: Deadline) -> Decision:
        """Forecasts every checkpoint of the task and decides on that snapshot. Raises UnknownCheckpoint."""
        now_s = self._clock()
        of_task = self._of_task[Task(request.task)]
        terms = request.terms
        if terms.pinned is not None and all(served.entry.name != terms.pinned for served in of_task):
            raise UnknownCheckpoint([served.entry.name for served in of_task])
        asked, remaining_s = request.asked, deadline.remaining_s(now_s)
        candidates = [self._candidate(served, asked, terms.percentile, now_s, remaining_s) for served in of_task]
        return decide(
            candidates,
            remaining_s,
            Terms(strict=terms.strict, min_tier=terms.min_tier, pinned=terms.pinned, domain=request.domain),
            deadline.elapsed_s(now_s),
        )

    def _candidate(
        self, served: Served, asked: Asked, percentile: float, now_s: float, remaining_s: float
    ) -> Candidate:
        entry = served.entry
        ahead = self._load.ahead(entry.name, now_s)
        forecast = None
        if ahead is not None:
            forecast = served.forecaster.forecast(asked, ahead, percentile, now_s, remaining_s)
        return Candidate(entry.name, entry.tier, entry.quality.standing, entry.domain, forecast)
