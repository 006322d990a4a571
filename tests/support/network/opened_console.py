"""The console in a real browser: how a test opens and queries it, and a scripted gateway behind it."""

from __future__ import annotations

import json
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from typing import Any

from programs import program
from selenium import webdriver
from selenium.webdriver.common.by import By
from selenium.webdriver.remote.webelement import WebElement
from small_gateway import Asked, Behaviour, SmallGateway, Told
from waiting import wait_until

from gateway.api.console import read_page

SWITCHES = (
    "--headless=new",
    "--no-sandbox",
    "--disable-gpu",
    "--disable-dev-shm-usage",
    "--disable-search-engine-choice-screen",
)
TIMERS = """window.timers = new Map();
const set = setTimeout, clear = clearTimeout;
window.setTimeout = (run, ms, ...given) => {
  const timer = set(() => { timers.delete(timer); run(...given); }, ms);
  timers.set(timer, ms);
  return timer;
};
window.clearTimeout = (timer) => { timers.delete(timer); clear(timer); };"""
"""Records the page's pending timers: `timers` has the delay of each, in milliseconds."""

WIDE, NARROW = (1440, 1000), (360, 780)


class Console:
    """One open page."""

    def __init__(self, driver: webdriver.Chrome) -> None:
        self.driver = driver

    def open(self, url: str, size: tuple[int, int] = WIDE, *, dark: bool = False) -> None:
        """Load the page at a size and in a colour scheme, and forget what earlier pages have logged."""
        self.resize(size)
        scheme = {"name": "prefers-color-scheme", "value": "dark" if dark else "light"}
        still = {"name": "prefers-reduced-motion", "value": "reduce"}
        self.driver.execute_cdp_cmd("Emulation.setEmulatedMedia", {"features": [scheme, still]})
        self.leave()
        self.faults()
        self.driver.get(f"{url}/")

    def leave(self) -> None:
        """Go to an empty page."""
        self.driver.get("about:blank")

    def resize(self, size: tuple[int, int]) -> None:
        """Set the size of the screen, in CSS pixels; a narrow one is a phone's."""
        width, height = size
        metrics = {"width": width, "height": height, "deviceScaleFactor": 1, "mobile": width < 600}
        self.driver.execute_cdp_cmd("Emulation.setDeviceMetricsOverride", metrics)

    def find(self, selector: str) -> WebElement:
        """Return the first element of a CSS selector."""
        return self.driver.find_element(By.CSS_SELECTOR, selector)

    def said(self, selector: str) -> str:
        """Return the visible text of an element."""
        return self.find(selector).text

    def await_that(self, met: Callable[[], bool]) -> None:
        """Wait for a condition on the page. Fail with the page's text if it never holds."""
        wait_until(met, describe=lambda: f"; the page says:\n{self.said('body')}\n{self.faults()}")

    def ask(self, script: str) -> Any:
        """Return the value of a script in the page."""
        return self.driver.execute_script(script)

    def of_module(self, module: str, expression: str, *given: object) -> Any:
        """Return the value of an expression over `m`, a module of the page, and `g`, the given values."""
        script = (
            f"const [g, done] = arguments; import('/console/{module}.js')"
            f".then((m) => done({{value: {expression}}})).catch((error) => done({{error: String(error.stack)}}));"
        )
        told = self.driver.execute_async_script(script, given)
        assert "error" not in told, told["error"]
        return told["value"]

    def faults(self) -> list[str]:
        """Return the errors that the browser has logged since the last call: scripts, policy, failed loads."""
        entries = self.driver.get_log("browser")  # type: ignore[no-untyped-call]
        return [entry["message"] for entry in entries if entry["level"] == "SEVERE"]

    def overhang(self) -> int:
        """Return by how many pixels the page is wider than its window."""
        width: int = self.ask("return document.documentElement.scrollWidth - document.documentElement.clientWidth")
        return width

    def picture(self, path: str) -> None:
        """Save the whole page as a PNG, to look at."""
        width, height = self.ask("return [innerWidth, document.documentElement.scrollHeight]")
        self.resize((width, height))
        self.driver.save_screenshot(path)


@contextmanager
def browser() -> Iterator[Console]:
    """Open a browser; close it afterwards."""
    options = webdriver.ChromeOptions()
    options.binary_location = program("chromium")
    for switch in SWITCHES:
        options.add_argument(switch)
    options.set_capability("goog:loggingPrefs", {"browser": "ALL"})
    driver = webdriver.Chrome(options=options, service=webdriver.ChromeService(program("chromedriver")))
    driver.execute_cdp_cmd("Page.addScriptToEvaluateOnNewDocument", {"source": TIMERS})
    try:
        yield Console(driver)
    finally:
        driver.quit()


@contextmanager
def told_page(answers: dict[str, Behaviour]) -> Iterator[tuple[str, SmallGateway]]:
    """Serve the shipped pages, and these answers by path, to who takes JSON of a page too; any other path is a 404."""
    page = read_page()

    def behave(asked: Asked) -> Told:
        path = asked.path.partition("?")[0]
        if (file := page.get(path)) is not None and "json" not in asked.headers.get("accept", ""):
            return Told(200, {**file.headers(gzip=False), "Content-Type": file.media_type}, file.content)
        return answers[path](asked) if path in answers else Told(404, {}, b"{}")

    small = SmallGateway(behave)
    with small.elsewhere() as url:
        yield url, small


def document(content: object, status: int = 200) -> Told:
    """Return a JSON answer."""
    return Told(status, {"Content-Type": "application/json"}, json.dumps(content).encode())
