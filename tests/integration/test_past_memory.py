"""Laws of the memory of keys and values, on real graphs: it goes with the texts, and never over what was said."""

from __future__ import annotations

import asyncio
from collections.abc import Sequence
from pathlib import Path

import numpy as np
import pytest
from byte_prompts import manifest, prompts
from fakes import entry
from hypothesis import given, settings
from hypothesis import strategies as st
from small_causal import small_causal
from small_seq2seq import articles, seq2seq_tokenizer, small_seq2seq

from deployments.engines.base import Decoder, Logits, TokenIds
from deployments.engines.onnx_causal import OnnxCausal
from deployments.engines.onnx_seq2seq import OnnxSeq2Seq
from deployments.engines.past_memory import CountsPasts, PastNeed
from deployments.engines.prefixes import KeepsPrefixes
from deployments.replica.generate.replica import GeneratorReplica
from deployments.replica.generate.writing import Scribe
from exporters.export import quiet_libraries
from exporters.kinds.graphs import export_causal_graph, export_seq2seq_graphs
from exporters.kinds.stepping import export_shared_steps
from gateway.model.deadline import Clock
from gateway.model.messages import Answer, Failure, FailureKind, Work
from gateway.model.tier import Tier
from gateway.tasks.generate import GenerateParameters

pytestmark = pytest.mark.export

TEXTS = 320
"""Texts of the long run."""

MOST = 24
"""Most tokens that a text has beside its prompt."""


@pytest.fixture(scope="module")
def causal(tmp_path_factory: pytest.TempPathFactory) -> OnnxCausal:
    """The engine of a tiny decoder-only checkpoint with random weights."""
    folder = tmp_path_factory.mktemp("causal")
    with quiet_libraries():
        export_causal_graph(small_causal("llama"), folder)
    return OnnxCausal.open(folder, 1)


@pytest.fixture(scope="module", params=["shared", "alone"])
def seq2seq(request: pytest.FixtureRequest, tmp_path_factory: pytest.TempPathFactory) -> OnnxSeq2Seq:
    """The engine of a tiny encoder-decoder, whose texts share steps, or take turns."""
    folder = tmp_path_factory.mktemp(request.param)
    with quiet_libraries():
        export_seq2seq_graphs(small_seq2seq("bart"), folder)
        if request.param == "shared":
            export_shared_steps(small_seq2seq("bart"), folder)
    return OnnxSeq2Seq.open(folder, 1)


Moves = st.lists(st.tuples(st.sampled_from(["begin", "end", "alone", "together"]), st.integers(0, 2**16)), max_size=40)


class Prompts:
    """Prompts under way, each with what its keys and values may be. No local of a test keeps one alive."""

    def __init__(self, engine: OnnxCausal) -> None:
        self.engine = engine
        self.live: dict[Decoder, PastNeed] = {}

    def begin(self, drawn: int) -> None:
        """One more is read."""
        chance = np.random.default_rng(drawn)
        ids = chance.integers(3, 200, int(chance.integers(2, 60)))
        decoder = self.engine.encode(ids[:-1])
        decoder.step(ids[-1:], np.zeros(1, dtype=np.int64))
        self.live[decoder] = PastNeed(1, len(ids))

    def end(self, drawn: int) -> None:
        """One ends."""
        del self.live[list(self.live)[drawn % len(self.live)]]

    def step(self, drawn: int, *, alone: bool) -> None:
        """Some step together, or one alone, three times."""
        chosen = _some(list(self.live), drawn, alone=alone)
        pending = [(np.asarray([5]), np.zeros(1, dtype=np.int64)) for _ in chosen]
        for _ in range(3):
            for one in chosen:
                self.live[one] = PastNeed(1, self.live[one].positions + 1)
            if alone:
                chosen[0].step(*pending[0])
            else:
                self.engine.step_together(chosen, pending)


class Sources(Prompts):
    """Texts of an encoder-decoder under way, whose beams fork and die."""

    def __init__(self, engine: OnnxSeq2Seq) -> None:
        self.sharing = engine
        self.live = {}
        tokenizer = seq2seq_tokenizer("bart")
        self.texts = [np.asarray(tokenizer.encode(text).ids, dtype=np.int64) for text in articles(6)]

    def begin(self, drawn: int) -> None:
        """One more is read."""
        ids = self.texts[drawn % len(self.texts)]
        decoder = self.sharing.encode(ids)
        decoder.step(np.asarray([2]), np.zeros(1, dtype=np.int64))
        self.live[decoder] = PastNeed(1, 1, len(ids))

    def step(self, drawn: int, *, alone: bool) -> None:
        """Some step together, where they may, or one alone."""
        chosen = _some(list(self.live), drawn, alone=alone or not self.sharing.shares_steps)
        chance, pending = np.random.default_rng(drawn), []
        for one in chosen:
            need, beams = self.live[one], int(chance.integers(1, 5))
            pending.append((chance.integers(3, 60, beams), chance.integers(0, need.rows, beams)))
            self.live[one] = PastNeed(beams, need.positions + 1, need.source)
        if len(chosen) == 1:
            chosen[0].step(*pending[0])
        else:
            self.sharing.step_together(chosen, pending)


