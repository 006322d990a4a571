"""`punctual bench writing`: what is gained where the texts of a checkpoint step together.

Several prompts at once are written on by the replica as it is served, by the same replica whose texts share the engine
by time slices only, and by `generate` of transformers in batches; of an encoder-decoder, sources are summarised so. All
run in this process, each on one thread, and take
turns in shuffled order after every group of texts, so that a busy moment of the machine is short beside what is
compared. Every text has a fixed number of new tokens, each the likeliest, and none ends early; all are streamed,
so that first tokens can be timed. Durations are in seconds.

Time slices are what replicas had before texts stepped together. The code for both is one, so that a text alone shows
what choosing its company costs, not what else has changed since.
"""

from __future__ import annotations

import asyncio
import random
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, replace
from functools import partial
from importlib.util import find_spec
from pathlib import Path
from statistics import fmean, median
from time import perf_counter
from typing import TYPE_CHECKING, Annotated, TypeAlias

import typer
import uvloop
from rich.console import Console

from deployments.engines.host import read_host
from deployments.replica.generate.prompts import Prompts
from deployments.replica.generate.replica import GeneratorReplica, OpenCausal
from deployments.replica.generate.writing import Scribe, WrittenText
from deployments.replica.prepared import known_variants
from deployments.replica.summarize.abstractive import OpenSeq2Seq
from deployments.replica.variant import open_variant
from deployments.replica.writing.time_slicing import Together
from exporters.errors import SourceRefused
from exporters.options import DEFAULT_CACHE, DEFAULT_CATALOG, CacheOption, CatalogOption
from exporters.sources.source import resolve_source
from exporters.sources.texts import SUMMARIES, read_texts
from gateway.catalogs.catalog import Catalog, CatalogEntry, Quality, load_catalog
from gateway.model.deadline import Clock
from gateway.model.manifest import VariantManifest
from gateway.model.messages import Delta, Failure, Work
from gateway.model.tier import Tier
from gateway.tasks.decoding import MOST_TOGETHER
from gateway.tasks.generate import CausalManifest, GenerateParameters
from loadtests import options
from loadtests.bench.measuring.machine import Watch, not_quiet
from loadtests.bench.measuring.report import Report, Table, present
from loadtests.bench.measuring.rounds import (
    WARM_UP,
    Plan,
    Slot,
    Target,
    Turn,
    Turns,
    draw_medians,
    shown,
    take_turns,
)
from loadtests.errors import EngineFailed, NoRace

if TYPE_CHECKING:
    from matplotlib.figure import Figure

    from loadtests.bench.decoding.torch import CausalTorchPeer

TOGETHER, ONE_BY_ONE, TRANSFORMERS, BEFORE = "together", "one by one", "transformers", "before, one by one"
BASELINE = ONE_BY_ONE

CHECKPOINT = "smollm2"
AT_ONCE = (1, 4, 8, 16)
TEXTS = 16
"""Texts of a turn, the same at every number at once, so that a turn of one at a time is long enough to time."""

THREADS = 1
GAIN_AT, LEAST_GAIN = 8, 2.5
"""Texts at once, and the tokens/s that they are to have then as a multiple of those of one by one."""
MOST_ALONE = 1.03
"""The most time of a text alone, as a multiple of that of one by one."""

SHORTEST, LONGEST = 16, 256
"""Tokens of a prompt; lengths between have log-uniform chances. Set by hand: a question, and a page."""

NO_DEADLINE_S = 3600.0
STOP_WITHIN_S = 60.0


@dataclass(frozen=True)
class Settings:
    """Rounds, new tokens of a text, the numbers of texts at once, and the beams of each."""

    rounds: int = 5
    tokens: int = 32
    at_once: tuple[int, ...] = AT_ONCE
    seed: int = 31
    beams: int = 1


@dataclass(frozen=True)
class Written:
    """What was written on one prompt, and when its first new token and its end came, since its group was submitted."""

    text: str
    first_s: float
    ended_s: float


