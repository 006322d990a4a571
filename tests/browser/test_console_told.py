"""The console on a gateway that a test scripts: problems, hostile texts, an older gateway, a silent one."""

from __future__ import annotations

import json
from collections.abc import Iterator
from dataclasses import dataclass, field
from threading import Event

import pytest
from made_up_task.task import COUNT
from opened_console import NARROW, WIDE, Console, document, told_page
from selenium.webdriver.common.keys import Keys
from small_gateway import Asked, SmallGateway, Told

from gateway.api.openapi import openapi_document
from gateway.tasks import TASKS

pytestmark = pytest.mark.browser

HOSTILE = "<img src=x onerror=document.title='taken'><b>bold</b>"
FORECAST = {
    "queueing_delay": 0,
    "service_time": 3,
    "least": 2,
    "latency": 4,
    "at_percentile": 9,
    "at_percentile_idle": 9,
}
SERVED = {"task": "classify", "tier": "quality", "domain": None, "replicas": 1, "load": {"replicas_up": 1}}


def served(name: str, task: str = "classify", domain: str | None = None) -> dict[str, object]:
    """A checkpoint as `/checkpoints` describes it."""
    return {**SERVED, "name": name, "task": task, "domain": domain, "quality": {"value": 90}}


def decided(asked: Asked, name: str | None = "grand") -> Told:
    """The answer of `/route`: `grand` fits where the budget is at least 9 ms."""
    budget = float(asked.headers["x-latency-sla-ms"])
    fits = budget >= FORECAST["at_percentile"]
    candidate = {"checkpoint": name, "tier": "quality", "quality": 90, "worth": 90, "forecast_ms": FORECAST}
    chosen = {"checkpoint": name, "reason": "fits"} if fits else {"checkpoint": None, "refusal": "infeasible"}
    verdict = {"verdict": "fits" if fits else "too-slow"}
    return document({"budget_ms": budget, "percentile": 95, **chosen, "candidates": [{**candidate, **verdict}]})


def answered(asked: Asked, label: str = "positive") -> Told:
    """An answer in time where the budget is at least 9 ms, else a problem."""
    budget = float(asked.headers["x-latency-sla-ms"])
    if budget < FORECAST["at_percentile"]:
        problem = {
            "code": "budget_infeasible",
            "title": "No checkpoint can",
            "detail": "too little",
            "min_feasible_ms": 9.1,
        }
        return document({**problem, "status": 422}, 422)
    routing = {"checkpoint": "grand", "tier": "quality", "reason": "fits", "budget_ms": budget, "sla_met": True}
    forecast = {"predicted_latency_ms": 4, "forecast_quantile_ms": 9, "attempts": 1, "batch_size": 1}
    timings = {"route": 0.5, "queue": 0.5, "infer": 3, "total": 5, "predicted": 4}
    outputs = [[{"label": label, "score": 0.9}, {"label": "negative", "score": 0.1}]]
    told = {"outputs": outputs, "routing": {**routing, **forecast}, "timings_ms": timings}
    return document({**told, "input": {"tokens": 4, "kept": 4, "truncated": False}})


@dataclass
class Played:
    """A gateway whose answers a test changes while the page is open."""

    names: list[str] = field(default_factory=lambda: ["grand"])
    task: str = "classify"
    label: str = "positive"
    metrics: str | None = ""
    coming: list[dict[str, object]] = field(default_factory=list)
    knows: Event = field(default_factory=Event)

    def __post_init__(self) -> None:
        self.knows.set()

    def checkpoints(self, asked: Asked) -> Told:
        assert self.knows.wait(60)
        listed = {"checkpoints": [served(name, self.task) for name in self.names]}
        return document({**listed, "coming": self.coming} if self.coming else listed)

    def contract(self, asked: Asked) -> Told:
        return document(openapi_document(TASKS.values()))

    def route(self, asked: Asked) -> Told:
        return decided(asked, self.names[0])

    def classify(self, asked: Asked) -> Told:
        return answered(asked, self.label)

    def counted(self, asked: Asked) -> Told:
        told = json.loads(answered(asked).body)
        return document({**told, "outputs": [{"words": 5, "languages": ["en"]}]})

    def scrape(self, asked: Asked) -> Told:
        return Told(503, {}, b"") if self.metrics is None else Told(200, {}, self.metrics.encode())

    def count(self, **outcomes: int) -> None:
        """Sets the counters of one process."""
        line = (
            'punctual_requests_total{{task="classify",checkpoint="grand",tier="quality",outcome="{}",replica="a"}} {}'
        )
        self.metrics = "\n".join(line.format(*one) for one in {"in_time": 0, "late": 0, **outcomes}.items())


