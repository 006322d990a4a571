"""The command `punctual`: serves, makes and measures variants, explains, advises, simulates and benchmarks.

Each command imports its modules when it runs, so that `punctual --help` answers at once and `punctual serve` imports
no load test.
"""

from __future__ import annotations

import json
import logging
import os
import signal
import sys
import time
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from dataclasses import replace
from importlib.metadata import version
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Literal

import typer
from rich.console import Console
from rich.markup import escape
from rich.table import Table

from exporters.options import DEFAULT_CACHE, DEFAULT_CATALOG, CacheOption, CatalogOption, FloorOption, lazy_group

if TYPE_CHECKING:
    from gateway.model.messages import Parameters
    from gateway.scheduling.policy import Decision

COLLECTOR = "http://127.0.0.1:4318"
LAZY_COMMANDS = {
    "prepare": ("exporters.cli:prepare", "Makes the variants of a catalog that the cache lacks."),
    "export": ("exporters.cli:export", "Makes one verified, profiled variant of a checkpoint."),
    "profile": (
        "exporters.cli:profile",
        "Measures the latency profiles of a catalog's variants again on this host.",
    ),
    "advise": ("exporters.advising:command", "Advises which checkpoint to serve or fine-tune for a situation."),
    "simulate": (
        "loadtests.simulator.command:app",
        "Simulates a scenario on a virtual clock, under our policy and others.",
    ),
    "load": ("loadtests.generator.command:app", "Sends a scenario to a live gateway, open loop."),
    "bench": ("loadtests.cli:bench", "Runs benchmarks against named baselines and targets."),
}
"""Commands with their import path and help, imported when they run."""

OURS = "punctual"
"""The policy that `punctual serve` serves unless another is named."""

EXTRAS = {
    **dict.fromkeys(("huggingface_hub", "optimum", "rouge_score", "safetensors"), "export"),
    **dict.fromkeys(("sentencepiece", "torch", "transformers"), "export"),
    **dict.fromkeys(("matplotlib", "scipy"), "simulate"),
    **dict.fromkeys(("aiohttp", "fastapi", "uvicorn"), "bench"),
    "ctranslate2": "engines",
    "openvino": "openvino",
}
"""The extra that brings a library which a plain install may lack."""

EXPECTED = (
    ("gateway.api.access", "BadOrigin"),
    ("gateway.catalogs.catalog_yaml", "CatalogError"),
    ("gateway.model.errors", "Problem"),
    ("deployments.replica.variant", "VariantRejected"),
    ("deployments.serve.environment", "NoRunFolder"),
    ("deployments.serve.environment", "PortTaken"),
    ("deployments.serve.observing", "LogUnwritable"),
    ("deployments.serve.serving", "NotReady"),
    ("deployments.replica.tracing", "TracingMissing"),
    ("exporters.errors", "ExportError"),
    ("loadtests.errors", "LoadTestError"),
)
"""Errors that are the operator's to read: a sentence, not a traceback. By module and name."""

console = Console(highlight=False)
errors = Console(stderr=True, highlight=False, soft_wrap=True)

app = typer.Typer(
    cls=lazy_group(LAZY_COMMANDS),
    no_args_is_help=True,
    pretty_exceptions_enable=False,
    rich_markup_mode=None,
    context_settings={"help_option_names": ["-h", "--help"]},
)
catalogs = typer.Typer(help="Check or show a catalog.", no_args_is_help=True, rich_markup_mode=None)
app.add_typer(catalogs, name="catalog")


def _tell_version(asked: bool) -> None:
    if asked:
        typer.echo(f"punctual {version('punctual')}")
        raise typer.Exit


@app.callback()
def common(
    _asked: Annotated[
        bool, typer.Option("--version", is_eager=True, callback=_tell_version, help="print the version and exit")
    ] = False,
) -> None:
    """An inference gateway that answers on time."""


def main(arguments: Sequence[str] | None = None) -> int:
    """Runs one command. Exit status: 0 success, 1 failure with a message, 2 wrong options, 130 interrupted.

    A command that a signal ends has 128 and the signal's number.
    """
    logging.basicConfig(level=logging.WARNING, format="%(asctime)s %(name)s %(levelname)s %(message)s")
    os.environ.setdefault("ORT_DISABLE_TELEMETRY", "1")  # ONNX Runtime would look up a telemetry host
    _open_standard_streams()
    given = _with_collector(list(sys.argv[1:] if arguments is None else arguments))
    with _ended_in_order():
        return _status_of(lambda: app(given, prog_name="punctual"))


