"""How one request ended for the client: its outcome, the gateway's prediction, and how late it was sent.

Outcomes are the simulator's. Refused means turned away before any work (`overloaded`, `budget_infeasible`). Any other
request without an answer has failed, expired ones included.
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
"""The problem codes of a refusal, with their HTTP status."""

EXPIRED = "504 deadline_exceeded"
"""The detail of an admitted strict request that expired."""

LAG_BOUND_S = 0.010
LATE_SHARE = 0.01
"""A run is valid if at most this share of its requests was sent later than the bound."""

_MET = {"true": True, "false": False}
_TOTAL = re.compile(r"(?:^|, )total;dur=([0-9.]+)")


@dataclass(frozen=True, slots=True)
class Shadow:
    """The outcome of a refused request sent once more, best effort; latency counts from its first send time.

    IN_TIME means that the refusal was needless. FAILED says nothing about the refusal.
    """

    fate: Fate
    latency_s: float


@dataclass(frozen=True, slots=True)
class Prediction:
    """The gateway's forecast for one request, in seconds from its arrival at the gateway.

    `gateway_s` is the latency by the gateway's clock, which forecasts refer to; `met` says whether the gateway reported
    it in time, and `outcome` how it ended.
    """

    checkpoint: str
    tier: str
    reason: str
    predicted_s: float | None
    quantile_s: float | None
    gateway_s: float | None
    finish_reason: str | None = None
    met: bool | None = None
    outcome: str | None = None

    @property
    def cut(self) -> bool:
        """True if the deadline cut a summary short."""
        return self.finish_reason == "deadline"


@dataclass(frozen=True, slots=True)
class Result:
    """One call and its outcome. `sent_s` counts from the start of the run, `latency_s` from the intended send time.

    `detail` is the problem's code or the fault; `prediction` is None if the gateway decided nothing.
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
        """How late the generator sent the call, in seconds."""
        return self.sent_s - self.due_s


def result_of_call(call: Call, reply: Reply | NoReply | Hung, sent_s: float, latency_s: float) -> Result:
    """Classifies a call's reply into a result."""
    fate, detail = fate_of(reply, latency_s, call.budget_s)
    prediction = prediction_in(reply.headers) if isinstance(reply, Reply) else None
    return Result(
        call.sequence, call.kind, call.task, call.due_s, call.budget_s, sent_s, latency_s, fate, detail, prediction
    )


def late_share(results: Sequence[Result]) -> float:
    """The share of requests sent later than the bound; 0 for no requests."""
    return fmean(result.lag_s > LAG_BOUND_S for result in results) if results else 0.0


def fate_of(reply: Reply | NoReply | Hung, latency_s: float, budget_s: float) -> tuple[Fate, str]:
    """The outcome of a reply, with a detail if it is no answer."""
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
    """The gateway's prediction from response headers (names in lower case), or None if it made none."""
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
        outcome=headers.get("x-outcome"),
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
