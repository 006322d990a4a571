"""From what was decided and what happened to what the client reads: response headers and JSON documents.

Seconds become milliseconds here and nowhere else on the way out.
"""

from __future__ import annotations

import math
from collections.abc import Mapping
from pathlib import PurePath

from gateway.catalogs.catalog import CatalogEntry, SourceKind
from gateway.model.deadline import budget_ms, ms
from gateway.model.errors import ms_above
from gateway.model.manifest import VariantManifest
from gateway.model.messages import Answer, Generation
from gateway.model.request import BUDGET, CHECKPOINT, Request
from gateway.observability.record import RequestRecord
from gateway.scheduling.policy import Assessed, Decision
from gateway.service import Finished


def decimal(number: float) -> str:
    """The number without an exponent, and without more decimals than it has, of which at most six."""
    return f"{number:.6f}".rstrip("0").rstrip(".")


def headers_of(record: RequestRecord) -> dict[str, str]:
    """The contract's response headers on a request's way, of which it has as many as it got to."""
    headers: dict[str, str] = {}
    if record.budget_s is not None:
        headers[BUDGET] = decimal(budget_ms(record.budget_s))
    if record.checkpoint is not None:
        headers[CHECKPOINT] = record.checkpoint
        headers["X-Tier"] = record.tier or ""
        headers["X-Route-Reason"] = record.reason or ""
        headers["X-SLA-Met"] = "true" if record.met else "false"
    if record.predicted_s is not None:
        headers["X-Predicted-Latency-Ms"] = decimal(ms(record.predicted_s))
    if record.quantile_s is not None:
        headers["X-Forecast-Quantile-Ms"] = decimal(ms(record.quantile_s))
    if record.truncated:
        headers["X-Input-Truncated"] = "true"
    if record.finish_reason is not None:
        headers["X-Finish-Reason"] = record.finish_reason
    headers["Server-Timing"] = _server_timing(record)
    return headers


def answer_document(finished: Finished, answer: Answer, details: bool) -> object:
    """The answer's body: the outputs alone, or with routing, timings and input when details were asked for."""
    if not details:
        return answer.outputs
    record = finished.record
    return {
        "outputs": answer.outputs,
        "routing": {
            "checkpoint": record.checkpoint,
            "tier": record.tier,
            "reason": record.reason,
            "budget_ms": budget_ms(record.budget_s or 0.0),
            "predicted_latency_ms": ms(record.predicted_s or 0.0),
            "forecast_quantile_ms": ms(record.quantile_s or 0.0),
            "sla_met": record.met,
            "attempts": record.attempts,
            "batch_size": record.batch_size,
        },
        "timings_ms": {name: ms(seconds) for name, seconds in _spans(record).items()},
        "input": {"tokens": record.tokens, "truncated": record.truncated, "kept": record.kept},
        **({"generation": [_generation(one) for one in answer.generation]} if answer.generation else {}),
    }


def decision_document(request: Request, decision: Decision, budget_s: float) -> dict[str, object]:
    """The body of `/route`: what would be decided and why, every candidate with its forecast and verdict.

    `price` is in points of quality a core-second; `ceiling` is the quality over which nothing is worth it, if any.
    """
    chosen = decision.chosen
    return {
        "task": request.task,
        "budget_ms": budget_ms(budget_s),
        "percentile": request.terms.percentile,
        "mode": "strict" if request.terms.strict else "best-effort",
        "checkpoint": chosen.name if chosen else None,
        "tier": chosen.tier if chosen else None,
        "reason": decision.reason,
        "refusal": decision.refusal,
        "price": round(decision.price, 3),
        "ceiling": decision.ceiling if math.isfinite(decision.ceiling) else None,
        "retry_after_ms": ms_above(decision.retry_after_s) if decision.retry_after_s else None,
        "min_feasible_ms": ms_above(decision.min_feasible_s) if decision.min_feasible_s else None,
        "candidates": [_candidate(assessed, decision.price) for assessed in decision.assessed],
    }


def utility_left(assessed: Assessed, price: float) -> float | None:
    """What is left of a candidate's worth when its core time is paid for, in points; None of one that is down."""
    forecast = assessed.candidate.forecast
    return None if forecast is None else assessed.candidate.utility - price * forecast.cost_s


def checkpoint_document(
    entry: CatalogEntry,
    manifest: VariantManifest,
    replicas: int,
    backlog_s: float | None,
    memory_bytes: int | None,
) -> dict[str, object]:
    """One checkpoint as `/checkpoints` shows it: catalog entry, provenance, verification, profile, live load.

    Of a source that is a folder only the last part is shown: where it lies on the host is nobody else's business.
    """
    source, location = entry.source, manifest.source.location
    if entry.kind is SourceKind.FOLDER:
        source, location = PurePath(source).name, PurePath(location).name
    return {
        **entry.model_dump(mode="json"),
        "source": source,
        "variant": manifest.variant,
        "kind": manifest.kind,
        **manifest.details(),
        "max_tokens": manifest.max_tokens,
        "provenance": {**manifest.source.model_dump(mode="json"), "location": location},
        **manifest.model_dump(mode="json", include={"verification"}),
        "latency_profile": {
            "threads": manifest.profile.threads,
            "measured_on": manifest.profile.measured_on,
            "service_time_ms": manifest.profile.cells_ms(),
        },
        "load": {
            "replicas_up": replicas,
            "backlog_ms": None if backlog_s is None else ms(backlog_s),
            "memory_bytes": memory_bytes,
        },
    }


def _candidate(assessed: Assessed, price: float) -> dict[str, object]:
    candidate, forecast = assessed.candidate, assessed.candidate.forecast
    left = utility_left(assessed, price)
    return {
        "checkpoint": candidate.name,
        "tier": candidate.tier,
        "quality": candidate.quality,
        "worth": candidate.utility,
        "worth_after_price": None if left is None else round(left, 3),
        "verdict": assessed.verdict,
        "cost_ms": None if forecast is None else ms(forecast.cost_s),
        "forecast_ms": forecast
        and {
            "queueing_delay": ms(forecast.queueing_delay_s),
            "service_time": ms(forecast.service_time_s),
            "least": ms(forecast.least_s),
            "latency": ms(forecast.latency_s),
            "at_percentile": ms(forecast.quantile_s),
            "at_percentile_idle": ms(forecast.idle_quantile_s),
        },
    }


def _generation(one: Generation) -> dict[str, object]:
    return {
        "finish_reason": one.finish_reason,
        "steps": one.steps,
        "tokens": one.tokens,
        "beams": one.beams,
        "max_new_tokens": one.max_new_tokens,
        "pieces": one.pieces,
        "headroom_ms": ms(one.headroom_s),
        "lead": one.lead,
    }


def _server_timing(record: RequestRecord) -> str:
    """The spans; that of the engine says what was run, where that is told in steps."""
    spans = {name: f"{name};dur={decimal(ms(seconds))}" for name, seconds in _spans(record).items()}
    if record.steps:
        spans["infer"] += f';desc="{record.steps} steps {record.output_tokens} tokens"'
    return ", ".join(spans.values())


def _spans(record: RequestRecord) -> Mapping[str, float]:
    spans = {
        "route": record.route_s,
        "queue": record.queueing_delay_s,
        "infer": record.service_time_s,
        "total": record.latency_s,
        "predicted": record.predicted_s,
    }
    return {name: seconds for name, seconds in spans.items() if seconds is not None}
