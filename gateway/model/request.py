"""One request as it came in: its inputs, its terms, and the shape that decides its cost."""

from __future__ import annotations

from dataclasses import dataclass

from gateway.model.messages import Parameters
from gateway.model.tier import Tier

BUDGET = "X-Latency-SLA-Ms"
FIRST_BUDGET = "X-First-Token-SLA-Ms"
PERCENTILE = "X-SLA-Percentile"
MODE = "X-SLA-Mode"
MIN_TIER = "X-Min-Tier"
CHECKPOINT = "X-Checkpoint"
REQUEST_ID = "X-Request-Id"
TRACEPARENT = "traceparent"
TRACESTATE = "tracestate"
GRPC_TIMEOUT = "grpc-timeout"
"""Headers by which a client states its terms."""

DEFAULT_PERCENTILE = 95.0
"""The percentile of a request that states none, in percent."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Terms:
    """What the client asked for besides the answer: budget, percentile, mode, choice of checkpoint, and identity.

    `budget_s` is None if the client set none. `streamed` says that the client reads the answer while it is written;
    `first_token_s` is its budget for the first text of that, from the arrival too, None if it set none. `domain` is the
    body's. `able` names the checkpoints that can do what its parameters ask for, None if all can. `traceparent` is the
    client's own or, with tracing, that of the request's open `span`, which only `tracing` looks into. `tracestate` goes
    with it.
    """

    budget_s: float | None = None
    first_token_s: float | None = None
    streamed: bool = False
    percentile: float = DEFAULT_PERCENTILE
    strict: bool = False
    min_tier: Tier | None = None
    pinned: str | None = None
    domain: str | None = None
    able: frozenset[str] | None = None
    request_id: str = ""
    traceparent: str | None = None
    tracestate: str | None = None
    span: object | None = None


@dataclass(frozen=True, slots=True)
class RequestShape:
    """What decides the cost of a request: the tokens of its texts, and the parameters.

    `tokens` has, for each tokenizer of the task, the tokens of each text, specials included. They are estimated where
    the texts are `sampled`. Where a task runs equal texts of a request once, they are here once, and each stands for
    `copies` of them on average.
    """

    tokens: tuple[tuple[int, ...], ...]
    parameters: Parameters
    sampled: bool = False
    copies: float = 1.0

    @property
    def texts(self) -> int:
        """The number of texts to answer: the first ones, without those that are `shared`."""
        return len(self.tokens[0]) - self.parameters.shared


@dataclass(frozen=True, slots=True)
class Request:
    """One request. `arrived_s` is on the gateway's monotonic clock."""

    task: str
    inputs: tuple[str, ...]
    parameters: Parameters
    terms: Terms
    arrived_s: float