@dataclass(frozen=True)
class Sample:
    """One turn: the texts of each group, which were submitted at once, one group after another.

    `others` is the share of the machine that other processes used.
    """

    groups: tuple[tuple[Written, ...], ...]
    tokens: int
    others: float = 0.0

    @property
    def invalid(self) -> str:
        """Every turn counts: one that lacks a token ends the measurement."""
        return ""

    @property
    def written(self) -> tuple[Written, ...]:
        """All texts, in the order of their prompts."""
        return tuple(one for group in self.groups for one in group)


def took_s(sample: Sample) -> float:
    """Seconds of all groups, each to the end of its last text."""
    return sum(max(one.ended_s for one in group) for group in sample.groups)


def tokens_per_s(sample: Sample) -> float:
    """New tokens per second of all texts."""
    return len(sample.written) * sample.tokens / took_s(sample)


def reading_share(sample: Sample) -> float:
    """The share of all texts' time that passed before their first tokens. Of texts alone, that of reading prompts."""
    return sum(one.first_s for one in sample.written) / sum(one.ended_s for one in sample.written)


def first_s(sample: Sample) -> float:
    """The median time to a text's first new token."""
    return median(one.first_s for one in sample.written)


def median_s(sample: Sample) -> float:
    """The median time to a text's end."""
    return median(one.ended_s for one in sample.written)


def slowest_s(sample: Sample) -> float:
    """The time to the end of the slowest text."""
    return max(one.ended_s for one in sample.written)


@dataclass(frozen=True)
class Race:
    """One turn of all contestants by name, group after group."""

    samples: Mapping[str, Sample]

    @property
    def invalid(self) -> str:
        """Every turn counts, as those of its contestants do."""
        return ""


Contestant: TypeAlias = Callable[[Sequence[str]], Sequence[Written]]
"""Writes on a group of prompts that are submitted at once. Blocking. Raises EngineFailed."""


@dataclass(frozen=True)
class Field:
    """Who races: the texts that all are given, with the tokens of each, and why a contestant was left out."""

    texts: Sequence[str]
    lengths: tuple[int, ...]
    contestants: Mapping[str, Contestant]
    left_out: str


@dataclass(frozen=True)
class Run:
    """The variant, host, tokens of each prompt and all turns of a run, warm-up included.

    `contestants` are those that ran, and `left_out` says why another did not; empty if all did.
    """

    checkpoint: str
    variant: str
    host: str
    settings: Settings
    prompt_tokens: tuple[int, ...]
    contestants: tuple[str, ...]
    left_out: str
    turns: Turns[Sample]
    lasted_s: float


def command(
    checkpoint: Annotated[
        str, typer.Option(help="a checkpoint of the catalog that writes, or a variant's folder (./, ../ or /)")
    ] = CHECKPOINT,
    catalog: CatalogOption = DEFAULT_CATALOG,
    cache: CacheOption = DEFAULT_CACHE,
    rounds: options.Rounds = Settings.rounds,
    tokens: Annotated[int, typer.Option(min=1, help="new tokens of each text")] = Settings.tokens,
    at_once: Annotated[
        list[int] | None,
        typer.Option(min=1, max=TEXTS, help="texts at once; may be given several times (default: 1, 4, 8 and 16)"),
    ] = None,
    beams: Annotated[int, typer.Option(min=1, help="of each text of an encoder-decoder")] = Settings.beams,
    before: Annotated[
        Path | None, typer.Option(help="an encoder-decoder's variant of before, which races one by one")
    ] = None,
    seed: Annotated[int, typer.Option(help="of prompts and order")] = Settings.seed,
    json: options.Json = None,
    markdown: Annotated[Path | None, typer.Option(help="write the tables there")] = None,
    svg: Annotated[Path | None, typer.Option(help="write a plot of the tokens/s there")] = None,
) -> None:
    """Measures what texts that step together gain over one by one, and over transformers."""
    settings = Settings(rounds, tokens, tuple(sorted({*(at_once or AT_ONCE)})), seed, beams)
    folder = variant_of(checkpoint, load_catalog(catalog), cache)
    report = measure(folder, cache, settings, options.console, before)
    raise typer.Exit(present(report, options.console, json=json, markdown=markdown, plot=svg))


