"""The report: a page without external resources that shows every panel that its runs allow."""

from __future__ import annotations

import re
import subprocess
import sys
import xml.etree.ElementTree as ET
from itertools import pairwise
from pathlib import Path

import msgspec
import pytest
from hypothesis import given
from hypothesis import strategies as st
from matplotlib.axes import Axes
from sketched_runs import CATALOG, all_runs, results, run, scenario

from gateway.model.tier import Tier
from loadtests.reports.comparison import Place, Roles
from loadtests.reports.drawing import Colour, apart, panel
from loadtests.reports.page import DARK
from loadtests.reports.plots import (
    LONGEST_NAME,
    budget_plot,
    chance_band,
    coverage_plot,
    drawn_name,
    load_plot,
    tier_plot,
    window_plot,
)
from loadtests.reports.report import busiest, drawn, policies_of_interest, verdict, write_report
from loadtests.reports.runs import Recorded, RunResult

POLICIES = ("oracle", "punctual", "slack-greedy", "static-large")
SCENARIO = scenario(loads=(0.5, 1.0, 2.0), cvs=(1.0, 2.0))


@pytest.fixture(scope="module")
def runs() -> list[Recorded]:
    """Runs of four policies at six combinations of load and CV, one of them invalid."""
    return [*all_runs(SCENARIO, POLICIES, count=320), run("static-large", 2.0, 2.0, 9, 40, valid=False)]


def svgs(page: str) -> list[ET.Element]:
    """Every SVG of a page, parsed."""
    return [ET.fromstring(found) for found in re.findall(r"<svg.*?</svg>", page, re.DOTALL)]


def test_a_page_stands_alone_and_is_the_same_every_time(runs: list[Recorded], tmp_path: Path) -> None:
    """A page fetches nothing, has no script, and depends on its runs alone."""
    write_report(SCENARIO, results(runs), tmp_path / "report.html", runs)
    page = (tmp_path / "report.html").read_text(encoding="utf-8")
    assert page == drawn(SCENARIO, results(runs), runs)
    assert not re.search(r"https?:|<script|<link(?! rel=\"icon\" href=\"data:,\")|@import|src=|url\((?!#)", page)
    assert len(page) < 1_000_000


def test_a_page_has_every_figure_and_says_each_in_words(runs: list[Recorded]) -> None:
    """A page has every figure, and every panel is described in words for readers who cannot see it."""
    page = drawn(SCENARIO, results(runs), runs)
    named = ["effective_quality", "attainment", "goodput_per_s", "tiers", "budgets", "coverage", "windows"]
    assert re.findall(r'<figure id="(\w+)"', page) == named
    panels = svgs(page)
    assert len(panels) == 2 + 2 + 2 + 6 + 3 + 2 + 2
    assert all(one.get("role") == "img" and len(one.get("aria-label", "")) > 20 for one in panels)
    assert "Short budgets beside long ones &lt;made up&gt;" in page
    assert "75 % classify, 20 to 60 ms" in page
    assert "the generator sent late: p99 12.1 ms" in page


def test_what_is_referred_to_within_a_page_is_there_and_means_one_thing(runs: list[Recorded]) -> None:
    """References within a page resolve, and one id always stands for one shape."""
    page = drawn(SCENARIO, results(runs), runs)
    held: dict[str, set[str]] = {}
    for name, body in re.findall(r'<(?:clipPath|path) id="(\w+)"(.*?)(?:</clipPath>|/>\n)', page, re.DOTALL):
        held.setdefault(name, set()).add(re.sub(r"\s", "", body))
    assert set(re.findall(r'(?:href="|url\()#(\w+)', page)) <= set(held)
    assert all(len(bodies) == 1 for bodies in held.values())


def test_drawings_have_the_page_s_colours() -> None:
    """A plot uses only the page's colours, which are defined for light and for dark."""

    def draw(axes: Axes) -> None:
        for one in Colour:
            axes.plot([0, 1], color=one.value)

    drawing = panel("heading", "said", draw)
    assert not re.search(r"#[0-9a-f]{6}", drawing.svg.replace("#000000", ""))
    assert "var(--ours)" in drawing.svg
    assert len({one.value for one in Colour}) == len(Colour)
    assert set(DARK) == set(Colour)


@pytest.mark.parametrize("seeds", [1, 3])
def test_one_load_is_enough_for_a_page(seeds: int) -> None:
    """A scenario with one load shows a dot for each policy, and intervals only with several seeds."""
    of = [run(policy, 1.2, 1.0, seed) for policy in POLICIES for seed in range(seeds)]
    page = drawn(SCENARIO, results(of), of)
    assert "CV 1, load 1.2" in page
    assert ("95 % intervals" in page) == (seeds == 3)


def test_a_page_needs_neither_samples_nor_forecasts_nor_ours() -> None:
    """A page leaves out what is unknown: samples, forecasts, or our own policy."""
    page = drawn(SCENARIO, [run("static-large", load).result for load in (0.5, 1.0)])
    assert 'id="budgets"' not in page and 'class="verdict"' not in page
    assert re.findall(r"<h3>(static-large.*?)</h3>", page) == ["static-large, CV 1"]
    assert 'class="verdict"' in drawn(SCENARIO, [run(policy).result for policy in POLICIES])


