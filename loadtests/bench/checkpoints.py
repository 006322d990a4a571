"""`punctual bench checkpoints`: time and memory of checkpoints by batch and length, a step of training included.

It asks what transformers' `PyTorchBenchmark` asked. Each kind of run has its own process: the engine of a variant that
was made, and in PyTorch the forward pass and one step of training by Adam, of a folder or of random weights in full
size. Shapes are timed in shuffled rounds, as latency profiles are. There is no target; a run that fails is status 1.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass
from importlib.util import find_spec
from pathlib import Path
from time import perf_counter
from typing import TYPE_CHECKING, Annotated

import msgspec
import psutil
import typer
from rich.console import Console
from rich.progress import Progress

from deployments.engines.host import read_host
from deployments.replica.prepared import known_variants
from exporters.advising import shape_of_source
from exporters.errors import SourceRefused
from exporters.options import DEFAULT_CACHE, CacheOption
from exporters.sources.source import source_folder
from gateway.advising.knowledge import knowledge
from gateway.advising.shape import Shape
from gateway.catalogs.catalog import PACKAGED, Catalog, load_catalog
from gateway.model.manifest import MANIFEST_NAME
from loadtests import options
from loadtests.bench.measuring.machine import Watch, not_quiet
from loadtests.bench.measuring.report import Report, Table, Verdict, present
from loadtests.bench.measuring.runs import FOLDER, RANDOM, VARIANT, Cell, Job, Measured, measured
from loadtests.errors import EngineFailed, NoRace

if TYPE_CHECKING:
    from matplotlib.axes import Axes
    from matplotlib.figure import Figure

PREFIX = "random:"
ENGINE_RUN, FORWARD, TRAINING = "engine", "torch forward", "torch training step"
WRITTEN = 32
"""Tokens that an encoder-decoder is trained to write for a text, as `exporters.torch_runs` has it."""

MB = 1e6
BATCHES, LENGTHS = (1, 8), (32, 128)
HEADROOM = 1.3
"""The share of the state of training by Adam that a machine must have free before a step is tried."""


@dataclass(frozen=True)
class Settings:
    """Batch sizes, token lengths, threads of a run, and seconds that the shapes of one kind of run are timed for."""

    batches: tuple[int, ...] = BATCHES
    lengths: tuple[int, ...] = LENGTHS
    threads: int = 1
    seconds: float = 5.0
    training: bool = True


@dataclass(frozen=True)
class Subject:
    """One checkpoint to measure: where its variant and its folder are, or the random weights that stand for it.

    `decodes` says that it is a decoder alone, whose training writes every token of a text.
    """

    name: str
    variant: Path | None = None
    folder: Path | None = None
    random: str | None = None
    shape: Shape | None = None
    decodes: bool = False

    def weights_bytes(self, found: Measured) -> float:
        """Bytes of the weights of a run: in fp32 where PyTorch counted them, else the variant's files."""
        if found.parameters is not None or self.variant is None:
            return 4.0 * (found.parameters or 0)
        return float(sum(file.stat().st_size for file in self.variant.iterdir() if file.is_file()))

    def jobs(self, settings: Settings) -> Iterator[Job]:
        """What is run of it. In PyTorch only where that is installed."""
        lengths = tuple(one for one in settings.lengths if self.shape is None or one <= self.shape.window)
        if not lengths:
            return

        def job(kind: str, place: str, run: str) -> Job:
            return Job(kind, place, run, settings.batches, lengths, settings.threads, settings.seconds)

        if self.variant is not None:
            yield job(VARIANT, str(self.variant), ENGINE_RUN)
        place = self.random if self.folder is None else str(self.folder)
        if place is None or find_spec("torch") is None:
            return
        kind = RANDOM if self.folder is None else FOLDER
        yield job(kind, place, FORWARD)
        if settings.training:
            yield job(kind, place, TRAINING)


