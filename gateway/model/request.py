"""One request as it came in: what is asked, on what terms, and what of it decides its cost."""

from __future__ import annotations

from dataclasses import dataclass, field

from gateway.model.messages import Parameters
from gateway.model.tier import Tier

BUDGET = "X-Latency-SLA-Ms"
PERCENTILE = "X-SLA-Percentile"
MODE = "X-SLA-Mode"
MIN_TIER = "X-Min-Tier"
CHECKPOINT = "X-Checkpoint"
REQUEST_ID = "X-Request-Id"
TRACEPARENT = "traceparent"
GRPC_TIMEOUT = "grpc-timeout"
"""Headers by which a client states its terms."""

DEFAULT_PERCENTILE = 95.0


@dataclass(frozen=True, slots=True, kw_only=True)
class Terms:
    """What the client asked for beside the answer: budget, certainty, mode, choice of checkpoint, and who it is.

    `budget_s` is None where the client set none. `domain` is what the body says the text is about. `traceparent` is the
    client's own, or where requests are traced that of the request's own open `span`, which `tracing` alone looks into.
    """

    budget_s: float | None = None
    percentile: float = DEFAULT_PERCENTILE
    strict: bool = False
    min_tier: Tier | None = None
    pinned: str | None = None
    domain: str | None = None
    request_id: str = ""
    traceparent: str | None = None
    span: object | None = None


@dataclass(frozen=True, slots=True)
class RequestShape:
    """What of a request decides its cost: the characters of each text, and the parameters."""

    characters: tuple[int, ...]
    parameters: Parameters


@dataclass(frozen=True, slots=True)
class Request:
    """One request. `arrived_s` is on the gateway's monotonic clock."""

    task: str
    inputs: tuple[str, ...]
    parameters: Parameters
    terms: Terms
    arrived_s: float
    shape: RequestShape = field(init=False, repr=False, compare=False)

    def __post_init__(self) -> None:
        object.__setattr__(self, "shape", RequestShape(tuple(map(len, self.inputs)), self.parameters))
