"""What races in `punctual bench writing` over an encoder-decoder, whose texts are summaries of sources.

Each is written by the replica as it is served, by the same replica whose texts share the engine by time slices only,
by `generate` of transformers in padded batches and, where a variant of before is given, by that, one by one.
"""

from __future__ import annotations

import asyncio
import random
from collections.abc import Callable, Sequence
from functools import partial
from pathlib import Path
from time import perf_counter
from typing import TYPE_CHECKING

import uvloop

from deployments.replica.summarize.abstractive import AbstractiveSummarizer, OpenSeq2Seq
from deployments.replica.summarize.replica import SummarizerReplica
from deployments.replica.variant import open_variant
from deployments.replica.writing.beam_search import source_ids
from deployments.replica.writing.job import finished_text
from exporters.sources.texts import SUMMARIES, read_texts
from gateway.model.deadline import Clock
from gateway.model.messages import Delta, Failure, Work
from gateway.tasks.summarize import SummarizeParameters
from loadtests.bench.writing import (
    BEFORE,
    NO_DEADLINE_S,
    ONE_BY_ONE,
    STOP_WITHIN_S,
    TEXTS,
    THREADS,
    TOGETHER,
    TRANSFORMERS,
    Field,
    Settings,
    Written,
    entry_of,
    source_of,
)
from loadtests.errors import EngineFailed, NoRace

if TYPE_CHECKING:
    from loadtests.bench.decoding.torch import Seq2SeqTorchPeer

SHORTEST, LONGEST = 64, 1024
"""Tokens of a source; lengths between have log-uniform chances. Set by hand: a paragraph, and a news story."""


def field_of(opened: OpenSeq2Seq, before: Path | None, cache: Path, settings: Settings) -> Field:
    """Who races over a variant, and the sources. Raises NoRace if its texts cannot share steps, or write so much."""
    manifest = opened.manifest
    if not manifest.shares_steps:
        raise NoRace(f"{manifest.checkpoint} has optimum's graph of later steps, which texts cannot share")
    if settings.tokens > manifest.generation.max_new_tokens:
        raise NoRace(f"{manifest.checkpoint} writes {manifest.generation.max_new_tokens} tokens at most")
    texts = sources_of(opened, settings)
    contestants: dict[str, Callable[[Sequence[str]], Sequence[Written]]] = {
        TOGETHER: partial(served, opened, settings, True),
        ONE_BY_ONE: partial(served, opened, settings, False),
    }
    if before is not None:
        earlier = open_variant(before, THREADS)
        if not isinstance(earlier, OpenSeq2Seq):
            raise NoRace(f"{before} is no encoder-decoder, as {manifest.checkpoint} is")
        contestants[BEFORE] = partial(served, earlier, settings, False)
    peer = peer_of(opened, cache)
    if not isinstance(peer, str):
        contestants[TRANSFORMERS] = partial(generated, opened, peer, settings)
    lengths = tuple(len(_ids(opened, text)) for text in texts)
    return Field(texts, lengths, contestants, peer if isinstance(peer, str) else "")


def sources_of(opened: OpenSeq2Seq, settings: Settings) -> list[str]:
    """Openings of held-out documents, of unlike lengths within the window. Equal seeds give equal sources."""
    chance, longest = random.Random(settings.seed), min(LONGEST, opened.manifest.max_tokens)
    shortest = min(SHORTEST, longest)
    drawn = [shortest * (longest / shortest) ** chance.random() for _ in range(TEXTS)]
    documents = chance.sample(read_texts(SUMMARIES).texts, TEXTS)
    return [_opening(opened, one.text, round(length)) for one, length in zip(documents, drawn, strict=True)]


def _opening(opened: OpenSeq2Seq, text: str, tokens: int) -> str:
    """The first words of a text, repeated as often as so many tokens want, and cut to as many."""
    words = text.split()
    few = max(1, round(len(words) * tokens / max(len(_ids(opened, text)), 1)))
    words = [words[at % len(words)] for at in range(few)]
    while len(words) > 1 and len(_ids(opened, " ".join(words))) > tokens:
        words.pop()
    return " ".join(words)