def _some(live: list[Decoder], drawn: int, *, alone: bool) -> list[Decoder]:
    """One of them, or several in any order."""
    number = 1 if alone else 1 + drawn % len(live)
    return [live[int(at)] for at in np.random.default_rng(drawn).permutation(len(live))[:number]]


def played(texts: Prompts, engine: CountsPasts, moves: list[tuple[str, int]]) -> None:
    """Plays texts that begin, step and end, and looks at what is held whenever the engine could give back.

    What another test has had kept of its prompts is let go before.
    """
    assert isinstance(engine, KeepsPrefixes)
    engine.prefixes.resize(0)
    for move, drawn in moves:
        if move == "begin" and len(texts.live) < 8:
            texts.begin(drawn)
        elif texts.live and move == "end":
            texts.end(drawn)
            continue
        elif texts.live:
            texts.step(drawn, alone=move == "alone")
        assert engine.held_bytes <= engine.most_bytes(list(texts.live.values()))
    texts.live.clear()
    assert engine.held_bytes == 0


@settings(max_examples=12, deadline=None)
@given(moves=Moves)
def test_prompts_hold_no_more_than_was_said(causal: OnnxCausal, moves: list[tuple[str, int]]) -> None:
    """Whoever joins, leaves and ends: keys and values of those under way never take more than was said of them."""
    played(Prompts(causal), causal, moves)


@settings(max_examples=12, deadline=None)
@given(moves=Moves)
def test_sources_hold_no_more_than_was_said(seq2seq: OnnxSeq2Seq, moves: list[tuple[str, int]]) -> None:
    """Of encoder-decoders too, with the keys and values of their sources, however their beams fork and die."""
    played(Sources(seq2seq), seq2seq, moves)


