"""How one request ended for the client: its fate, the gateway's prediction, and how late it was sent.

Fates are the simulator's: refused is a no before any work (`overloaded`, `budget_infeasible`); whatever else is no
answer has failed, an admitted request that expired among it.
"""

from __future__ import annotations

import re
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from statistics import fmean

import msgspec

from gateway.model.request import CHECKPOINT
from loadtests.client import Hung, NoReply, Reply
from loadtests.generator.calls import Call
from loadtests.workload.arrivals import Fate

ANSWERED = (Fate.IN_TIME, Fate.LATE)
REFUSALS = {"overloaded": 429, "budget_infeasible": 422}
"""The codes by which a gateway turns a request away, and the status that goes with each."""

EXPIRED = "504 deadline_exceeded"
"""The detail of a strict request that was admitted, and whose deadline passed."""

LAG_BOUND_S = 0.010
LATE_SHARE = 0.01
"""A run is valid while no more than this share of its requests was sent later than the bound."""

_MET = {"true": True, "false": False}
_TOTAL = re.compile(r"(?:^|, )total;dur=([0-9.]+)")


@dataclass(frozen=True, slots=True)
class Shadow:
    """A refused request sent once more, best effort: how it ended, counted from when it was first due.

    IN_TIME says that the refusal was not needed. FAILED says nothing of the refusal.
    """

    fate: Fate
    latency_s: float


@dataclass(frozen=True, slots=True)
class Prediction:
    """What the gateway predicted of a request that it decided on, in seconds from its arrival there.

    `gateway_s` is its latency by the gateway's own clock, to which alone the forecast is bound; `met` is whether the
    gateway said that it was in time.
    """

    checkpoint: str
    tier: str
    reason: str
    predicted_s: float | None
    quantile_s: float | None
    gateway_s: float | None
    finish_reason: str | None = None
    met: bool | None = None

    @property
    def cut(self) -> bool:
        """Whether the deadline ended a summary before it was whole."""
        return self.finish_reason == "deadline"


@dataclass(frozen=True, slots=True)
class Result:
    """One call and its end. `sent_s` is since the run began, `latency_s` since it was due.

    `detail` is the problem's code, or what else went wrong; `prediction` is None where nothing was decided.
    """

    sequence: int
    kind: int
    task: str
    due_s: float
    budget_s: float
    sent_s: float
    latency_s: float
    fate: Fate
    detail: str = ""
    prediction: Prediction | None = None
    shadow: Shadow | None = None

    @property
    def lag_s(self) -> float:
        """How late the generator itself was."""
        return self.sent_s - self.due_s


def result_of_call(call: Call, reply: Reply | NoReply | Hung, sent_s: float, latency_s: float) -> Result:
    """Classifies the end of a call."""
    fate, detail = fate_of(reply, latency_s, call.budget_s)
    prediction = prediction_in(reply.headers) if isinstance(reply, Reply) else None
    return Result(
        call.sequence, call.kind, call.task, call.due_s, call.budget_s, sent_s, latency_s, fate, detail, prediction
    )


def late_share(results: Sequence[Result]) -> float:
    """The share of requests that were sent later than the bound; of none, none."""
    return fmean(result.lag_s > LAG_BOUND_S for result in results) if results else 0.0


def fate_of(reply: Reply | NoReply | Hung, latency_s: float, budget_s: float) -> tuple[Fate, str]:
    """The fate of a reply, and its detail where it is no answer."""
    if isinstance(reply, Hung):
        return Fate.FAILED, "hung"
    if isinstance(reply, NoReply):
        return Fate.FAILED, str(reply)
    if reply.status == 200:
        return (Fate.IN_TIME if latency_s <= budget_s else Fate.LATE), ""
    code = _problem_code(reply.body)
    if code is not None and REFUSALS.get(code) == reply.status:
        return Fate.REFUSED, code
    return Fate.FAILED, f"{reply.status} {code or 'without a code'}"


def prediction_in(headers: Mapping[str, str]) -> Prediction | None:
    """The gateway's prediction in the response headers (names in lower case), or None where it made none."""
    checkpoint = headers.get(CHECKPOINT.lower())
    if checkpoint is None:
        return None
    total = _TOTAL.search(headers.get("server-timing", ""))
    return Prediction(
        checkpoint=checkpoint,
        tier=headers.get("x-tier", ""),
        reason=headers.get("x-route-reason", ""),
        predicted_s=_seconds(headers.get("x-predicted-latency-ms")),
        quantile_s=_seconds(headers.get("x-forecast-quantile-ms")),
        gateway_s=_seconds(total[1]) if total else None,
        finish_reason=headers.get("x-finish-reason"),
        met=_MET.get(headers.get("x-sla-met", "")),
    )


def _seconds(milliseconds: str | None) -> float | None:
    return None if milliseconds is None else float(milliseconds) / 1000


class _Problem(msgspec.Struct):
    code: str


def _problem_code(body: bytes) -> str | None:
    try:
        return msgspec.json.decode(body, type=_Problem).code
    except msgspec.DecodeError:
        return None