def variant_of(name: str, catalog: Catalog, cache: Path) -> Path:
    """The folder of a checkpoint's prepared variant, or the given folder. Raises NoRace."""
    if name.startswith(("./", "../", "/")):
        return Path(name)
    if catalog.by_name(name) is None:
        writing = (*catalog.of_task("generate"), *catalog.of_task("summarize"))
        names = ", ".join(entry.name for entry in writing) or "none that writes"
        raise NoRace(f"no checkpoint of {catalog.name} is called {name!r}; there are {names}, and folders")
    folders, _ = known_variants(catalog.only((name,)), cache)
    if name not in folders:
        raise NoRace(f"{name} has no variant in {cache}; punctual prepare it")
    return folders[name]


def measure(folder: Path, cache: Path, settings: Settings, console: Console, before: Path | None = None) -> Report:
    """Races the contestants over one variant; takes minutes. Raises LoadTestError and VariantRejected.

    Without the variant's source, or torch, transformers is left out, and the report says so.
    """
    started = perf_counter()
    with console.status("loading"):
        opened = open_variant(folder, THREADS)
        field = _field(opened, before, cache, settings)
    plan = Plan(["all"], settings.at_once, settings.rounds, seed=settings.seed)
    race = partial(_race, field.contestants, field.texts, settings.tokens, random.Random(settings.seed))
    turns = by_contestant(take_turns(plan, race, console, "at once"))
    return report_of(
        Run(
            checkpoint=opened.manifest.checkpoint,
            variant=opened.manifest.variant,
            host=read_host().kind,
            settings=settings,
            prompt_tokens=field.lengths,
            contestants=tuple(field.contestants),
            left_out=field.left_out,
            turns=turns,
            lasted_s=perf_counter() - started,
        )
    )


def _field(opened: object, before: Path | None, cache: Path, settings: Settings) -> Field:
    """Who races over a variant that is open. Raises NoRace for one whose texts cannot step together."""
    from loadtests.bench.writing_sources import field_of  # which needs this module

    if isinstance(opened, OpenSeq2Seq):
        return field_of(opened, before, cache, settings)
    if not isinstance(opened, OpenCausal):
        raise NoRace("no checkpoint that writes, whose texts could step together")
    texts, peer = prompts_of(opened, settings), peer_of(opened.manifest, cache)
    contestants: dict[str, Contestant] = {
        TOGETHER: partial(served, opened, Scribe, settings.tokens),
        ONE_BY_ONE: partial(served, opened, Apart, settings.tokens),
    }
    if not isinstance(peer, str):
        contestants[TRANSFORMERS] = partial(generated, opened.prompts, peer, settings.tokens)
    lengths = tuple(len(opened.prompts.of_text(text)) for text in texts)
    return Field(texts, lengths, contestants, peer if isinstance(peer, str) else "")


def prompts_of(opened: OpenCausal, settings: Settings) -> list[str]:
    """Openings of held-out documents, of unlike lengths. Equal seeds give equal prompts.

    Raises NoRace if the checkpoint's window leaves no room for a prompt.
    """
    room = opened.manifest.max_tokens - settings.tokens
    if room < 1:
        raise NoRace(f"the window of {opened.manifest.max_tokens} tokens has no room for {settings.tokens} new ones")
    chance = random.Random(settings.seed)
    longest = min(LONGEST, room)
    shortest = min(SHORTEST, longest)
    drawn = [shortest * (longest / shortest) ** chance.random() for _ in range(TEXTS)]
    documents = chance.sample(read_texts(SUMMARIES).texts, TEXTS)
    return [opening(opened.prompts, one.text, round(length)) for one, length in zip(documents, drawn, strict=True)]


