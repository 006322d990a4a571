"""`punctual bench prefixes`: what is gained where chats begin alike, as with one system message, or texts are equal.

Prompts with a common opening and an ending of their own are written on one after the other, by a replica that keeps the
keys and values of what it has read, and by one that reads every prompt anew. Both have an engine of their own on one
thread, and are asked for each prompt in turns, in an order by chance. With `--equal` so many equal requests come at
once instead, to a replica of any checkpoint that writes, which writes them once, and to one that writes each. Durations
are in seconds.
"""

from __future__ import annotations

import asyncio
import random
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from statistics import median
from time import perf_counter
from typing import Annotated

import typer
import uvloop
from rich.console import Console

from deployments.engines.host import read_host
from deployments.replica.generate.replica import OpenCausal
from deployments.replica.generate.writing import Scribe
from deployments.replica.kinds import OpenVariant, kind_named
from deployments.replica.variant import open_variant
from deployments.replica.writing.answers import WritingReplica
from deployments.replica.writing.past_budget import PastBudget
from exporters.options import DEFAULT_CACHE, DEFAULT_CATALOG, CacheOption, CatalogOption
from exporters.sources.texts import SUMMARIES, read_texts
from gateway.catalogs.catalog import CatalogEntry, load_catalog
from gateway.model.messages import Failure, Work
from loadtests import options
from loadtests.bench.measuring.report import Report, Table, present
from loadtests.bench.writing import CHECKPOINT, THREADS, Written, entry_of, opening, served, variant_of
from loadtests.errors import EngineFailed, NoRace

KEPT, ANEW = "kept", "read anew"
ONE, AGAIN, TOGETHER, EACH = "one", "one, read before", "equal, written once", "equal, each written"
ROUNDS = 5
NO_DEADLINE_S, STOP_WITHIN_S, QUEUED = 3600.0, 60.0, 1000


@dataclass(frozen=True)
class Settings:
    """Chats, the tokens that all have in common, those of their own, and the new ones of each."""

    chats: int = 20
    system: int = 300
    own: int = 24
    tokens: int = 8
    seed: int = 31


@dataclass(frozen=True)
class Chat:
    """One prompt, written on by both."""

    written: Mapping[str, Written]

    @property
    def first_share(self) -> float:
        """The time to the first token where openings are kept, divided by that where they are read anew."""
        return self.written[KEPT].first_s / self.written[ANEW].first_s

    @property
    def is_equal(self) -> bool:
        """True if both wrote the same text."""
        return self.written[KEPT].text == self.written[ANEW].text


class Keeping(Scribe):
    """A scribe whose prompts are kept."""

    def memory(self, entry: CatalogEntry) -> PastBudget | None:
        """What keys and values of all texts may take, and of prompts beside them."""
        return super().memory(entry.model_copy(update={"prefixes": True}))


def command(
    checkpoint: Annotated[
        str, typer.Option(help="a decoder-only checkpoint of the catalog, or a variant's folder (./, ../ or /)")
    ] = CHECKPOINT,
    catalog: CatalogOption = DEFAULT_CATALOG,
    cache: CacheOption = DEFAULT_CACHE,
    chats: Annotated[int, typer.Option(min=2, help="prompts that begin alike")] = Settings.chats,
    system: Annotated[int, typer.Option(min=16, help="tokens that all begin with")] = Settings.system,
    tokens: Annotated[int, typer.Option(min=1, help="new tokens of each text")] = Settings.tokens,
    seed: Annotated[int, typer.Option(help="of prompts and order")] = Settings.seed,
    equal: Annotated[
        int | None, typer.Option(min=2, help="equal requests at once, in place of chats; of any checkpoint that writes")
    ] = None,
    json: options.Json = None,
) -> None:
    """Measures what is gained where chats begin with the same system message."""
    settings = Settings(chats=chats, system=system, tokens=tokens, seed=seed)
    folder = variant_of(checkpoint, load_catalog(catalog), cache)
    if equal is None:
        report = measure(folder, settings, options.console)
    else:
        report = measure_equal(folder, equal, settings.seed, options.console)
    raise typer.Exit(present(report, options.console, json=json))


def measure(folder: Path, settings: Settings, console: Console) -> Report:
    """Writes on all prompts by both. Raises NoRace for a variant that is no decoder, and VariantRejected."""
    with console.status("loading"):
        opened = {name: open_variant(folder, THREADS) for name in (KEPT, ANEW)}
    decoders = {name: one for name, one in opened.items() if isinstance(one, OpenCausal)}
    if len(decoders) < len(opened):
        raise NoRace("only decoder-only checkpoints keep what they have read")
    chance, found = random.Random(settings.seed), []
    for prompt in prompts_of(decoders[KEPT], settings):
        order = chance.sample((KEPT, ANEW), 2)
        scribes: Mapping[str, type[Scribe]] = {KEPT: Keeping, ANEW: Scribe}
        written = {name: served(decoders[name], scribes[name], settings.tokens, [prompt])[0] for name in order}
        found.append(Chat(written))
    manifest = decoders[KEPT].manifest
    return report_of(f"{manifest.checkpoint} {manifest.variant}", found[1:], settings)