@pytest.fixture
def played() -> Played:
    """A gateway that answers."""
    return Played()


@pytest.fixture
def gateway(played: Played) -> Iterator[tuple[str, SmallGateway]]:
    """The gateway's address, and the requests it got."""
    tasks = {"/classify": played.classify, "/count": played.counted}
    asked = {"/checkpoints": played.checkpoints, "/route": played.route, "/openapi.json": played.contract}
    with told_page({**tasks, **asked, "/metrics": played.scrape}) as told:
        yield told


def grant(console: Console, budget_ms: float) -> None:
    """Types a budget."""
    amount = console.find("#amount")
    amount.clear()
    amount.send_keys(str(budget_ms))


def test_what_is_still_to_come_is_listed(console: Console, gateway: tuple[str, SmallGateway], played: Played) -> None:
    """A checkpoint that is not served yet has a line with its state and reason, and cannot be pinned."""
    url, _ = gateway
    late = {"name": "late", "task": "classify", "tier": "quality", "family": "MPNet", "source": "starter:late"}
    played.coming = [{**late, "state": "preparing", "reason": "its variant is being made"}]
    console.open(url, NARROW)
    console.await_that(lambda: "quality, preparing: its variant is being made" in console.said("#served"))
    assert "grand" in console.said("#served") and "late" not in console.said("#pin")


def test_a_refusal_offers_what_would_help(console: Console, gateway: tuple[str, SmallGateway]) -> None:
    """A refusal offers the least feasible budget as a button, which sets it, sends the request and gets the answer."""
    url, small = gateway
    console.open(url, NARROW)
    grant(console, 5)
    console.await_that(lambda: "Nothing can answer within 5 ms" in console.said("#decision"))
    console.find("#send").send_keys(Keys.ENTER)
    console.await_that(lambda: "No checkpoint can" in console.said("#answer"))
    assert "Too little." in console.said("#answer") and "budget_infeasible" in console.said("#answer")
    assert console.said("#answer button") == "Use 9.1 ms"
    console.find("#answer button").send_keys(Keys.ENTER)
    console.await_that(lambda: "In time" in console.said("#answer"))
    sent = [one.headers["x-latency-sla-ms"] for one in small.asked if one.path.startswith("/classify")]
    assert sent == ["5", "9.1"] and console.find("#amount").get_attribute("value") == "9.1"


def test_who_gives_up_strictness_is_asked_for_nothing_else(console: Console, gateway: tuple[str, SmallGateway]) -> None:
    """A refusal of a strict request offers best effort as a button, which sends the request again in that mode."""
    url, small = gateway
    console.open(url)
    console.find("input[value=strict]").send_keys(Keys.SPACE)
    grant(console, 5)
    console.find("#send").send_keys(Keys.ENTER)
    console.await_that(lambda: "Take the best there is" in console.said("#answer"))
    console.find("#answer button:last-of-type").send_keys(Keys.ENTER)
    console.await_that(lambda: len([one for one in small.asked if one.path.startswith("/classify")]) == 2)
    first, second = (one for one in small.asked if one.path.startswith("/classify"))
    assert (first.headers["x-sla-mode"], second.headers["x-sla-mode"]) == ("strict", "best-effort")
    assert second.headers["x-latency-sla-ms"] == "5" and second.body == first.body


def test_what_is_sent_before_the_tasks_are_known_is_sent_once_they_are(
    console: Console, gateway: tuple[str, SmallGateway], played: Played
) -> None:
    """Whoever presses Send while the page still learns what is served gets the answer, and does not press twice."""
    url, small = gateway
    played.knows.clear()
    console.open(url)
    console.find("#send").send_keys(Keys.ENTER)
    played.knows.set()
    console.await_that(lambda: "In time" in console.said("#answer"))
    assert len([one for one in small.asked if one.path.startswith("/classify")]) == 1


def test_the_decision_follows_the_slider(console: Console, gateway: tuple[str, SmallGateway]) -> None:
    """The slider, moved by arrow keys, shows which checkpoint would answer, and asks for nothing but `/route`."""
    url, small = gateway
    console.open(url)
    console.await_that(lambda: "grand" in console.said("#decision"))
    slider = console.find("#slider")
    slider.send_keys(Keys.HOME)
    console.await_that(lambda: "Nothing can answer within 1 ms" in console.said("#decision"))
    slider.send_keys(Keys.END)
    console.await_that(lambda: "the best of quality whose forecast fits your 30 s" in console.said("#decision"))
    assert slider.get_attribute("aria-valuetext") == "30 s" and "fits, and answers" in console.said("#candidates")
    assert not [one for one in small.asked if one.path.startswith("/classify")]