def _ids(opened: OpenSeq2Seq, text: str) -> list[int]:
    """The tokens of a source, not cut."""
    return opened.tokens.encode(opened.manifest.generation.prefix + text)


def peer_of(opened: OpenSeq2Seq, cache: Path) -> Seq2SeqTorchPeer | str:
    """The variant's source, loaded by transformers in fp32, or why it cannot be."""
    source = source_of(opened.manifest, cache)
    if isinstance(source, str):
        return source
    from loadtests.bench.decoding.torch import Seq2SeqTorchPeer  # takes seconds, and is the bench's own need

    rules = opened.manifest.generation
    return Seq2SeqTorchPeer.open(source, THREADS, opened.manifest.pad_token_id, rules)


def served(
    opened: OpenSeq2Seq, settings: Settings, together: bool, group: Sequence[str], clock: Clock = perf_counter
) -> Sequence[Written]:
    """Has a replica over the variant summarise a group of sources. Blocking. Raises EngineFailed."""
    summarizer = AbstractiveSummarizer(opened.manifest, opened.engine, opened.tokens)
    company = summarizer.together() if together else None
    replica = SummarizerReplica(entry_of(opened.manifest), summarizer, TEXTS, clock, company)
    return uvloop.run(_answered(replica, settings, group, clock))


async def _answered(
    replica: SummarizerReplica, settings: Settings, group: Sequence[str], clock: Clock
) -> list[Written]:
    """Submits each source as a request of its own, all at once."""
    replica.start()
    try:
        began = clock()
        return list(await asyncio.gather(*(_asked(replica, text, settings, began, clock) for text in group)))
    finally:
        await replica.stop(STOP_WITHIN_S)


async def _asked(replica: SummarizerReplica, text: str, settings: Settings, began: float, clock: Clock) -> Written:
    """One request to summarise, in exactly so many steps."""
    tokens = settings.tokens
    parameters = SummarizeParameters(
        max_new_tokens=tokens, min_new_tokens=tokens, num_beams=settings.beams, truncation="longest_first"
    )
    told: list[float] = []

    def tell(_place: int, _delta: Delta) -> None:
        told.append(clock())

    work = Work("summarize", (text,), parameters, NO_DEADLINE_S, strict=False, request_id="bench", streamed=True)
    (answer,) = await replica.handle([work], tell)
    ended = clock()
    if isinstance(answer, Failure):
        raise EngineFailed(f"a text failed: {answer.kind} {answer.detail}".strip())
    if answer.generation[0].steps != tokens:
        raise EngineFailed(f"a text took {answer.generation[0].steps} steps, and {tokens} were asked for")
    return Written(answer.outputs[0].summary_text, (told[0] if told else ended) - began, ended - began)


def generated(
    opened: OpenSeq2Seq, peer: Seq2SeqTorchPeer, settings: Settings, group: Sequence[str], clock: Clock = perf_counter
) -> Sequence[Written]:
    """Has transformers summarise a group of sources, as one batch. Blocking."""
    began, told = clock(), list[float]()
    rules, window = opened.manifest.generation, opened.manifest.max_tokens
    rows = [source_ids(opened.tokens, text, rules.prefix, window) for text in group]
    found = peer.write(rows, settings.tokens, settings.beams, lambda: told.append(clock()))
    texts = [_text_of(opened, row) for row in found]
    ended = clock()
    return [Written(text, (told[0] if told else ended) - began, ended - began) for text in texts]


def _text_of(opened: OpenSeq2Seq, row: Sequence[int]) -> str:
    """The text of new tokens, trimmed as replicas do."""
    rules = opened.manifest.generation
    special = {rules.decoder_start_token_id, opened.manifest.pad_token_id, *rules.eos_token_ids}
    ended = rules.forced_eos_token_id is None and row[-1] in rules.eos_token_ids
    written = opened.tokens.decode([one for one in row if one not in special])
    return finished_text(written, "stop" if ended else "length")