async def test_many_texts_leave_memory_flat(causal: OnnxCausal, tmp_path: Path) -> None:
    """Over hundreds of texts of random lengths, many at once, what is held stays in its limit, and all comes back.

    The limit is of three texts of the window, so that most have to wait; a text that may be longer is refused.
    """
    loop = asyncio.get_running_loop()
    clock: Clock = loop.time
    limit = -(-causal.most_bytes([PastNeed(1, 64)] * 3) // 1_000_000)
    scribbler = entry("scribbler", Tier.BALANCED, 40.0).model_copy(update={"past_mb": limit})
    replica = GeneratorReplica(scribbler, Scribe(manifest(), causal, prompts(tmp_path)), 2 * TEXTS, clock)
    replica.start()
    chance, held = np.random.default_rng(1), list[float]()

    async def ask(number: int) -> Answer | Failure:
        tokens, most = int(chance.integers(1, 40)), int(chance.integers(1, MOST))
        work = Work("generate", ("a" * tokens,), GenerateParameters(max_new_tokens=most), 600.0, False, str(number))
        (answer,) = await replica.handle([work])
        held.append(replica.totals().figures()["past_bytes"])
        return answer

    try:
        answers = await asyncio.gather(*map(ask, range(TEXTS)))
        figures = replica.totals().figures()
        assert all(isinstance(one, Answer) for one in answers)
        assert max(held) <= limit * 1_000_000 and figures["past_limit_bytes"] == limit * 1_000_000
        assert figures["past_bytes"] == figures["past_prefix_bytes"] and figures["past_reserved_bytes"] == 0
        assert figures["restored_prompts"] + figures["followed"] > TEXTS / 2
    finally:
        await replica.stop(60)


async def test_a_text_that_can_never_fit_is_refused_with_the_limit(causal: OnnxCausal, tmp_path: Path) -> None:
    """It is refused before anything runs, and told the bytes that it may take, and the limit."""

    class Wide(OnnxCausal):
        """An engine whose texts take a million times as much."""

        def most_bytes(self, needs: Sequence[PastNeed]) -> int:
            """Says so."""
            return 1_000_000 * causal.most_bytes(needs)

    engine = Wide(causal._graph)
    scribbler = entry("scribbler", Tier.BALANCED, 40.0).model_copy(update={"past_mb": 1})
    replica = GeneratorReplica(
        scribbler, Scribe(manifest(), engine, prompts(tmp_path)), 9, asyncio.get_running_loop().time
    )
    replica.start()
    try:
        work = Work("generate", ("abc",), GenerateParameters(max_new_tokens=4), 600.0, False, "r")
        (refused,) = await replica.handle([work])
        assert isinstance(refused, Failure) and refused.kind is FailureKind.TOO_LONG and refused.unit == "bytes"
        assert refused.limit == 1_000_000 < refused.tokens and "past_mb" in refused.detail
        assert replica.totals().figures()["refused_for_memory"] == 1
    finally:
        await replica.stop(60)


@pytest.fixture(scope="module", params=["llama", "gpt2", "gpt_neo"])
def prompted(request: pytest.FixtureRequest, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The graph of a tiny decoder-only checkpoint of a family."""
    folder = tmp_path_factory.mktemp(request.param)
    with quiet_libraries():
        export_causal_graph(small_causal(request.param), folder)
    return folder


@settings(max_examples=8, deadline=None)
@given(seed=st.integers(0, 2**16), limit=st.sampled_from([0, 40_000, 10**9]))
def test_what_is_restored_is_written_as_if_it_were_read(prompted: Path, seed: int, limit: int) -> None:
    """Prompts with a beginning in common are answered token for token as by an engine that keeps none.

    The prompts that are kept stay within their limit.
    """
    chance = np.random.default_rng(seed)
    plain, keeping = OnnxCausal.open(prompted, 1), OnnxCausal.open(prompted, 1)
    keeping.prefixes.resize(limit)
    common = chance.integers(3, 200, 30)
    for _ in range(5):
        tail = chance.integers(3, 200, int(chance.integers(0, 20)))
        ids = np.concatenate([common[: int(chance.integers(10, 31))], tail, common[:1]])
        assert _written(keeping, ids) == _written(plain, ids)
        assert keeping.prefixes.held_bytes <= limit and plain.prefixes.held_bytes == 0
        assert keeping.held_bytes == keeping.prefixes.held_bytes
    assert plain.prefixes.restored_prompts == 0 and (limit or not keeping.prefixes.restored_prompts)
    assert limit < 10**9 or _written(keeping, ids) == _written(plain, ids)
    assert limit < 10**9 or keeping.prefixes.restored_tokens > 0
    keeping.prefixes.resize(0)
    assert keeping.held_bytes == 0


def _written(engine: OnnxCausal, ids: TokenIds) -> list[int]:
    """The likeliest tokens after a prompt."""
    decoder, row, found = engine.encode(ids[:-1]), np.zeros(1, dtype=np.int64), list[int]()
    token = int(ids[-1])
    for _ in range(12):
        token = int(decoder.step(np.asarray([token]), row)[0].argmax())
        found.append(token)
    return found


@settings(max_examples=12, deadline=None)
@given(seed=st.integers(0, 2**16), limit=st.sampled_from([0, 60_000, 10**9]), wide=st.sampled_from([1, 3]))
def test_what_was_made_of_a_source_is_as_if_it_were_made_again(
    seq2seq: OnnxSeq2Seq, seed: int, limit: int, wide: int
) -> None:
    """Of equal sources all but the first run no encoder, and each step has the same logits; the limit holds."""
    chance, tokenizer = np.random.default_rng(seed), seq2seq_tokenizer("bart")
    texts = [np.asarray(tokenizer.encode(text).ids, dtype=np.int64)[: 9 + at] for at, text in enumerate(articles(3))]
    anew = {at: _logits(seq2seq, ids, wide) for at, ids in enumerate(texts)}
    before = seq2seq.prefixes.restored_tokens
    seq2seq.prefixes.resize(limit)
    try:
        for at in chance.integers(0, len(texts), 12).tolist():
            assert all(map(np.array_equal, _logits(seq2seq, texts[at], wide), anew[at]))
            assert seq2seq.prefixes.held_bytes <= limit
        assert (seq2seq.prefixes.restored_tokens > before) == (limit == 10**9) or limit == 60_000
    finally:
        seq2seq.prefixes.resize(0)
    assert seq2seq.prefixes.held_bytes == 0


def _logits(engine: OnnxSeq2Seq, ids: TokenIds, rows: int) -> list[Logits]:
    """What comes of a source by a few steps, of so many rows from the second on."""
    decoder = engine.encode(ids)
    found = [decoder.step(np.asarray([2]), np.zeros(1, dtype=np.int64))]
    for at in range(4):
        found.append(decoder.step(np.arange(5, 5 + rows) + at, np.zeros(rows, dtype=np.int64)))
    return found
