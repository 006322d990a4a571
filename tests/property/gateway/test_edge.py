"""Laws of the HTTP edge for any input: it is understood, or refused with a problem."""

from __future__ import annotations

import json

from hypothesis import given
from hypothesis import strategies as st

from gateway.api import bodies
from gateway.api.bodies import RouteBody
from gateway.api.headers import read_terms
from gateway.catalogs.catalog import Limits
from gateway.model.deadline import MAX_BUDGET_MS, Deadline
from gateway.model.errors import BudgetInfeasible, InvalidRequest, Problem
from gateway.model.messages import Parameters
from gateway.tasks.classify import CLASSIFY, ClassifyBody
from gateway.tasks.summarize import MOST_BEAMS, MOST_NEW_TOKENS, SUMMARIZE, SummarizeBody, SummarizeParameters

LIMITS = Limits(max_body_bytes=2000, max_inputs=4, max_input_chars=50)
NAMES = [
    b"x-latency-sla-ms",
    b"x-sla-percentile",
    b"x-sla-mode",
    b"x-min-tier",
    b"x-checkpoint",
    b"x-request-id",
    b"traceparent",
    b"grpc-timeout",
]
numbers = st.from_regex(r"[+-]?[0-9]{0,7}(\.[0-9]{0,7})?([eE][0-9])?[HMSmunx]?", fullmatch=True).map(str.encode)
words = st.sampled_from([b"strict", b"best-effort", b"quality", b"realtime", b"a", b"00-" + b"1" * 32])
values = st.one_of(st.binary(max_size=40), numbers, words)
headers = st.lists(st.tuples(st.one_of(st.sampled_from(NAMES), st.binary(max_size=20)), values), max_size=8)
documents = st.recursive(
    st.none() | st.booleans() | st.integers() | st.floats() | st.text(max_size=60),
    lambda inner: st.lists(inner, max_size=6) | st.dictionaries(st.text(max_size=8), inner, max_size=4),
    max_leaves=12,
)
simple = st.one_of(
    st.integers(-1, 40), st.booleans(), st.none(), st.sampled_from(["chunk", "only_first", "a"]), documents
)
generate = st.dictionaries(
    st.sampled_from(["max_length", "max_new_tokens", "min_length", "min_new_tokens", "num_beams", "do_sample"]), simple
)
names = ["top_k", "function_to_apply", "truncation", "max_new_tokens", "min_new_tokens", "num_beams", "domain", "x"]
parameters = st.builds(
    lambda given, deeper: given if deeper is None else {**given, "generate_parameters": deeper},
    st.dictionaries(st.sampled_from(names), simple, max_size=3),
    st.one_of(st.none(), generate, documents),
)
known = st.fixed_dictionaries(
    {},
    optional={
        "inputs": st.text(max_size=60) | st.lists(st.text(max_size=60), max_size=6) | documents,
        "task": st.text(max_size=9) | documents,
        "parameters": parameters,
    },
)


@given(headers)
def test_headers_are_understood_or_refused(raw: list[tuple[bytes, bytes]]) -> None:
    """Arbitrary headers are either understood, within the contract's bounds, or refused with a 400."""
    terms = refusal = None
    try:
        terms = read_terms(raw)
    except InvalidRequest as problem:
        refusal = problem
    if terms is None:
        assert refusal is not None and refusal.http_status == 400
        return
    assert terms.budget_s is None or 0 < terms.budget_s <= MAX_BUDGET_MS / 1000
    assert 50 <= terms.percentile <= 99.9
    assert 1 <= len(terms.request_id) <= 128 and terms.request_id.isascii() and terms.request_id.isprintable()
    assert terms.budget_s is not None or not {b"x-latency-sla-ms", b"grpc-timeout"} & {name for name, _ in raw}


