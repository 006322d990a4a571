"""Ablations: each is at a place that exists, every number of the policy has one, and they are played and tabulated."""

from __future__ import annotations

import ast
import importlib
from collections.abc import Iterator
from pathlib import Path

import pytest
from rich.console import Console
from small_baselines import three
from small_scenarios import scenario

import punctual
from gateway.forecasting.calibration import ResidualWindow
from gateway.scheduling import batching, price
from loadtests.reports.losses import ENOUGH
from loadtests.reports.runs import read_json
from loadtests.simulator.ablation import ABLATIONS, FULL, NOT_ABLATED, Ablation, ablation_of, applied, place_of
from loadtests.simulator.ablation_command import (
    BadProgress,
    Play,
    UnknownPart,
    losses_of,
    play_all,
    play_one,
    plays_of,
)
from loadtests.simulator.simulation import OURS, Place, Simulation
from loadtests.workload.files import ScenarioError
from loadtests.workload.scenario import RequestClass

GATEWAY = Path(__file__).resolve().parents[4] / "gateway"
VARIANTS = three(max_batch=8)
SMALL = scenario(seconds=0.5, warmup_s=0.1, loads=(2.0,), cvs=(1.0, 2.0), requests=(RequestClass(budget_ms=(50, 150)),))
NAMES = [one.name for one in ABLATIONS]
TARGETS = [target for one in ABLATIONS for target in one.replaced]


def is_number(value: object) -> bool:
    """True for a number, or a tuple of numbers."""
    if isinstance(value, tuple):
        return bool(value) and all(map(is_number, value))
    return isinstance(value, int | float) and not isinstance(value, bool)


def numbers() -> Iterator[str]:
    """Every number that a module of the policy names, as the ablations spell its place."""
    for package in ("scheduling", "forecasting"):
        for path in sorted((GATEWAY / package).glob("*.py")):
            module = importlib.import_module(f"gateway.{package}.{path.stem}")
            for node in ast.parse(path.read_text(encoding="utf-8")).body:
                assigned = node.targets if isinstance(node, ast.Assign) else []
                names = [one.id for target in assigned for one in ast.walk(target) if isinstance(one, ast.Name)]
                yield from (f"{module.__name__}:{name}" for name in names if is_number(getattr(module, name)))


@pytest.mark.parametrize("target", [*TARGETS, *NOT_ABLATED])
def test_every_ablation_replaces_something_that_there_is(target: str) -> None:
    """The place of every ablation, and of every number that has none, exists: a renamed constant is noticed."""
    holder, attribute = place_of(target)
    assert hasattr(holder, attribute)


def test_every_number_of_the_policy_is_ablated_or_says_why_not() -> None:
    """Every number in the scheduler and the forecasts is named by one ablation, or excused with a reason, not both."""
    found = set(numbers())
    assert {"gateway.scheduling.price:CYCLE", "gateway.scheduling.task_queue:PRESSED_S"} <= found
    assert found - set(TARGETS) - set(NOT_ABLATED) == set()
    assert set(TARGETS) & set(NOT_ABLATED) == set()
    assert all(NOT_ABLATED.values()) and set(NOT_ABLATED) <= found


def test_a_number_is_replaced_wherever_it_is_read() -> None:
    """Where another module imports an ablated number by its name, the ablation replaces that copy, too."""
    read = {target: one for one in ABLATIONS for target in one.replaced if is_number(getattr(*place_of(target)))}
    left = []
    for path in GATEWAY.rglob("*.py"):
        module = ".".join(path.relative_to(GATEWAY.parent).with_suffix("").parts)
        nodes = ast.walk(ast.parse(path.read_text(encoding="utf-8")))
        for node in (node for node in nodes if isinstance(node, ast.ImportFrom)):
            for alias in node.names:
                ablation = read.get(f"{node.module}:{alias.name}")
                if ablation and f"{module}:{alias.name}" not in ablation.replaced:
                    left.append(f"{module}:{alias.name}")
    assert left == []


def test_names_are_different_and_sentences_are_sentences() -> None:
    """Each ablation has a name of its own and a sentence, and replaces a value by another."""
    assert len(set(NAMES)) == len(NAMES) and FULL not in NAMES
    for one in ABLATIONS:
        assert not one.about[0].islower() and one.about.endswith("."), one.name
        for target, value in one.replaced.items():
            assert getattr(*place_of(target)) != value, target


def test_a_place_that_there_is_not_is_an_error() -> None:
    """An ablation of a name that does not exist raises, before anything is replaced."""
    wrong = Ablation("wrong", "", {"gateway.scheduling.price:CYCLE": 0.5, "gateway.scheduling.price:NO_SUCH": 1})
    with pytest.raises(AttributeError, match="NO_SUCH"), applied(wrong):
        pass
    assert price.CYCLE != 0.5


@pytest.mark.parametrize("name", NAMES)
def test_what_is_switched_off_is_switched_on_again(name: str) -> None:
    """After an ablation every place has its own value again, even if the run failed."""
    ablation = ablation_of(name)
    assert ablation is not None
    places = {target: place_of(target) for target in ablation.replaced}
    before = {target: getattr(*place) for target, place in places.items()}
    with applied(ablation):
        assert {target: getattr(*place) for target, place in places.items()} == dict(ablation.replaced)
    with pytest.raises(ScenarioError, match="failed"), applied(ablation):
        raise ScenarioError("failed")
    assert {target: getattr(*place) for target, place in places.items()} == before


def test_what_was_computed_with_another_value_is_forgotten() -> None:
    """An ablation does not meet what a cache knows by the usual value, nor leaves what it knew itself."""
    usual = batching._length_bucket(2000)
    with applied(ablation_of("length buckets")):
        assert batching._length_bucket(2000) == batching._length_bucket(1) == 0
    assert batching._length_bucket(2000) == usual > 0