@dataclass(frozen=True)
class Finding:
    """What was measured of one kind of run of a checkpoint, and the bytes of the weights that it loaded."""

    checkpoint: str
    run: str
    shape: Shape | None
    measured: Measured
    weights_bytes: float
    decodes: bool = False

    def written(self, tokens: int) -> int:
        """The tokens that a step of training on texts of `tokens` learns to write; 0 for what understands."""
        if self.shape is not None and self.shape.decoder_layers:
            return min(tokens, WRITTEN)
        return tokens if self.decodes else 0

    def taken_bytes(self, cell: Cell) -> float | None:
        """The peak of a cell beside the process itself: weights, activations, and what training keeps."""
        if cell.peak_bytes is None:
            return None
        return cell.peak_bytes - self.measured.loaded_bytes + self.weights_bytes


@dataclass(frozen=True)
class Study:
    """The conditions, all findings, and which runs failed and how.

    `others` is the share of the machine that other processes used.
    """

    host: str
    settings: Settings
    findings: tuple[Finding, ...]
    failures: tuple[str, ...]
    others: float
    lasted_s: float


def command(
    checkpoint: Annotated[
        list[str],
        typer.Argument(
            help="a checkpoint of a catalog, a folder (./, ../ or /) of a checkpoint or variant, or random:NAME for "
            "random weights in the full size of a family or a public checkpoint, such as random:bert-base-uncased"
        ),
    ],
    batch: Annotated[list[int] | None, typer.Option(min=1, help="batch sizes; may be repeated (1, 8)")] = None,
    tokens: Annotated[list[int] | None, typer.Option(min=2, help="lengths; may be repeated (32, 128)")] = None,
    threads: Annotated[int, typer.Option(min=1, help="of a run")] = Settings.threads,
    seconds: Annotated[float, typer.Option(min=0.01, help="to time the shapes of one kind of run")] = Settings.seconds,
    training: Annotated[bool, typer.Option(help="measure a step of training too")] = Settings.training,
    catalog: Annotated[
        list[str] | None, typer.Option(help="where names are looked up; may be repeated (default: starter and hub)")
    ] = None,
    cache: CacheOption = DEFAULT_CACHE,
    json: options.Json = None,
    markdown: Annotated[Path | None, typer.Option(help="write the tables there")] = None,
    svg: Annotated[Path | None, typer.Option(help="write a plot of the medians there")] = None,
) -> None:
    """Measures time and memory of checkpoints by batch and length, training included."""
    catalogs = [load_catalog(one) for one in catalog or PACKAGED]
    batches, lengths = tuple(sorted({*(batch or BATCHES)})), tuple(sorted({*(tokens or LENGTHS)}))
    settings = Settings(batches, lengths, threads, seconds, training)
    subjects = [subject(one, catalogs, cache) for one in checkpoint]
    report = report_of(study(subjects, settings, options.console))
    raise typer.Exit(present(report, options.console, json=json, markdown=markdown, plot=svg))


def subject(name: str, catalogs: Sequence[Catalog], cache: Path) -> Subject:
    """Finds what a name means. Raises NoRace, which lists what there is."""
    if name.startswith(PREFIX):
        return _random(name.removeprefix(PREFIX))
    if name.startswith(("./", "../", "/")):
        return _at(Path(name), name)
    for one in catalogs:
        if (entry := one.by_name(name)) is not None:
            folders, _ = known_variants(one.only((name,)), cache)
            folder = _weights(entry.source, entry.revision)
            found = Subject(name, folders.get(name), folder, shape=_shape(entry.source, entry.revision))
            if found.variant is None and found.folder is None:
                raise NoRace(f"{name} has no variant in {cache} and no weights on this machine; punctual prepare it")
            return found
    names = ", ".join(entry.name for one in catalogs for entry in one.checkpoints)
    raise NoRace(f"no checkpoint is called {name!r}; there are {names}, random:NAME, and folders")


