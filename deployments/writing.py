"""From a checkpoint's rules of writing to a search, and the plainest way to run one: to its end, on the calling thread.

Knows manifests, searches and the port of engines that write; refuses to know texts, budgets and engines' libraries.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import replace

import numpy as np

from deployments.engines.port import Seq2SeqEngine
from deployments.search import Search, SearchRules
from deployments.tokens import TextTokens
from gateway.manifest import GenerationRules

GOLDEN_TOKENS = 24
"""A golden text is written on to so many tokens at most: enough to find a fault, and short at every start."""


def search_rules(
    generation: GenerationRules,
    pad_token_id: int,
    *,
    beams: int | None = None,
    max_new_tokens: int | None = None,
    min_new_tokens: int | None = None,
) -> SearchRules:
    """The search that a checkpoint's rules describe; its own beams and lengths where they are not given.

    At most the checkpoint's own `max_new_tokens` are written, and a least number above the most counts as the most.
    """
    most = min(generation.max_new_tokens, max_new_tokens or generation.max_new_tokens)
    least = generation.min_new_tokens if min_new_tokens is None else min_new_tokens
    return SearchRules(
        decoder_start_token_id=generation.decoder_start_token_id,
        eos_token_ids=generation.eos_token_ids,
        pad_token_id=pad_token_id,
        max_new_tokens=most,
        min_new_tokens=min(least, most),
        beams=beams or generation.num_beams,
        length_penalty=generation.length_penalty,
        early_stopping=generation.early_stopping,
        no_repeat_ngram_size=generation.no_repeat_ngram_size,
        forced_bos_token_id=generation.forced_bos_token_id,
        forced_eos_token_id=generation.forced_eos_token_id,
    )


def source_ids(tokens: TextTokens, text: str, prefix: str, window: int) -> list[int]:
    """The token ids of a text behind the checkpoint's prefix, its head where it passes the window."""
    return tokens.cut(tokens.encode(prefix + text), window)


def write(engine: Seq2SeqEngine, token_ids: Sequence[int], rules: SearchRules) -> tuple[int, ...]:
    """What the engine writes after a text's token ids, without start and end. Blocking, for as long as that takes."""
    decoder, search = engine.encode(np.asarray(token_ids, dtype=np.int64)), Search(rules)
    while not search.done:
        search.feed(decoder.step(*search.pending))
    return search.best()


def write_greedily(engine: Seq2SeqEngine, token_ids: Sequence[int], rules: SearchRules) -> tuple[int, ...]:
    """The same with one beam, whatever the rules say of beams."""
    return write(engine, token_ids, replace(rules, beams=1))


def write_golden(
    engine: Seq2SeqEngine, token_ids: Sequence[int], generation: GenerationRules, pad_token_id: int
) -> tuple[int, ...]:
    """The first tokens that are written greedily after a golden text's."""
    return write_greedily(
        engine, token_ids, search_rules(generation, pad_token_id, beams=1, max_new_tokens=GOLDEN_TOKENS)
    )
