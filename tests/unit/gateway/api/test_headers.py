"""The request headers: what each means, and that an invalid one is refused by name and never ignored."""

from __future__ import annotations

import pytest
from pydantic import ValidationError

from gateway.api.headers import read_terms
from gateway.catalogs.catalog import Defaults
from gateway.model.deadline import MAX_BUDGET_MS
from gateway.model.errors import InvalidRequest
from gateway.model.request import Terms
from gateway.model.tier import Tier

NO_NUMBERS = ["", " ", "0", "0.0", "-1", "+5", "nan", "NaN", "inf", "-inf", "1e", "0x32", "5,0", "1_000", "5 0", "."]
NO_NUMBERS += [
    "e1",
    "5e1.0",
    "5e+",
    "5e1000",
    "50ms",
    "٥٠",
    "５０",
    "½",
    "9" * 400,
    "0.0000004",
    "1e-320",
    "1;2",
    "true",
    "null",
    "5\x00",
]


def terms(**headers: str) -> Terms:
    """Return the terms of these headers; underscores stand for hyphens."""
    return read_terms([(name.replace("_", "-").encode(), value.encode()) for name, value in headers.items()])


def refused(*headers: tuple[str, str]) -> InvalidRequest:
    """Return the refusal of these headers."""
    with pytest.raises(InvalidRequest) as caught:
        read_terms([(name.lower().encode(), value.encode()) for name, value in headers])
    return caught.value


def assert_names(problem: InvalidRequest, header: str) -> None:
    """Check that a problem is a 400 that names exactly this header."""
    assert problem.http_status == 400
    assert header in problem.detail
    errors = problem.members["errors"]
    assert isinstance(errors, list)
    assert [error["header"] for error in errors] == [header]


def test_nothing_sent_leaves_the_defaults() -> None:
    """The defaults are no budget, a percentile of 95, best effort, any tier, and a new request id."""
    none, other = terms(), terms()
    assert none.budget_s is None
    assert (none.percentile, none.strict, none.min_tier, none.pinned, none.traceparent) == (95, False, None, None, None)
    assert none.request_id and none.request_id != other.request_id


@pytest.mark.parametrize(
    ("text", "budget_s"),
    [
        *(("50", 0.05), ("0.5", 0.0005), ("1234.567", 1.234567), ("600000", 600.0), (" 50\t", 0.05), ("007", 0.007)),
        ("33.333333333333336", 0.033333333),
        (".5", 0.0005),
        ("5.", 0.005),
        ("5e1", 0.05),
        ("1.0E2", 0.1),
        ("5e-05", 5e-8),
    ],
)
def test_a_budget_is_milliseconds(text: str, budget_s: float) -> None:
    """X-Latency-SLA-Ms is in milliseconds and becomes seconds."""
    assert terms(x_latency_sla_ms=text).budget_s == pytest.approx(budget_s)


@pytest.mark.parametrize("text", [*NO_NUMBERS, "600000.1", "600001", str(MAX_BUDGET_MS * 1000)])
def test_a_malformed_budget_is_refused(text: str) -> None:
    """A budget that is not a positive decimal number within the limit is a 400 that names the header."""
    assert_names(refused(("X-Latency-SLA-Ms", text)), "X-Latency-SLA-Ms")


@pytest.mark.parametrize(
    ("text", "budget_s"), [("1H", None), ("5M", 300.0), ("2S", 2.0), ("150m", 0.15), ("20000u", 0.02), ("7n", 7e-9)]
)
def test_grpc_timeout_is_the_budget_where_there_is_no_other(text: str, budget_s: float | None) -> None:
    """grpc-timeout is the budget in the absence of X-Latency-SLA-Ms, in any of its six units, within the limit."""
    if budget_s is None:
        assert_names(refused(("grpc-timeout", text)), "grpc-timeout")
    else:
        assert terms(grpc_timeout=text).budget_s == pytest.approx(budget_s)


@pytest.mark.parametrize(
    "text", ["", "0S", "-1S", "1", "S", "1s", "1h", "1.5S", "123456789m", "99999999H", "1 S", "٥S"]
)
def test_a_malformed_grpc_timeout_is_refused(text: str) -> None:
    """A grpc-timeout that is not digits and a unit is a 400 that names the header."""
    assert_names(refused(("grpc-timeout", text)), "grpc-timeout")


def test_the_own_header_goes_before_grpc_timeout() -> None:
    """X-Latency-SLA-Ms takes precedence over grpc-timeout, in any order."""
    assert terms(grpc_timeout="2S", x_latency_sla_ms="50").budget_s == 0.05
    assert terms(x_latency_sla_ms="50", grpc_timeout="2S").budget_s == 0.05


