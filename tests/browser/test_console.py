"""The console on a running gateway, as a user sees it: it sends requests, explains answers and shows live figures."""

from __future__ import annotations

import json
import threading
import urllib.request
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

import pytest
from live import Live
from opened_console import NARROW, WIDE, Console
from selenium.webdriver.common.keys import Keys

pytestmark = [pytest.mark.browser, pytest.mark.ray]

FOREIGN = """return performance.getEntriesByType("resource").map((one) => one.name)
  .filter((name) => !name.startsWith(origin))"""
CONTRAST = """
const within = (text) => text.match(/[\\d.]+/g).slice(0, 3).map(Number);
const linear = (v) => v <= .04045 ? v / 12.92 : ((v + .055) / 1.055) ** 2.4;
const light = (rgb) => rgb.reduce((sum, v, i) => sum + linear(v / 255) * [.2126, .7152, .0722][i], 0);
const behind = (node) => { for (; node; node = node.parentElement) {
  const colour = getComputedStyle(node).backgroundColor;
  if (/^rgb\\(/.test(colour)) return colour;
} return "rgb(255,255,255)"; };
const low = [];
for (const node of document.querySelectorAll("main *, header *, footer")) {
  const own = [...node.childNodes].some((child) => child.nodeType === 3 && child.textContent.trim());
  const style = getComputedStyle(node);
  if (!own || !node.checkVisibility() || node.closest(".unseen, svg") || !/^rgb\\(/.test(style.color)) continue;
  const [a, b] = [light(within(style.color)), light(within(behind(node)))].sort((x, y) => y - x);
  if ((a + .05) / (b + .05) < 4.5) low.push([node.textContent.slice(0, 40), (a + .05) / (b + .05)]);
}
return low;
"""


@contextmanager
def load(url: str) -> Iterator[None]:
    """A little load on both tasks, some of it with a budget that nothing fits."""
    stop = threading.Event()

    def ask() -> None:
        turn = 0
        while not stop.wait(0.04):
            turn += 1
            task = ("classify", "classify", "summarize")[turn % 3]
            body = json.dumps({"inputs": "The film was long. It was good. We stayed to its end."}).encode()
            headers = {"X-Latency-SLA-Ms": "0.5" if turn % 7 == 0 else "2000"}
            with urllib.request.urlopen(urllib.request.Request(f"{url}/{task}", body, headers), timeout=60) as answer:
                answer.read()

    asking = threading.Thread(target=ask)
    asking.start()
    try:
        yield
    finally:
        stop.set()
        asking.join(60)


def grant(console: Console, budget_ms: int) -> None:
    """Replaces the budget by typing."""
    amount = console.find("#amount")
    amount.send_keys(Keys.CONTROL, "a")
    amount.send_keys(str(budget_ms))


def typed(console: Console, text: str) -> None:
    """Replaces the text by typing and sends it, all by the keyboard."""
    field = console.find("#text")
    field.send_keys(Keys.CONTROL, "a")
    field.send_keys(text)
    field.send_keys(Keys.CONTROL, Keys.ENTER)


def test_a_newcomer_sees_who_answered_and_why(live: Live, console: Console, tmp_path: Path) -> None:
    """A newcomer sees the answer to a typed text, its checkpoint, tier and reason in words, and the time line."""
    console.open(live.url)
    console.await_that(lambda: console.said("#candidates") != "")
    grant(console, 30000)
    console.await_that(lambda: "the best of quality whose forecast fits" in console.said("#decision"))
    typed(console, "the story was great and i liked it")
    console.await_that(lambda: "In time" in console.said("#answer"))
    told = console.said("#answer")
    assert "slow of tier quality answered in" in told and "of your 30 s" in told
    assert "the best of quality whose forecast fits your 30 s" in told
    assert all(span in told for span in ("route", "queue", "infer", "left", "deadline 30 s"))
    assert {"slow", "fast"} <= set(console.said("#candidates").split())
    console.picture(str(tmp_path / "answer.png"))
    assert console.faults() == [] and console.ask(FOREIGN) == []


