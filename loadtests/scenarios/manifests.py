"""Variants from the manifests of a catalog: the same latency profiles and costs that the gateway forecasts from.

What a summary costs is reckoned by `gateway.tasks.service_time`, not here. It refuses to know how a variant is
made: whoever plays a scenario has the checkpoints of `catalog_of` prepared first.
"""

from __future__ import annotations

from bisect import bisect_left
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path

from deployments.replica.classify import BATCH_LIMITS
from gateway.catalogs.catalog import Catalog, CatalogEntry, load_catalog
from gateway.model.manifest import ClassifierManifest, VariantManifest
from gateway.model.profile import LatencyProfile
from gateway.model.request import RequestShape
from gateway.tasks import read_manifest, service_time_model
from gateway.tasks.service_time import ServiceTimeModel, TokenRate
from gateway.tasks.summarize import SummarizeParameters
from loadtests.scenarios.errors import ScenarioError
from loadtests.scenarios.model import Scenario
from loadtests.scenarios.profiles import read_profile
from loadtests.simulator.variants import Medians, ProfiledTimes, Variant

_MOST_CHARACTERS_PER_TOKEN = 16


@dataclass(frozen=True, slots=True)
class Scoring:
    """A classifier's medians: by its profile, inputs cut to its window of so many tokens."""

    profile: LatencyProfile
    window_tokens: int

    def median_s(self, batch: int, tokens: int) -> float:
        """One run of the engine."""
        return self.profile.median_s(batch, min(tokens, self.window_tokens))


@dataclass(frozen=True, slots=True)
class Condensing:
    """A summarizer's medians: the texts one after another, each read and, where it writes, written with one beam."""

    cost: ServiceTimeModel

    def median_s(self, batch: int, tokens: int) -> float:
        """As the gateway's cost has it of texts that it takes for so many tokens, before it has learnt anything."""
        most = _MOST_CHARACTERS_PER_TOKEN * tokens
        characters = bisect_left(range(most), tokens, key=TokenRate().tokens)
        return self.cost.service_times_s(RequestShape((characters,) * batch, SummarizeParameters()), room_s=0.0)[1]


def catalog_of(scenario: Scenario) -> Catalog | None:
    """What must be prepared to play the scenario: its catalog's checkpoints for the tasks that are asked for.

    None where its variants come from a CSV. Raises CatalogError, and ScenarioError where the catalog lacks a task.
    """
    if scenario.catalog.manifests is None:
        return None
    whole = load_catalog(scenario.catalog.manifests)
    for at, asked in enumerate(scenario.requests):
        if not whole.of_task(asked.task):
            raise ScenarioError(f"{scenario.name}: requests.{at}.task: the catalog {whole.name} has no {asked.task}")
    asked_for = tuple(entry for entry in whole.checkpoints if entry.task in scenario.tasks)
    return whole.model_copy(update={"checkpoints": asked_for})


def variants_of(scenario: Scenario, prepared: Mapping[str, Path] | None = None) -> tuple[Variant, ...]:
    """The variants that a scenario is played with, the best of each task first.

    `prepared` is the folder of each checkpoint of `catalog_of`, by name; a CSV needs none. Raises ScenarioError and
    CatalogError.
    """
    if scenario.catalog.profile is not None:
        return read_profile(Path(scenario.catalog.profile), scenario.catalog.task)
    catalog = catalog_of(scenario)
    if catalog is None or prepared is None:
        raise ScenarioError(f"{scenario.name}: catalog.manifests: its variants must be prepared first")
    return manifest_variants(catalog, prepared)


def manifest_variants(catalog: Catalog, variants: Mapping[str, Path]) -> tuple[Variant, ...]:
    """The catalog's variants as the simulator sees them, task by task and the best first, from their folders by name.

    Quality is the catalog's value; where ranks order a task whose values cannot be compared, a checkpoint counts no
    less than those it ranks above: bart-software's 40.4 ROUGE-L stand over 43.7 ROUGE-1 and count as 43.7.
    Raises ScenarioError where a checkpoint has no folder or no manifest that can be read.
    """
    made: list[Variant] = []
    for task in catalog.tasks:
        least = 0.0
        of_task: list[Variant] = []
        for entry in sorted(catalog.of_task(task), key=lambda entry: entry.quality.standing):
            least = max(least, entry.quality.value)
            of_task.append(_variant(entry, least, _manifest(entry.name, variants)))
        made += reversed(of_task)
    return tuple(made)


def _variant(entry: CatalogEntry, quality: float, manifest: VariantManifest) -> Variant:
    try:
        cost = service_time_model(manifest)
        scores = isinstance(manifest, ClassifierManifest)
        medians: Medians = (
            Scoring(LatencyProfile.from_document(manifest.profile), manifest.max_tokens) if scores else Condensing(cost)
        )
    except ValueError as error:
        raise ScenarioError(f"{entry.name}: {error}") from None
    return Variant(
        name=entry.name,
        task=entry.task,
        quality=quality,
        tier=entry.tier,
        times=ProfiledTimes(medians, cost.sigma),
        max_batch=BATCH_LIMITS.max_batch if scores else 1,
        domain=entry.domain,
    )


def _manifest(name: str, variants: Mapping[str, Path]) -> VariantManifest:
    if name not in variants:
        raise ScenarioError(f"{name}: is in the catalog, but has no variant prepared")
    try:
        return read_manifest(variants[name])
    except (OSError, ValueError) as error:
        raise ScenarioError(f"{name}: the manifest in {variants[name]} cannot be read: {error}") from None
