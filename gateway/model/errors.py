"""Every error a client can meet, as RFC 9457 problems.

    Problem
     ├─ InvalidRequest         422  the body does not validate, or no checkpoint meets the terms (400: unreadable)
     ├─ NotFound               404  no such path, task or checkpoint; the names that exist are listed
     ├─ MethodNotAllowed       405
     ├─ UnknownHost            421  a gateway on loopback was asked by another name
     ├─ UnsupportedEncoding    415  the body is compressed in a way that is not read
     ├─ InputTooLong           413  over a limit, or over the checkpoint's window with truncation "error"
     ├─ BudgetInfeasible       422  strict, and not even an idle gateway could make it
     ├─ Overloaded             429  strict, and not in time at this load; or a limit on queued work is reached
     ├─ DeadlineExceeded       504  admitted, and the deadline passed or could not be kept; the work was stopped
     ├─ CheckpointUnavailable  503  no healthy replica
     ├─ InferenceFailed        500  the engine failed
     └─ of the HTTP server itself, about what is no request yet:
        ├─ MethodNotImplemented 501  no path has such a method
        ├─ VersionNotSupported 505  not HTTP/1.1 or 1.0
        ├─ HeadTooLarge        431  target and headers are over the limit
        ├─ RequestTimeout      408  the head or the body did not come in time
        ├─ TooManyConnections  503  over the limit on connections
        ├─ Starting            503  the gateway is not ready for requests yet
        └─ Stopping            503  the process ends, and the request with it

A problem never holds text of a request. The application's last resort for anything else is `InternalError`.
"""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from typing import ClassVar, Literal, NotRequired, Self, TypedDict

from gateway.model.outcome import Outcome


class Fault(TypedDict):
    """One fault of a request: the field of the body or the header that is at fault, and what it must be."""

    field: NotRequired[str]
    header: NotRequired[str]
    message: str


class Problem(Exception):
    """An error that the client receives: code, HTTP status, a sentence, and members to compute with.

    `Members` has the types of those members. They are part of the HTTP interface, which the OpenAPI document shows.
    """

    class Members(TypedDict):
        """None beside the standard ones."""

    code: ClassVar[str]
    status: ClassVar[int]
    title: ClassVar[str]
    outcome: ClassVar[Outcome]

    def __init__(self, detail: str, members: Mapping[str, object] | None = None) -> None:
        super().__init__(detail)
        self.detail = detail
        self.members = dict(members or {})

    @property
    def http_status(self) -> int:
        """The status of this occurrence; a subclass may refine the class's."""
        return self.status

    @classmethod
    def urn(cls) -> str:
        """The `type` of RFC 9457, which names the kind of problem."""
        return f"urn:punctual:problem:{cls.code}"

    def headers(self) -> dict[str, str]:
        """Response headers of this problem."""
        return {}

    def document(self) -> dict[str, object]:
        """The body, `application/problem+json`: standard members first, then this problem's own."""
        return {
            "type": self.urn(),
            "code": self.code,
            "title": self.title,
            "status": self.http_status,
            "detail": self.detail,
            **self.members,
        }


class InvalidRequest(Problem):
    """Raised if a request cannot be parsed. `errors` name each field or header and what it must be."""

    class Members(TypedDict):
        """The faults; the first of them is in `detail` too."""

        errors: list[Fault]

    code, status, title, outcome = "invalid_request", 422, "The request is not valid", Outcome.INVALID

    def __init__(self, detail: str, errors: Sequence[Mapping[str, str]] = (), *, malformed: bool = False) -> None:
        super().__init__(detail, {"errors": [dict(error) for error in errors]})
        self._malformed = malformed

    @classmethod
    def of_field(cls, field: str, message: str) -> Self:
        """Names the one field that is at fault, by its path, and what it must be."""
        return cls(f"{field}: {message}", [{"field": field, "message": message}])

    @property
    def http_status(self) -> int:
        """400 for what cannot be read at all (not JSON, a bad header), 422 for what reads but does not validate."""
        return 400 if self._malformed else self.status


