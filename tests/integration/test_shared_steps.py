"""Laws of texts of an encoder-decoder that share steps, on real architectures: each writes what the model writes."""

from __future__ import annotations

import gc
import weakref
from collections.abc import Iterator, Sequence
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from small_seq2seq import (
    SHARING_FAMILIES,
    articles,
    finish,
    generate,
    rules_of,
    seq2seq_tokenizer,
    small_seq2seq,
)
from transformers import PreTrainedModel

from deployments.engines.base import Decoder, TokenIds
from deployments.engines.onnx_seq2seq import OnnxSeq2Seq, OnnxSharedDecoder
from deployments.replica.writing.beam_search import BeamSearch, SearchRules
from exporters.export import quiet_libraries
from exporters.kinds.graphs import export_seq2seq_graphs
from exporters.kinds.stepping import DECODERS, export_shared_steps

pytestmark = pytest.mark.export

TEXTS, MOST = 6, 40
"""Texts of a play, and their most tokens: more than a buffer holds at first, so that it grows."""

Exported = dict[str, tuple[PreTrainedModel, OnnxSeq2Seq]]


@pytest.fixture(scope="module", autouse=True)
def small_pages() -> Iterator[None]:
    """Pages of so few tokens that texts have several, and not all as many."""
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr("deployments.engines.shared_past.PAGE", 4)
        yield


@pytest.fixture(scope="module")
def exported(tmp_path_factory: pytest.TempPathFactory) -> Exported:
    """A tiny model of each family with the engine of its fp32 graphs."""
    root, made = tmp_path_factory.mktemp("graphs"), {}
    for family in SHARING_FAMILIES:
        with quiet_libraries():  # each has a model of its own, since an export changes T5's encoder
            export_seq2seq_graphs(small_seq2seq(family), root / family)
            export_shared_steps(small_seq2seq(family), root / family)
        made[family] = small_seq2seq(family), OnnxSeq2Seq.open(root / family, 1)
    return made


class Play:
    """Texts with a search each, of which any number step together."""

    def __init__(self, model: PreTrainedModel, engine: OnnxSeq2Seq, beams: Sequence[int]) -> None:
        family = model.config.model_type
        ids = [np.array(seq2seq_tokenizer(family).encode(text).ids, dtype=np.int64) for text in articles(len(beams))]
        self.engine = engine
        self.rules = [
            rules_of(model, max_new_tokens=MOST, beams=wide, no_repeat_ngram_size=3, length_penalty=2.0)
            for wide in beams
        ]
        self.texts = ids
        self.searches = [BeamSearch(one) for one in self.rules]
        self.decoders: dict[int, Decoder] = {}

    def step(self, chosen: Sequence[int]) -> None:
        """Begins those of the chosen that have not, and has the others step together."""
        begun = [at for at in chosen if at in self.decoders]
        for at in set(chosen) - set(begun):
            self.decoders[at] = self.engine.encode(self.texts[at])
            self.searches[at].feed(self.decoders[at].step(*self.searches[at].pending))
        if begun:
            pending = [self.searches[at].pending for at in begun]
            found = self.engine.step_together([self.decoders[at] for at in begun], pending)
            for at, logits in zip(begun, found, strict=True):
                self.searches[at].feed(logits)
        for at in chosen:
            if self.searches[at].done:
                del self.decoders[at]

    @property
    def going_on(self) -> list[int]:
        """The texts that are not done."""
        return [at for at, search in enumerate(self.searches) if not search.done]


def meant(model: PreTrainedModel, ids: TokenIds, rules: SearchRules) -> tuple[int, ...]:
    """What `generate` writes, without start, end and padding."""
    special = {rules.decoder_start_token_id, rules.pad_token_id, *rules.eos_token_ids}
    return tuple(token for token in generate(model, ids, rules) if token not in special)


def test_the_families_that_share_steps_are_tested() -> None:
    """Every family whose texts share steps is tried here."""
    assert set(SHARING_FAMILIES) == set(DECODERS)


@pytest.mark.parametrize("family", SHARING_FAMILIES)
@settings(max_examples=6, deadline=None)
@given(beams=st.lists(st.sampled_from([1, 1, 2, 4]), min_size=TEXTS, max_size=TEXTS), seed=st.integers(0, 2**16))
def test_texts_that_share_steps_are_written_as_alone(
    exported: Exported, family: str, beams: list[int], seed: int
) -> None:
    """Texts of unlike lengths and searches write what `generate` writes, whoever joins, leaves or steps alone."""
    model, engine = exported[family]
    play, chance = Play(model, engine, beams), np.random.default_rng(seed)
    company: list[int] = []
    while play.going_on:
        if chance.random() < 0.3 or not set(company) & set(play.going_on):
            number = int(chance.integers(1, len(play.going_on) + 1))
            company = [int(one) for one in chance.permutation(play.going_on)[:number]]
        play.step([at for at in company if at in play.going_on])
    for ids, rules, search in zip(play.texts, play.rules, play.searches, strict=True):
        assert search.best() == meant(model, ids, rules)


