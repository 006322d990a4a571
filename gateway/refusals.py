"""The problem that a client receives where there is no answer: from a refusing decision, or a replica's failure.

Pure functions; `service` decides when each is called.
"""

from __future__ import annotations

from collections.abc import Sequence

from gateway.forecasting.forecaster import Forecast
from gateway.model.deadline import Deadline
from gateway.model.errors import (
    BudgetInfeasible,
    CheckpointUnavailable,
    DeadlineExceeded,
    InferenceFailed,
    InputTooLong,
    InvalidRequest,
    Overloaded,
    Problem,
)
from gateway.model.messages import Failure, FailureKind
from gateway.model.request import CHECKPOINT, MIN_TIER
from gateway.scheduling.policy import Decision, Refusal, Verdict

_TERM_OF = {
    Verdict.NOT_PINNED: {"header": CHECKPOINT},
    Verdict.BELOW_MIN_TIER: {"header": MIN_TIER},
    Verdict.OTHER_DOMAIN: {"field": "domain"},
    Verdict.UNABLE: {"field": "parameters"},
}
"""The term of the request behind each verdict on a candidate."""


def refused(decision: Decision) -> Problem:
    """The problem of a decision that chose nothing, for a request that was not dispatched yet."""
    match decision.refusal:
        case Refusal.OVERLOADED:
            return Overloaded("no checkpoint can answer in time at the current load", decision.retry_after_s)
        case Refusal.INFEASIBLE:
            first_s = (decision.min_feasible_first_s, min_admitted_first_s(decision))
            return BudgetInfeasible(
                decision.min_feasible_s,
                min_admitted_s(decision),
                _fastest(decision),
                first_s if decision.min_feasible_first_s else None,
            )
        case Refusal.NO_CANDIDATE:
            return _unmet(decision)
        case _:
            return CheckpointUnavailable([a.candidate.name for a in decision.assessed if a.verdict.eligible])


def refused_after_loss(decision: Decision, lost: str, deadline: Deadline, now_s: float) -> Problem:
    """The problem of a decision that chose nothing, for a request that was admitted and lost its replica.

    The loss is no fault of its budget. The deadline passed if the whole budget would still be enough on an idle
    gateway; else nothing is up in place of `lost`, the checkpoint that had the request.
    """
    if decision.refusal is Refusal.INFEASIBLE and _least_idle_s(decision) <= deadline.budget_s:
        return DeadlineExceeded(deadline.elapsed_s(now_s), deadline.budget_s)
    if decision.refusal is Refusal.UNAVAILABLE:
        return refused(decision)
    return CheckpointUnavailable([lost])


def first_missed(first_s: float, elapsed_s: float) -> Problem:
    """The problem of a strict request of whose answer no text was told within the budget for that."""
    return DeadlineExceeded(max(elapsed_s, first_s), first_s, what="the deadline of the first token")


def failed(checkpoint: str, forecast: Forecast, failure: Failure, deadline: Deadline, now_s: float) -> Problem:
    """The problem of a replica's failure, which the gateway learnt now."""
    match failure.kind:
        case FailureKind.EXPIRED | FailureKind.CANCELLED:
            return DeadlineExceeded(deadline.elapsed_s(now_s), deadline.budget_s)
        case FailureKind.TOO_LONG:
            return _too_long(checkpoint, failure)
        case FailureKind.REFUSED:
            return _not_taken(checkpoint, failure)
        case FailureKind.QUEUE_FULL:
            return Overloaded(f"the queue of {checkpoint} is full", forecast.queueing_delay_s)
        case FailureKind.UNAVAILABLE:
            return CheckpointUnavailable([checkpoint])
        case FailureKind.ENGINE:
            return InferenceFailed(checkpoint)


def min_admitted_s(decision: Decision) -> float:
    """The least budget that strict would let in now, of a decision that refused a request as INFEASIBLE, in seconds.

    It includes the time that passed before the decision, as `min_feasible_s` does.
    """
    elapsed_s = decision.min_feasible_s - _least_idle_s(decision)
    offered = (a.candidate for a in decision.assessed if a.verdict.eligible and a.candidate.quality <= decision.ceiling)
    least_s = min(one.forecast.least_s for one in offered if one.forecast is not None)
    return elapsed_s + min(least_s, _least_idle_s(decision))


def min_admitted_first_s(decision: Decision) -> float:
    """Likewise the least budget for the first text, beside one for the answer that is let in."""
    elapsed_s = decision.min_feasible_s - _least_idle_s(decision)
    offered = (a.candidate for a in decision.assessed if a.verdict.eligible and a.candidate.quality <= decision.ceiling)
    forecasts = [one.forecast for one in offered if one.forecast is not None]
    least_s = min(one.least_s for one in forecasts)
    let_in = [one.first.least_s for one in forecasts if one.first and one.least_s <= max(least_s, decision.remaining_s)]
    return elapsed_s + min(let_in, default=0.0)


def _too_long(checkpoint: str, failure: Failure) -> Problem:
    """The problem of a text that is too long, with token counts if known: it may be too long to be sent or counted."""
    if not failure.limit:
        return InputTooLong(f"{checkpoint}: {failure.detail or 'over its limit'}", {"checkpoint": checkpoint})
    members = {"limit": failure.limit, "unit": failure.unit, "checkpoint": checkpoint}
    members |= {failure.unit: failure.tokens} if failure.tokens else {}
    told = f" takes {failure.limit} tokens, got {failure.tokens}"
    if failure.unit != "tokens" or failure.detail.startswith("inputs"):  # which says itself of what
        told = f": {failure.detail}"
    detail = f"{checkpoint}{told}"
    if failure.index is None:
        return InputTooLong(detail, members)
    return InputTooLong(f"inputs[{failure.index}]: {detail}", {**members, "index": failure.index})


def _not_taken(checkpoint: str, failure: Failure) -> Problem:
    """The problem of inputs that the checkpoint does not take."""
    return InvalidRequest.of_field("inputs", f"{checkpoint}: {failure.detail}")


def _unmet(decision: Decision) -> Problem:
    """The problem that names each term which rules candidates out; together they rule out all."""
    verdicts = {assessed.verdict for assessed in decision.assessed}
    terms = [term for verdict, term in _TERM_OF.items() if verdict in verdicts]
    names = " and ".join(name for term in terms for name in term.values())
    message = "no checkpoint of the task meets this" + (" together with the others" if len(terms) > 1 else "")
    if Verdict.OTHER_DOMAIN in verdicts:
        made_for = sorted({one.candidate.domain or "" for one in decision.assessed} - {""})
        message += f"; there are checkpoints for {', '.join(made_for)}"
    return InvalidRequest(f"no checkpoint of the task meets {names}", [{**term, "message": message} for term in terms])


def _fastest(decision: Decision) -> Sequence[str]:
    least_s = _least_idle_s(decision)
    return [name for name, idle_s in _idle_s(decision).items() if idle_s <= least_s]


def _least_idle_s(decision: Decision) -> float:
    return min(_idle_s(decision).values())


def _idle_s(decision: Decision) -> dict[str, float]:
    """Latency on an idle gateway of each eligible candidate that is up, at the percentile asked for, in seconds."""
    eligible = (a.candidate for a in decision.assessed if a.verdict.eligible)
    return {one.name: one.forecast.idle_quantile_s for one in eligible if one.forecast is not None}
