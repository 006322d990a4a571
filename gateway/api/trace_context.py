"""W3C trace context: `traceparent` and `tracestate` as a client sent them, or nothing where they cannot be read.

A trace is telemetry: what is wrong with it never refuses a request. Without a valid `traceparent` a new trace begins,
and `tracestate`, which belongs to the old one, is dropped (W3C Trace Context, section 4.3).
"""

from __future__ import annotations

import re
from collections.abc import Iterable

TRACEPARENT = b"traceparent"
TRACESTATE = b"tracestate"

MOST_MEMBERS = 32
"""Members of a `tracestate`, by section 3.3.1.1."""

_IDS = r"-(?!0{32})[0-9a-f]{32}-(?!0{16})[0-9a-f]{16}-[0-9a-f]{2}"
_PARENT = re.compile(rf"00{_IDS}|(?!00|ff)[0-9a-f]{{2}}{_IDS}(-[\x21-\x7e]*)?")  # later versions may be longer
_KEY = r"([a-z][_0-9a-z*/-]{0,255}|[a-z0-9][_0-9a-z*/-]{0,240}@[a-z][_0-9a-z*/-]{0,13})"
_VALUE = r"[\x20-\x2b\x2d-\x3c\x3e-\x7e]{0,255}[\x21-\x2b\x2d-\x3c\x3e-\x7e]"
_MEMBER = re.compile(rf"{_KEY}={_VALUE}")
_WHITESPACE = " \t"


def read_trace_context(raw_headers: Iterable[tuple[bytes, bytes]]) -> tuple[str | None, str | None]:
    """The client's `traceparent` and `tracestate`, each None where it was not sent or cannot be read."""
    parents, states = [], []
    for name, value in raw_headers:
        if name == TRACEPARENT:
            parents.append(value.decode("latin-1").strip(_WHITESPACE))
        elif name == TRACESTATE:
            states.append(value.decode("latin-1"))
    if len(parents) != 1 or not _PARENT.fullmatch(parents[0]):
        return None, None
    return parents[0], _state(",".join(states))


def _state(text: str) -> str | None:
    """The members of a `tracestate`, empty ones left out; None unless all can be read."""
    members = [member for one in text.split(",") if (member := one.strip(_WHITESPACE))]
    if not 0 < len(members) <= MOST_MEMBERS or not all(map(_MEMBER.fullmatch, members)):
        return None
    return ",".join(members)
