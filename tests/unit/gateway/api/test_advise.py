"""`GET /advise`: the situation in the query, the advice as JSON, and the page for a browser."""

from __future__ import annotations

from typing import Any

import pytest
from jsonschema import Draft202012Validator  # type: ignore[import-untyped]
from worlds import client_of, is_problem, world

pytestmark = pytest.mark.virtual_time

ASKED = "/advise?task=classify&max_tokens=32&budget_ms=200&memory_gb=8&labelled=10000"
BROWSER = {"Accept": "text/html,application/xhtml+xml,application/xml;q=0.9,*/*;q=0.8"}


async def advised(path: str = ASKED, **more: str) -> dict[str, Any]:
    """Return the advice of a gateway of three classifiers, all up; `more` is further parameters."""
    query = "".join(f"&{name}={value}" for name, value in more.items())
    response = await client_of(world()).get(path + query)
    assert response.status_code == 200, response.text
    found: dict[str, Any] = response.json()
    return found


async def test_served_checkpoints_are_measured_and_public_ones_estimated() -> None:
    """A gateway advises on what it serves, by its own profiles, and on public checkpoints by estimates, marked so."""
    advice = await advised()
    found = {one["name"]: one for one in (*advice["right"], *advice["wrong"])}
    assert found["swift"]["status"] == "served" and found["swift"]["latency"]["measured"]
    assert found["swift"]["latency"]["median_ms"] < found["grand"]["latency"]["median_ms"]
    assert found["roberta-base"]["status"] == "public" and not found["roberta-base"]["latency"]["measured"]
    assert found["camembert-base"] in advice["wrong"]


async def test_the_processors_are_those_that_the_replicas_report() -> None:
    """The load is judged by the cores of the replicas' nodes, and memory is unknown until it is said."""
    advice = await advised("/advise?task=classify", rate="10")
    (swift,) = (one for one in advice["right"] + advice["wrong"] if one["name"] == "swift")
    assert swift["latency"]["utilisation"] == pytest.approx(10 * swift["latency"]["core_ms"] / 2000, abs=1e-3)
    assert any("memory_gb" in sentence for sentence in advice["unknown"])


async def test_a_browser_gets_the_page_and_another_client_json() -> None:
    """The same address answers HTML to who takes it, and JSON to others; caches are told."""
    client = client_of(world())
    page = await client.get(ASKED, headers=BROWSER)
    assert page.status_code == 200 and page.headers["content-type"].startswith("text/html")
    assert "Accept" in page.headers["vary"] and "content-security-policy" in page.headers
    for headers in ({}, {"Accept": "application/json"}):
        told = await client.get(ASKED, headers=headers)
        assert told.headers["content-type"] == "application/json" and "Accept" in told.headers["vary"]


@pytest.mark.parametrize(
    ("query", "field"),
    [
        ("task=sing", "task"),
        ("task=classify&budget_ms=0", "budget_ms"),
        ("task=classify&budget_ms=soon", "budget_ms"),
        ("task=classify&languages=english", "languages"),
        ("task=classify&needs=wings", "needs"),
        ("task=classify&labelled=-1", "labelled"),
        ("task=classify&colour=red", "colour"),
    ],
)
async def test_a_wrong_parameter_is_named(query: str, field: str) -> None:
    """A parameter that is unknown or out of range is a 422 that names it."""
    response = await client_of(world()).get(f"/advise?{query}")
    assert is_problem(response, "invalid_request", 422)
    assert response.json()["errors"][0]["field"].startswith(field)


async def test_empty_parameters_of_a_form_are_absent() -> None:
    """A form sends the fields that nobody filled in, empty: they count as absent."""
    assert (await advised(budget_ms="", cores="", domain="", train="true"))["situation"]["train"] is True


async def test_the_answer_is_as_documented() -> None:
    """The advice fits its schema in the contract, every parameter of the situation is documented, and so is a 422."""
    client = client_of(world())
    contract = (await client.get("/openapi.json")).json()
    operation = contract["paths"]["/advise"]["get"]
    schema = {"$ref": "#/components/schemas/Advice", "components": contract["components"]}
    Draft202012Validator(schema).validate(await advised())
    asked = {one["name"] for one in operation["parameters"] if one.get("in") == "query"}
    assert set((await advised())["situation"]) == asked
    assert "422" in operation["responses"]


async def test_asking_for_advice_is_no_request_that_is_counted() -> None:
    """Advice has no record: nothing of a task was run."""
    told = world()
    assert (await client_of(told).get(ASKED)).status_code == 200
    assert told.kept.records == []
