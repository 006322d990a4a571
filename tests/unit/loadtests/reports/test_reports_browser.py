"""The report in a real browser: all panels show, nothing is fetched, and labels do not overlap."""

from __future__ import annotations

import html
import json
import re
import subprocess
from pathlib import Path

import pytest
from programs import program
from sketched_runs import all_runs, results, scenario

from loadtests.reports.report import drawn

MEASURE = """<pre id="measured"></pre><script>
const box = (one) => { const b = one.getBoundingClientRect(); return [b.left, b.top, b.right, b.bottom]; };
const panels = [...document.querySelectorAll("svg")].map((svg) => ({
  box: box(svg), texts: [...svg.querySelectorAll("text")].map((one) => ({said: one.textContent, box: box(one)})),
}));
document.getElementById("measured").textContent = JSON.stringify({
  panels, fetched: performance.getEntriesByType("resource").length, room: document.documentElement.clientWidth,
  width: document.documentElement.scrollWidth, figures: [...document.querySelectorAll("figure")].map((one) => one.id),
});
</script>"""

pytestmark = pytest.mark.browser


@pytest.mark.parametrize("width", [500, 1280])
def test_every_label_is_legible_and_nothing_is_fetched(width: int, tmp_path: Path) -> None:
    """On a narrow and a wide screen every panel fits, nothing is fetched, and no text hides another."""
    of = scenario(loads=(0.5, 1.0, 1.5, 2.0), cvs=(0.5, 2.0))
    runs = all_runs(of, count=320)
    path = tmp_path / "report.html"
    path.write_text(drawn(of, results(runs), runs).replace("</body>", MEASURE + "</body>"), encoding="utf-8")
    dumped = subprocess.run(
        [program("chromium"), "--headless=new", "--no-sandbox", "--disable-gpu", "--disable-dev-shm-usage",
         f"--user-data-dir={tmp_path / 'profile'}", f"--window-size={width},2000", "--dump-dom", path.as_uri()],
        check=True, capture_output=True, text=True, timeout=240,
    )  # fmt: skip
    found = re.search(r'<pre id="measured">(.*?)</pre>', dumped.stdout, re.DOTALL)
    assert found is not None
    measured = json.loads(html.unescape(found[1]))
    assert measured["fetched"] == 0
    assert measured["width"] <= measured["room"], "the page does not scroll sideways"
    assert set(measured["figures"]) >= {"effective_quality", "attainment", "goodput_per_s", "tiers", "budgets"}
    for panel in measured["panels"]:
        left, top, right, bottom = panel["box"]
        assert right - left > 300 and bottom - top > 150
        assert all(one["box"][0] >= 0 and one["box"][2] <= measured["room"] for one in panel["texts"])
        assert not overlapping(panel["texts"])


def overlapping(texts: list[dict[str, object]]) -> list[tuple[object, object]]:
    """Pairs of texts whose boxes overlap by more than the space above and below their letters."""
    pairs = []
    for at, one in enumerate(texts):
        for other in texts[at + 1 :]:
            a, b = _box(one), _box(other)
            across = min(a[2], b[2]) - max(a[0], b[0])
            down = min(a[3], b[3]) - max(a[1], b[1])
            if across > 1 and down > 0.35 * min(a[3] - a[1], b[3] - b[1]):
                pairs.append((one["said"], other["said"]))
    return pairs


def _box(text: dict[str, object]) -> list[float]:
    box = text["box"]
    assert isinstance(box, list)
    return box
