"""What crosses from the gateway to a replica and back: the nouns of one piece of work.

These types know neither HTTP nor Ray. They are msgspec structs, because the link encodes them as they are; a
budget travels as what *remains* of it, never as a deadline, since two processes' monotonic clocks do not compare.
"""

from __future__ import annotations

from enum import StrEnum
from typing import Literal, TypeAlias

from msgspec import Struct

FunctionToApply: TypeAlias = Literal["softmax", "sigmoid", "none"]
Truncation: TypeAlias = Literal["longest_first", "error"]


class ClassifyParameters(Struct, frozen=True, array_like=True):
    """How the scores of a classification are made and cut; the defaults are the contract's."""

    top_k: int | None = None
    function_to_apply: FunctionToApply = "softmax"
    truncation: Truncation = "longest_first"


class Work(Struct, frozen=True, array_like=True):
    """One request as a replica sees it: texts, parameters and what is left of its budget.

    `remaining_s` is in seconds at the moment of sending. `strict` work is dropped once that has passed
    (outcome `EXPIRED`); best-effort work is answered late.
    """

    task: str
    inputs: tuple[str, ...]
    parameters: ClassifyParameters
    remaining_s: float
    strict: bool
    request_id: str


class LabelScore(Struct, frozen=True):
    """One label with its score: a probability unless `function_to_apply` is `none`. Encodes as the wire's object."""

    label: str
    score: float


class InputReport(Struct, frozen=True, array_like=True):
    """What became of the texts of one request, summed over its inputs.

    `tokens` were in the texts, `kept` were given to the engine; `truncated` says that they differ.
    """

    tokens: int
    kept: int
    truncated: bool


class ReplicaTimings(Struct, frozen=True, array_like=True):
    """Where the time went inside the replica, in seconds, by the glossary's words."""

    queueing_delay_s: float
    service_time_s: float
    total_s: float
    batch_size: int


class Answer(Struct, frozen=True, array_like=True, tag="answer"):
    """A finished piece of work: one list of label scores for each input, best first."""

    outputs: tuple[tuple[LabelScore, ...], ...]
    input: InputReport
    timings: ReplicaTimings


class FailureKind(StrEnum):
    """Why a replica gave no answer: the closed list that the gateway turns into its errors."""

    EXPIRED = "expired"
    CANCELLED = "cancelled"
    TOO_LONG = "too_long"
    QUEUE_FULL = "queue_full"
    ENGINE = "engine"
    UNAVAILABLE = "unavailable"


class Failure(Struct, frozen=True, array_like=True, tag="failure"):
    """Work that ended without an answer. It crosses processes as a value, not as an exception.

    `UNAVAILABLE` (the replica is draining, or its link broke) may be tried elsewhere; the rest may not.
    `tokens` and `limit` are filled in for `TOO_LONG`. `detail` never holds text of the request.
    """

    kind: FailureKind
    detail: str = ""
    tokens: int = 0
    limit: int = 0


class LoadReport(Struct, frozen=True, array_like=True):
    """How busy a replica is as it sends this: it travels with every answer.

    `backlog_s` is the service time of everything it has admitted and not yet finished, in seconds, by its own
    latency profile, what is left of the running batch included; `queued` counts inputs, not requests.
    """

    backlog_s: float
    queued: int
    draining: bool = False