@contextmanager
def _ended_in_order() -> Iterator[None]:
    """Has SIGTERM and SIGHUP end a command as Ctrl-C does: by an exception, so that it ends what it has started."""
    ending = [one for one in (signal.SIGTERM, signal.SIGHUP) if signal.getsignal(one) is signal.SIG_DFL]

    def end(number: int, _: object) -> None:
        for one in ending:
            signal.signal(one, signal.SIG_IGN)  # `timeout` sends two, and the second would break off the clearing up
        sys.exit(128 + number)

    for number in ending:  # `nohup` has SIGHUP ignored
        signal.signal(number, end)
    try:
        yield
    finally:
        for number in ending:
            signal.signal(number, signal.SIG_DFL)


def _open_standard_streams() -> None:
    """Opens the null device in place of closed standard streams: a socket would take their numbers otherwise."""
    for number, name in enumerate(("stdin", "stdout", "stderr")):
        if getattr(sys, name) is None:
            null = os.open(os.devnull, os.O_RDWR)
            if null != number:
                os.dup2(null, number)
                os.close(null)
            setattr(sys, name, os.fdopen(number, "w" if number else "r"))


def _status_of(command: Callable[[], object]) -> int:
    """Runs a command, says what fails by its errors, and returns its exit status."""
    try:
        command()
    except SystemExit as end:
        if isinstance(end.code, str):
            return _failed(end.code)
        return end.code or 0
    except KeyboardInterrupt:
        return 130
    except ModuleNotFoundError as missing:
        library = (missing.name or "").partition(".")[0]
        if library not in EXTRAS:
            raise
        return _failed(f"{library} is not installed: pip install 'punctual[{EXTRAS[library]}]'")
    except _expected() as error:
        return _failed(str(error))
    return 0


AccessLogOption = Annotated[
    str,
    typer.Option(
        envvar="PUNCTUAL_ACCESS_LOG",
        metavar="PATH",
        help="the access log, one line per finished request; - for standard output, off for none",
    ),
]
LogFormatOption = Annotated[
    Literal["json", "text"] | None,
    typer.Option(
        envvar="PUNCTUAL_LOG_FORMAT",
        metavar="json|text",
        help="format of the access log (default: text on a terminal, else json)",
    ),
]
TracesOption = Annotated[
    str | None,
    typer.Option(
        metavar="[URL]",
        help=f"send traces to this OpenTelemetry collector, by OTLP over HTTP (without a URL: {COLLECTOR}); "
        "OpenTelemetry's environment variables also apply",
    ),
]
OriginsOption = Annotated[
    list[str] | None,
    typer.Option(
        metavar="ORIGIN",
        help="pages of this origin (https://example.org, or * for any) may read answers; may be repeated",
    ),
]
HostsOption = Annotated[
    list[str] | None,
    typer.Option(
        metavar="NAME", help="answer to this name in the Host header, beside those of loopback; may be repeated"
    ),
]
PolicyOption = Annotated[
    str,
    typer.Option(
        help="serve a published policy in place of ours, for comparison: a name of punctual simulate, such as "
        "slackfit, ramsis or static:NAME"
    ),
]
KnownScenarioOption = Annotated[
    str, typer.Option(help="the scenario whose budgets and rate such a policy knows in advance")
]