def prompts_of(opened: OpenCausal, settings: Settings) -> list[str]:
    """Prompts with a common opening and an ending of their own. Equal seeds give equal prompts."""
    chance = random.Random(settings.seed)
    head, *tails = chance.sample(read_texts(SUMMARIES).texts, settings.chats + 1)
    common = opening(opened.prompts, head.text, settings.system)
    return [f"{common}\n{opening(opened.prompts, one.text, settings.own)}" for one in tails]


def report_of(variant: str, chats: Sequence[Chat], settings: Settings) -> Report:
    """Draws up the report; the first chat, which both read whole, is not among these."""
    shares = sorted(one.first_share for one in chats)
    low, high = shares[len(shares) // 20], shares[-1 - len(shares) // 20]
    firsts = {name: median(one.written[name].first_s for one in chats) for name in (KEPT, ANEW)}
    equal = sum(one.is_equal for one in chats)
    rows = [[name, f"{1000 * firsts[name]:.1f} ms"] for name in (KEPT, ANEW)]
    rows.append([f"{KEPT} / {ANEW}", f"{median(shares):.2f} ({low:.2f} to {high:.2f})"])
    note = f"{len(chats)} prompts with {settings.system} tokens in common and about {settings.own} of their own"
    table = Table(f"{variant}: median time to the first token", ("opening", "time"), rows, note)
    document = {
        "host": read_host().kind,
        "variant": variant,
        "first_s": {name: [one.written[name].first_s for one in chats] for name in (KEPT, ANEW)},
        "equal": equal,
    }
    return Report([table], document, remarks=[f"{equal} of {len(chats)} texts are equal"])


def measure_equal(folder: Path, equal: int, seed: int, console: Console) -> Report:
    """Has one request, and so many equal ones, answered at once. Raises NoRace for a variant that does not write."""
    with console.status("loading"):
        opened = open_variant(folder, THREADS)
    chance, took = random.Random(seed), dict[str, list[float]]()
    texts = chance.sample(read_texts(SUMMARIES).texts, ROUNDS + 1)
    said: list[bool] = []
    for at, text in enumerate(texts):
        outputs = {}
        for name in chance.sample((ONE, AGAIN, TOGETHER, EACH), 4):
            copies = equal if name in (TOGETHER, EACH) else 1
            asked = _at_once(opened, text.text, copies, shares=name != EACH, before=name == AGAIN)
            took_s, outputs[name] = uvloop.run(asked)
            if at:  # the first is a warm-up
                took.setdefault(name, []).append(took_s)
        said.append(len({str(one) for name in (ONE, AGAIN, TOGETHER) for one in outputs[name]}) == 1)
    return report_of_equal(f"{opened.manifest.checkpoint} {opened.manifest.variant}", took, equal, said[1:])


async def _at_once(
    opened: OpenVariant, text: str, copies: int, *, shares: bool, before: bool
) -> tuple[float, list[object]]:
    """The seconds until so many equal requests that came at once were answered, and their outputs.

    One came and was answered `before` them.
    """
    entry, serve = entry_of(opened.manifest), kind_named(opened.manifest.kind).serve
    serve(entry, opened, QUEUED, perf_counter)  # keeps nothing, so that the engine forgets what it has read before
    replica = serve(entry.model_copy(update={"prefixes": shares}), opened, QUEUED, perf_counter)
    if not isinstance(replica, WritingReplica):
        raise NoRace("only checkpoints that write have texts that go along with others")
    usual = [entry.task]  # the task's own parameters as they travel, by name, none of them given
    work = Work(entry.task, (text,), usual, NO_DEADLINE_S, strict=False, request_id="bench")
    replica.start()
    try:
        if before:
            await replica.handle([work])
        began = perf_counter()
        answers = await asyncio.gather(*(replica.handle([work]) for _ in range(copies)))
        took_s = perf_counter() - began
    finally:
        await replica.stop(STOP_WITHIN_S)
    found: list[object] = []
    for (answer,) in answers:
        if isinstance(answer, Failure):
            raise EngineFailed(f"a text failed: {answer.kind} {answer.detail}".strip())
        found.extend(answer.outputs)
    return took_s, found


def report_of_equal(variant: str, took: Mapping[str, Sequence[float]], equal: int, said: Sequence[bool]) -> Report:
    """Draws up the report: times by text, and those of equal requests divided by that of one."""
    rows = []
    for name in (ONE, AGAIN, TOGETHER, EACH):
        shares = sorted(one / alone for one, alone in zip(took[name], took[ONE], strict=True))
        share = "1" if name == ONE else f"{median(shares):.2f} ({shares[0]:.2f} to {shares[-1]:.2f})"
        rows.append([name, f"{median(took[name]):.2f} s", share])
    table = Table(
        f"{variant}: median time until all of {equal} equal requests are answered",
        ("requests", "time", "× one"),
        rows,
        f"{len(said)} texts, each in turns",
    )
    document = {"host": read_host().kind, "variant": variant, "equal": equal, "took_s": took}
    return Report([table], document, remarks=[f"{sum(said)} of {len(said)} texts are equal to that of one"])
