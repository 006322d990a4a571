"""Reads the variants of a live gateway from its `/checkpoints`; needs no catalog and no cache.

The gateway's own service-time models compute run times from the published profiles.
"""

from __future__ import annotations

import urllib.request
from collections.abc import Sequence
from typing import Any

import msgspec
from msgspec import Struct
from pydantic import ValidationError

from gateway.model.manifest import GenerationRules
from gateway.model.profile import ProfileCell, ProfileDocument
from gateway.model.tier import Tier
from gateway.tasks import TASKS
from gateway.tasks.service_time import ServiceTimeModel
from loadtests.errors import LoadTestError
from loadtests.workload.variants import ProfiledTimes, Variant, medians_of, ranked

WITHIN_S = 10.0


class NoGateway(LoadTestError):
    """No gateway answers at the URL; the message says what did."""


class Quality(Struct, frozen=True):
    """Quality in points, and a rank for tasks whose points are not comparable."""

    value: float
    rank: int | None = None

    @property
    def standing(self) -> float:
        """The key that orders checkpoints, as in the catalog."""
        return self.value if self.rank is None else float(self.rank)


class Cell(Struct, frozen=True):
    """The service time of one cell of a profile, in milliseconds."""

    batch: int
    tokens: int
    p50: float
    p95: float


class Profile(Struct, frozen=True):
    """A published latency profile."""

    threads: int
    measured_on: str
    service_time_ms: tuple[Cell, ...]


class Load(Struct, frozen=True):
    """The current state of a checkpoint's replicas."""

    replicas_up: int


class Checkpoint(Struct, frozen=True):
    """The fields of one `/checkpoints` entry that are used here."""

    name: str
    task: str
    tier: Tier
    kind: str
    quality: Quality
    max_tokens: int
    latency_profile: Profile
    load: Load
    also: tuple[str, ...] = ()
    domain: str | None = None
    generation: dict[str, object] | None = None
    output_tokens: float | None = None
    step_ms: tuple[Cell, ...] = ()
    published: dict[str, Any] = {}
    """The whole entry: a kind's service times may need fields of its own."""


class Coming(Struct, frozen=True):
    """A checkpoint that is not served yet, or will not be."""

    name: str
    state: str


class _Checkpoints(Struct):
    checkpoints: tuple[dict[str, Any], ...]
    coming: tuple[Coming, ...] = ()
    defaults: dict[str, str] = {}


def live_variants(url: str) -> tuple[Variant, ...]:
    """The variants that the gateway at `url` serves, by task, best first. Raises NoGateway."""
    return variants_from(_fetched(url), url)


def variants_from(content: bytes, url: str = "the gateway") -> tuple[Variant, ...]:
    """Parses a `/checkpoints` body; a checkpoint that will not come is left out.

    Raises NoGateway if it is malformed, a checkpoint has no replica up, or one is still being prepared, which takes
    processor time and would change what is measured.
    """
    try:
        told = msgspec.json.decode(content, type=_Checkpoints)
        checkpoints = [msgspec.convert({**one, "published": one}, Checkpoint) for one in told.checkpoints]
        if coming := [one.name for one in told.coming if one.state != "failed"]:
            raise NoGateway(
                f"{url}: {', '.join(coming)} is still to come; measure once /readyz lists nothing as coming"
            )
        missing = [one.name for one in checkpoints if not one.load.replicas_up]
        if missing or not checkpoints:
            raise NoGateway(f"{url}: no replica is up for {', '.join(missing) or 'any checkpoint'}")
        served = [(task, one) for one in checkpoints for task in (one.task, *one.also)]
        answering = [(task, one) for task, one in served if told.defaults.get(task) in (None, one.name)]
        return ranked([(one.quality.standing, _variant(one, task)) for task, one in answering])
    except (msgspec.DecodeError, ValidationError, ValueError, KeyError, AttributeError) as error:
        raise NoGateway(f"{url}/checkpoints: not a gateway's answer: {error}") from None


def _fetched(url: str) -> bytes:
    try:
        with urllib.request.urlopen(f"{url}/checkpoints", timeout=WITHIN_S) as response:  # the user chose the scheme
            content: bytes = response.read()
    except (OSError, ValueError) as error:
        raise NoGateway(f"{url}: no gateway answers: {error}") from None
    return content


def _variant(one: Checkpoint, task: str) -> Variant:
    cost = _cost(one, task)
    medians = medians_of(cost)
    times = ProfiledTimes(medians, cost.sigma)
    return Variant(one.name, task, one.quality.value, one.tier, times, medians.max_batch, one.domain)


def _cost(one: Checkpoint, task: str) -> ServiceTimeModel:
    """The service-time model of the checkpoint's kind, from a manifest with only the fields that models need."""
    kind = TASKS[task].kinds[one.kind]
    needed: dict[str, Any] = {
        **{name: one.published[name] for name in kind.manifest.model_fields if name in one.published},
        "profile": _document(one.latency_profile, one.latency_profile.service_time_ms),
    }
    if one.generation is not None:
        needed |= {
            "step_profile": _document(one.latency_profile, one.step_ms),
            "generation": GenerationRules.model_validate(one.generation),
            "output_tokens": one.output_tokens,
        }
    return kind.service_time(kind.manifest.model_construct(**needed))


def _document(profile: Profile, cells: Sequence[Cell]) -> ProfileDocument:
    """The profile as a manifest holds it. The sample count of a cell is neither published nor needed."""
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