def no_text() -> InvalidRequest:
    """Makes the 422 of a request without a text."""
    return InvalidRequest("inputs: must hold at least one text", [{"field": "inputs", "message": "must not be empty"}])


def bad_header(name: str, requirement: str) -> InvalidRequest:
    """Makes the 400 that names the header and what it must be; its value is not repeated."""
    return InvalidRequest(f"header {name}: {requirement}", [{"header": name, "message": requirement}], malformed=True)


def ms_above(seconds: float) -> float:
    """Rounds up to a tenth of a millisecond: a stated bound must hold when the client sends it back."""
    return (math.floor(seconds * 1e4) + 1) / 10


class NotFound(Problem):
    """Raised for a path that does not exist."""

    code, status, title, outcome = "not_found", 404, "There is nothing here", Outcome.INVALID


class UnknownTask(NotFound):
    """Raised for a task that no checkpoint of the catalog serves."""

    class Members(TypedDict):
        """The tasks that are served."""

        tasks: list[str]

    code, title = "unknown_task", "The task is not served"

    def __init__(self, tasks: Sequence[str]) -> None:
        super().__init__(f"this gateway serves: {', '.join(tasks)}", self.Members(tasks=list(tasks)))


class UnknownCheckpoint(NotFound):
    """Raised if `X-Checkpoint` pins a name that is not in the catalog for this task."""

    class Members(TypedDict):
        """The checkpoints of the task."""

        checkpoints: list[str]

    code, title = "unknown_checkpoint", "The checkpoint is not in the catalog"

    def __init__(self, checkpoints: Sequence[str]) -> None:
        names = ", ".join(checkpoints)
        super().__init__(f"X-Checkpoint must be one of: {names}", self.Members(checkpoints=list(checkpoints)))


class UnknownHost(Problem):
    """Raised for a request that names a host which is not this gateway's."""

    code, status, title, outcome = "unknown_host", 421, "This gateway does not answer to that host", Outcome.INVALID

    def __init__(self) -> None:
        super().__init__("the Host header must name loopback, as localhost does, or a host given by --allow-host")


class MethodNotAllowed(Problem):
    """Raised for a path that exists under another method."""

    class Members(TypedDict):
        """The methods that the path has."""

        allowed: list[str]

    code, status, title, outcome = "method_not_allowed", 405, "The method is not allowed here", Outcome.INVALID

    def __init__(self, allowed: Sequence[str]) -> None:
        super().__init__(f"use {' or '.join(allowed)}", self.Members(allowed=list(allowed)))
        self._allowed = allowed

    def headers(self) -> dict[str, str]:
        """`Allow`, which RFC 9110 requires with 405."""
        return {"Allow": ", ".join(self._allowed)}


class UnsupportedEncoding(Problem):
    """Raised for a body whose Content-Encoding is not read."""

    class Members(TypedDict):
        """The encodings that are read."""

        accepted: list[str]

    code, status, title, outcome = "unsupported_encoding", 415, "The encoding is not read", Outcome.INVALID

    def __init__(self, accepted: Sequence[str]) -> None:
        names = ", ".join(accepted)
        super().__init__(f"Content-Encoding must be one of: {names}", self.Members(accepted=list(accepted)))
        self._names = names

    def headers(self) -> dict[str, str]:
        """`Accept-Encoding`, by which RFC 9110 has a 415 say what is read."""
        return {"Accept-Encoding": self._names}


class InputTooLong(Problem):
    """Raised for a body, a list or a text over its limit, and for a text over the window that may not be cut."""

    class Members(TypedDict, total=False):
        """The limit with its unit, what was sent in that unit, and the checkpoint where it is the limit's.

        `index` is that of the text in its list, where one text alone is too long.
        """

        limit: int
        unit: Literal["bytes", "values", "inputs", "characters", "tokens", "windows", "sentences"]
        inputs: int
        characters: int
        tokens: int
        bytes: int
        windows: int
        sentences: int
        index: int
        checkpoint: str

    code, status, title, outcome = "input_too_long", 413, "The input is too long", Outcome.TOO_LONG