def opening(prompts: Prompts, text: str, tokens: int) -> str:
    """The first words of a text, at most so many tokens, or so many tokens of its first word."""
    offsets = prompts.tokenizer.encode(text, add_special_tokens=False).offsets
    opening = text[: offsets[min(tokens, len(offsets)) - 1][1]]
    return opening.rpartition(" ")[0] or opening


def source_of(manifest: VariantManifest, cache: Path) -> Path | str:
    """The folder of a variant's source, or why transformers cannot run it."""
    missing = [library for library in ("torch", "transformers") if find_spec(library) is None]
    if missing:
        return f"{' and '.join(missing)} is not installed"
    try:
        source = resolve_source(manifest.source.location, manifest.source.revision or None, cache)
    except SourceRefused as refused:
        return str(refused)
    if source.sha256 != manifest.source.sha256:
        return f"{source.location} has changed since the variant was made"
    return source.path


def peer_of(manifest: CausalManifest, cache: Path) -> CausalTorchPeer | str:
    """The variant's source, loaded by transformers in fp32, or why it cannot be."""
    source = source_of(manifest, cache)
    if isinstance(source, str):
        return source
    from loadtests.bench.decoding.torch import CausalTorchPeer  # takes seconds, and is the bench's own need

    return CausalTorchPeer.open(source, THREADS, manifest.pad_token_id, manifest.generation.eos_token_ids)


class Apart(Scribe):
    """A scribe whose texts never step together: the engine goes from text to text by time slices."""

    def together(self) -> Together:
        """How texts step together: one alone."""
        return replace(super().together(), most=1)


def served(
    opened: OpenCausal, scribe: type[Scribe], tokens: int, group: Sequence[str], clock: Clock = perf_counter
) -> Sequence[Written]:
    """Has a replica over the variant write on a group of prompts. Blocking. Raises EngineFailed."""
    writer = scribe(opened.manifest, opened.engine, opened.prompts)
    replica = GeneratorReplica(entry_of(opened.manifest), writer, TEXTS, clock)
    return uvloop.run(_answered(replica, tokens, group, clock))


def entry_of(manifest: VariantManifest) -> CatalogEntry:
    """The entry of the replica: one text or company at a time, at the priority of the other contestants."""
    quality = Quality(metric="none", value=0.0, data_set="none", reference="none")
    return CatalogEntry(
        name=manifest.checkpoint,
        task=manifest.task,
        tier=Tier.QUALITY,
        family=manifest.family,
        source="starter:none",
        cpus=THREADS,
        threads=THREADS,
        niceness=0,
        prefixes=False,  # contestants are given equal prompts
        quality=quality,
        licence="none",
    )


async def _answered(replica: GeneratorReplica, tokens: int, group: Sequence[str], clock: Clock) -> list[Written]:
    """Submits each prompt as a request of its own, all at once."""
    replica.start()
    try:
        began = clock()
        return list(await asyncio.gather(*(_asked(replica, text, tokens, began, clock) for text in group)))
    finally:
        await replica.stop(STOP_WITHIN_S)


async def _asked(replica: GeneratorReplica, text: str, tokens: int, began: float, clock: Clock) -> Written:
    """One request to write on: exactly so many tokens, each the likeliest."""
    parameters = GenerateParameters(max_new_tokens=tokens, min_new_tokens=tokens, sample=False, repetition_penalty=1.0)
    told: list[float] = []

    def tell(_place: int, _delta: Delta) -> None:
        told.append(clock())

    work = Work("generate", (text,), parameters, NO_DEADLINE_S, strict=False, request_id="bench", streamed=True)
    (answer,) = await replica.handle([work], tell)
    ended = clock()
    if isinstance(answer, Failure):
        raise EngineFailed(f"a text failed: {answer.kind} {answer.detail}".strip())
    if answer.generation[0].tokens != tokens:
        raise EngineFailed(f"a text has {answer.generation[0].tokens} tokens, and {tokens} were asked for")
    first = told[0] if told else ended
    return Written(answer.outputs[0].generated_text, first - began, ended - began)


