"""W3C Trace Context: what becomes of `traceparent` and `tracestate`, by the cases of W3C's own suite.

The names in brackets are those of github.com/w3c/trace-context, test/test.py. What that suite reads from the service's
outgoing request is read here from the work that is sent to a replica.
"""

from __future__ import annotations

import httpx
import pytest
from collected_spans import Collected, named, place, read
from worlds import OwnMetrics, world

from gateway.api import app
from gateway.api.trace_context import read_trace_context
from gateway.model.messages import Work

pytestmark = pytest.mark.virtual_time

TRACE, SPAN = "12345678901234567890123456789012", "1234567890123456"
PARENT = f"00-{TRACE}-{SPAN}-01"
BODY = {"inputs": "a good film"}

CONTINUED = {
    "traceparent_included_tracestate_missing": [PARENT],
    "traceparent_header_name": ["TraceParent", PARENT],
    "traceparent_ows_handling, before": [f" {PARENT}"],
    "traceparent_ows_handling, a tab": [f"\t{PARENT}"],
    "traceparent_ows_handling, after": [f"{PARENT} \t"],
    "traceparent_version_0xcc": [f"cc-{TRACE}-{SPAN}-01"],
    "traceparent_version_0xcc, longer": [f"cc-{TRACE}-{SPAN}-01-what-the-future-will-be-like"],
    "traceparent_trace_flags, unknown ones": [f"00-{TRACE}-{SPAN}-ff"],
    "traceparent_trace_flags, none": [f"00-{TRACE}-{SPAN}-00"],
}
BEGUN_ANEW = {
    "both_traceparent_and_tracestate_missing": [],
    "traceparent_duplicated": [PARENT, f"00-{'1' * 32}-{SPAN}-01"],
    "traceparent_duplicated, equal": [PARENT, PARENT],
    "traceparent_version_0x00": [f"{PARENT}."],
    "traceparent_version_0x00, longer": [f"{PARENT}-what-the-future-will-be-like"],
    "traceparent_version_0xcc, another mark": [f"cc-{TRACE}-{SPAN}-01.what-the-future-will-not-be-like"],
    "traceparent_version_0xff": [f"ff-{TRACE}-{SPAN}-01"],
    "traceparent_version_illegal_characters": [f".0-{TRACE}-{SPAN}-01"],
    "traceparent_version_illegal_characters, second": [f"0.-{TRACE}-{SPAN}-01"],
    "traceparent_version_too_long": [f"000-{TRACE}-{SPAN}-01"],
    "traceparent_version_too_short": [f"0-{TRACE}-{SPAN}-01"],
    "traceparent_trace_id_all_zero": [f"00-{'0' * 32}-{SPAN}-01"],
    "traceparent_trace_id_illegal_characters": [f"00-.{TRACE[1:]}-{SPAN}-01"],
    "traceparent_trace_id_illegal_characters, upper case": [f"00-{'A' * 32}-{SPAN}-01"],
    "traceparent_trace_id_too_long": [f"00-{TRACE}3-{SPAN}-01"],
    "traceparent_trace_id_too_short": [f"00-{TRACE[:-1]}-{SPAN}-01"],
    "traceparent_parent_id_all_zero": [f"00-{TRACE}-{'0' * 16}-01"],
    "traceparent_parent_id_illegal_characters": [f"00-{TRACE}-{SPAN[:-1]}.-01"],
    "traceparent_parent_id_too_long": [f"00-{TRACE}-{SPAN}7-01"],
    "traceparent_parent_id_too_short": [f"00-{TRACE}-{SPAN[:-1]}-01"],
    "traceparent_trace_flags_illegal_characters": [f"00-{TRACE}-{SPAN}-.0"],
    "traceparent_trace_flags_too_long": [f"00-{TRACE}-{SPAN}-001"],
    "traceparent_trace_flags_too_short": [f"00-{TRACE}-{SPAN}-1"],
    "nothing": [""],
    "zero": ["0"],
    "not a trace": ["\xe9"],
}
STATES = {
    "tracestate_included_traceparent_included": (["foo=1,bar=2"], "foo=1,bar=2"),
    "tracestate_empty_header": (["foo=1", ""], "foo=1"),
    "tracestate_empty_header, first": (["", "foo=1"], "foo=1"),
    "tracestate_multiple_headers_different_keys": (["foo=1,bar=2", "rojo=1,congo=2", "baz=3"], None),
    "tracestate_all_allowed_characters": (
        [f"{'abcdefghijklmnopqrstuvwxyz0123456789_-*/'}={''.join(map(chr, range(0x21, 0x7F)))}".replace(",", "")],
        "refused",
    ),
    "tracestate_all_allowed_characters, of a value": ([f"a={'!#$%&()*+-./:;<>?@[]^_`{|}~'}"], None),
    "tracestate_ows_handling": (["foo=1 \t , \t bar=2, \t baz=3"], "foo=1,bar=2,baz=3"),
    "tracestate_ows_handling, around": ([" foo=1", "\tbar=2 \t"], "foo=1,bar=2"),
    "tracestate_key_illegal_characters": (["foo =1"], "refused"),
    "tracestate_key_illegal_characters, upper case": (["FOO=1"], "refused"),
    "tracestate_key_illegal_characters, a dot": (["foo.bar=1"], "refused"),
    "tracestate_key_illegal_vendor_format": (["foo@=1,bar=2"], "refused"),
    "tracestate_key_illegal_vendor_format, no tenant": (["@foo=1,bar=2"], "refused"),
    "tracestate_key_illegal_vendor_format, two": (["foo@@bar=1,bar=2"], "refused"),
    "tracestate_key, with a vendor": (["0foo@bar=1"], "0foo@bar=1"),
    "tracestate_member_count_limit": ([",".join(f"bar{at:02}={at:02}" for at in range(32))], None),
    "tracestate_member_count_limit, one more": ([",".join(f"bar{at:02}={at:02}" for at in range(33))], "refused"),
    "tracestate_key_length_limit": ([f"{'z' * 256}=1"], None),
    "tracestate_key_length_limit, one more": ([f"{'z' * 257}=1"], "refused"),
    "tracestate_key_length_limit, of a tenant": ([f"{'t' * 241}@{'v' * 14}=1"], None),
    "tracestate_key_length_limit, of a vendor": ([f"t@{'v' * 15}=1"], "refused"),
    "tracestate_value_illegal_characters": (["foo=bar=baz"], "refused"),
    "tracestate_value_illegal_characters, none": (["foo=,bar=3"], "refused"),
    "tracestate_value_illegal_characters, no ASCII": (["foo=\xe9"], "refused"),
}
"""What is sent, and what is handed on: None for the same, `refused` for nothing."""