def test_terms_travel_in_the_headers(console: Console, gateway: tuple[str, SmallGateway]) -> None:
    """Mode and pin are sent in the headers of the contract, and what is not chosen is not sent."""
    url, small = gateway
    console.open(url)
    console.await_that(lambda: "grand" in console.said("#decision"))
    console.find("input[value=strict]").send_keys(Keys.SPACE)
    console.find(".more summary").send_keys(Keys.ENTER)
    console.find("#pin").send_keys("grand")
    console.find("#text").send_keys(Keys.CONTROL, Keys.ENTER)
    console.await_that(lambda: "In time" in console.said("#answer"))
    sent = next(one for one in small.asked if one.path == "/classify?details=true")
    assert sent.document == {"inputs": "What a wonderful film."}
    assert (sent.headers["x-sla-mode"], sent.headers["x-checkpoint"]) == ("strict", "grand")
    assert "x-min-tier" not in sent.headers and sent.headers["x-latency-sla-ms"] == "50"


def test_a_tasks_parameters_travel_in_the_body(console: Console, gateway: tuple[str, SmallGateway]) -> None:
    """Parameters of the task are fields; those that are filled are sent in the body, each with its own type."""
    url, small = gateway
    console.open(url)
    console.await_that(lambda: "grand" in console.said("#decision"))
    console.find(".more summary").send_keys(Keys.ENTER)
    console.find("[data-parameter=top_k]").send_keys("2")
    console.find("[data-parameter=truncation]").send_keys("error")
    console.find("#text").send_keys(Keys.CONTROL, Keys.ENTER)
    console.await_that(lambda: "In time" in console.said("#answer"))
    sent = next(one for one in small.asked if one.path == "/classify?details=true")
    assert sent.document["parameters"] == {"top_k": 2, "truncation": "error"}
    assert console.faults() == []


def test_a_task_that_the_page_has_never_heard_of_is_offered(
    console: Console, played: Played, gateway: tuple[str, SmallGateway], monkeypatch: pytest.MonkeyPatch
) -> None:
    """A task that is registered and served is offered with its parameters, and an answer of a new shape is shown."""
    monkeypatch.setitem(TASKS, "count", COUNT)
    played.task = "count"
    url, small = gateway
    console.open(url)
    console.await_that(lambda: console.said("#tasks") == "Count")
    console.find("#text").send_keys("a cat and a dog")
    console.find(".more summary").send_keys(Keys.ENTER)
    console.find("[data-parameter=distinct]").send_keys("true")
    console.find("#send").send_keys(Keys.ENTER)
    console.await_that(lambda: '"words": 5' in console.said("#answer"))
    sent = next(one for one in small.asked if one.path == "/count?details=true")
    assert sent.document == {"inputs": "a cat and a dog", "parameters": {"distinct": True}}
    assert console.faults() == []


def test_what_the_gateway_says_is_text(console: Console, played: Played, gateway: tuple[str, SmallGateway]) -> None:
    """Markup in names and labels is shown as text and never run."""
    played.names, played.label = [HOSTILE], HOSTILE
    console.open(gateway[0])
    console.await_that(lambda: HOSTILE in console.said("#candidates") and HOSTILE in console.said("#served"))
    console.find("#send").send_keys(Keys.ENTER)
    console.await_that(lambda: HOSTILE in console.said("#answer"))
    assert console.ask("return [document.title, document.images.length]") == ["Punctual", 0]
    assert console.faults() == []


def test_an_older_gateway_is_shown_as_far_as_it_tells(
    console: Console, played: Played, gateway: tuple[str, SmallGateway]
) -> None:
    """A chart whose metric an older gateway lacks says so, and the others go on."""
    played.count()
    console.open(gateway[0])
    console.await_that(lambda: "Idle. Nothing was asked" in console.said("#glance"))
    assert console.said("#charts").count("This gateway does not tell it.") == 2
    played.count(in_time=97, late=3)
    console.await_that(lambda: "Promises are kept: 97 %" in console.said("#glance"))
    played.count(in_time=100, late=100)
    console.await_that(lambda: "Promises are broken: only 50 %" in console.said("#glance"))
    played.count(in_time=1)
    console.await_that(lambda: "Promises are broken: only 50.2 %" in console.said("#glance"))
    assert console.faults() == []


