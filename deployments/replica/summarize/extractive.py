"""Extractive summaries: an encoder reads a text's sentences, and a ranker picks the most important, in their order.

Any text gets an answer. When time runs out, the ranker picks among the sentences read so far.
"""

from __future__ import annotations

import math
from collections.abc import Iterator, Sequence
from dataclasses import dataclass, field, fields
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from deployments.engines.base import Engine, Logits, padded
from deployments.engines.opening import ONNX_FILE, open_engine
from deployments.replica.kinds import ReplicaKind
from deployments.replica.sentences import SentenceSpan, split_sentences
from deployments.replica.summarize.ranking import Facts, Ranker, default_count, describe
from deployments.replica.summarize.replica import SummarizerReplica
from deployments.replica.tokens import TOKENIZER_FILE, TextTokens
from deployments.replica.variant import VariantRejected, check_answers
from deployments.replica.writing.job import (
    WORDS_PER_TOKEN,
    Steps,
    TextBudget,
    WritingJob,
    WritingResult,
    as_it_is,
    readable,
    words_for,
)
from gateway.catalogs.catalog import CatalogEntry
from gateway.model.deadline import Clock
from gateway.model.manifest import ExtractiveManifest
from gateway.model.messages import FinishReason, Generation, InputReport
from gateway.model.profile import LatencyProfile
from gateway.tasks.service_time import SLOWDOWN_WEIGHT, Slowdown
from gateway.tasks.summarize import SummarizeParameters

STRETCH = 64
"""Sentences that are tokenised together and sorted by length into batches.

Stretches are read in the text's order, so that the text's beginning has been read when time runs out. If time may not
suffice for a stretch, its batches keep the text's order too."""

MOST_IN_BATCH = 8
TRIES = 4
"""Attempts with fewer words, while the chosen sentences have too many tokens, before a sentence is cut."""

RANKER_FILE = "ranker.json"


@dataclass(frozen=True, slots=True)
class _Encoded:
    """A sentence: its place in the text, its token ids cut to the window, and its number of tokens before the cut."""

    place: int
    token_ids: list[int]
    tokens: int


@dataclass(slots=True)
class _Read:
    """What was read so far: vectors by the sentence's place, facts by stretch, tokens seen and tokens read."""

    vectors: dict[int, Logits] = field(default_factory=dict)
    facts: list[Facts] = field(default_factory=list)
    total: int = 0
    kept: int = 0


@dataclass(frozen=True)
class OpenExtractive:
    """A sentence encoder that has passed its checks; its engine's logits are vectors (sentences, dimensions)."""

    manifest: ExtractiveManifest
    engine: Engine
    tokens: TextTokens
    ranker: Ranker


