"""The variants behind a live gateway, from what its own `/checkpoints` says: no catalog and no cache folder is needed.

What a run costs is reckoned by the gateway's own code over the profiles that it publishes.
"""

from __future__ import annotations

import urllib.request
from collections.abc import Iterator, Sequence
from typing import Any

import msgspec
from msgspec import Struct
from pydantic import ValidationError

from deployments.replica.classify import BATCH_LIMITS
from gateway.model.manifest import GenerationRules, Seq2SeqManifest
from gateway.model.profile import LatencyProfile, ProfileCell, ProfileDocument
from gateway.model.tier import Tier
from gateway.tasks.service_time import ServiceTimeModel
from gateway.tasks.summarize import AbstractiveModel, ExtractiveModel
from loadtests.offering.errors import NoGateway
from loadtests.scenarios.manifests import Condensing, Scoring
from loadtests.simulator.variants import Medians, ProfiledTimes, Variant

WITHIN_S = 10.0


class Quality(Struct, frozen=True):
    """Points, and the rank that orders a task whose points cannot be compared."""

    value: float
    rank: int | None = None

    @property
    def standing(self) -> float:
        """What orders checkpoints, as in the catalog."""
        return self.value if self.rank is None else float(self.rank)


class Cell(Struct, frozen=True):
    """Service time of one place of a profile, in milliseconds."""

    batch: int
    tokens: int
    p50: float
    p95: float


class Profile(Struct, frozen=True):
    """A latency profile as it is published."""

    threads: int
    measured_on: str
    service_time_ms: tuple[Cell, ...]


class Load(Struct, frozen=True):
    """What is known of a checkpoint's replicas at this moment."""

    replicas_up: int


class Checkpoint(Struct, frozen=True):
    """One checkpoint of `/checkpoints`, as far as it is used here."""

    name: str
    task: str
    tier: Tier
    kind: str
    quality: Quality
    max_tokens: int
    latency_profile: Profile
    load: Load
    domain: str | None = None
    generation: dict[str, object] | None = None
    output_tokens: float | None = None
    step_ms: tuple[Cell, ...] = ()


class _Checkpoints(Struct):
    checkpoints: tuple[Checkpoint, ...]


def live_variants(url: str) -> tuple[Variant, ...]:
    """The variants that the gateway at `url` serves, task by task and the best first. Raises NoGateway."""
    return variants_from(_fetched(url), url)


def variants_from(content: bytes, url: str = "the gateway") -> tuple[Variant, ...]:
    """The variants that the body of `/checkpoints` describes. Raises NoGateway where it is none, or one is not up."""
    try:
        checkpoints = msgspec.json.decode(content, type=_Checkpoints).checkpoints
        missing = [one.name for one in checkpoints if not one.load.replicas_up]
        if missing or not checkpoints:
            raise NoGateway(f"{url}: no replica is up of {', '.join(missing) or 'any checkpoint'}")
        return tuple(_variants(checkpoints))
    except (msgspec.DecodeError, ValidationError, ValueError) as error:
        raise NoGateway(f"{url}/checkpoints: not what a gateway says: {error}") from None


def _fetched(url: str) -> bytes:
    try:
        with urllib.request.urlopen(f"{url}/checkpoints", timeout=WITHIN_S) as response:  # the scheme is the person's
            content: bytes = response.read()
    except (OSError, ValueError) as error:
        raise NoGateway(f"{url}: no gateway answers there: {error}") from None
    return content


def _variants(checkpoints: Sequence[Checkpoint]) -> Iterator[Variant]:
    """Quality as `scenarios.manifests` has it: none counts less than one that it ranks above."""
    for task in dict.fromkeys(one.task for one in checkpoints):
        of_task = sorted((one for one in checkpoints if one.task == task), key=lambda one: one.quality.standing)
        utility = 0.0
        made = []
        for one in of_task:
            utility = max(utility, one.quality.value)
            made.append(_variant(one, utility))
        yield from reversed(made)


def _variant(one: Checkpoint, quality: float) -> Variant:
    profile = LatencyProfile.from_document(_document(one.latency_profile, one.latency_profile.service_time_ms))
    scores = one.kind == "classifier"
    medians: Medians
    if scores:
        medians, sigma = Scoring(profile, one.max_tokens), profile.sigma
    else:
        cost = _cost(one, profile)
        medians, sigma = Condensing(cost), cost.sigma
    return Variant(
        name=one.name,
        task=one.task,
        quality=quality,
        tier=one.tier,
        times=ProfiledTimes(medians, sigma),
        max_batch=BATCH_LIMITS.max_batch if scores else 1,
        domain=one.domain,
    )


def _cost(one: Checkpoint, profile: LatencyProfile) -> ServiceTimeModel:
    """What a summary costs. Of a manifest only what costs hang on is there, and only that is read."""
    if one.kind != "seq2seq":
        return ExtractiveModel(profile)
    needed: dict[str, Any] = {
        "max_tokens": one.max_tokens,
        "profile": _document(one.latency_profile, one.latency_profile.service_time_ms),
        "step_profile": _document(one.latency_profile, one.step_ms),
        "generation": GenerationRules.model_validate(one.generation),
        "output_tokens": one.output_tokens,
    }
    return AbstractiveModel(Seq2SeqManifest.model_construct(**needed))


def _document(profile: Profile, cells: Sequence[Cell]) -> ProfileDocument:
    """As a manifest has it; how many runs stand behind a cell is not published, and nothing hangs on it."""
    return ProfileDocument(
        threads=profile.threads,
        measured_on=profile.measured_on,
        cells=tuple(
            ProfileCell(
                batch=cell.batch,
                tokens=cell.tokens,
                samples=1,
                p50_s=cell.p50 / 1000,
                p95_s=cell.p95 / 1000,
                min_s=cell.p50 / 1000,
                max_s=cell.p95 / 1000,
            )
            for cell in cells
        ),
    )