@pytest.mark.parametrize("name", ["sketched", "another"])
def test_a_report_is_of_one_scenario_s_runs(name: str) -> None:
    """A report refuses an empty list of runs, and runs of another scenario."""
    of = [] if name == "sketched" else [run().result]
    with pytest.raises(ValueError, match="one scenario"):
        drawn(SCENARIO.model_copy(update={"name": name}), of)


def test_more_than_twelve_policies_are_not_drawn_but_told() -> None:
    """A plot draws at most twelve policies, always including ours, and says how many are left out."""
    of = [run(f"policy-{at}", load).result for at in range(14) for load in (0.5, 1.0)]
    of += [run("punctual", load).result for load in (0.5, 1.0)]
    plot = load_plot(of, Roles.of(of), "attainment")
    assert plot.caption == "Not drawn: the 3 lowest policies; see the tables."
    assert len(set(re.findall(r">(policy-\d+|punctual)<", plot.panels[0].svg))) == 12
    assert ">punctual<" in plot.panels[0].svg


def test_tiers_are_named_only_where_they_answered() -> None:
    """A legend names only tiers that answered."""
    plot = tier_plot([run("punctual").result], ["punctual"])
    labels = {chip.label for chip in plot.legend}
    used = {f"in time, {one.tier}" for one in CATALOG if run("punctual").result.by_tier.get(one.tier)}
    assert {label for label in labels if label.startswith("in time")} == used
    assert f"by {Tier.QUALITY}" in plot.panels[0].said


def test_the_verdict_counts_only_what_is_sure() -> None:
    """The verdict counts only significant differences: against its own copy, our policy is ahead nowhere."""
    same = [
        run(policy, load, seed=seed).result for policy in ("punctual", "a") for load in (1, 2) for seed in (1, 2, 3)
    ]
    assert "ahead of the best baseline at 2 of 2" in verdict(same, Roles.of(same))
    twin = [one for one in same if one.policy == "punctual"]
    both = twin + [renamed(one) for one in twin]
    assert "at 0 of 2 places (a load and a CV) and behind at 0" in verdict(both, Roles.of(both))
    assert verdict(twin, Roles.of(twin)) == ""


def renamed(one: RunResult) -> RunResult:
    """This run under a baseline's name."""
    return msgspec.structs.replace(one, policy="twin")


def test_policies_of_interest_are_ours_the_best_baseline_and_the_bound(runs: list[Recorded]) -> None:
    """The policies of interest are ours, the best baseline and the oracle, at the load nearest to capacity."""
    of = results(runs)
    assert policies_of_interest(of, Roles.of(of)) == ("punctual", "slack-greedy", "oracle")
    assert busiest(of) == Place(2.0, 1.0)


def test_plots_of_nothing_are_none() -> None:
    """Without forecasts there is no calibration plot, and without samples no scatter plot."""
    bare = run(count=20).result
    assert window_plot([bare], "punctual", 1.0) is None
    assert window_plot([run(count=400).result], "punctual", 1.0) is not None
    assert budget_plot([]) is None and budget_plot([Recorded(bare, ())]) is None
    assert coverage_plot([msgspec.structs.replace(bare, coverage=None)], Roles.of([bare])) is None


def test_chance_keeps_a_window_within_two_and_a_half_points() -> None:
    """By chance a window of 300 answers at nominal 95 % stays within 2.5 points (normal approximation)."""
    assert chance_band(0.95) == pytest.approx((0.9253, 0.9747), abs=1e-4)
    assert chance_band(0.999)[1] == 1.0


@given(st.lists(st.floats(0, 100), max_size=12), st.floats(0.1, 30))
def test_names_do_not_overlap_and_keep_their_order(wanted: list[float], gap: float) -> None:
    """Labels keep their order, stay within the axes, and are the gap apart, or evenly spaced if that does not fit."""
    placed = apart(wanted, gap, 0.0, 100.0)
    assert all(-1e-9 <= place <= 100 + 1e-9 for place in placed)
    order = sorted(range(len(wanted)), key=wanted.__getitem__)
    least = min(gap, 100.0 / (len(wanted) - 1)) if len(wanted) > 1 else 0.0
    assert all(placed[b] - placed[a] >= least - 1e-6 for a, b in pairwise(order))
    if all(wanted[b] - wanted[a] >= gap for a, b in pairwise(order)):
        assert placed == pytest.approx(wanted) or gap * (len(wanted) - 1) > 100


def test_results_need_no_matplotlib_until_a_report_is_drawn() -> None:
    """Counting, tabulating and writing results does not import matplotlib."""
    code = "import sys, loadtests.reports.tables, loadtests.reports.runs, loadtests.reports.runs as c\n"
    code += "sys.exit('matplotlib' in sys.modules)"
    assert subprocess.run([sys.executable, "-c", code], check=False, timeout=60).returncode == 0


def test_names_in_plots_are_short_and_still_differ() -> None:
    """Names in plots are short enough to fit and still differ; a short name stays as it is."""
    names = [
        f"static:{a}+{b}"
        for a in ("distilbert-sentiment", "minilm-sentiment")
        for b in ("extract-realtime", "extract-quality")
    ]
    drawn = [drawn_name(name) for name in (*names, "oracle-feasible")]
    assert len(set(drawn)) == 5 and drawn[-1] == "oracle-feasible"
    assert all(len(name) <= LONGEST_NAME for name in drawn)