@given(headers)
def test_the_order_of_different_headers_does_not_matter(raw: list[tuple[bytes, bytes]]) -> None:
    """The order of different headers changes neither whether a request is refused nor how it is understood."""

    def understood(listed: list[tuple[bytes, bytes]]) -> object:
        try:
            terms = read_terms(listed)
        except InvalidRequest:
            return None
        return terms.budget_s, terms.percentile, terms.strict, terms.min_tier, terms.pinned, terms.traceparent

    assert understood(raw) == understood(raw[::-1])


@given(
    st.one_of(st.binary(max_size=300), documents.map(json.dumps).map(str.encode), known.map(json.dumps).map(str.encode))
)
def test_bodies_are_understood_or_refused(body: bytes) -> None:
    """Arbitrary bytes and arbitrary JSON are either understood or refused with a problem that can be encoded."""
    models: tuple[type[ClassifyBody | RouteBody | SummarizeBody], ...] = (ClassifyBody, RouteBody, SummarizeBody)
    for model in models:
        refusal: Problem | None = None
        texts: tuple[str, ...] = ()
        try:
            parsed = bodies.parse(body, model, LIMITS)
            asked = bodies.of_task(parsed, CLASSIFY) if isinstance(parsed, RouteBody) else parsed
            texts = bodies.limited(asked.texts(), LIMITS)
        except Problem as problem:
            refusal = problem
        if refusal is None:
            assert 1 <= len(texts) <= 4 and all(texts) and sum(map(len, texts)) <= 50
        else:
            assert refusal.http_status in (400, 413, 422)
            assert bodies.encode(refusal.document())


def summarising(body: bytes, model: type[SummarizeBody | RouteBody]) -> Parameters | set[str]:
    """Return the parameters understood from a body, or the fields that its 422 names."""
    try:
        parsed = bodies.parse(body, model, Limits())
        return SUMMARIZE.read(bodies.of_task(parsed, SUMMARIZE) if isinstance(parsed, RouteBody) else parsed)[0]
    except InvalidRequest as problem:
        refusal = problem
    errors = refusal.members["errors"]
    assert refusal.http_status == 422 and isinstance(errors, list)
    return {error["field"] for error in errors}


@given(parameters)
def test_parameters_of_a_summary_are_understood_or_refused_alike(given: dict[str, object]) -> None:
    """`/summarize` and `/route` accept the same parameters, within the contract's bounds, and refuse the same."""
    sent = {"inputs": "a", "parameters": given}
    one = summarising(json.dumps(sent).encode(), SummarizeBody)
    assert one == summarising(json.dumps({**sent, "task": "summarize"}).encode(), RouteBody)
    if isinstance(one, SummarizeParameters):
        most, least = one.max_new_tokens, one.min_new_tokens
        assert most is None or 1 <= most <= MOST_NEW_TOKENS
        assert least is None or 0 <= least <= (most or MOST_NEW_TOKENS)
        assert one.num_beams is None or 1 <= one.num_beams <= MOST_BEAMS
        assert one.truncation in ("chunk", "longest_first", "error")


@given(st.text(min_size=1, max_size=50))
def test_a_text_arrives_as_it_was_sent(text: str) -> None:
    """Every text that UTF-8 can carry arrives unchanged."""
    body = bodies.parse(json.dumps({"inputs": text}).encode(), ClassifyBody, LIMITS)
    assert bodies.limited(body.texts(), LIMITS) == (text,)


@given(st.floats(0.0, 599.0), st.sampled_from([0.0, 0.1, 1000.0, 1e6]))
def test_a_bound_that_is_told_holds_when_it_is_sent_back(seconds: float, arrived_s: float) -> None:
    """A least feasible budget, sent back as a header, exceeds the computed one, by less than 0.2 ms."""
    sent = str(BudgetInfeasible(seconds, seconds, ["c"]).members["min_feasible_ms"])
    budget_s = read_terms([(b"x-latency-sla-ms", sent.encode())]).budget_s
    assert budget_s is not None
    assert seconds < Deadline(arrived_s, budget_s).remaining_s(arrived_s) < seconds + 0.0002
