"""Tables: which figures are bold or marked, and that every format shows equal figures."""

from __future__ import annotations

import io

import msgspec
import pytest
from rich.console import Console
from sketched_runs import run

from loadtests.reports.comparison import Place, Roles, signed
from loadtests.reports.runs import RunResult
from loadtests.reports.tables import (
    Entry,
    Grid,
    Row,
    bound_grids,
    class_grid,
    figure_grids,
    invalid_grid,
    margin_grid,
    overall_grid,
)

QUALITIES = {"static": 60.0, "punctual": 80.0, "rival": 75.0, "oracle": 100.0}


def told(policy: str, seed: int, load: float = 1.0, plus: float = 0.0, valid: bool = True) -> RunResult:
    """A run whose effective quality is that of its policy plus its seed."""
    one = run(policy, load, 1.0, seed, 40, valid).result
    return msgspec.structs.replace(one, effective_quality=QUALITIES[policy] + seed + plus, attainment=0.5)


RUNS = [told(policy, seed) for policy in QUALITIES for seed in (1, 2, 3)]
ROLES = Roles.of(RUNS)


def bold(grid: Grid) -> list[tuple[str, str]]:
    """The bold entries, each with its row's label."""
    return [(row.label.text, entry.text) for row in grid.rows for entry in row.entries if entry.bold]


def shown(grid: Grid) -> str:
    """The table as a wide terminal shows it."""
    out = io.StringIO()
    Console(file=out, width=200).print(grid.rich())
    return out.getvalue()


def test_bounds_stand_first_and_do_not_compete() -> None:
    """Bounds stand first and are never bold; ours follows, then the baselines from the best down."""
    (grid,) = figure_grids(RUNS, ROLES)
    assert [row.label.text for row in grid.rows] == ["oracle", "punctual", "rival", "static"]
    assert bold(grid) == [("punctual", "82.00 ± 2.48")]


def test_ours_is_set_against_the_best_baseline_of_each_place() -> None:
    """Ours is compared with the best baseline at each load, with the difference taken within seeds."""
    runs = RUNS + [told(policy, seed, 2.0, 30.0 * (policy == "static")) for policy in QUALITIES for seed in (1, 2, 3)]
    grid = margin_grid(runs, ROLES)
    assert [[entry.text for entry in row.entries[1:]] for row in grid.rows] == [
        ["rival", "77.00 ± 2.48", "+5.00 ± 0.00", "+6.5 %"],
        ["static", "92.00 ± 2.48", "−10.00 ± 0.00", "−10.9 %"],
    ]


def test_the_share_of_a_bound_is_a_mean_of_ratios() -> None:
    """The share of a bound is a mean of ratios, with one table for each bound that ran."""
    (grid,) = bound_grids(RUNS, ROLES)
    assert grid.rows[0].label.text == "punctual" and bold(grid)[0][0] == "punctual"
    assert grid.rows[0].entries[0].text.startswith(f"{100 * sum((80 + s) / (100 + s) for s in (1, 2, 3)) / 3:.1f}")
    without = [one for one in RUNS if one.policy != "oracle"]
    assert bound_grids(without, Roles.of(without)) == ()


def test_policies_are_averaged_over_what_all_of_them_bore() -> None:
    """Overall means use only the loads at which every policy has a valid run."""
    runs = [told("punctual", 1), told("rival", 1), told("punctual", 1, 2.0, -50.0), told("rival", 1, 2.0, valid=False)]
    grid = overall_grid(runs, Roles.of(runs))
    assert [row.entries[0].text for row in grid.rows] == ["81.00", "76.00"]
    assert "1 place " in grid.title
    assert overall_grid([told("punctual", 1), told("rival", 2)], Roles.of(runs)).rows == ()


def test_invalid_runs_are_marked_and_listed() -> None:
    """Invalid runs are marked in the tables and listed with their reasons."""
    runs = [*RUNS, told("rival", 4, valid=False)]
    (grid,) = figure_grids(runs, ROLES)
    assert [row.label.text for row in grid.rows if "†" in row.entries[0].text] == ["rival"]
    assert "†" in grid.note and "†" not in figure_grids(RUNS, ROLES)[0].note
    listed = invalid_grid(runs)
    assert listed is not None and [entry.text for entry in listed.rows[0].entries[2:]] == [
        "4",
        "the generator sent late: p99 12.1 ms",
    ]
    assert invalid_grid(RUNS) is None


def test_classes_are_shares_of_what_they_offered() -> None:
    """Each class has a row over all seeds at a load; a load without runs gives no rows."""
    grid = class_grid(RUNS, "punctual", Place(1.0, 1.0))
    assert sum(int(row.entries[0].text) for row in grid.rows) == 3 * 40
    assert [row.entries[-1].text for row in grid.rows] == ["95 %", "99 %"]
    assert class_grid(RUNS, "punctual", Place(1.0, 9.0)).rows == ()


@pytest.mark.parametrize(
    ("value", "said"), [(1.234, "+1.23"), (-0.126, "−0.13"), (0.001, "0.00"), (-0.001, "0.00"), (10.0, "+10.00")]
)
def test_a_difference_has_a_sign_unless_it_shows_as_nothing(value: float, said: str) -> None:
    """A difference has a plus or a true minus sign, and none if it rounds to zero."""
    assert signed(value, 2) == said


def test_every_way_of_showing_a_grid_says_the_same() -> None:
    """Terminal, Markdown and HTML show equal text, and nothing in a name is taken for markup."""
    grid = Grid("a title", ("policy", "load 1"), (Row(Entry("a|b<c>[d]"), (Entry("1.5", bold=True),)),), "a note")
    assert grid.markdown() == "**a title**\n\n| policy | load 1 |\n|---|---:|\n| a\\|b<c>[d] | **1.5** |\n\na note\n"
    assert "a|b<c>[d]" in shown(grid) and "1.5" in shown(grid) and "a note" in shown(grid)
    assert "a|b&lt;c&gt;[d]" in grid.html() and "<strong>1.5</strong>" in grid.html()