def generated(
    prompts: Prompts, peer: CausalTorchPeer, tokens: int, group: Sequence[str], clock: Clock = perf_counter
) -> Sequence[Written]:
    """Has transformers write on a group of prompts, as one batch. Blocking."""
    began, told = clock(), list[float]()
    asked = [prompts.of_text(text) for text in group]
    rows = peer.write(asked, tokens, lambda: told.append(clock()))
    texts = [_text_of(prompts, before, row) for before, row in zip(asked, rows, strict=True)]
    ended = clock()
    return [Written(text, told[0] - began, ended - began) for text in texts]


def _text_of(prompts: Prompts, before: Sequence[int], token_ids: Sequence[int]) -> str:
    """The text of new tokens after those before them, as replicas put it together."""
    written = WrittenText(prompts.tokenizer, (), before)
    for token in token_ids:
        written.add(token)
    return written.text


def _race(
    contestants: Mapping[str, Contestant],
    texts: Sequence[str],
    tokens: int,
    chance: random.Random,
    slot: Slot,
    _seconds: float,
) -> Race:
    """Has all contestants write on all texts, `slot.load` at once, in turns by group; in the warm-up one group each."""
    groups = [texts[at : at + slot.load] for at in range(0, len(texts), slot.load)]
    written: dict[str, list[tuple[Written, ...]]] = {name: [] for name in contestants}
    others: dict[str, list[float]] = {name: [] for name in contestants}
    for group in groups[:1] if slot.round == WARM_UP else groups:
        for name in chance.sample(list(contestants), len(contestants)):
            watch = Watch()
            written[name].append(tuple(contestants[name](group)))
            others[name].append(watch.use().others)
    return Race({name: Sample(tuple(written[name]), tokens, fmean(others[name])) for name in contestants})


def by_contestant(races: Turns[Race]) -> Turns[Sample]:
    """The turns of each contestant in races of all."""
    return Turns(
        tuple(
            Turn(replace(race.slot, contestant=name), sample)
            for race in races.taken
            for name, sample in race.sample.samples.items()
        )
    )


def report_of(run: Run) -> Report:
    """Two tables, how far the texts are equal, and the verdicts on the numbers at once that were measured."""
    return Report(
        tables=_tables(run),
        document=vars(run),
        verdicts=[one.verdict() for one in targets(run)],
        remarks=[conditions(run), *reading(run), agreement(run)],
        cautions=cautions(run),
        figure=lambda: _plot(run),
    )


def targets(run: Run) -> list[Target]:
    """What stepping together is to gain at 8 at once, and may cost a text alone."""
    found = []
    if GAIN_AT in run.settings.at_once:
        ratio = run.turns.ratio(TOGETHER, BASELINE, GAIN_AT, tokens_per_s)
        found.append(Target(f"tokens/s with {GAIN_AT} texts at once", BASELINE, ratio, LEAST_GAIN, at_most=False))
    if 1 in run.settings.at_once:
        found.append(
            Target("the time of a text alone", BASELINE, run.turns.ratio(TOGETHER, BASELINE, 1, took_s), MOST_ALONE)
        )
    return found


def agreement(run: Run) -> str:
    """How many texts of the other contestants are equal to those of one by one, by number at once.

    In int8 they need not be: activations are rounded, and the least difference in front of a rounding, such as padding
    makes, may become one of the size of the rounding itself.
    """
    written = {turn.slot: [one.text for one in turn.sample.written] for turn in run.turns.taken}
    parts = []
    for name in (one for one in run.contestants if one != BASELINE):
        counts = []
        for load in run.settings.at_once:
            slots = [Slot(number, load, name) for number in run.turns.rounds(load)]
            pairs = [
                pair
                for slot in slots
                for pair in zip(written[slot], written[replace(slot, contestant=BASELINE)], strict=True)
            ]
            counts.append(f"{sum(one == other for one, other in pairs)} of {len(pairs)} at {load}")
        parts.append(f"{name} {', '.join(counts)}")
    return f"texts equal to those of {BASELINE}, by number at once: {'; '.join(parts)}"


