"""An engine that is driven from outside, one step after the other, by the gateway's own search."""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np

from deployments.engines.base import Seq2SeqEngine
from deployments.replica.summarize.beam_search import BeamSearch, SearchRules


class StepByStep:
    """A decoding peer made of an engine behind the port of those that write, and the search that replicas run."""

    encodes_alone = True

    def __init__(self, engine: Seq2SeqEngine, arithmetic: str, start_id: int, end_id: int) -> None:
        """Takes an open engine, what it computes in, and the tokens that a text starts and ends with."""
        self.arithmetic = arithmetic
        self._engine = engine
        self._start_id = start_id
        self._end_id = end_id

    def encode(self, token_ids: Sequence[int]) -> None:
        """One run of the encoder."""
        self._engine.encode(np.asarray(token_ids, dtype=np.int64))

    def write(self, token_ids: Sequence[int], beams: int, tokens: int) -> int:
        """One run of the encoder and `tokens` steps, in none of which a text may end."""
        decoder = self._engine.encode(np.asarray(token_ids, dtype=np.int64))
        rules = SearchRules(
            decoder_start_token_id=self._start_id,
            eos_token_ids=(self._end_id,),
            pad_token_id=self._end_id,
            max_new_tokens=tokens,
            min_new_tokens=tokens,
            beams=beams,
        )
        search = BeamSearch(rules)
        while not search.done:
            search.feed(decoder.step(*search.pending))
        return search.steps
