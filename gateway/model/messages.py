"""The messages between the gateway and a replica: one piece of work, its answer or failure, and load reports.

They know neither HTTP nor Ray. They are msgspec structs, because the transport encodes them as they are. A budget
travels as what remains of it, never as a deadline, since the monotonic clocks of two processes do not compare.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from enum import StrEnum
from typing import Any, Literal, Self, TypeAlias, TypeVar

import msgspec
from msgspec import Struct

FinishReason: TypeAlias = Literal["stop", "length", "deadline", "short"]


class Parameters(Struct, frozen=True, array_like=True):
    """How the client wants a task done; each task has its own subclass, with a default for every field."""

    @property
    def shared(self) -> int:
        """How many of the last texts a replica may know from earlier requests, such as the labels to choose from.

        They are forecast where a checkpoint does not know them, and no queue counts them as texts to answer.
        """
        return 0

    def answered(self, tokens: Sequence[int]) -> Sequence[int]:
        """The tokens of each text that is answered, of the tokens of all inputs: by default those not shared."""
        return tokens[: len(tokens) - self.shared]

    def of_distinct(self, inputs: Sequence[str]) -> tuple[Sequence[str], Parameters]:
        """The inputs that differ, of equal ones the first, with the parameters of those alone. Shared ones all stay."""
        texts = len(inputs) - self.shared
        return (*dict.fromkeys(inputs[:texts]), *inputs[texts:]), self


class Work(Struct, frozen=True, array_like=True):
    """One request as a replica sees it: texts, parameters and the budget left.

    `remaining_s` is in seconds at the moment of sending. Once it has passed, `strict` work is dropped (outcome
    `EXPIRED`) and best-effort work is answered late. `traceparent` is the trace context that came with the request.
    `streamed` says that somebody takes the answer as deltas come; a replica may have none to give. `lone` work had the
    node for itself when it was sent: its engine run may take all processors of the replica.
    `parameters` are the task's own; they arrive as plain data, which `parameters_of` reads.
    """

    task: str
    inputs: tuple[str, ...]
    parameters: Any
    remaining_s: float
    strict: bool
    request_id: str
    traceparent: str | None = None
    streamed: bool = False
    lone: bool = False


ParametersT = TypeVar("ParametersT", bound=Parameters)


def parameters_of(work: Work, kind: type[ParametersT]) -> ParametersT:
    """Returns the work's parameters as its task's type. Raises msgspec.ValidationError for those of another task."""
    given = work.parameters
    return given if isinstance(given, kind) else msgspec.convert(given, kind)


class Delta(Struct, frozen=True, array_like=True):
    """The next piece of one answer's text that can no longer change, by the index of its input.

    The pieces of an input, joined, are the text of its output, whatever comes later.
    """

    index: int
    text: str


Emit: TypeAlias = Callable[[int, Delta], None]
"""Takes a delta of the answer to one request of a batch, by the request's place in it. It must not raise."""


def to_nobody(place: int, delta: Delta) -> None:
    """Drops a delta."""


class Generation(Struct, frozen=True, array_like=True):
    """How one summary was written: why it ended, what ran for it, and what the budget allowed.

    `short` says that the text was too short to be summarised, and is its own summary.

    `steps` counts the engine's decoding steps (or batches of sentences read), `tokens` those of the summary. `beams`
    and `max_new_tokens` are what was planned. The text was read in `pieces`. `headroom_s` was left of the budget when
    the last step ended, negative if it ended too late. `lead` says that no usable text was written in time, and the
    source's first sentence stands in. `restored` tokens of the prompt were not read anew: another began with them,
    or was equal.
    `followed` says that it went along with the run of an equal text, so that its time says nothing of others.
    """

    finish_reason: FinishReason
    steps: int
    tokens: int
    beams: int
    max_new_tokens: int
    pieces: int
    headroom_s: float
    lead: bool = False
    restored: int = 0
    followed: bool = False


class InputReport(Struct, frozen=True, array_like=True):
    """What was read of the texts of one request, summed over its inputs.

    `tokens` were in the texts, and `kept` were given to the engine; `truncated` says that they differ. `windows` are
    the overlapping windows that the texts were taken in; 0 where a task has none.
    """

    tokens: int
    kept: int
    truncated: bool
    windows: int = 0


class ReplicaTimings(Struct, frozen=True, array_like=True):
    """Where the time went inside the replica, in seconds, by the glossary's terms."""

    queueing_delay_s: float
    service_time_s: float
    total_s: float
    batch_size: int


class Answer(Struct, frozen=True, array_like=True, tag="answer"):
    """A finished piece of work: one output for each input, and for written texts how they were written.

    The gateway passes outputs on to the client unread.
    """

    outputs: tuple[Any, ...]
    input: InputReport
    timings: ReplicaTimings
    generation: tuple[Generation, ...] = ()

    @property
    def followed(self) -> bool:
        """True if a text of it went along with the run of an equal one."""
        return any(one.followed for one in self.generation)


class FailureKind(StrEnum):
    """Why a replica gave no answer: the closed list that the gateway turns into its errors."""

    EXPIRED = "expired"
    CANCELLED = "cancelled"
    TOO_LONG = "too_long"
    REFUSED = "refused"
    QUEUE_FULL = "queue_full"
    ENGINE = "engine"
    UNAVAILABLE = "unavailable"


class Failure(Struct, frozen=True, array_like=True, tag="failure"):
    """Work that ended without an answer. It crosses processes as a value, not as an exception.

    `UNAVAILABLE` (the replica is draining, or its connection broke) may be tried elsewhere; other failures may not.
    `REFUSED` says that the checkpoint does not take such inputs, and `detail` why. `tokens`, `limit` and the `index` of
    the input are set for `TOO_LONG`. Where its `unit` is another, these two are in that unit (bytes are of keys and
    values), and `detail` says more; 0 is a number that is not known. `detail` never holds text of the request.
    """

    kind: FailureKind
    detail: str = ""
    tokens: int = 0
    limit: int = 0
    index: int | None = None
    unit: Literal["tokens", "bytes", "windows", "sentences"] = "tokens"

    @classmethod
    def too_many(cls, counts: Sequence[int], limit: int, unit: Literal["windows", "sentences"]) -> Self:
        """The texts of a request have so many of a unit each, and more than the limit together.

        Its index is that of a text which has more alone, if there is one.
        """
        detail = f"the texts have {sum(counts)} {unit}, a request may have {limit}"
        index = next((at for at, count in enumerate(counts) if count > limit), None)
        return cls(FailureKind.TOO_LONG, detail, sum(counts), limit, index, unit)


class LoadReport(Struct, frozen=True, array_like=True):
    """How busy a replica is as it sends this; sent with every answer.

    `backlog_s` is the service time of admitted and unfinished work, in seconds, by the replica's own latency profile,
    including the rest of the running batches. `queued` counts inputs, not requests. `sharing` is the number of texts
    that share the engine by time slicing, so that a short one need not wait for the whole backlog; None without time
    slicing. `memory_bytes` is the process's resident memory. `callers` counts the gateway processes that send it work,
    including the receiver. `cores` is the number of processors that it may use, shared with the other replicas of its
    node. `lone` says that it makes lone runs.
    """

    backlog_s: float
    queued: int
    draining: bool = False
    sharing: int | None = None
    memory_bytes: int = 0
    callers: int = 1
    cores: float = 1.0
    lone: bool = False