def test_a_gateway_that_falls_silent_is_said_to_and_found_again(
    console: Console, played: Played, gateway: tuple[str, SmallGateway]
) -> None:
    """The page says that a gateway is silent and when it asks again, asks more rarely, and recovers with it."""
    console.open(gateway[0])
    console.await_that(lambda: "Idle" in console.said("#glance"))
    played.metrics = None
    console.await_that(lambda: "does not answer" in console.said("#glance"))
    assert "stopped" in console.said("#watch-state")

    def rarely() -> bool:
        said, waits_ms = console.ask("return [document.getElementById('glance').textContent, [...timers.values()]]")
        return min(waits_ms) >= 4000 and f"Trying again in {min(waits_ms) / 1000:g} s" in said

    console.await_that(rarely)
    played.metrics = ""
    console.await_that(lambda: "Idle" in console.said("#glance"))


def test_a_page_that_nobody_sees_asks_nothing(console: Console, gateway: tuple[str, SmallGateway]) -> None:
    """A hidden page scrapes nothing, and goes on when it is visible again."""
    url, small = gateway
    console.open(url)
    console.await_that(lambda: "Idle" in console.said("#glance"))
    become(console, "hidden")
    console.await_that(lambda: min(console.ask("return [...timers.values()]")) > 5000)  # the look at `/checkpoints`
    before = scrapes(small)
    become(console, "visible")
    console.await_that(lambda: scrapes(small) > before + 2)


def become(console: Console, state: str) -> None:
    """Makes the page hidden or visible."""
    script = """Object.defineProperty(document, "visibilityState", {value: arguments[0], configurable: true});
        document.dispatchEvent(new Event("visibilitychange"));"""
    console.driver.execute_script(script, state)


def scrapes(small: SmallGateway) -> int:
    """How often the metrics were asked for."""
    return [one.path for one in small.asked].count("/metrics")


def test_a_moment_that_is_pointed_at_is_told(
    console: Console, played: Played, gateway: tuple[str, SmallGateway]
) -> None:
    """All charts show the figures of the moment under the pointer, and the current ones when it leaves."""
    played.count()
    console.open(gateway[0])
    console.await_that(lambda: "Idle" in console.said("#glance"))
    played.count(in_time=40)
    console.await_that(lambda: "Promises are kept" in console.said("#glance"))
    console.await_that(lambda: console.ask("return document.querySelectorAll('#charts polyline').length") >= 2)
    point = """const room = document.querySelectorAll(".chart svg")[1], box = room.getBoundingClientRect();
        room.dispatchEvent(new PointerEvent(arguments[0] ? "pointermove" : "pointerleave",
            {bubbles: true, clientX: box.left + 60})); if (!arguments[0]) document.getElementById("charts")
        .dispatchEvent(new PointerEvent("pointerleave"));"""
    console.driver.execute_script(point, True)
    assert "s ago" in console.said("#watch-state") and "offered 0/s" in console.said("#charts")
    console.driver.execute_script(point, False)
    assert "two minutes" in console.said("#watch-state") and "offered 0/s" not in console.said("#charts")
    assert console.faults() == []


SHIFTS = """const done = arguments[0];
new PerformanceObserver((list) => done(list.getEntries().filter((one) => !one.hadRecentInput).map((one) =>
  [one.value, ...one.sources.map(({node}) => node?.id || node?.className || node?.nodeName)])))
  .observe({type: "layout-shift", buffered: true});
setTimeout(done, 1000, []);"""
"""The layout shifts of the page since it began to load, each with what moved; none where nothing moved."""

LEAST_SHIFT = 0.1
"""Up to which Web Vitals calls the sum of a page's layout shifts good."""


@pytest.mark.parametrize("size", [NARROW, WIDE])
def test_the_page_does_not_jump_while_it_loads(
    console: Console, gateway: tuple[str, SmallGateway], played: Played, size: tuple[int, int]
) -> None:
    """What comes from the gateway moves little of the page, on a phone as on a screen."""
    url, _ = gateway
    played.names = ["grand", "even", "swift"]
    played.count(in_time=7)
    console.open(url, size)
    console.await_that(lambda: "swift" in console.said("#served") and "fits" in console.said("#try"))
    shifts = console.driver.execute_async_script(SHIFTS)
    assert sum(value for value, *_ in shifts) < LEAST_SHIFT, shifts


def test_what_was_before_is_told_on_opening(
    console: Console, gateway: tuple[str, SmallGateway], played: Played
) -> None:
    """A page that has just been opened tells how the gateway has kept its promises until then."""
    url, _ = gateway
    played.count(in_time=150, late=50)
    console.open(url)
    told = "Before this page was opened: 200 requests, 75 % in time."
    console.await_that(lambda: told in console.said("#glance-notes"))
    assert "Idle" in console.said("#glance-title")