def test_a_default_is_replaced_with_its_constant() -> None:
    """An ablation also reaches a constant that is the default of an argument."""
    with applied(ablation_of("window")):
        assert ResidualWindow()._capacity == 1024
    assert ResidualWindow()._capacity == 128


def test_places_have_seeds_of_their_own() -> None:
    """No two places of a scenario share a seed, and each is played by the whole policy and without the part."""
    plays = plays_of([Simulation(SMALL, VARIANTS)], [FULL, "price"])
    assert len(plays) == len(set(plays)) == 2 * 3 * 2
    seeds = {cv: {one.place.seed for one in plays if one.place.cv == cv} for cv in SMALL.cvs}
    assert seeds[1.0] == {1, 2, 3} and len(seeds[2.0]) == 3 and not seeds[1.0] & seeds[2.0]


def test_without_a_part_the_same_requests_are_decided_otherwise() -> None:
    """A run without batches has the requests of the whole policy and serves fewer; afterwards all is as before."""
    simulation = Simulation(SMALL, VARIANTS)
    whole, without, again = (
        play_one(Play(simulation, name, Place(2.0, 1.0, 1))).result for name in (FULL, "batches", FULL)
    )
    assert (whole.policy, without.policy) == (FULL, "batches") and whole.offered == without.offered
    assert without.served < whole.served and again == whole


@pytest.mark.parametrize("name", NAMES)
def test_every_ablation_is_played_to_the_end(name: str) -> None:
    """Without any one part the policy still ends every request: no ablation breaks it."""
    result = play_one(Play(Simulation(SMALL, VARIANTS), name, Place(2.0, 2.0, 1))).result
    assert result.offered == result.served + result.late + result.refused + result.failed > 50


def test_a_loss_is_in_percent_of_the_best_quality() -> None:
    """The loss without a part is the mean difference in percent of the task's best quality."""
    simulation = Simulation(SMALL, VARIANTS)
    runs = [play_one(play).result for play in plays_of([simulation], [FULL, "batches"])]
    (loss,) = losses_of([simulation], runs, ["batches"])
    whole, without = (
        sum(run.effective_quality for run in runs if run.policy == name) / 6 for name in (FULL, "batches")
    )
    assert loss.overall.value == pytest.approx((whole - without) / max(one.quality for one in VARIANTS) * 100)
    assert loss.overall.value > ENOUGH and loss.earns and loss.changed == loss.runs == 6


def test_the_command_plays_tabulates_and_writes(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    """`punctual simulate ablation` names what earns nothing, in the terminal, in Markdown and on a page."""
    files = {kind: tmp_path / f"losses.{kind}" for kind in ("md", "html", "json")}
    played = ["--scenario", "made-up/tight", "--only", "batches", "--only", "look ahead", "--longer", "0.2"]
    written = ["--markdown", str(files["md"]), "--html", str(files["html"]), "--json", str(files["json"])]
    assert punctual.main(["simulate", "ablation", *played, "--jobs", "1", *written]) == 0
    said = " ".join(capsys.readouterr().out.split())
    assert "kept for another reason: look ahead (it bounds the time that a decision takes)" in said
    text = files["md"].read_text()
    assert "punctual simulate ablation --scenario made-up/tight --only batches --only 'look ahead' --longer 0.2" in text
    assert "| look ahead | All queued requests are considered. |" in text
    assert "| part | tight |" in text and "earns" in text
    assert "| gateway.scheduling.price:_SIZES | the batch sizes that are tried |" in text
    page = files["html"].read_text()
    assert "batches" in page and "<svg" in page
    runs = read_json(files["json"])
    assert {run.policy for run in runs} == {FULL, "batches", "look ahead"} and OURS not in {run.policy for run in runs}
    assert len(runs) == 3 * 4 * 3


def test_an_interrupted_ablation_goes_on_where_it_was(tmp_path: Path) -> None:
    """Runs in the file are not played again, an unfinished line is dropped, and the results are those of one go."""
    plays, file = plays_of([Simulation(SMALL, VARIANTS)], [FULL, "price"]), tmp_path / "runs.jsonl"
    console = Console(quiet=True)
    whole = sorted(play_all(plays, 1, None, console), key=lambda one: one.key)
    play_all(plays[:5], 1, file, console)
    file.write_bytes(file.read_bytes() + b'{"result": {"poli')
    first = file.read_bytes()[:1000]
    resumed = sorted(play_all(plays, 1, file, console), key=lambda one: one.key)
    assert [one.result for one in resumed] == [one.result for one in whole]
    assert file.read_bytes()[:1000] == first and len(file.read_bytes().splitlines()) == len(plays)
    file.write_text("name,value\n")
    with pytest.raises(BadProgress, match="not the runs of an ablation"):
        play_all(plays, 1, file, console)


def test_an_unknown_part_is_named_with_those_like_it(capsys: pytest.CaptureFixture[str]) -> None:
    """A part that the policy has not is refused before anything is played."""
    assert punctual.main(["simulate", "ablation", "--only", "calibrating"]) == 1
    assert "calibrating: no such part; known: calibration" in capsys.readouterr().err
    assert issubclass(UnknownPart, Exception)


def test_the_help_is_that_of_the_ablation(capsys: pytest.CaptureFixture[str]) -> None:
    """The ablation has options of its own, and an option of a scenario is refused."""
    assert punctual.main(["simulate", "ablation", "--help"]) == 0
    out = capsys.readouterr().out
    assert out.startswith("Usage: punctual simulate ablation") and "--only" in out and "--shadow" not in out
    assert punctual.main(["simulate", "ablation", "--shadow"]) == 2