@pytest.mark.parametrize("name", ["x-envoy-expected-rq-timeout-ms", "x-envoy-upstream-rq-timeout-ms", "x-timeout-ms"])
def test_what_a_proxy_injects_is_never_a_budget(name: str) -> None:
    """A timeout header that proxies add by themselves is not read, even if malformed."""
    for text in ("15000", "", "nonsense"):
        assert read_terms([(name.encode(), text.encode())]).budget_s is None


@pytest.mark.parametrize(
    ("text", "percentile"), [("50", 50), ("50.0", 50), ("99.9", 99.9), ("99.900", 99.9), ("95", 95)]
)
def test_a_percentile_has_bounds_that_belong_to_it(text: str, percentile: float) -> None:
    """The percentiles 50 and 99.9 are accepted."""
    assert terms(x_sla_percentile=text).percentile == percentile


@pytest.mark.parametrize("text", [*NO_NUMBERS, "49.9", "49.999999", "99.91", "99.900001", "100", "0.95", "95%"])
def test_a_percentile_out_of_bounds_is_refused(text: str) -> None:
    """A percentile below 50, above 99.9 or not a number is a 400 that names the header."""
    assert_names(refused(("X-SLA-Percentile", text)), "X-SLA-Percentile")


def test_the_mode_is_one_of_two_words() -> None:
    """The mode is strict or best-effort."""
    assert terms(x_sla_mode="strict").strict
    assert not terms(x_sla_mode="best-effort").strict


@pytest.mark.parametrize("tier", list(Tier))
def test_a_tier_is_read_by_its_name(tier: Tier) -> None:
    """Each tier of the glossary is accepted."""
    assert terms(x_min_tier=tier.value).min_tier is tier


@pytest.mark.parametrize("header", ["X-SLA-Mode", "X-Min-Tier"])
@pytest.mark.parametrize(
    "text", ["", "Strict", "QUALITY", "strict,strict", "best effort", "quality \u200b", "none", "x" * 9999]
)
def test_a_word_that_is_not_in_the_list_is_refused(header: str, text: str) -> None:
    """An unknown mode or tier, or one spelled differently, is refused."""
    assert_names(refused((header, text)), header)


def test_names_and_identities_are_taken_as_sent() -> None:
    """A valid pin, request id or trace context is taken unchanged."""
    trace = "00-0af7651916cd43dd8448eb211c80319c-b7ad6b7169203331-01"
    read = terms(x_checkpoint="minilm-sentiment", x_request_id="~!" + "a" * 126, traceparent=trace)
    assert (read.pinned, read.request_id, read.traceparent) == ("minilm-sentiment", "~!" + "a" * 126, trace)


@pytest.mark.parametrize("text", ["", "a b", "a\tb", "é", "x" * 129, "a\x7f", "a\x00b", "\x1b[31m"])
def test_a_pin_is_visible_ascii_and_short(text: str) -> None:
    """A pin with characters other than those of names, or longer than 128, is a 400."""
    assert_names(refused(("X-Checkpoint", text)), "X-Checkpoint")


@pytest.mark.parametrize("value", [b"50\xa0", b"\x8550", b"50\x1c", b"\x0b50", b"50\n"])
def test_only_https_own_whitespace_is_trimmed(value: bytes) -> None:
    """Only spaces and tabs around a value are trimmed; other whitespace makes it invalid."""
    with pytest.raises(InvalidRequest):
        read_terms([(b"x-latency-sla-ms", value)])


def test_a_default_budget_is_one_that_a_client_could_send() -> None:
    """A default budget has the limit of a client's budget, so that a client may send it back."""
    assert Defaults(budget_ms={"classify": MAX_BUDGET_MS}).budget_ms["classify"] == MAX_BUDGET_MS
    for task in ("classify", "summarize"):
        with pytest.raises(ValidationError, match=task):
            Defaults.model_validate({"budget_ms": {task: MAX_BUDGET_MS + 1}})


@pytest.mark.parametrize(
    ("header", "one", "other"),
    [
        ("X-Latency-SLA-Ms", "50", "60"),
        ("X-Latency-SLA-Ms", "50", "50.0"),
        ("X-Latency-SLA-Ms", "50", ""),
        ("grpc-timeout", "1S", "1000m"),
        ("X-SLA-Percentile", "95", "96"),
        ("X-SLA-Mode", "strict", "best-effort"),
        ("X-Min-Tier", "quality", "realtime"),
        ("X-Checkpoint", "a", "b"),
    ],
)
def test_a_header_sent_twice_must_say_the_same(header: str, one: str, other: str) -> None:
    """A header sent twice is a 400 that names it if the values differ, and harmless if they are equal."""
    assert_names(refused((header, one), (header, other)), header)
    name = header.lower().encode()
    assert read_terms([(name, one.encode())] * 2).strict is (one == "strict")


def test_the_value_is_not_repeated() -> None:
    """A problem says what a header must be, and never quotes its value."""
    problem = refused(("X-SLA-Mode", "SECRET-VALUE"))
    assert "SECRET" not in str(problem.document())