def _random(name: str) -> Subject:
    """Random weights by the name of a public checkpoint, or of a family, whose first is meant."""
    found = [one for one in knowledge().checkpoints if name.lower() in (one.name, one.family.lower())]
    if not found:
        names = ", ".join(one.name for one in knowledge().checkpoints)
        raise NoRace(f"no shape is known of {name!r}; there are {names}")
    first = found[0]
    decodes = knowledge().families[first.family].architecture == "decoder"
    return Subject(f"{PREFIX}{first.name}", random=first.name, shape=first.shape, decodes=decodes)


def _at(folder: Path, name: str) -> Subject:
    if (folder / MANIFEST_NAME).exists() and not (folder / "config.json").exists():
        return Subject(folder.name, variant=folder)
    if not (folder / "config.json").exists():
        raise NoRace(f"{name} holds neither a variant ({MANIFEST_NAME}) nor a checkpoint (config.json)")
    return Subject(folder.name, folder=folder, shape=shape_of_source(str(folder.absolute())))


def _weights(source: str, revision: str | None) -> Path | None:
    """The folder that PyTorch can load; None if the weights are elsewhere, or those of another with an adapter."""
    try:
        folder = source_folder(source, revision)
    except SourceRefused:
        return None
    return folder if (folder / "model.safetensors").exists() else None


def _shape(source: str, revision: str | None) -> Shape | None:
    known = knowledge().of_source(source)
    return shape_of_source(source, revision) if known is None else known.shape


def study(subjects: Sequence[Subject], settings: Settings, console: Console) -> Study:
    """Runs every job of every subject, with a progress bar; one that fails is noted, and the others go on.

    Leaves out steps of training that memory cannot hold.
    """
    began_s, watch = perf_counter(), Watch()
    jobs = [(one, job) for one in subjects for job in one.jobs(settings)]
    findings, failures = [], []
    with Progress(console=console, refresh_per_second=1) as bar:  # drawing takes time on the measured machine
        line = bar.add_task("measuring", total=float(len(jobs)))
        for number, (one, job) in enumerate(jobs):
            bar.update(line, description=f"{one.name}: {job.run}", completed=float(number))
            if job.run == TRAINING and (why := too_large(one, settings, psutil.virtual_memory().available)):
                console.print(f"[yellow]{one.name}: {why}[/]")
                continue
            try:
                found = measured(job, lambda share, at=number: bar.update(line, completed=at + share))  # type: ignore[misc]
            except EngineFailed as failed:
                failures.append(f"{one.name}: {failed}")
                continue
            findings.append(Finding(one.name, job.run, one.shape, found, one.weights_bytes(found), one.decodes))
        bar.update(line, completed=float(len(jobs)))
    lasted_s = perf_counter() - began_s
    return Study(read_host().kind, settings, tuple(findings), tuple(failures), watch.use().others, lasted_s)


def too_large(one: Subject, settings: Settings, available_bytes: float) -> str | None:
    """Why a step of training is not tried: it would take more memory than there is. None if it is."""
    if one.shape is None:
        return None
    needed = HEADROOM * one.shape.fine_tune_bytes(settings.batches[-1], settings.lengths[-1])
    if needed <= available_bytes:
        return None
    return f"a step of training takes about {needed / MB:.0f} MB, and {available_bytes / MB:.0f} MB are free; left out"


def report_of(found: Study) -> Report:
    """A table for each kind of run of each checkpoint, and a plot of all medians."""
    return Report(
        tables=[_table(one, found.settings) for one in found.findings],
        document={**vars(found), "findings": [_document(one) for one in found.findings]},
        remarks=[
            f"on {found.host}, {found.settings.threads} threads; {found.lasted_s:.0f} s in all",
            "MB: the most that a run's process held beyond its libraries: weights, activations, what training keeps",
        ],
        cautions=not_quiet(found.others),
        verdicts=[Verdict(said, met=False) for said in found.failures],
        figure=lambda: _plot(found),
    )


def _document(one: Finding) -> dict[str, object]:
    """A finding as JSON data, with what each cell takes beyond the libraries, in bytes."""
    cells = [{**msgspec.to_builtins(cell), "taken_bytes": one.taken_bytes(cell)} for cell in one.measured.cells]
    found = one.measured
    return {
        "checkpoint": one.checkpoint,
        "run": one.run,
        "parameters": found.parameters,
        "loaded_bytes": found.loaded_bytes,
        "cells": cells,
    }