def reading(run: Run) -> list[str]:
    """The share of a text's time that stepping together cannot shorten; none if texts alone were not measured."""
    share = run.turns.spread(BASELINE, 1, reading_share)
    if share is None:
        return []
    return [
        f"{shown(share, '.0f', 100)} % of a text's time alone goes into reading its prompt, which is done one by one "
        "in company too"
    ]


def conditions(run: Run) -> str:
    """The texts and the measurement in one sentence."""
    settings, read = run.settings, run.prompt_tokens
    return (
        f"{len(read)} texts of {min(read)} to {max(read)} tokens (median {median(read):g}), of each {settings.tokens} "
        f"new tokens by {settings.beams} beams, so many at once; contestants take turns after each such group, each "
        f"on {THREADS} thread, {TRANSFORMERS} in fp32 and a padded batch; at most {MOST_TOGETHER} texts step "
        f"{TOGETHER}; median (minimum to maximum) of "
        f"{settings.rounds} rounds; × is the ratio to {BASELINE} within each round; {run.lasted_s:.0f} s in all"
    )


def cautions(run: Run) -> list[str]:
    """Warnings: who was left out, and other processes on the machine."""
    left_out = [f"{TRANSFORMERS} is left out: {run.left_out}"] if run.left_out else []
    others = [turn.sample.others for turn in run.turns.taken if turn.slot.round != WARM_UP]
    return left_out + [f"in the worst turn, {caution}" for caution in not_quiet(max(others, default=0.0))]


def _tables(run: Run) -> list[Table]:
    """One table on all tokens and the slowest text, one on first tokens and the median text."""
    what = f"{run.checkpoint} {run.variant} on {run.host}"
    return [
        Table(
            f"{what}: all tokens, and the slowest text",
            ["texts", "contestant", "tokens/s", "×", "slowest text, s", "×"],
            _rows(run, {tokens_per_s: (".1f", 1), slowest_s: (".2f", 1)}),
        ),
        Table(
            f"{what}: the first token, and the end, of the median text",
            ["texts", "contestant", "first token, ms", "×", "end, s", "×"],
            _rows(run, {first_s: (".0f", 1000), median_s: (".2f", 1)}),
        ),
    ]


def _rows(run: Run, measures: Mapping[Callable[[Sample], float], tuple[str, float]]) -> list[list[str]]:
    """One row per number at once and contestant: each figure with its ratio to the baseline's."""
    rows = []
    for load in run.settings.at_once:
        for place, name in enumerate(run.contestants):
            row = ["" if place else str(load), name]
            for measure, (form, scale) in measures.items():
                row.append(shown(run.turns.spread(name, load, measure), form, scale))
                row.append("1" if name == BASELINE else shown(run.turns.ratio(name, BASELINE, load, measure)))
            rows.append(row)
    return rows


def _plot(run: Run) -> Figure:
    """A panel per number at once: median tokens/s, with whiskers from minimum to maximum."""
    from matplotlib.figure import Figure

    from loadtests.reports.drawing import Colour

    colours = {TOGETHER: Colour.OURS, ONE_BY_ONE: Colour.MUTED, BEFORE: Colour.MUTED, TRANSFORMERS: Colour.RIVAL}
    figure = Figure(figsize=(8, 1.6 * len(run.settings.at_once)), layout="constrained")
    panels = figure.subplots(len(run.settings.at_once), squeeze=False, sharex=True)[:, 0]
    for axes, load in zip(panels, run.settings.at_once, strict=True):
        found = {name: spread for name in run.contestants if (spread := run.turns.spread(name, load, tokens_per_s))}
        draw_medians(axes, found, [colours[name] for name in found], Colour.INK)
        axes.set_title(f"{run.checkpoint}, {load} at once")
    panels[-1].set_xlabel("tokens/s, more is better")
    return figure
