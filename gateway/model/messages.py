"""What crosses from the gateway to a replica and back: the nouns of one piece of work.

These types know neither HTTP nor Ray. They are msgspec structs, because the transport encodes them as they are; a
budget travels as what *remains* of it, never as a deadline, since two processes' monotonic clocks do not compare.
"""

from __future__ import annotations

from enum import StrEnum
from typing import Any, Literal, TypeAlias, TypeVar

import msgspec
from msgspec import Struct

FinishReason: TypeAlias = Literal["stop", "length", "deadline"]


class Parameters(Struct, frozen=True, array_like=True):
    """What a client may say of how a task is done; each task has its own, with a default for every field."""


class Work(Struct, frozen=True, array_like=True):
    """One request as a replica sees it: texts, parameters and what is left of its budget.

    `remaining_s` is in seconds at the moment of sending. `strict` work is dropped once that has passed
    (outcome `EXPIRED`); best-effort work is answered late. `traceparent` is the trace context that came with it. `run`
    numbers the batch that the gateway means it for: of one number is what should run together. `parameters` are the
    task's own; they arrive as plain data, which `parameters_of` reads.
    """

    task: str
    inputs: tuple[str, ...]
    parameters: Any
    remaining_s: float
    strict: bool
    request_id: str
    traceparent: str | None = None
    run: int = 0


ParametersT = TypeVar("ParametersT", bound=Parameters)


def parameters_of(work: Work, kind: type[ParametersT]) -> ParametersT:
    """The work's parameters as its task has them. Raises msgspec.ValidationError for those of another task."""
    given = work.parameters
    return given if isinstance(given, kind) else msgspec.convert(given, kind)


class Generation(Struct, frozen=True, array_like=True):
    """How one summary came about: why it ended, what was run for it, and what the budget allowed.

    `steps` is the engine's decoding steps (or batches of sentences read), `tokens` those of the summary, `beams` and
    `max_new_tokens` what was planned for it. The text was taken in `pieces`. `headroom_s` was left of the budget when
    the last step ended: negative if it ended too late. `lead` says that no usable text was written in time and that
    the source's first sentence stands in.
    """

    finish_reason: FinishReason
    steps: int
    tokens: int
    beams: int
    max_new_tokens: int
    pieces: int
    headroom_s: float
    lead: bool = False


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
    """A finished piece of work: for each input its output, and where a text was written how that came about.

    Outputs are what the client gets: the gateway passes them on unread.
    """

    outputs: tuple[Any, ...]
    input: InputReport
    timings: ReplicaTimings
    generation: tuple[Generation, ...] = ()


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

    `UNAVAILABLE` (the replica is draining, or its connection broke) may be tried elsewhere; the rest may not.
    `tokens` and `limit` are filled in for `TOO_LONG`. `detail` never holds text of the request.
    """

    kind: FailureKind
    detail: str = ""
    tokens: int = 0
    limit: int = 0


class LoadReport(Struct, frozen=True, array_like=True):
    """How busy a replica is as it sends this: it travels with every answer.

    `backlog_s` is the service time of what it has admitted and not yet finished, in seconds, by its own latency
    profile, what is left of the running batch included; of a queue for batches, overdue work, which yields to all that
    can be in time, is left out. `queued` counts inputs, not requests. `sharing` is how many texts take turns, so that a
    short one need not wait for the whole backlog; None where work is not interleaved. `memory_bytes` is the process's
    resident memory. `callers` is how many gateway processes send it work, the reader of this among them; `cores` are
    the processors that it may use, which it shares with the other replicas of its node.
    """

    backlog_s: float
    queued: int
    draining: bool = False
    sharing: int | None = None
    memory_bytes: int = 0
    callers: int = 1
    cores: float = 1.0