def _table(one: Finding, settings: Settings) -> Table:
    cells = {(cell.batch, cell.tokens): cell for cell in one.measured.cells}
    lengths = sorted({tokens for _, tokens in cells})
    rows = []
    for batch in settings.batches:
        row = [cells[batch, tokens] for tokens in lengths if (batch, tokens) in cells]
        rows.append([str(batch), *(part for cell in row for part in _told(one, cell))])
    headings = ["batch", *(part for tokens in lengths for part in (f"{tokens} tokens: p50, p95 ms", "texts/s", "MB"))]
    return Table(f"{one.checkpoint}, {one.run}", headings, rows, _note(one))


def _told(one: Finding, cell: Cell) -> tuple[str, str, str]:
    taken = one.taken_bytes(cell)
    memory = "-" if taken is None else f"{taken / MB:.0f}"
    return f"{cell.p50_s * 1000:.2f}, {cell.p95_s * 1000:.2f}", f"{cell.batch / cell.p50_s:.1f}", memory


def _note(one: Finding) -> str:
    """The parameters, and of training what the adviser's formula says of the largest cell."""
    parts = [] if one.measured.parameters is None else [f"{one.measured.parameters / 1e6:.1f} M parameters"]
    largest = max(one.measured.cells, key=lambda cell: (cell.batch * cell.tokens, cell.batch))
    taken = one.taken_bytes(largest)
    if one.run == TRAINING and one.shape is not None and taken is not None:
        estimated = one.shape.fine_tune_bytes(largest.batch, largest.tokens, one.written(largest.tokens))
        said = (
            f"{largest.batch} texts of {largest.tokens} tokens: {taken / MB:.0f} MB measured, {estimated / MB:.0f} MB"
        )
        parts.append(f"{said} by the formula ({taken / estimated:.2f} times)")
    return "; ".join(parts)


def _plot(found: Study) -> Figure:
    """One column a kind of run, time above and memory below, by length: a line for each checkpoint and batch."""
    from matplotlib.figure import Figure

    runs = list(dict.fromkeys(one.run for one in found.findings))
    figure = Figure(figsize=(5.0 * max(len(runs), 1), 7.6), layout="constrained")
    panels = figure.subplots(2, max(len(runs), 1), squeeze=False)
    for column, run in enumerate(runs):
        findings = [one for one in found.findings if one.run == run]
        _draw(panels[0][column], findings, found.settings, lambda one, cell: cell.p50_s * 1000)
        _draw(panels[1][column], findings, found.settings, lambda one, cell: (one.taken_bytes(cell) or 0) / MB)
        panels[0][column].set_title(f"{run}: median, ms", loc="left", fontsize="medium")
        panels[1][column].set_title(f"{run}: MB beyond the libraries", loc="left", fontsize="medium")
        panels[0][column].legend(fontsize="small")
    return figure


def _draw(axes: Axes, findings: Sequence[Finding], settings: Settings, value: Callable[[Finding, Cell], float]) -> None:
    """Draws a value of every cell by its length, both axes logarithmic; cells without one are left out."""
    for one in findings:
        for batch in settings.batches:
            found = [(cell.tokens, value(one, cell)) for cell in one.measured.cells if cell.batch == batch]
            line = sorted((tokens, height) for tokens, height in found if height > 0)
            if line:
                axes.plot(
                    [at for at, _ in line], [to for _, to in line], marker="o", label=f"{one.checkpoint}, {batch}"
                )
    axes.set_xscale("log", base=2)
    if axes.has_data():
        axes.set_yscale("log")
    axes.set_xticks(settings.lengths, [str(one) for one in settings.lengths])
    axes.yaxis.set_major_formatter("{x:g}")
    axes.yaxis.set_minor_formatter("{x:g}")
    axes.set_xlabel("tokens")
