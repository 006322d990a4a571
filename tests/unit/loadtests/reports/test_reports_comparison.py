"""Seeds: means and confidence intervals by the textbook, and differences taken within a seed."""

from __future__ import annotations

import msgspec
import pytest
from sketched_runs import run

from loadtests.reports.comparison import Place, Spread, cells, differences, ratios, student_t
from loadtests.reports.runs import RunResult

HERE = Place(cv=1.0, load=1.0)


def told(policy: str, seed: int, quality: float, valid: bool = True, load: float = 1.0) -> RunResult:
    """A run with this effective quality."""
    return msgspec.structs.replace(run(policy, load, 1.0, seed, 20, valid).result, effective_quality=quality)


@pytest.mark.parametrize(
    ("freedom", "quantile"), [(1, 12.7062), (2, 4.3027), (3, 3.1824), (4, 2.7764), (9, 2.2622), (30, 2.0423)]
)
def test_student_s_t_is_the_table_s(freedom: int, quantile: float) -> None:
    """Student's t is that of tables of the 97.5 % quantile."""
    assert student_t(freedom) == pytest.approx(quantile, abs=1e-4)


def test_an_interval_needs_three_seeds() -> None:
    """A confidence interval needs at least three seeds."""
    assert Spread.of([3.0]) == Spread(3.0, None, 1)
    assert Spread.of([3.0, 5.0]) == Spread(4.0, None, 2)
    found = Spread.of([1.0, 2.0, 3.0])
    assert found.mean == 2.0
    assert found.margin == pytest.approx(4.3027 / 3**0.5, abs=1e-3)
    assert not found.sure and Spread.of([1.0, 1.1, 1.2]).sure


def test_a_difference_is_taken_within_a_seed() -> None:
    """A difference is taken within a seed, so that hard seeds do not blur it; incomplete seeds are left out."""
    runs = [told("punctual", seed, 10.0 * seed + 1) for seed in (1, 2, 3, 4)]
    runs += [told("other", seed, 10.0 * seed) for seed in (3, 2, 1)]
    gap = differences(runs, "punctual", "other", "effective_quality")[HERE]
    assert (gap.mean, gap.n) == (1.0, 3)
    assert gap.margin == pytest.approx(0.0, abs=1e-9)
    assert differences(runs, "other", "punctual", "effective_quality")[HERE].mean == -1.0


def test_a_ratio_is_of_seeds_at_which_there_is_something_to_divide_by() -> None:
    """A ratio leaves out seeds at which the bound is zero."""
    runs = [told("punctual", 1, 5.0), told("punctual", 2, 3.0), told("bound", 1, 10.0), told("bound", 2, 0.0)]
    assert ratios(runs, "punctual", "bound", "effective_quality") == {HERE: Spread(0.5, None, 1)}


def test_invalid_runs_are_left_out_unless_there_is_none_else() -> None:
    """A mean is taken over valid runs and counts invalid ones; a cell without valid runs is marked invalid."""
    runs = [told("punctual", 1, 10.0), told("punctual", 2, 90.0, valid=False), told("other", 1, 7.0, valid=False)]
    ours, other = cells(runs)
    assert (ours.effective_quality.mean, ours.valid, ours.invalid) == (10.0, True, 1)
    assert (other.effective_quality.mean, other.valid, other.invalid) == (7.0, False, 1)
    assert differences(runs, "punctual", "other", "effective_quality") == {}


def test_cells_keep_the_order_of_policies_and_sort_places() -> None:
    """Cells keep the order of policies and sort their loads."""
    runs = [told("z", 1, 1.0, load=2.0), told("a", 1, 1.0, load=1.0), told("z", 1, 1.0, load=1.0)]
    assert [(cell.policy, cell.place.load) for cell in cells(runs)] == [("z", 1.0), ("z", 2.0), ("a", 1.0)]
