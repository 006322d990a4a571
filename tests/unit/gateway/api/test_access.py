"""From where the gateway may be asked: hosts, pages of other origins, methods, and what may be kept or packed."""

from __future__ import annotations

import httpx
import pytest
from served_app import refuse, serving
from worlds import client_of, is_problem, world

from gateway.api.access import ALLOWED_HOSTS, ANY, CORS_ORIGINS, Access, BadOrigin
from gateway.api.unready import unready
from gateway.model.errors import Problem, Starting, Stopping

pytestmark = pytest.mark.virtual_time

EVERY = "0.0.0.0"  # noqa: S104  bound by nobody here
PAGE = "https://example.org"
BODY = {"inputs": "a good film"}
GETS = ("/", "/console/main.js", "/checkpoints", "/healthz", "/readyz", "/metrics", "/openapi.json")
ASKS = {"Origin": PAGE, "Access-Control-Request-Method": "POST"}
OWN = ("localhost", "LOCALHOST:8000", "127.0.0.1", "127.8.9.1:80", "[::1]", "[::1]:8000", "a.localhost", "localhost.")
OTHERS = (
    "evil.example",
    "127.0.0.1.evil.example",
    "localhost.evil.example",
    "192.168.1.7",
    "[fe80::1]",
    "",
    "a b",
    "[",
)


def access(bound: str = "::", origins: str = "", hosts: str = "") -> Access:
    """Return the access of a gateway that is bound to this host, with these options."""
    return Access.of(bound, {CORS_ORIGINS: origins, ALLOWED_HOSTS: hosts})


@pytest.mark.parametrize("host", OWN)
@pytest.mark.parametrize("bound", ["127.0.0.1", "::1", "localhost", "127.0.0.2"])
async def test_a_gateway_on_loopback_answers_to_names_of_loopback(bound: str, host: str) -> None:
    """A gateway on loopback answers to every name and address of loopback, with any port."""
    client = client_of(world(), access(bound))
    assert (await client.get("/healthz", headers={"Host": host})).status_code == 200


@pytest.mark.parametrize("host", OTHERS)
async def test_a_gateway_on_loopback_answers_to_no_other_name(host: str) -> None:
    """A page whose name resolves to loopback gets a 421 on every path, and nothing runs."""
    told = world()
    client = client_of(told, access("127.0.0.1"))
    for response in (
        await client.get("/checkpoints", headers={"Host": host}),
        await client.post("/classify", json=BODY, headers={"Host": host}),
        await client.options("/classify", headers={"Host": host}),
    ):
        assert is_problem(response, "unknown_host", 421)
    assert not told.backend.dispatches


@pytest.mark.parametrize(
    ("bound", "hosts", "host", "answered"),
    [
        ("127.0.0.1", "gateway.lan other.lan", "gateway.lan:8000", True),
        ("127.0.0.1", "Gateway.LAN", "gateway.lan", True),
        ("127.0.0.1", "gateway.lan", "localhost", True),
        ("127.0.0.1", "gateway.lan", "evil.example", False),
        (EVERY, "", "evil.example", True),
        ("::", "", "evil.example", True),
        ("192.168.1.7", "", "gateway.lan", True),
        (EVERY, "gateway.lan", "gateway.lan", True),
        (EVERY, "gateway.lan", "evil.example", False),
    ],
)
async def test_more_names_may_be_answered(bound: str, hosts: str, host: str, answered: bool) -> None:
    """Names that are given are answered too; on other interfaces all are, unless some are given."""
    response = await client_of(world(), access(bound, hosts=hosts)).get("/healthz", headers={"Host": host})
    assert response.status_code == (200 if answered else 421)


@pytest.mark.parametrize("path", ["/classify", "/route", "/checkpoints", "/metrics"])
async def test_a_page_of_an_allowed_origin_asks_and_reads(path: str) -> None:
    """A browser's question is answered with the methods and the budget's headers, and answers show their headers."""
    client = client_of(world(), access(origins=f"https://other.example {PAGE}"))
    asked = await client.options(path, headers=ASKS)
    assert asked.status_code == 204 and asked.headers["Access-Control-Allow-Origin"] == PAGE
    assert ("POST" if path in ("/classify", "/route") else "GET") in asked.headers["Access-Control-Allow-Methods"]
    sent = asked.headers["Access-Control-Allow-Headers"].split(", ")
    assert {"X-Latency-SLA-Ms", "X-SLA-Percentile", "X-SLA-Mode", "X-Min-Tier", "X-Checkpoint"} <= set(sent)
    assert {"Content-Type", "X-Request-Id", "traceparent", "Authorization", "*"} <= set(sent)
    response = await client.request("POST" if path == "/classify" else "GET", path, json=BODY, headers={"Origin": PAGE})
    assert response.headers["Access-Control-Allow-Origin"] == response.headers["Timing-Allow-Origin"] == PAGE
    assert response.headers["Access-Control-Expose-Headers"] == "*"
    assert "Access-Control-Allow-Credentials" not in response.headers  # with that, * would name no header
    assert "Origin" in response.headers["Vary"]


@pytest.mark.parametrize("body", [{"inputs": 7}, {"inputs": "a good film"}])
async def test_a_problem_can_be_read_too(body: object) -> None:
    """A problem is as readable to a page of an allowed origin as an answer is."""
    client = client_of(world(), access(origins="*"))
    response = await client.post("/classify", json=body, headers={"Origin": PAGE, "X-SLA-Mode": "strict"})
    assert response.headers["Access-Control-Allow-Origin"] == "*"
    assert response.headers["Access-Control-Expose-Headers"] == "*"


