"""`punctual advise`: what the gateway's adviser says of catalogs, with what was measured of them on this host.

It gathers the variants of the cache, the shapes of checkpoints and the machine's memory, and prints the advice. It
makes no variant and fetches nothing: what was not made is estimated.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from contextlib import suppress
from pathlib import Path
from typing import Annotated, Any

import msgspec
import psutil
import typer
from pydantic import ValidationError
from rich.console import Console
from rich.markup import escape
from rich.table import Table

from deployments.engines.host import read_host, usable_cores, usable_memory_bytes
from deployments.replica.prepared import known_variants
from deployments.replica.variant import VariantRejected, checked_manifest
from exporters.errors import SourceRefused
from exporters.options import DEFAULT_CACHE, CacheOption
from exporters.sources.source import encoder_of, read_object, source_folder
from gateway.advising.advice import Advice, Advised, Adviser, UnknownSituation
from gateway.advising.candidates import Held, Offered
from gateway.advising.shape import Shape
from gateway.advising.situation import Machine, Situation
from gateway.catalogs.catalog import PACKAGED, Catalog, SourceKind, load_catalog

FIELDS: Mapping[str, tuple[str, ...]] = {
    "layers": ("encoder_layers", "num_hidden_layers", "n_layers", "n_layer", "num_layers"),
    "decoder_layers": ("decoder_layers", "num_decoder_layers"),
    "width": ("d_model", "hidden_size", "dim", "n_embd"),
    "inner": ("encoder_ffn_dim", "intermediate_size", "hidden_dim", "d_ff", "n_inner"),
    "heads": ("encoder_attention_heads", "num_attention_heads", "n_heads", "num_heads", "n_head"),
    "vocabulary": ("vocab_size",),
    "window": ("max_position_embeddings", "n_positions"),
    "embedding": ("embedding_size",),
}
"""The fields of a `config.json` that have each size of a shape, by the names that architectures give them."""

USUAL_WINDOW, USUAL_INNER = 512, 4
"""The window of an architecture that names none, and its inner width by its width."""

MOST_OUT = 12
"""The checkpoints that are out which the terminal shows; `--json` has them all."""

_About = Situation.model_fields


def _help(name: str) -> str:
    return _About[name].description or ""


def command(
    task: Annotated[str, typer.Option(help=_help("task"))],
    languages: Annotated[str, typer.Option(help=_help("languages"))] = "en",
    budget_ms: Annotated[float | None, typer.Option(help=_help("budget_ms"))] = None,
    percentile: Annotated[float, typer.Option(help=_help("percentile"))] = 95.0,
    rate: Annotated[float, typer.Option(help=_help("rate"))] = 1.0,
    max_tokens: Annotated[int, typer.Option(help=_help("max_tokens"))] = 128,
    output_tokens: Annotated[int, typer.Option(help=_help("output_tokens"))] = 60,
    memory_gb: Annotated[float | None, typer.Option(help=_help("memory_gb"))] = None,
    cores: Annotated[float | None, typer.Option(help=_help("cores"))] = None,
    domain: Annotated[str | None, typer.Option(help=_help("domain"))] = None,
    needs: Annotated[str, typer.Option(help=_help("needs"))] = "",
    labelled: Annotated[int | None, typer.Option(help=_help("labelled"))] = None,
    train: Annotated[bool, typer.Option("--train", help=_help("train"))] = False,
    catalog: Annotated[
        list[str] | None, typer.Option(help="starter, hub or a file; may be repeated (default: starter and hub)")
    ] = None,
    cache: CacheOption = DEFAULT_CACHE,
    json: Annotated[bool, typer.Option("--json", help="print the whole advice as JSON")] = False,
) -> None:
    """Advises which checkpoint to serve or fine-tune; latencies are measured ones, or estimates marked with ~."""
    given: dict[str, Any] = {name: value for name, value in locals().items() if name in _About}
    situation = _situation(given)
    adviser = Adviser([offered(load_catalog(one), cache) for one in catalog or PACKAGED], this_machine())
    try:
        advice = adviser.advise(situation)
    except UnknownSituation as unknown:
        raise typer.BadParameter(unknown.message, param_hint=_option(unknown.field)) from None
    if json:
        typer.echo(msgspec.json.format(msgspec.json.encode(advice)).decode())
        return
    present(advice, Console(highlight=False))


def _situation(given: dict[str, Any]) -> Situation:
    """The situation that the options say. Raises BadParameter, which names the first wrong option."""
    try:
        return Situation(**given)
    except ValidationError as error:
        fault = error.errors(include_url=False)[0]
        raise typer.BadParameter(fault["msg"], param_hint=_option(str(fault["loc"][0]))) from None


def _option(field: str) -> str:
    return f"--{field.replace('_', '-')}"


def this_machine() -> Machine:
    """The processors and the memory that this process may use, and whether int8 is fast on them."""
    present = float(psutil.virtual_memory().total)
    return Machine(usable_cores(), usable_memory_bytes(present), read_host().dot_product is not None)


def offered(catalog: Catalog, cache: Path) -> Offered:
    """A catalog with the variants that the cache holds of it, and the shapes of its folders.

    A variant that cannot be served, such as one of another format, counts as not made.
    """
    folders, _ = known_variants(catalog, cache)
    held: dict[str, Held] = {}
    for name, folder in folders.items():
        with suppress(VariantRejected, FileNotFoundError):
            held[name] = _held(folder)
    shapes = {entry.source: shape_of_source(entry.source) for entry in catalog.checkpoints if _is_local(entry.kind)}
    return Offered(catalog, held, shapes={source: shape for source, shape in shapes.items() if shape is not None})


def _is_local(kind: SourceKind) -> bool:
    return kind is SourceKind.FOLDER


def _held(folder: Path) -> Held:
    manifest = checked_manifest(folder)
    return Held(manifest, sum((folder / file).stat().st_size for file in manifest.files))


def shape_of_source(location: str, revision: str | None = None) -> Shape | None:
    """The shape of a checkpoint on this machine by its configuration; None if it is absent or says too little."""
    try:
        folder = source_folder(location, revision)
        return shape_of(read_object(encoder_of(folder, location) / "config.json", location))
    except SourceRefused:
        return None


def shape_of(config: Mapping[str, Any]) -> Shape | None:
    """The shape that a `config.json` describes; None if a size is missing."""
    sizes = {size: _first(config, names) for size, names in FIELDS.items()}
    sizes["window"] = sizes["window"] or USUAL_WINDOW
    if sizes["inner"] is None and sizes["width"] is not None:
        sizes["inner"] = USUAL_INNER * sizes["width"]
    if not config.get("is_encoder_decoder", False):
        sizes["decoder_layers"] = None
    given = {size: value for size, value in sizes.items() if value is not None}
    try:
        return Shape.model_validate({**given, "shared": config.get("model_type") == "albert"})
    except ValidationError:
        return None


def _first(config: Mapping[str, Any], names: Iterable[str]) -> int | None:
    found = (config.get(name) for name in names)
    return next((value for value in found if isinstance(value, int) and not isinstance(value, bool)), None)


def present(advice: Advice, console: Console) -> None:
    """Prints the checklist, the right checkpoints with their numbers, the others with why, and the entry to paste."""
    console.print(_checklist(advice))
    console.print(_right(advice) if advice.right else "[yellow]no checkpoint is right for this; see why each is out[/]")
    if advice.right:
        console.print("[dim]~ estimated; batched load in brackets; tune: memory to fine-tune all parameters by Adam[/]")
        console.print(_remarks(advice.right))
    if advice.wrong:
        console.print(_wrong(advice.wrong))
    for sentence in advice.unknown:
        console.print(f"[yellow]{escape(sentence)}[/]", soft_wrap=True)
    best = next((one for one in advice.right if one.entry is not None), None)
    if best is not None and best.entry is not None:
        console.print(f"[bold]the catalog entry of {escape(best.name)}[/]")
        console.print(escape(best.entry), soft_wrap=True)


def _checklist(advice: Advice) -> Table:
    table = Table("question", "answer", "why", box=None, padding=(0, 1, 0, 0), title="the guide's questions")
    table.columns[1].style = "bold"
    for one in advice.checklist:
        table.add_row(escape(one.question), escape(one.answer), escape(one.why))
    return table


def _right(advice: Advice) -> Table:
    percentile = advice.situation["percentile"]
    titles = ("checkpoint", "where", "size", f"p{percentile:g} ms", "load", "MB", "tune MB", "quality", "licence")
    table = Table(*titles, box=None, padding=(0, 1, 0, 0), title="right, best first")
    for column in (table.columns[0], table.columns[3], table.columns[4]):
        column.no_wrap = True
    for one in advice.right:
        table.add_row(*map(escape, _cells(one)))
    return table


def _cells(one: Advised) -> tuple[str, ...]:
    latency, memory = one.latency, one.memory
    times, load = "not known", "-"
    if latency is not None:
        times = f"{'' if latency.measured else '~'}{latency.quantile_ms:.4g}"
    if latency is not None and latency.utilisation is not None and latency.core_ms:
        batched = latency.utilisation * latency.batched_core_ms / latency.core_ms
        load = f"{latency.utilisation:.0%} ({batched:.0%})"
    size = "-" if one.parameters is None else f"{one.size_class}, {one.parameters / 1e6:.0f} M"
    serve = "-" if memory.serve_mb is None else f"{'' if memory.measured else '~'}{memory.serve_mb:.0f}"
    tune = "-" if memory.fine_tune_mb is None else f"~{memory.fine_tune_mb:.0f}"
    quality = "-" if one.quality is None else f"{one.quality.value:g} {one.quality.metric}, {one.quality.data_set}"
    where = one.status if one.catalog is None else f"{one.catalog} ({one.status})"
    return (one.name, where, size, times, load, serve, tune, quality, one.licence)


def _remarks(right: Sequence[Advised]) -> Table:
    """Why each right checkpoint is in: what is special of it, and what to be careful of."""
    table = Table("checkpoint", "why", box=None, padding=(0, 1, 0, 0))
    table.columns[0].no_wrap = True
    for one in right:
        said = "; ".join(reason.text for reason in one.why)
        table.add_row(escape(one.name), f"[{'yellow' if one.verdict == 'caution' else 'green'}]{escape(said)}[/]")
    return table


def _wrong(wrong: Sequence[Advised]) -> Table:
    table = Table("out", "why", box=None, padding=(0, 1, 0, 0))
    table.columns[0].no_wrap = True
    for one in wrong[:MOST_OUT]:
        table.add_row(escape(one.name), escape("; ".join(r.text for r in one.why if r.verdict == "out")))
    if len(wrong) > MOST_OUT:
        table.add_row(f"and {len(wrong) - MOST_OUT} more", "see --json")
    return table
