"""The commands behind `punctual load` and `punctual bench ceiling`: their options, what they show and write, and their
exit status.

Exit status: 0, or 1 where a run is not valid. Raises LoadTestError. Light to import, so that `punctual --help` stays
quick: the experiment is imported when it runs.
"""

from __future__ import annotations

import argparse
from collections.abc import Sequence
from pathlib import Path
from typing import TYPE_CHECKING

from rich.console import Console

from loadtests.arguments import positive

if TYPE_CHECKING:
    from loadtests.offering.capacity import Capacity
    from loadtests.offering.experiment import Experiment, Planned, Terms
    from loadtests.offering.figures import LiveResult
    from loadtests.offering.progress import Bars
    from loadtests.results.run import Recorded
    from loadtests.scenarios.model import Scenario


def load_arguments(parser: argparse.ArgumentParser) -> None:
    """The options of `punctual load`."""
    parser.add_argument("scenario", help="a shipped scenario's name, or a file")
    parser.add_argument("--url", default="http://127.0.0.1:8000", help="the gateway's (default: %(default)s)")
    parser.add_argument("--policy-label", help="what reports call it (default: gateway, or static:PIN)")
    pin = "a checkpoint for all requests of its task; may be given once a task"
    parser.add_argument("--pin", action="append", default=[], metavar="CHECKPOINT", help=pin)
    parser.add_argument("--mode", choices=("strict", "best-effort"), help="for every request (default: the scenario's)")
    statics = "beside the gateway's own choice, a run with each static one, in turns"
    parser.add_argument("--statics", action="store_true", help=statics)
    numbers = "(default: the scenario's)"
    parser.add_argument("--loads", nargs="+", type=positive, help=numbers)
    parser.add_argument("--cvs", nargs="+", type=positive, help=numbers)
    parser.add_argument("--seeds", nargs="+", type=int, help=numbers)
    parser.add_argument("--seconds", type=positive, help=f"of each run, beside the warm-up {numbers}")
    measure = "measure first what the quality tier serves here, and take loads relative to that"
    parser.add_argument("--measure-capacity", action="store_true", help=measure)
    parser.add_argument("--shadow", action="store_true", help="try strict refusals once more, best effort")
    share = "of the refused that are tried once more (default: %(default)s)"
    parser.add_argument("--shadow-share", type=_share, default=0.1, metavar="SHARE", help=share)
    parser.add_argument("--during", metavar="COMMAND", help="runs beside each run; taken apart without a shell")
    at = "the run's second at which it starts, warm-up included (default: %(default)s)"
    parser.add_argument("--at", type=_seconds, default=0.0, metavar="S", help=at)
    patience = "seconds that an answer is waited for after the longest budget (default: %(default)s)"
    parser.add_argument("--patience", type=positive, default=10.0, metavar="S", help=patience)
    parser.add_argument("--json", type=_file, help="write every run there; JSON Lines where it ends in .jsonl")
    parser.add_argument("--html", type=_file, help="write a page of plots and tables there")
    parser.add_argument("--samples", type=_file, help="write every counted request there, as JSON Lines")


def load(options: argparse.Namespace, console: Console) -> int:
    """Offers a scenario, open loop, to a gateway that runs."""
    from loadtests.offering.checkpoints import live_variants
    from loadtests.offering.experiment import Experiment, planned
    from loadtests.offering.handlings import own_handling, static_handlings
    from loadtests.offering.process import generating
    from loadtests.offering.progress import shown
    from loadtests.offering.stock import held_out

    scenario, terms = _scenario(options), _terms(options)
    variants = live_variants(terms.url)
    handlings = [own_handling(options.policy_label, options.pin, options.mode, scenario, variants)]
    if options.statics:
        known = {one.label for one in handlings}
        statics = static_handlings(scenario, variants, options.mode)
        handlings += [one for one in statics if one.label not in known]
    runs = planned(scenario, handlings)
    with generating() as generator, shown(len(runs), scenario.warmup_s + scenario.seconds, console) as bars:
        experiment = Experiment(scenario, variants, held_out(), terms, generator.fire)
        capacity = experiment.reckoned_capacity()
        if options.measure_capacity:
            bars.begin("capacity")
            capacity = experiment.measured_capacity(bars.step)
        done = _done(experiment, runs, capacity, bars, options)
    results = [result for result, _ in done]
    _show(results, capacity, handlings[0].label, console)
    if options.html:
        from loadtests.results.report import write_report

        write_report(scenario, results, options.html, [samples for _, samples in done], handlings[0].label)
    return 0 if all(result.valid for result in results) else 1