class ExtractiveSummarizer:
    """Picks sentences with one encoder. Several jobs may be under way at once."""

    def __init__(self, manifest: ExtractiveManifest, engine: Engine, tokens: TextTokens, ranker: Ranker) -> None:
        self._most_tokens = manifest.max_tokens
        self._sentences = manifest.sentences
        self._pad_id = manifest.pad_token_id
        self._profile = LatencyProfile.from_document(manifest.profile)
        self._engine = engine
        self._tokens = tokens
        self._ranker = ranker
        self._slowdown = Slowdown(SLOWDOWN_WEIGHT)

    def begin(self, text: str, parameters: SummarizeParameters, budget: TextBudget) -> WritingJob:
        """Makes the job of one text; runs nothing yet."""
        budget.left_s = self._expected_s(_estimated_tokens(len(text)))
        return WritingJob(budget, self._steps(text, parameters, budget))

    def _steps(self, text: str, parameters: SummarizeParameters, budget: TextBudget) -> Steps:
        if not readable(text):
            return as_it_is(text, 0, budget)
        read = _Read()
        if budget.remaining_s <= 0:
            read.total = _estimated_tokens(len(text))
            return self._result("", "deadline", read, parameters, budget)
        spans = split_sentences(text)
        for first in range(0, len(spans), STRETCH):
            stretch = spans[first : first + STRETCH]
            sentences = self._encoded(text, stretch, first)
            read.total += sum(one.tokens for one in sentences)
            read.facts.append(describe(text, stretch))
            rest_s = self._expected_s(_estimated_tokens(len(text) - stretch[-1].end))
            batches = list(_batches(sorted(sentences, key=lambda one: len(one.token_ids))))
            if not budget.fits(self._batches_s(batches)):
                batches = list(_batches(sentences))
            for at, batch in enumerate(batches):
                if not budget.fits(self._batches_s([batch])):
                    read.total += _estimated_tokens(len(text) - stretch[-1].end)
                    return self._chosen(text, spans, read, parameters, budget)
                began, profiled_s = budget.clock(), self._batches_s([batch]) / self._slowdown.value
                self._read(batch, read)
                self._slowdown.learn(budget.clock() - began, profiled_s)
                budget.left_s = rest_s + self._batches_s(batches[at + 1 :])
                yield None  # the choice is made among all sentences, at the end
        return self._chosen(text, spans, read, parameters, budget)

    def _encoded(self, text: str, stretch: Sequence[SentenceSpan], first: int) -> list[_Encoded]:
        """Tokenises the sentences of a stretch, each cut to the encoder's window."""
        encoded = self._tokens.encode_batch([text[span.start : span.end] for span in stretch])
        return [
            _Encoded(first + at, self._tokens.cut(ids, self._most_tokens), len(ids)) for at, ids in enumerate(encoded)
        ]

    def _read(self, batch: Sequence[_Encoded], read: _Read) -> None:
        rows = padded([one.token_ids for one in batch], self._pad_id)
        vectors = self._engine.run(rows.token_ids, rows.attention_mask)
        for one, vector in zip(batch, vectors, strict=True):
            read.vectors[one.place] = vector
            read.kept += len(one.token_ids)

    def _chosen(
        self, text: str, spans: Sequence[SentenceSpan], read: _Read, parameters: SummarizeParameters, budget: TextBudget
    ) -> WritingResult:
        """Picks the summary from what was read: whole sentences, or the start of one if none is short enough."""
        reason: FinishReason = "stop" if len(read.vectors) == len(spans) else "deadline"
        if not read.vectors:
            return self._result("", reason, read, parameters, budget)
        places = sorted(read.vectors)
        vectors, facts = np.stack([read.vectors[place] for place in places]), _facts_of(read.facts, len(spans))
        count, most = self._count(facts, len(spans), places, parameters), parameters.max_new_tokens
        words = words_for(most)
        for _ in range(TRIES):
            chosen = self._ranker.choose(vectors, facts, count, words, places)
            summary = " ".join(" ".join(text[spans[place].start : spans[place].end].split()) for place in chosen)
            tokens = self._count_tokens(summary)
            if chosen and (most is None or words is None or tokens <= most):
                return self._result(summary, reason, read, parameters, budget)
            if not chosen or words is None or most is None:
                break
            words = min(words - 1, words * most // tokens)
        best = spans[self._ranker.choose(vectors, facts, 1, positions=places)[0]]
        return self._result(self._cut(text[best.start : best.end], most), "length", read, parameters, budget)

    def _count(self, facts: Facts, sentences: int, places: Sequence[int], parameters: SummarizeParameters) -> int:
        """How many sentences to pick: the checkpoint's number, or more to reach the request's minimum length."""
        count = min(self._sentences, default_count(sentences))
        if parameters.min_new_tokens:
            least_words = parameters.min_new_tokens * WORDS_PER_TOKEN
            count = max(count, math.ceil(least_words / max(float(facts.words[list(places)].mean()), 1.0)))
        return min(count, len(places))

    def _cut(self, sentence: str, most_tokens: int | None) -> str:
        """The first words of a sentence that have at most `most_tokens` tokens together, but at least one word."""
        words = sentence.split()
        fitting = min(len(words), words_for(most_tokens) or len(words))
        while most_tokens and fitting > 1 and (tokens := self._count_tokens(" ".join(words[:fitting]))) > most_tokens:
            fitting = max(1, min(fitting - 1, fitting * most_tokens // tokens))
        return " ".join(words[:fitting])

    def _result(
        self, summary: str, reason: FinishReason, read: _Read, parameters: SummarizeParameters, budget: TextBudget
    ) -> WritingResult:
        generation = Generation(
            finish_reason=reason,
            steps=budget.steps,
            tokens=self._count_tokens(summary),
            beams=1,
            max_new_tokens=parameters.max_new_tokens or 0,
            pieces=1,
            headroom_s=budget.headroom_s,
        )
        return WritingResult(summary, generation, InputReport(read.total, read.kept, read.kept < read.total))

    def _count_tokens(self, summary: str) -> int:
        return len(self._tokens.encode(summary)) - self._tokens.specials if summary else 0

    def _batches_s(self, batches: Sequence[Sequence[_Encoded]]) -> float:
        """The median seconds for these batches at the current slowdown."""
        profiled_s = sum(
            self._profile.median_s(len(batch), max(len(one.token_ids) for one in batch)) for batch in batches
        )
        return self._slowdown.value * profiled_s

    def _expected_s(self, tokens: int) -> float:
        per_token_s = self._profile.median_s(MOST_IN_BATCH, 32) / (MOST_IN_BATCH * 32)
        return self._slowdown.value * tokens * per_token_s


def _batches(sentences: Sequence[_Encoded]) -> Iterator[Sequence[_Encoded]]:
    """Groups neighbouring sentences into batches."""
    for at in range(0, len(sentences), MOST_IN_BATCH):
        yield sentences[at : at + MOST_IN_BATCH]


def _estimated_tokens(characters: int) -> int:
    """Estimates the tokens of a text by its length, for reports and forecasts."""
    return math.ceil(characters / 4)


def _facts_of(stretches: Sequence[Facts], sentences: int) -> Facts:
    """Joins the facts of stretches into those of the whole text; they are zero for stretches that were not read."""

    def whole(column: str) -> NDArray[Any]:
        known = np.concatenate([getattr(facts, column) for facts in stretches])
        return np.pad(known, (0, sentences - len(known)))

    return Facts(**{column.name: whole(column.name) for column in fields(Facts)})


def _open(folder: Path, manifest: ExtractiveManifest, threads: int, at_once: int) -> OpenExtractive:
    tokens = TextTokens.open(folder / TOKENIZER_FILE)
    engine = open_engine(folder, manifest, threads, at_once)
    check_answers(
        manifest.checkpoint,
        manifest.self_test,
        engine,
        lambda text: tokens.cut(tokens.encode(text), manifest.max_tokens),
    )
    try:
        ranker = Ranker.load(folder / RANKER_FILE)
    except ValueError as error:
        raise VariantRejected(manifest.checkpoint, RANKER_FILE, "a ranker of this version", str(error)) from None
    return OpenExtractive(manifest, engine, tokens, ranker)


def _serve(entry: CatalogEntry, variant: OpenExtractive, max_queued_inputs: int, clock: Clock) -> SummarizerReplica:
    summarizer = ExtractiveSummarizer(variant.manifest, variant.engine, variant.tokens, variant.ranker)
    return SummarizerReplica(entry, summarizer, max_queued_inputs, clock)


KIND = ReplicaKind(lambda manifest: (TOKENIZER_FILE, RANKER_FILE, ONNX_FILE), _open, _serve)
