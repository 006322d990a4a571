"""The page of advice in a real browser: a situation in its address, a form, and the adviser's own answers behind it."""

from __future__ import annotations

from collections.abc import Iterator
from urllib.parse import parse_qsl, urlsplit

import msgspec
import pytest
from opened_console import NARROW, WIDE, Console, document, told_page
from small_gateway import Asked, Told

from gateway.advising.advice import Adviser, UnknownSituation
from gateway.advising.candidates import Offered
from gateway.advising.situation import Machine, Situation
from gateway.api.openapi import openapi_document
from gateway.catalogs.catalog import load_catalog
from gateway.tasks import TASKS

pytestmark = pytest.mark.browser

ADVISER = Adviser([Offered(load_catalog("starter"))], Machine(2, 8e9))
REALTIME = "task=classify&budget_ms=50&rate=40&max_tokens=64&labelled=10000"


def advised(asked: Asked) -> Told:
    """What the adviser says of the query, or a problem."""
    situation = Situation.model_validate(dict(parse_qsl(urlsplit(asked.path).query)))
    try:
        return document(msgspec.to_builtins(ADVISER.advise(situation)))
    except UnknownSituation as unknown:
        return document({"detail": f"{unknown.field}: {unknown.message}"}, 422)


@pytest.fixture
def page(console: Console) -> Iterator[tuple[Console, str]]:
    """The console without the faults of earlier tests, and the address of a gateway that advises."""
    console.driver.get("about:blank")
    console.faults()
    answers = {"/advise": advised, "/openapi.json": lambda asked: document(openapi_document(TASKS.values()))}
    with told_page(answers) as (url, _):
        yield console, url


def first(console: Console) -> str:
    """The name of the checkpoint that is ranked first; empty while none is shown."""
    found = console.ask("return document.querySelector('#right > li')?.dataset.name ?? ''")
    return str(found)


@pytest.mark.parametrize("size", [WIDE, NARROW], ids=["wide", "narrow"])
def test_an_address_says_the_situation_and_the_form_asks_anew(page: tuple[Console, str], size: tuple[int, int]) -> None:
    """The page shows the advice for its address; another situation in the form is advised on and in the address."""
    console, url = page
    console.resize(size)
    console.driver.get(f"{url}/advise?{REALTIME}")
    console.await_that(lambda: first(console) == "mobilebert-uncased")
    assert console.find("[name=budget_ms]").get_property("value") == "50"
    assert "understand: encoder" in console.said("#checklist") and "~" in console.said("#right")
    languages = console.find("[name=languages]")
    languages.clear()
    languages.send_keys("fr")
    for name in ("budget_ms", "rate"):
        console.find(f"[name={name}]").clear()
    console.find("#situation button").click()
    console.await_that(lambda: first(console) == "camembert-base")
    assert "languages=fr" in console.driver.current_url
    console.ask("document.querySelector('#right details').open = true")
    assert "source: ./camembert-base-tuned" in console.said("#right pre")
    assert console.ask("return document.documentElement.scrollWidth <= innerWidth")
    assert console.faults() == []


def test_nothing_right_opens_why(page: tuple[Console, str]) -> None:
    """Where no checkpoint is right, the page says so and shows why each is out."""
    console, url = page
    console.driver.get(f"{url}/advise?task=classify&budget_ms=0.5&max_tokens=512&labelled=10000")
    console.await_that(lambda: "no checkpoint" in console.said("#count"))
    assert "over the budget of 0.5 ms" in console.said("#wrong")


def test_a_refused_situation_is_explained(page: tuple[Console, str]) -> None:
    """A parameter that the gateway refuses is shown as it says."""
    console, url = page
    console.driver.get(f"{url}/advise?task=classify&needs=wings")
    console.await_that(lambda: "layout" in console.said("#fault"))