@pytest.mark.parametrize("problem", [Starting(), Stopping()], ids=lambda one: one.code)
async def test_a_page_reads_that_the_gateway_is_not_ready(problem: Problem) -> None:
    """While something stands in for the gateway, an allowed page may ask, and reads the 503; another page may not."""
    transport = httpx.ASGITransport(unready(problem, access(origins=PAGE)))
    async with httpx.AsyncClient(transport=transport, base_url="http://gateway") as client:
        asked = await client.options("/classify", headers=ASKS)
        assert (asked.status_code, asked.headers["Access-Control-Allow-Origin"]) == (204, PAGE)
        assert "POST" in asked.headers["Access-Control-Allow-Methods"] and asked.headers["X-Request-Id"]
        for path in ("/classify", "/v1/chat/completions", "/healthz"):
            read = await client.get(path, headers={"Origin": PAGE})
            assert read.headers["Access-Control-Allow-Origin"] == PAGE and read.headers["Vary"] == "Origin"
        other = await client.options("/classify", headers={**ASKS, "Origin": "https://other.example"})
        assert other.status_code == 503 and "Access-Control-Allow-Origin" not in other.headers


@pytest.mark.parametrize(
    ("head", "status"),
    [
        (b"GET / HTTP/1.1\r\nOrigin: https://example.org\r\n\r\n", 400),
        (b"GET / HTTP/1.1\r\nHost: a\r\nOrigin: https://example.org\r\nX: " + b"a" * 40_000 + b"\r\n\r\n", 431),
        (b"GET / HTTP/3.0\r\nOrigin: https://example.org\r\n\r\n", 505),
    ],
)
@pytest.mark.parametrize("origins", [PAGE, ANY, ""])
async def test_a_page_reads_what_the_server_itself_refuses(head: bytes, status: int, origins: str) -> None:
    """An allowed page reads a refusal of the server, as far as its origin was read by then."""
    async with serving(refuse, told=access(origins=origins).headers) as served, served.client() as client:
        await client.send(head)
        got, headers, _ = await client.answer()
    allowed = origins if origins == ANY or status != 505 else ""
    assert got == status and headers.get("access-control-allow-origin", "") == allowed


@pytest.mark.parametrize(
    ("origins", "origin"),
    [
        ("", PAGE),
        ("https://other.example", PAGE),
        (PAGE, "https://example.org.evil.example"),
        (PAGE, "null"),
        (PAGE, ""),
    ],
)
async def test_a_page_of_another_origin_reads_nothing(origins: str, origin: str) -> None:
    """Without leave no answer says that a page of another origin may read it, or ask."""
    client = client_of(world(), access(origins=origins))
    for response in (
        await client.options("/classify", headers={**ASKS, "Origin": origin}),
        await client.post("/classify", json=BODY, headers={"Origin": origin}),
    ):
        assert response.status_code in (200, 204)
        assert not any(name.lower().startswith("access-control") for name in response.headers)


@pytest.mark.parametrize(
    "origin", ["example.org", "https://example.org/", "https://example.org/a", "ftp://a", "https://", "**"]
)
def test_what_is_no_origin_is_refused(origin: str) -> None:
    """An origin that no browser sends is refused by name."""
    with pytest.raises(BadOrigin, match="is no origin"):
        access(origins=origin)


@pytest.mark.parametrize(("path", "allow"), [("/classify", "OPTIONS, POST"), ("/healthz", "GET, HEAD, OPTIONS")])
async def test_options_tells_the_methods(path: str, allow: str) -> None:
    """OPTIONS is answered on every path with the methods that it has."""
    told = world()
    response = await client_of(told).options(path)
    assert (response.status_code, response.headers["Allow"]) == (204, allow)
    assert response.headers["X-Request-Id"] and not response.content
    assert is_problem(await client_of(told).options("/nowhere"), "not_found", 404)
    assert not told.kept.records


@pytest.mark.parametrize("path", GETS)
async def test_what_is_got_says_whether_it_may_be_kept(path: str) -> None:
    """Every GET says that nothing may be kept, or kept only if it is asked about again; HEAD says the same."""
    client = client_of(world())
    got, head = await client.get(path), await client.head(path)
    assert got.headers["Cache-Control"] == head.headers["Cache-Control"]
    assert got.headers["Cache-Control"] in ("no-store", "no-cache")
    assert head.status_code == got.status_code and not head.content
    assert (await client.get("/nowhere")).headers["Cache-Control"] == "no-store"


@pytest.mark.parametrize("path", ["/", "/console/base.css", "/openapi.json", "/metrics"])
async def test_the_console_and_the_metrics_are_packed_for_who_takes_it(path: str) -> None:
    """The console's files and the metrics are compressed where the client accepts it, and are the same unpacked."""
    client = client_of(world())
    plain = await client.get(path, headers={"Accept-Encoding": "gzip;q=0, br"})
    packed = await client.get(path, headers={"Accept-Encoding": "br, gzip;q=0.5"})
    assert "Content-Encoding" not in plain.headers and packed.headers["Content-Encoding"] == "gzip"
    assert packed.content == plain.content
    assert int(packed.headers["Content-Length"]) < int(plain.headers["Content-Length"])
    assert "Accept-Encoding" in plain.headers["Vary"] and "Accept-Encoding" in packed.headers["Vary"]
    if path != "/metrics":
        assert packed.headers["ETag"] != plain.headers["ETag"]
        for tag in (packed.headers["ETag"], plain.headers["ETag"]):
            assert (await client.get(path, headers={"If-None-Match": tag})).status_code == 304
            lines = [("If-None-Match", '"other"'), ("If-None-Match", tag)]
            assert (await client.get(path, headers=lines)).status_code == 304
