"""The gateway's side of `/count`: its body, what crosses to a replica, its manifest and how long it takes."""

from __future__ import annotations

from typing import Literal

from msgspec import Struct

from gateway.model.manifest import VariantManifest
from gateway.model.messages import Parameters
from gateway.model.profile import LatencyProfile
from gateway.model.tier import Tier
from gateway.tasks.base import Strict, Task, TaskBody, VariantKind
from gateway.tasks.service_time import BatchedModel


class CountBodyParameters(Strict):
    """The `parameters` of `POST /count`."""

    distinct: bool = False


class CountBody(TaskBody):
    """The body of `POST /count`."""

    parameters: CountBodyParameters | None = None


class CountParameters(Parameters, frozen=True, array_like=True, tag="count"):
    """Whether only distinct words are counted."""

    distinct: bool = False


class Counted(Struct, frozen=True):
    """The words of one text."""

    words: int


class CounterManifest(VariantManifest):
    """A variant that counts words."""

    kind: Literal["counter"] = "counter"

    @property
    def agreement(self) -> float:
        """Return 1: a count is right or wrong, and was found right."""
        return 1.0


def _read(body: CountBody) -> tuple[CountParameters, None]:
    return CountParameters(body.parameters is not None and body.parameters.distinct), None


COUNT = Task(
    name="count",
    summary="Count words within a latency budget",
    body=CountBody,
    read=_read,
    parameters=CountParameters,
    output=Counted,
    kinds={
        "counter": VariantKind(
            CounterManifest,
            lambda manifest: BatchedModel(LatencyProfile.from_document(manifest.profile), manifest.max_tokens),
        )
    },
    default_budget_ms=2000.0,
    niceness={Tier.QUALITY: 3},
)