def test_a_summary_comes_as_one(live: Live, console: Console) -> None:
    """A summary comes after the other task is chosen by its radio button; a domain's checkpoint is marked as such."""
    console.open(live.url)
    console.await_that(lambda: console.said("#candidates") != "")
    console.find("input[value=summarize]").send_keys(Keys.SPACE)
    console.await_that(lambda: "only for texts about news" in console.said("#candidates"))
    grant(console, 30000)
    console.find("#send").send_keys(Keys.ENTER)
    console.await_that(lambda: "tokens written" in console.said("#answer"))
    assert len(console.said("#answer .written").split()) > 5
    assert console.faults() == []


def test_the_charts_move_with_the_load(live: Live, console: Console, tmp_path: Path) -> None:
    """Under load the charts draw lines, name their series, and the table shows rates above zero."""
    console.open(live.url)
    with load(live.url):
        console.await_that(lambda: "of the last minute’s requests were answered in time" in console.said("#glance"))
        points = "return [...document.querySelectorAll('#charts polyline')].map((one) => one.points.length)"
        console.await_that(lambda: max(console.ask(points), default=0) >= 6)
        charts = console.said("#charts")
        assert "late" in charts and "slow" in charts and "quality p50" in charts and "summarize" in charts
        labels = console.ask("return [...document.querySelectorAll('#charts svg')].map((one) => one.ariaLabel)")
        assert any(label and "Answered in time, the last two minutes; now classify" in label for label in labels)
        rates = console.ask(
            "return [...document.querySelectorAll('#served tr')].map((one) => one.cells[3].textContent)"
        )
        assert any(rate not in ("0/s", "–") for rate in rates)
        console.picture(str(tmp_path / "load.png"))
    assert console.faults() == [] and console.ask(FOREIGN) == []


@pytest.mark.parametrize("dark", [False, True], ids=["light", "dark"])
@pytest.mark.parametrize("size", [NARROW, (768, 900), WIDE], ids=["phone", "tablet", "desktop"])
def test_it_fits_and_can_be_read(
    live: Live, console: Console, tmp_path: Path, size: tuple[int, int], dark: bool
) -> None:
    """The page never scrolls sideways, and every text has a contrast of 4.5 to 1, at any width, in light and dark."""
    console.open(live.url, size, dark=dark)
    console.await_that(lambda: console.said("#candidates") != "")
    console.find("#send").send_keys(Keys.ENTER)
    console.await_that(lambda: console.said("#answer") != "")
    assert console.overhang() <= 0
    assert console.ask("return getComputedStyle(document.body).backgroundColor") is not None
    assert console.ask(CONTRAST) == []
    console.picture(str(tmp_path / "page.png"))
    assert console.faults() == []


def test_everything_is_reached_by_the_keyboard(live: Live, console: Console) -> None:
    """Tab reaches every control once, each with a name and a visible focus; nothing traps it."""
    console.open(live.url)
    console.await_that(lambda: console.said("#candidates") != "")
    reached = []
    for _ in range(40):
        console.driver.switch_to.active_element.send_keys(Keys.TAB)
        focused = console.driver.switch_to.active_element
        if focused.tag_name == "body":
            break
        outline = console.ask(
            "const one = document.activeElement; const seen = one.type === 'radio' ? one.nextElementSibling : one;"
            "return getComputedStyle(seen).outlineStyle"
        )
        assert outline != "none", focused.get_attribute("outerHTML")
        assert focused.accessible_name or focused.text, focused.get_attribute("outerHTML")
        reached.append(focused.get_attribute("id") or focused.get_attribute("name") or focused.text)
    assert {"task", "text", "amount", "slider", "mode", "percentile", "send", "More terms"} <= set(reached)