async def sent(headers: list[tuple[str, str]], collected: Collected | None = None) -> Work:
    """Return the work of a request with these headers, which is answered whatever they are."""
    told = world()
    trace = collected.tracing.begin if collected else None
    told.service.observers = (collected.tracing,) if collected else ()
    application = app.build(told.service, OwnMetrics(told.catalog), told.catalog.limits, told.clock, trace=trace)
    transport = httpx.ASGITransport(application, raise_app_exceptions=False)
    raw = [(name.encode(), value.encode("latin-1")) for name, value in headers]
    async with httpx.AsyncClient(transport=transport, base_url="http://gateway") as client:
        response = await client.post("/classify", json=BODY, headers=raw)
    assert response.status_code == 200
    return told.backend.dispatches[0].work


def parents(values: list[str]) -> list[tuple[str, str]]:
    """Return the values as headers; a first value that is a name is that of the header."""
    name = values[0] if values and values[0].lower() == "traceparent" else "traceparent"
    return [(name, value) for value in values if value != name]


@pytest.mark.parametrize("name", CONTINUED)
@pytest.mark.parametrize("traced", [True, False])
async def test_a_valid_trace_is_continued(name: str, traced: bool) -> None:
    """A trace that can be read goes on to the replica, under a span of the gateway's own where that traces."""
    collected = Collected() if traced else None
    work = await sent(parents(CONTINUED[name]), collected)
    assert read(work.traceparent).trace_id == int(TRACE, 16)
    assert (read(work.traceparent).span_id == int(SPAN, 16)) is not traced


@pytest.mark.parametrize("name", BEGUN_ANEW)
@pytest.mark.parametrize("traced", [True, False])
async def test_a_trace_that_cannot_be_read_begins_anew(name: str, traced: bool) -> None:
    """A trace that cannot be read refuses nothing: it and its state are dropped, and a new one begins if traced."""
    collected = Collected() if traced else None
    work = await sent([*parents(BEGUN_ANEW[name]), ("tracestate", "foo=1")], collected)
    if collected is None:
        assert work.traceparent is None
    else:
        begun = read(work.traceparent)
        assert begun.is_valid and begun.trace_id not in (int(TRACE, 16), int("1" * 32, 16))
        ended = named(collected.ended())
        assert {place(span).trace_id for span in ended.values()} == {begun.trace_id}
        assert ended["POST /classify"].parent is None and not place(ended["POST /classify"]).trace_state


@pytest.mark.parametrize("name", STATES)
async def test_a_state_goes_with_its_trace(name: str) -> None:
    """A state that can be read stays with its trace, in order, on every span; one that cannot be is dropped alone."""
    values, handed_on = STATES[name]
    collected = Collected()
    headers = [("traceparent", PARENT), *(("tracestate", value) for value in values)]
    _, state = read_trace_context([(name.encode(), value.encode("latin-1")) for name, value in headers])
    assert state == (None if handed_on == "refused" else handed_on or ",".join(values))
    await sent(headers, collected)
    spans = collected.ended()
    assert {place(span).trace_id for span in spans} == {int(TRACE, 16)}
    assert {place(span).trace_state.to_header() for span in spans} == {state or ""}