def test_companies_on_several_threads_do_not_meet(exported: Exported) -> None:
    """Texts that share steps now with some, now with others, on several threads at once, are written as alone."""
    model, engine = exported["bart"]
    beams = [4, 1, 2, 4, 1, 4]
    play, chance = Play(model, engine, beams), np.random.default_rng(3)
    with ThreadPoolExecutor(3) as threads:
        while play.going_on:
            mixed = [int(one) for one in chance.permutation(play.going_on)]
            list(threads.map(play.step, [part for part in (mixed[:2], mixed[2:3], mixed[3:]) if part]))
    for ids, rules, search in zip(play.texts, play.rules, play.searches, strict=True):
        assert search.best() == meant(model, ids, rules)


def test_a_step_that_failed_may_be_taken_again(exported: Exported, monkeypatch: pytest.MonkeyPatch) -> None:
    """A step whose run fails, in company or alone, leaves each text where it was."""
    model, engine = exported["bart"]
    play = Play(model, engine, [4, 4])
    for _ in range(6):
        play.step([0, 1])
    shares = [one.share for one in play.decoders.values() if isinstance(one, OnnxSharedDecoder)]
    pending = [play.searches[at].pending for at in (0, 1)]
    lengths = [one.length for one in shares if one is not None]
    with pytest.raises(ValueError, match="zip"):  # one token too few
        engine.step_together(list(play.decoders.values()), pending[:1])
    bad = [(tokens + 10**6, origins) for tokens, origins in pending]
    with pytest.raises(Exception, match="out of data bounds"):
        engine.step_together(list(play.decoders.values()), bad)
    assert [one.length for one in shares if one is not None] == lengths
    while play.going_on:
        play.step(play.going_on)
    for ids, rules, search in zip(play.texts, play.rules, play.searches, strict=True):
        assert search.best() == meant(model, ids, rules)


def test_a_past_goes_with_the_last_that_has_it(exported: Exported) -> None:
    """What texts shared is freed when they are, without a collection; who goes on alone keeps no other's source."""
    model, engine = exported["t5"]
    play = Play(model, engine, [1] * 5)
    for _ in range(3):
        play.step(play.going_on)
    one = play.decoders[0]
    assert isinstance(one, OnnxSharedDecoder) and one.share is not None and len(one.share.past.cross[0]) >= 5
    gc.disable()
    try:
        for at in range(1, 5):
            del play.decoders[at]
        one.step(np.asarray([5]), np.zeros(1, dtype=np.int64))
        assert len(one.share.past.cross[0]) < 4 and one.share.past.own.shape[1] == 1
        past = weakref.ref(one.share.past.own)
        play.decoders.clear()
        del one
        assert past() is None
    finally:
        gc.enable()


def test_steps_that_cannot_be_shared_are_refused(exported: Exported, tmp_path: Path) -> None:
    """Optimum's own graph of later steps runs alone only; so does a text that has had no first step."""
    with quiet_libraries():
        export_seq2seq_graphs(small_seq2seq("bart"), tmp_path)
    model, sharing = exported["bart"]
    ids = Play(model, sharing, [1]).texts[0]
    engine, rules = OnnxSeq2Seq.open(tmp_path, 1), rules_of(model, max_new_tokens=4)
    assert sharing.shares_steps and not engine.shares_steps
    assert finish(BeamSearch(rules), engine.encode(ids)) == finish(BeamSearch(rules), sharing.encode(ids))
    pending = BeamSearch(rules).pending
    for decoder in (engine.encode(ids), sharing.encode(ids)):
        with pytest.raises(ValueError, match="cannot be shared"):
            sharing.step_together([decoder], [pending])
    with pytest.raises(ValueError, match="2 rows"):
        sharing.encode(ids).step(np.array([0, 0]), np.array([0, 0]))


@pytest.mark.parametrize("family", SHARING_FAMILIES)
@settings(max_examples=4, deadline=None)
@given(
    beams=st.lists(st.sampled_from([1, 2, 4]), min_size=3, max_size=3),
    limit=st.sampled_from([0, 60_000, 10**9]),
    seed=st.integers(0, 2**16),
)
def test_a_source_that_was_read_is_written_as_if_it_were_read_again(
    exported: Exported, family: str, beams: list[int], limit: int, seed: int
) -> None:
    """Texts whose sources are kept are written as the model writes them, alone and in company; the limit holds.

    Some are as long as a page, so that what is kept looks as the buffers of a company do, which are written to.
    """
    (model, engine), chance = exported[family], np.random.default_rng(seed)
    first = Play(model, engine, beams)
    first.texts = [ids[: int(chance.choice([4, 7, 8, 30]))] for ids in first.texts]
    restored = engine.prefixes.restored_prompts
    engine.prefixes.resize(limit)
    try:
        for _ in range(3):
            play = Play(model, engine, [int(wide) for wide in chance.permutation(beams)])
            play.texts = first.texts
            while play.going_on:
                chosen = chance.permutation(play.going_on)[: int(chance.integers(1, 4))]
                play.step([int(one) for one in chosen])
                assert engine.prefixes.held_bytes <= limit
            for ids, rules, search in zip(play.texts, play.rules, play.searches, strict=True):
                assert search.best() == meant(model, ids, rules)
        assert limit < 10**9 or engine.prefixes.restored_prompts >= restored + 2 * len(set(map(bytes, first.texts)))
    finally:
        engine.prefixes.resize(0)
    assert engine.prefixes.held_bytes == 0 and (limit or engine.prefixes.restored_prompts == restored)