def ceiling_arguments(parser: argparse.ArgumentParser) -> None:
    """The options of `punctual bench ceiling`."""
    parser.add_argument("--seconds", type=positive, default=3.0, help="at each rate (default: %(default)s)")


def ceiling(options: argparse.Namespace, console: Console) -> int:
    """Finds how many requests a second `punctual load` can offer here and still keep its own times."""
    from loadtests.offering.ceiling import find_ceiling

    return 0 if find_ceiling(options.seconds, console) else 1


def _done(
    experiment: Experiment, runs: Sequence[Planned], capacity: Capacity, bars: Bars, options: argparse.Namespace
) -> list[tuple[LiveResult, Recorded]]:
    """Makes the runs. Files are written after each, so that an interrupted experiment has what it did.

    Of a run's requests only as many are kept as plots show.
    """
    from loadtests.offering.figures import sample_of
    from loadtests.offering.samples import add_samples
    from loadtests.results.files import write_json
    from loadtests.results.run import recorded

    if options.samples:
        options.samples.write_bytes(b"")
    done: list[tuple[LiveResult, Recorded]] = []
    for one in runs:
        bars.begin(str(one))
        ran = experiment.run(one, capacity, bars.age)
        done.append((ran.result, recorded(ran.result, [sample_of(landing) for landing in ran.landings])))
        if options.samples:
            add_samples(ran, options.samples)
        if options.json:
            write_json([result for result, _ in done], options.json)
        bars.end()
    return done


def _show(results: Sequence[LiveResult], capacity: Capacity, ours: str, console: Console) -> None:
    from loadtests.offering.live_tables import capacity_grid, endings_grid, honesty_grid, latency_grid
    from loadtests.results.roles import Roles
    from loadtests.results.tables import figure_grids, invalid_grid

    roles = Roles.of(results, ours)
    grids = [capacity_grid(capacity)] if capacity.measured else []
    grids += [*figure_grids(results, roles, "attainment"), *figure_grids(results, roles)]
    grids += [endings_grid(results), latency_grid(results), honesty_grid(results)]
    for grid in grids:
        console.print(grid.rich())
    how = "measured here" if capacity.measured else "by the latency profiles"
    console.print(f"load 1 is {capacity.per_s:.1f} requests/s, {how}")
    if invalid := invalid_grid(results):
        console.print("[red]NOT VALID[/]: the figures of these runs are not the gateway's")
        console.print(invalid.rich())


def _scenario(options: argparse.Namespace) -> Scenario:
    from loadtests.offering.overrides import overridden
    from loadtests.scenarios.reading import read_scenario

    given = {name: getattr(options, name) for name in ("loads", "cvs", "seeds", "seconds")}
    return overridden(read_scenario(options.scenario), given)


def _terms(options: argparse.Namespace) -> Terms:
    from loadtests.offering.experiment import Terms
    from loadtests.offering.neighbour import command_of

    return Terms(
        url=options.url.rstrip("/"),
        patience_s=options.patience,
        shadow_share=options.shadow_share if options.shadow else 0.0,
        beside=command_of(options.during) if options.during else None,
        at_s=options.at,
    )


def _share(text: str) -> float:
    value = positive(text)
    if value > 1:
        raise argparse.ArgumentTypeError("must be more than 0 and at most 1")
    return value


def _seconds(text: str) -> float:
    return 0.0 if text == "0" else positive(text)


def _file(text: str) -> Path:
    """A file that can be written, by its folder: that is said before an hour of runs, not after."""
    path = Path(text)
    if not path.parent.is_dir() or path.is_dir():
        raise argparse.ArgumentTypeError(f"{path} cannot be written there")
    return path
