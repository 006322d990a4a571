"""The request headers: budget, percentile, mode, tier, pin and identity, parsed once into `Terms`.

A header of the contract that is malformed, out of range, or sent twice with different values is a 400 that names it.
Identity is telemetry: a request id or a trace that cannot be read is replaced, and refuses nothing.
"""

from __future__ import annotations

import re
import secrets
from collections.abc import Iterable, Mapping, Sequence

from gateway.api.trace_context import TRACEPARENT, read_trace_context
from gateway.model.deadline import MAX_BUDGET_MS
from gateway.model.errors import bad_header
from gateway.model.request import (
    BUDGET,
    CHECKPOINT,
    DEFAULT_PERCENTILE,
    FIRST_BUDGET,
    GRPC_TIMEOUT,
    MIN_TIER,
    MODE,
    PERCENTILE,
    REQUEST_ID,
    Terms,
)
from gateway.model.tier import Tier

KNOWN = {
    name.lower().encode(): name for name in (BUDGET, FIRST_BUDGET, PERCENTILE, MODE, MIN_TIER, CHECKPOINT, GRPC_TIMEOUT)
}
"""Every header that may be a 400, by its name in an ASGI scope."""

_RAW_REQUEST_ID = REQUEST_ID.lower().encode()
_WHITESPACE = " \t"  # HTTP's own (RFC 9110, section 5.6.3); Python's has more
_DECIMAL = re.compile(r"(?=.{1,40}$)([0-9]+\.?[0-9]*|\.[0-9]+)([eE][+-]?[0-9]{1,3})?", re.ASCII)
"""A number without a sign, as languages print a float: `50`, `33.333333333333336`, `.5`, `5e1`."""

_BUDGET_DECIMALS = 6
"""Decimals of a budget in milliseconds that count; the answer repeats so many."""

_GRPC = re.compile(r"([0-9]{1,8})([HMSmun])", re.ASCII)
_GRPC_UNIT_S = {"H": 3600.0, "M": 60.0, "S": 1.0, "m": 1e-3, "u": 1e-6, "n": 1e-9}
_REQUEST_ID = re.compile(r"((?![\"&'<>\\`])[\x21-\x7e]){1,128}")  # not what a page or a shell would take as its own
_NAME = re.compile(r"[A-Za-z0-9._-]{1,128}")


def read_terms(raw_headers: Sequence[tuple[bytes, bytes]]) -> Terms:
    """Parses the headers of an ASGI scope. Raises InvalidRequest (400) naming the faulty header."""
    headers = _known(raw_headers)
    traced = any(name == TRACEPARENT for name, _ in raw_headers)
    traceparent, tracestate = read_trace_context(raw_headers) if traced else (None, None)
    return Terms(
        budget_s=_budget_s(headers),
        first_token_s=_milliseconds_s(FIRST_BUDGET, headers[FIRST_BUDGET]) if FIRST_BUDGET in headers else None,
        percentile=_percentile(headers.get(PERCENTILE)),
        strict=_strict(headers.get(MODE)),
        min_tier=_tier(headers.get(MIN_TIER)),
        pinned=_matching(headers.get(CHECKPOINT), CHECKPOINT, _NAME, "must be the name of a checkpoint"),
        request_id=request_id_of(raw_headers),
        traceparent=traceparent,
        tracestate=tracestate,
    )


def request_id_of(raw_headers: Iterable[tuple[bytes, bytes]]) -> str:
    """Returns the request's id: its own if that is one of 1 to 128 harmless ASCII characters, else a new one."""
    sent = {value.decode("latin-1").strip(_WHITESPACE) for name, value in raw_headers if name == _RAW_REQUEST_ID}
    text = sent.pop() if len(sent) == 1 else ""
    return text if _REQUEST_ID.fullmatch(text) else secrets.token_hex(16)


def _known(raw_headers: Iterable[tuple[bytes, bytes]]) -> dict[str, str]:
    found: dict[str, str] = {}
    for raw_name, raw_value in raw_headers:
        name = KNOWN.get(raw_name)
        if name is None:
            continue
        value = raw_value.decode("latin-1").strip(_WHITESPACE)
        if found.setdefault(name, value) != value:
            raise bad_header(name, "was sent more than once with different values")
    return found


def _budget_s(headers: Mapping[str, str]) -> float | None:
    if (text := headers.get(BUDGET)) is not None:
        return _milliseconds_s(BUDGET, text)
    if (text := headers.get(GRPC_TIMEOUT)) is not None:
        match = _GRPC.fullmatch(text)
        budget_s = int(match[1]) * _GRPC_UNIT_S[match[2]] if match else 0.0
        if not 0 < budget_s * 1000 <= MAX_BUDGET_MS:
            raise bad_header(GRPC_TIMEOUT, f"must be digits and a unit (H M S m u n), at most {MAX_BUDGET_MS:.0f}m")
        return budget_s
    return None


def _milliseconds_s(name: str, text: str) -> float:
    """The seconds of a budget in milliseconds."""
    budget_ms = round(float(text), _BUDGET_DECIMALS) if _DECIMAL.fullmatch(text) else 0.0
    if not 0 < budget_ms <= MAX_BUDGET_MS:
        least = f"{10**-_BUDGET_DECIMALS:f}"
        raise bad_header(name, f"must be a number of milliseconds, at least {least} and at most {MAX_BUDGET_MS:.0f}")
    return budget_ms / 1000


def _percentile(text: str | None) -> float:
    if text is None:
        return DEFAULT_PERCENTILE
    if not _DECIMAL.fullmatch(text) or not 50 <= float(text) <= 99.9:
        raise bad_header(PERCENTILE, "must be a percentage from 50 to 99.9")
    return float(text)


def _strict(text: str | None) -> bool:
    if text not in (None, "best-effort", "strict"):
        raise bad_header(MODE, "must be best-effort or strict")
    return text == "strict"


def _tier(text: str | None) -> Tier | None:
    if text is None:
        return None
    if text not in set(Tier):
        raise bad_header(MIN_TIER, f"must be one of {', '.join(Tier)}")
    return Tier(text)


def _matching(text: str | None, name: str, pattern: re.Pattern[str], must_be: str) -> str | None:
    if text is not None and not pattern.fullmatch(text):
        raise bad_header(name, must_be)
    return text