class BudgetInfeasible(Problem):
    """Raised in strict mode if no candidate could answer in time even on an idle gateway."""

    class OfFirstToken(TypedDict, total=False):
        """Likewise for the first token if it has a budget of its own, beside such a budget for the answer."""

        min_feasible_first_token_ms: float
        min_admitted_first_token_ms: float

    class Members(OfFirstToken):
        """The least budget that an idle gateway keeps at the percentile that was asked for, and who would keep it.

        `min_admitted_ms` is the least that is let in now: one answer in twenty is then in time.
        """

        min_feasible_ms: float
        min_admitted_ms: float
        feasible_checkpoints: list[str]

    code, status, title = "budget_infeasible", 422, "No checkpoint can answer within this budget"
    outcome = Outcome.INFEASIBLE

    def __init__(
        self,
        min_feasible_s: float,
        min_admitted_s: float,
        checkpoints: Sequence[str],
        first_s: tuple[float, float] | None = None,
    ) -> None:
        """`checkpoints` are those that a budget of `min_feasible_s` would make feasible.

        `first_s` has the two numbers of the first token, where it has a budget of its own.
        """
        feasible, admitted = ms_above(min_feasible_s), ms_above(min_admitted_s)
        members = self.Members(min_feasible_ms=feasible, min_admitted_ms=admitted, feasible_checkpoints=[*checkpoints])
        detail = f"an idle gateway would keep {feasible} ms; from {admitted} ms on a request is let in at its own risk"
        if first_s is not None:
            feasible, admitted = map(ms_above, first_s)
            members["min_feasible_first_token_ms"], members["min_admitted_first_token_ms"] = feasible, admitted
            detail += f"; for the first token these are {feasible} and {admitted} ms"
        super().__init__(detail, members)


class Overloaded(Problem):
    """Raised if the load leaves no capacity: a strict request would be late, or a bounded queue is full."""

    class Members(TypedDict):
        """When to try again: `Retry-After`, in milliseconds."""

        retry_after_ms: int

    code, status, title, outcome = "overloaded", 429, "The gateway cannot take this at its current load", Outcome.SHED

    def __init__(self, detail: str, retry_after_s: float) -> None:
        self._retry_after_s = max(retry_after_s, 0.001)
        super().__init__(detail, self.Members(retry_after_ms=math.ceil(self._retry_after_s * 1000)))

    def headers(self) -> dict[str, str]:
        """`Retry-After` in whole seconds, rounded up, as RFC 9110 requires."""
        return {"Retry-After": str(math.ceil(self._retry_after_s))}


class DeadlineExceeded(Problem):
    """Raised if admitted work was stopped because its deadline, or the patience with best effort, passed.

    Also raised before the deadline, once it is certain that it cannot be kept.
    """

    class Members(TypedDict):
        """The time from the arrival to the stop."""

        elapsed_ms: float

    code, status, title, outcome = "deadline_exceeded", 504, "No answer within the budget", Outcome.EXPIRED

    def __init__(self, elapsed_s: float, budget_s: float, what: str = "the deadline") -> None:
        ms, budget_ms = round(elapsed_s * 1000, 1), round(budget_s * 1000, 1)
        passed = f"{what} passed; stopped after {ms} ms of {budget_ms}"
        kept = f"{what} could not be kept; given up after {ms} ms of {budget_ms}"
        super().__init__(kept if elapsed_s < budget_s else passed, self.Members(elapsed_ms=ms))


