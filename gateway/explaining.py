"""The decision for one text as an idle gateway would make it, from manifests alone: what `punctual explain` shows."""

from __future__ import annotations

import time
from collections.abc import Mapping

from gateway.catalog import Catalog, Task
from gateway.load import LoadBook
from gateway.manifest import VariantManifest
from gateway.policy import Decision
from gateway.routing import Request, Router, served_of
from gateway.terms import RequestTerms
from gateway.work import ClassifyParameters, LoadReport, Parameters, SummarizeParameters


def explained(
    catalog: Catalog,
    manifests: Mapping[str, VariantManifest],
    task: str,
    text: str,
    budget_s: float | None,
    percentile: float,
    strict: bool,
    domain: str | None = None,
    price: float | None = None,
) -> Decision:
    """Runs the gateway's own router with every checkpoint up and nothing queued. Raises UnknownTask.

    `price` is what a core-second costs, in points of quality; an idle gateway asks none.
    """
    now_s = time.monotonic()
    load = LoadBook()
    for entry in catalog.checkpoints:
        load.reported(entry.name, "idle", LoadReport(0.0, 0), now_s)
    router = Router(catalog, served_of(catalog, manifests), load, lambda: now_s)
    terms = RequestTerms(budget_s, percentile, strict, None, None, "explain", None)
    parameters: Parameters = SummarizeParameters() if task == Task.SUMMARIZE else ClassifyParameters()
    request = Request(task, (text,), parameters, terms, now_s, domain)
    return router.decide(request, router.deadline(request), price, every=True)