@app.command()
def serve(
    catalog: CatalogOption = DEFAULT_CATALOG,
    cache: CacheOption = DEFAULT_CACHE,
    host: Annotated[str, typer.Option(help="the interface to bind")] = "127.0.0.1",
    port: Annotated[int, typer.Option(min=1, max=65535)] = 8000,
    access_log: AccessLogOption = "-",
    log_format: LogFormatOption = None,
    traces: TracesOption = None,
    cors_origin: OriginsOption = None,
    allow_host: HostsOption = None,
    floor: FloorOption = None,
    policy: PolicyOption = OURS,
    policy_scenario: KnownScenarioOption = "live-classify",
) -> None:
    """Makes missing variants on this host and serves until Ctrl-C; large ones are made while it serves."""
    from deployments.serve.keeping import keep

    started = time.monotonic()

    def say(what: str) -> None:
        console.print(f"[dim]{time.monotonic() - started:6.1f} s[/dim]  {escape(what)}", soft_wrap=True)

    def gateway(folder: Path) -> None:
        from deployments.serve.command import ServeOptions, servable, serve_until_stopped
        from exporters.cli import with_floor
        from exporters.plan import Settings
        from exporters.preparing.behind import prepare_first
        from exporters.preparing.prepare import prepare
        from gateway.catalogs.catalog import load_catalog

        _hand_on(cors_origin, allow_host)
        options = ServeOptions(host, port, access_log, log_format, traces)
        with servable(options) as opened:
            loaded = load_catalog(catalog)
            settings = with_floor(Settings(), floor, console)
            if policy == OURS:
                first = prepare_first(loaded, cache, console, settings=settings)
                serve_until_stopped(folder, loaded, first.variants, options, say, opened, first.behind)
                return
            from deployments.engines.host import usable_cores
            from loadtests.simulator.served import published

            variants = prepare(loaded, cache, console, settings=settings)
            loaded = loaded.only(variants)
            scheduler = published(policy, loaded, variants, policy_scenario, max(int(usable_cores()), 1))
            serve_until_stopped(folder, loaded, variants, replace(options, scheduler=scheduler), say, opened)

    raise typer.Exit(keep(lambda folder: _status_of(lambda: gateway(folder)), _warned))


def _hand_on(cors_origins: Sequence[str] | None, hosts: Sequence[str] | None) -> None:
    """Sets the variables by which ingresses learn from where they may be asked."""
    from gateway.api.access import ALLOWED_HOSTS, CORS_ORIGINS, checked_origins

    if cors_origins:
        os.environ[CORS_ORIGINS] = " ".join(checked_origins(cors_origins))
    if hosts:
        os.environ[ALLOWED_HOSTS] = " ".join(hosts)


@catalogs.command()
def check(catalog: Annotated[str, typer.Argument(help="starter, hub or a file")] = DEFAULT_CATALOG) -> None:
    """Checks a catalog; lists every fault by file, line and field."""
    from gateway.catalogs.catalog import load_catalog

    found = load_catalog(catalog)
    said = f"{catalog}: {len(found.checkpoints)} checkpoints, tasks {', '.join(found.tasks)}: valid"
    console.print(said, soft_wrap=True)


@catalogs.command()
def show(catalog: Annotated[str, typer.Argument(help="starter, hub or a file")] = DEFAULT_CATALOG) -> None:
    """Prints a catalog as a table."""
    from gateway.catalogs.catalog import load_catalog

    table = Table("checkpoint", "task", "tier", "quality", "source", box=None)
    table.columns[0].no_wrap = True
    table.columns[4].overflow = "fold"
    for entry in load_catalog(catalog).checkpoints:
        quality = f"{entry.quality.value:g} {entry.quality.metric}"
        table.add_row(entry.name, entry.task, entry.tier, quality, entry.source)
    console.print(table)


