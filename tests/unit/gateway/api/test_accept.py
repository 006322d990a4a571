"""What a client accepts: by weights, by the narrowest range, and in one line or several."""

from __future__ import annotations

import pytest
from worlds import client_of, summarizing, world

from gateway.api.accept import named, takes_gzip, weight

pytestmark = pytest.mark.virtual_time

OPEN, PLAIN = "application/openmetrics-text", "text/plain"
PROMETHEUS = f"{OPEN};version=1.0.0;q=0.6,{OPEN};version=0.0.1;q=0.5,{PLAIN};version=0.0.4;q=0.3,*/*;q=0.2"
BROWSER = "text/html,application/xhtml+xml,application/xml;q=0.9,*/*;q=0.8"


@pytest.mark.parametrize(
    ("sent", "taken"),
    [
        ("gzip", True),
        ("*", True),
        ("br, GZIP;q=0.5", True),
        ("deflate, gzip;q=1.0, *;q=0", True),
        ("", False),
        ("br", False),
        ("gzip;q=0", False),
        ("gzip; q=0.000", False),
        ("*, gzip;q=0", False),
        ("gzip;q=x", False),
    ],
)
def test_gzip_is_taken_by_its_weight(sent: str, taken: bool) -> None:
    """Gzip is accepted if it, or all, has a weight above 0."""
    assert takes_gzip(sent) is taken


@pytest.mark.parametrize(
    ("accepted", "of_json", "of_html", "html_named"),
    [
        ("", 0.0, 0.0, 0.0),
        ("*/*", 1.0, 1.0, 0.0),
        ("application/json, text/html;q=0", 1.0, 0.0, 0.0),
        ("TEXT/HTML; level=1 ; Q=0.5, */*;q=0.1", 0.1, 0.5, 0.5),
        ("text/*;q=0.3, application/json;q=0, */*", 0.0, 0.3, 0.0),
        ("text/html;q=0.2, text/html;level=1;q=.7", 0.0, 0.7, 0.7),
        ("text/html;q=x, ;, ,text/html ;q = 0.4", 0.0, 0.4, 0.4),
    ],
)
def test_the_narrowest_range_has_the_weight(accepted: str, of_json: float, of_html: float, html_named: float) -> None:
    """A type has the weight of its own name, else of its kind, else of all; without any of them none."""
    assert (weight(accepted, "application/json"), weight(accepted, "text/html")) == (of_json, of_html)
    assert named(accepted, "text/html") == html_named


@pytest.mark.parametrize(
    ("accepted", "kind"),
    [
        ([PROMETHEUS], OPEN),
        ([f"{OPEN};q=0"], PLAIN),
        ([f"{OPEN};q=0.1, {PLAIN}"], PLAIN),
        ([PLAIN, OPEN], OPEN),
        (["*/*"], PLAIN),
        ([], PLAIN),
    ],
)
async def test_metrics_come_in_the_format_that_is_wanted(accepted: list[str], kind: str) -> None:
    """OpenMetrics goes to those who name it and want it no less than the older format, in whichever line."""
    told = await client_of(world()).get("/metrics", headers=[("Accept", one) for one in accepted])
    assert told.headers["Content-Type"].startswith(kind)


@pytest.mark.parametrize(
    ("accepted", "kind"),
    [
        ([BROWSER], "text/html"),
        (["application/json, text/html;q=0"], "application/json"),
        (["application/json, text/html;q=0.5"], "application/json"),
        (["application/json;q=0.5", "text/html"], "text/html"),
        (["*/*"], "application/json"),
    ],
)
async def test_advice_is_a_page_for_who_wants_that(accepted: list[str], kind: str) -> None:
    """The page goes to those who name HTML and want it no less than JSON."""
    told = await client_of(world()).get("/advise?task=classify", headers=[("Accept", one) for one in accepted])
    assert told.headers["Content-Type"].startswith(kind), told.text


@pytest.mark.parametrize(
    ("accepted", "streamed"),
    [
        (["text/event-stream"], True),
        (["Text/Event-Stream", "application/json;q=0"], True),
        (["text/event-stream", "application/json"], False),
        (["application/json", "text/event-stream"], False),
        (["text/event-stream, application/*;q=0.1"], False),
        (["text/event-stream;q=0.0"], False),
    ],
)
async def test_several_lines_are_one_list(accepted: list[str], streamed: bool) -> None:
    """Events go to those who accept no JSON, in whichever line they say so."""
    body = {"inputs": "The river rose. The bridge was closed for hours."}
    headers = [("Accept", one) for one in accepted]
    told = await client_of(summarizing()).post("/summarize", json=body, headers=headers)
    assert told.headers["Content-Type"].startswith("text/event-stream") is streamed