class CheckpointUnavailable(Problem):
    """Raised if no eligible checkpoint has a healthy replica, or those that had the request were lost."""

    class Members(TypedDict):
        """The checkpoints that could have answered."""

        checkpoints: list[str]

    code, status, title = "checkpoint_unavailable", 503, "No healthy replica"
    outcome = Outcome.UNAVAILABLE

    def __init__(self, checkpoints: Sequence[str]) -> None:
        names = list(checkpoints)
        super().__init__(f"no replica answers of: {', '.join(names)}", self.Members(checkpoints=names))

    def headers(self) -> dict[str, str]:
        """`Retry-After` of 2 seconds: Ray Serve restarts a replica within seconds."""
        return {"Retry-After": "2"}


class InferenceFailed(Problem):
    """Raised if the engine failed on this input; names the checkpoint, never a traceback."""

    class Members(TypedDict):
        """The checkpoint that failed."""

        checkpoint: str

    code, status, title, outcome = "inference_failed", 500, "The checkpoint failed on this input", Outcome.FAILED

    def __init__(self, checkpoint: str) -> None:
        super().__init__(f"checkpoint {checkpoint} failed", self.Members(checkpoint=checkpoint))


class MethodNotImplemented(Problem):
    """Raised for a method that no path has, since the server does not know it."""

    code, status, title, outcome = "method_not_implemented", 501, "The method is not known", Outcome.INVALID

    def __init__(self) -> None:
        super().__init__("this server knows no such method; their names are in capital letters")


class VersionNotSupported(Problem):
    """Raised for a request of another version of HTTP."""

    code, status, title, outcome = "version_not_supported", 505, "The version of HTTP is not supported", Outcome.INVALID

    def __init__(self) -> None:
        super().__init__("this server speaks HTTP/1.1 and HTTP/1.0")


class HeadTooLarge(Problem):
    """Raised if a request's target and headers are over the limit of the server."""

    class Members(TypedDict):
        """The limit, in bytes."""

        limit: int

    code, status, title, outcome = "head_too_large", 431, "The headers are too large", Outcome.INVALID

    def __init__(self, limit: int) -> None:
        super().__init__(f"target and headers may have {limit} bytes", self.Members(limit=limit))


class RequestTimeout(Problem):
    """Raised if the head or the body of a request did not come in time."""

    code, status, title, outcome = "request_timeout", 408, "The request came too slowly", Outcome.CANCELLED

    def __init__(self) -> None:
        super().__init__("the rest of the request did not come in time")


class TooManyConnections(Problem):
    """Raised for a connection over the limit, of all clients together or of one address."""

    code, status, title, outcome = "too_many_connections", 503, "Too many connections", Outcome.SHED

    def __init__(self, limit: int, of: str = "") -> None:
        """`of` is nothing, or says whose limit it is."""
        super().__init__(f"{limit} connections are open{of}, the limit")

    def headers(self) -> dict[str, str]:
        """`Retry-After` of one second."""
        return {"Retry-After": "1"}


class Starting(Problem):
    """Raised for a request that came before the gateway was ready for it."""

    code, status, title, outcome = "starting", 503, "The gateway starts", Outcome.UNAVAILABLE

    def __init__(self) -> None:
        super().__init__("the gateway starts, and is not ready for requests yet")

    def headers(self) -> dict[str, str]:
        """`Retry-After` of one second."""
        return {"Retry-After": "1"}


class Stopping(Problem):
    """Raised for a request that a process could not answer before its end, or that came after it."""

    code, status, title, outcome = "stopping", 503, "This gateway process ends", Outcome.CANCELLED

    def __init__(self, detail: str = "the process ends; another one takes new connections") -> None:
        super().__init__(detail)

    def headers(self) -> dict[str, str]:
        """`Retry-After` of one second."""
        return {"Retry-After": "1"}


class InternalError(Problem):
    """The last resort: a fault of the gateway itself."""

    code, status, title, outcome = "internal_error", 500, "The gateway failed", Outcome.FAILED

    def __init__(self) -> None:
        super().__init__("an internal error; the gateway's log has it under this request's id")
