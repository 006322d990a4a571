"""From a request to a decision: its budget anchored, every checkpoint of its task forecast, then `policy.decide`.

It gathers the snapshot that the pure decision is made on; `/classify`, `/route` and `punctual explain` share it.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass

from gateway.catalog import Catalog, CatalogEntry, Task
from gateway.deadline import Clock, Deadline
from gateway.forecast import Forecaster, Surroundings
from gateway.load import LoadBook
from gateway.manifest import VariantManifest
from gateway.policy import Candidate, Decision, Terms, decide
from gateway.problems import UnknownCheckpoint, UnknownTask
from gateway.profile import LatencyProfile
from gateway.terms import RequestTerms
from gateway.work import ClassifyParameters


@dataclass(frozen=True, slots=True)
class Request:
    """One request as it came in. `arrived_s` is on the gateway's clock."""

    task: str
    inputs: tuple[str, ...]
    parameters: ClassifyParameters
    terms: RequestTerms
    arrived_s: float


@dataclass(frozen=True, slots=True)
class Served:
    """A checkpoint as it is served: its catalog entry, the manifest of its variant, its forecaster."""

    entry: CatalogEntry
    manifest: VariantManifest
    forecaster: Forecaster


def served_of(catalog: Catalog, manifests: Mapping[str, VariantManifest]) -> dict[str, Served]:
    """Every checkpoint of the catalog by its name, each with a forecaster of its own in the same surroundings."""
    surroundings = Surroundings()
    return {
        entry.name: Served(
            entry,
            manifest := manifests[entry.name],
            Forecaster(LatencyProfile.from_document(manifest.profile), manifest.max_tokens, surroundings),
        )
        for entry in catalog.checkpoints
    }


class Router:
    """Decides requests on what the forecasters and the load book know at this moment. It runs nothing."""

    def __init__(self, catalog: Catalog, served: Mapping[str, Served], load: LoadBook, clock: Clock) -> None:
        self.served = served
        self._catalog = catalog
        self._load = load
        self._clock = clock
        self._tasks = catalog.tasks
        self._of_task = {task: [served[entry.name] for entry in catalog.of_task(task)] for task in self._tasks}

    def deadline(self, request: Request) -> Deadline:
        """Anchors the request's budget, or its task's default, at its arrival. Raises UnknownTask."""
        if request.task not in self._tasks:
            raise UnknownTask(self._tasks)
        budget_s = request.terms.budget_s
        if budget_s is None:
            budget_s = self._catalog.budget_s(Task(request.task))
        return Deadline(request.arrived_s, budget_s)

    def decide(self, request: Request, deadline: Deadline) -> Decision:
        """Forecasts every checkpoint of the task and decides on that snapshot. Raises UnknownCheckpoint."""
        now_s = self._clock()
        of_task = self._of_task[Task(request.task)]
        terms = request.terms
        if terms.pinned is not None and all(served.entry.name != terms.pinned for served in of_task):
            raise UnknownCheckpoint([served.entry.name for served in of_task])
        characters = tuple(map(len, request.inputs))
        candidates = [self._candidate(served, characters, terms.percentile, now_s) for served in of_task]
        return decide(
            candidates,
            deadline.remaining_s(now_s),
            Terms(strict=terms.strict, min_tier=terms.min_tier, pinned=terms.pinned),
            deadline.elapsed_s(now_s),
        )

    def _candidate(self, served: Served, characters: Sequence[int], percentile: float, now_s: float) -> Candidate:
        entry = served.entry
        backlog_s = self._load.backlog_s(entry.name, now_s)
        forecast = None
        if backlog_s is not None:
            forecast = served.forecaster.forecast(characters, backlog_s, percentile, now_s)
        return Candidate(entry.name, entry.tier, entry.quality.standing, entry.domain, forecast)