@app.command()
def explain(
    catalog: CatalogOption = DEFAULT_CATALOG,
    cache: CacheOption = DEFAULT_CACHE,
    task: str = "classify",
    text: Annotated[str | None, typer.Option(help="the text; it or --file is required")] = None,
    file: Annotated[Path | None, typer.Option(exists=True, dir_okay=False, help="the text is in this file")] = None,
    domain: Annotated[str | None, typer.Option(help="the subject of the text, as in parameters.domain")] = None,
    parameters: Annotated[
        str | None, typer.Option(help="""the body's parameters, as JSON, such as '{"tgt_lang": "de"}'""")
    ] = None,
    budget_ms: Annotated[float | None, typer.Option(help="(default: the task's)")] = None,
    percentile: float = 95.0,
    strict: Annotated[bool, typer.Option("--strict", help="refuse rather than be late")] = False,
    price: Annotated[
        float | None, typer.Option(help="capacity price, points of quality a core-second (default: none, as when idle)")
    ] = None,
) -> None:
    """Prints the decision for one text and budget on an idle gateway: every candidate's forecast and verdict."""
    from deployments.replica.tokens import counters_of
    from exporters.preparing.prepare import prepare
    from gateway.catalogs.catalog import load_catalog
    from gateway.model.errors import ms_above
    from gateway.model.request import Terms
    from gateway.router import explain as explained
    from gateway.tasks import read_manifest

    if text is None and file is None:
        raise typer.BadParameter("one of --text and --file is required", param_hint="--text / --file")
    if text is not None and file is not None:
        raise typer.BadParameter("not allowed with --text", param_hint="--file")
    asked = text if file is None else _text_of(file)
    loaded = load_catalog(catalog)
    folders = prepare(loaded, cache, console)
    manifests = {name: read_manifest(at) for name, at in folders.items()}
    loaded = loaded.only(manifests)
    budget_s = None if budget_ms is None else budget_ms / 1000
    terms = Terms(budget_s=budget_s, percentile=percentile, strict=strict, domain=domain)
    counters, given = counters_of(manifests, folders), _parameters_of(task, asked or "", parameters)
    decision = explained(loaded, manifests, task, asked or "", terms, price, counters, given)
    console.print(_candidates(decision, len(asked or ""), percentile))
    if decision.price:
        console.print(f"capacity price: {decision.price:g} points of quality a core-second")
    if decision.chosen:
        console.print(f"chosen: [bold]{decision.chosen.name}[/bold] ({decision.reason})")
    elif decision.min_feasible_s:
        console.print(f"refused: {decision.refusal}; least feasible budget {ms_above(decision.min_feasible_s):g} ms")
    else:
        console.print(f"refused: {decision.refusal}")


def _parameters_of(task: str, text: str, given: str | None) -> Parameters | None:
    """The parameters that a body with this text and these has; None if none are given. Raises InvalidRequest."""
    from gateway.api.bodies import parse
    from gateway.catalogs.catalog import Limits
    from gateway.tasks import TASKS

    if given is None or task not in TASKS:
        return None
    body = TASKS[task].body
    inputs = json.dumps(body.inputs_of((text,)))
    return TASKS[task].read(parse(f'{{"inputs": {inputs}, "parameters": {given}}}'.encode(), body, Limits()))[0]


def _text_of(file: Path) -> str:
    try:
        return file.read_text(encoding="utf-8")
    except UnicodeDecodeError:
        raise typer.BadParameter(f"{file} is not UTF-8", param_hint="--file") from None


def _candidates(decision: Decision, characters: int, percentile: float) -> Table:
    """A table of candidates: forecasts in ms, cost in core-ms, utility and utility less price in points."""
    from gateway.api.responses import utility_left
    from gateway.model.deadline import ms

    titles = ("checkpoint", "tier", "worth", "least", "median", f"p{percentile:g}", "cost", "left", "verdict")
    table = Table(*titles, box=None, padding=(0, 1, 0, 0))
    table.columns[0].no_wrap = table.columns[-1].no_wrap = True
    table.title = f"forecasts and cost in ms, {characters} characters, an idle gateway"
    for assessed in decision.assessed:
        candidate, forecast = assessed.candidate, assessed.candidate.forecast
        times = (forecast.least_s, forecast.latency_s, forecast.quantile_s, forecast.cost_s) if forecast else ()
        cells = [f"{ms(seconds):.2f}" for seconds in times] or ["-"] * 4
        left = utility_left(assessed, decision.price)
        cells.append("-" if left is None else f"{left:.1f}")
        table.add_row(candidate.name, candidate.tier, f"{candidate.utility:.1f}", *cells, assessed.verdict)
    return table


def _warned(what: str) -> None:
    """Says what the operator must know, on standard error."""
    errors.print(f"[yellow]{escape(what)}[/]")


def _failed(why: str) -> int:
    """Says why a command failed, and returns its exit status."""
    errors.print(f"[red]error:[/red] {escape(why)}")
    return 1


def _with_collector(arguments: list[str]) -> list[str]:
    """Adds the default URL after a bare `--traces`, since typer has no optional option values."""
    for at, argument in enumerate(arguments):
        if argument == "--traces" and (at + 1 == len(arguments) or arguments[at + 1].startswith("-")):
            return [*arguments[: at + 1], COLLECTOR, *arguments[at + 1 :]]
    return arguments


def _expected() -> tuple[type[Exception], ...]:
    """The expected errors of the modules that have been imported: no other can have been raised."""
    return tuple(getattr(sys.modules[module], name) for module, name in EXPECTED if module in sys.modules)


if __name__ == "__main__":
    sys.exit(main())
