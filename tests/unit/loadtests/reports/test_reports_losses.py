"""Losses: means with intervals over independent places and scenarios, and the verdict on a part."""

from __future__ import annotations

from collections.abc import Mapping, Sequence

import pytest
from sketched_runs import run

from loadtests.reports.comparison import Spread
from loadtests.reports.losses import Loss, Mean, loss_grid, loss_of, loss_sentences, ranked, scenario_grid


def loss(name: str, by: Mapping[str, Sequence[float]], kept: str = "", changed: int = 1) -> Loss:
    """A part with these differences by scenario."""
    return Loss(name, f"Without {name}.", kept, {where: Mean.of(of) for where, of in by.items()}, changed, 9)


STRONG = loss("strong", {"a": (3.0, 3.1, 3.2), "b": (0.0, 0.0, 0.0)})
WEAK = loss("weak", {"a": (0.1, 0.2, 0.3), "b": (0.0, 0.1, -0.1)})
NOISY = loss("noisy", {"a": (6.0, -3.0, 4.0), "b": (0.0, 0.0, 0.0)})
COSTLY = loss("costly", {"a": (-2.0, -2.1, -2.2), "b": (0.0, 0.0, 0.0)})
IDLE = loss("idle", {"a": (0.0, 0.0, 0.0), "b": (0.0, 0.0, 0.0)}, changed=0)
KEPT = loss("kept", {"a": (0.0, 0.1, 0.0), "b": (0.0, 0.0, 0.0)}, kept="it is promised")
ALL = (IDLE, WEAK, STRONG, NOISY, COSTLY, KEPT)


def test_one_place_has_the_interval_that_a_comparison_gives_it() -> None:
    """The interval over the seeds of one place is that of `Spread`."""
    values = (1.0, 2.0, 4.0)
    assert Mean.of(values).margin() == pytest.approx(Spread.of(values).margin)
    assert Mean.of(values).value == Spread.of(values).mean


def test_the_mean_over_places_is_surer_than_each() -> None:
    """Independent places add their variances and degrees of freedom; each counts alike."""
    places = [Mean.of((1.0, 2.0, 3.0)), Mean.of((5.0, 6.0, 7.0))]
    both = Mean.over(places)
    assert both.value == 4.0 and both.freedom == 4.0
    assert both.variance == pytest.approx(places[0].variance / 2)
    assert (both.margin() or 0) < (places[0].margin() or 0) / 2**0.5


def test_few_seeds_have_no_interval_and_no_verdict() -> None:
    """With fewer than three seeds at any place there is no interval, and nothing is judged."""
    two = loss("two", {"a": (1.0, 2.0), "b": (1.0, 2.0, 3.0)})
    assert Mean.of((1.0, 2.0)).margin() is None and two.overall.margin() is None
    assert two.verdict == "too few seeds" and not two.earns
    assert loss_sentences([two]) == ("Fewer than 3 seeds give no interval, so nothing was judged.",)


def test_the_more_scenarios_are_looked_at_the_surer_one_must_be() -> None:
    """An interval that must hold among many is wider."""
    mean = Mean.of((0.6, 0.8, 1.0))
    assert (mean.margin(11) or 0) > (mean.margin() or 0) > 0
    alone = loss("alone", {"a": (0.6, 0.7, 0.8)})
    among = loss("among", {"a": (0.6, 0.7, 0.8), **{f"b{at}": (0.0, 0.0, 0.0) for at in range(99)}})
    assert alone.earns and not among.earns


@pytest.mark.parametrize(
    ("one", "verdict"),
    [
        (STRONG, "earns 3.1 in a"),
        (WEAK, "less than 0.5 anywhere"),
        (NOISY, "nothing beyond chance; perhaps 2.3 in a"),
        (COSTLY, "less than 0.5 anywhere; costs 2.1 in a"),
        (IDLE, "never acts"),
        (KEPT, "less than 0.5 anywhere; kept: it is promised"),
        (loss("twice", {"a": (3.0, 3.1, 3.2), "s/b": (4.0, 4.0, 4.0)}), "earns 4.0 in b and 1 more"),
    ],
    ids=lambda value: value.name if isinstance(value, Loss) else "",
)
def test_the_verdict_says_what_is_beyond_chance(one: Loss, verdict: str) -> None:
    """A part earns what it is sure to earn in some scenario; one that never acts, or costs, is said to."""
    assert one.verdict == verdict


def test_what_earns_nothing_is_named() -> None:
    """The sentences name every part that earns too little, apart those kept for a reason, and those that cost."""
    first, unsure, kept, costly = loss_sentences(ALL)
    assert first == "Earn less than 0.5 points anywhere beyond chance: noisy, weak, idle, costly."
    assert unsure.endswith("may show more of: noisy.")
    assert kept == "Earn as little, but are kept for another reason: kept (it is promised)."
    assert costly == "0.5 points or more are gained somewhere without: costly."
    assert loss_sentences([STRONG]) == ("Everything earns 0.5 points or more somewhere.",)


def test_the_tables_have_a_row_for_each_part_the_largest_loss_first() -> None:
    """Each part has a row, sorted by its loss; what never acts has no figures, and a narrow table has no sentences."""
    wide, narrow, by_scenario = loss_grid(ALL), loss_grid(ALL, about=False), scenario_grid(ALL)
    order = [one.name for one in ranked(ALL)]
    assert order[0] == "strong" and order[-1] == "costly"
    for grid in (wide, narrow, by_scenario):
        assert [row.label.text for row in grid.rows] == order
        assert all(len(row.entries) + 1 == len(grid.header) for row in grid.rows)
    assert "Without strong." in wide.markdown() and "Without strong." not in narrow.markdown()
    assert "| strong | **+3.10 ± 0.25** |" in by_scenario.markdown() and "| idle | - | - |" in by_scenario.markdown()


def test_a_loss_is_paired_by_scenario_place_and_seed() -> None:
    """Only runs of the same requests are compared, in percent of the best quality; equal runs count as unchanged."""
    whole = [run(seed=seed).result for seed in (1, 2, 3)]
    without = [run("static-small", seed=seed).result for seed in (2, 3, 4)] + [whole[0]]
    found = loss_of("part", "", "", whole, without, {"sketched": 90.0})
    gaps = [0.0, *((whole[at].effective_quality - without[at - 1].effective_quality) / 0.9 for at in (1, 2))]
    assert found.overall.value == pytest.approx(sum(gaps) / 3)
    assert (found.changed, found.runs) == (2, 3)
    with pytest.raises(ValueError, match="no run in common"):
        loss_of("part", "", "", whole, without[2:3], {"sketched": 90.0})
