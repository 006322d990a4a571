"""Engines that follow a script on a clock that they advance: one writes, one reads sentences.

With them come a tokenizer of whole words, manifests, and a text's work in steps.
"""

from __future__ import annotations

import zlib
from collections.abc import Callable, Sequence
from dataclasses import dataclass, field
from typing import Any

import numpy as np
from by_hand import SELF_TEST, manifest_of
from fakes import FakeClock, cell
from tokenizers import Tokenizer, decoders, models, normalizers, pre_tokenizers, processors

from deployments.engines.base import Decoder, Logits, Pending, TokenIds
from deployments.replica.summarize.ranking import FEATURES, Ranker
from deployments.replica.tokens import TextTokens
from deployments.replica.writing.job import Steps, TextBudget, WritingJob, WritingResult
from gateway.model.manifest import ExtractiveManifest, GenerationRules, GoldenSummary, Precision, Seq2SeqManifest
from gateway.model.messages import Failure, Generation, InputReport
from gateway.model.profile import ProfileDocument

WORDS = ("the", "river", "rose", "bridge", "closed", "town", "was", "dark", "for", "hours", "people", "waited")
VOCABULARY = ("<pad>", "<s>", "</s>", "<unk>", ".", *WORDS)
PAD, START, END, UNKNOWN, STOP = range(5)
"""Token ids: padding, start of the output, end of the output, unknown word, full stop."""

DIMENSIONS = 4
Saying = Callable[[tuple[int, ...], tuple[int, ...]], int]
"""Returns the next token, given the source ids and the output so far."""


def words(count: int) -> list[int]:
    """Return this many tokens, each a word."""
    return [5 + at % len(WORDS) for at in range(count)]


def text_tokens() -> TextTokens:
    """Return a tokenizer of words and marks, one token each: `<s> text </s>`."""
    made = Tokenizer(models.WordLevel({piece: at for at, piece in enumerate(VOCABULARY)}, unk_token="<unk>"))
    made.normalizer = normalizers.Lowercase()
    made.pre_tokenizer = pre_tokenizers.BertPreTokenizer()
    made.decoder = decoders.WordPiece(prefix="##", cleanup=True)
    made.add_special_tokens(["<pad>", "<s>", "</s>"])
    made.post_processor = processors.TemplateProcessing(
        single="<s> $A </s>", special_tokens=[("<s>", START), ("</s>", END)]
    )
    return TextTokens(made)


def says(tokens: list[int]) -> Saying:
    """Return a saying that writes these tokens for any text, then ends."""
    return lambda source, written: tokens[len(written)] if len(written) < len(tokens) else END


def says_head(count: int) -> Saying:
    """Return a saying that repeats the first tokens of its source, writes a full stop, then ends."""

    def saying(source: tuple[int, ...], written: tuple[int, ...]) -> int:
        said = [*source[1:-1][:count], STOP, END]
        return said[min(len(written), len(said) - 1)]

    return saying


@dataclass
class FakeSeq2Seq:
    """A `Seq2SeqEngine`: reading takes `encode_s`, each later step `step_s` a row; step `fails_at` raises.

    `began` has the start of each run, `rows` the rows of each step, `read` the texts it was given.
    """

    clock: FakeClock
    saying: Saying = field(default_factory=lambda: says([*words(5), STOP]))
    encode_s: float = 0.02
    step_s: float = 0.01
    fails_at: int | None = None
    began: list[float] = field(default_factory=list)
    rows: list[int] = field(default_factory=list)
    read: list[tuple[int, ...]] = field(default_factory=list)

    def encode(self, token_ids: TokenIds) -> _Decoder:
        """Read one text."""
        self.began.append(self.clock())
        self.read.append(tuple(token_ids.tolist()))
        self.clock.advance(self.encode_s)
        return _Decoder(self, self.read[-1])


@dataclass
class SharingSeq2Seq(FakeSeq2Seq):
    """One whose texts may step together: a step takes half of `step_s` a row and half of it a text.

    `companies` has how many stepped together each time.
    """

    companies: list[int] = field(default_factory=list)
    shares_steps: bool = True

    def step_together(self, decoders: Sequence[Decoder], pending: Sequence[Pending]) -> list[Logits]:
        """Run one step of each."""
        rows = sum(len(tokens) for tokens, _ in pending)
        self.companies.append(len(decoders))
        self.began.append(self.clock())
        self.clock.advance(self.step_s * (rows + len(decoders)) / 2)
        return [one.take(*asked) for one, asked in zip(decoders, pending, strict=True) if isinstance(one, _Decoder)]

    def twin(self, decoder: Decoder) -> Decoder:
        """No test asks for it."""
        raise NotImplementedError


@dataclass
class _Decoder:
    engine: FakeSeq2Seq
    source: tuple[int, ...]
    written: list[tuple[int, ...]] = field(default_factory=list)

    def step(self, tokens: TokenIds, origins: TokenIds) -> Logits:
        """Return logits that favour the saying's next token by far; the rest is noise that depends on the output."""
        engine = self.engine
        if self.written:
            engine.began.append(engine.clock())
            engine.clock.advance(engine.step_s * len(tokens))
        return self.take(tokens, origins)

    def take(self, tokens: TokenIds, origins: TokenIds) -> Logits:
        """Return the logits of a step that has been waited for."""
        engine = self.engine
        engine.rows.append(len(tokens))
        if engine.fails_at is not None and len(engine.rows) >= engine.fails_at:
            raise ArithmeticError("secret")
        before = self.written or [()]
        self.written = [(*before[origin], token) for token, origin in zip(tokens, origins, strict=True)]
        return np.stack([self._logits(row[1:]) for row in self.written])

    def _logits(self, row: tuple[int, ...]) -> Logits:
        drawn = np.random.default_rng(zlib.crc32(repr((self.source, row)).encode()))
        logits = drawn.normal(size=len(VOCABULARY)).astype(np.float32)
        logits[[PAD, START, UNKNOWN]] -= 50
        logits[self.engine.saying(self.source, row)] += 8
        return logits


@dataclass
class FakeReader:
    """A sentence encoder: the vector of a sentence depends on its tokens; each batch takes `batch_s`.

    `batches` has the token ids of each batch, without padding.
    """

    clock: FakeClock
    batch_s: float = 0.01
    fails_at: int | None = None
    vector: list[float] | None = None
    began: list[float] = field(default_factory=list)
    batches: list[list[list[int]]] = field(default_factory=list)

    def run(self, token_ids: TokenIds, attention_mask: TokenIds, token_types: TokenIds | None = None) -> Logits:
        """Run one batch of sentences."""
        self.began.append(self.clock())
        self.clock.advance(self.batch_s)
        self.batches.append([row[mask == 1].tolist() for row, mask in zip(token_ids, attention_mask, strict=True)])
        if self.fails_at is not None and len(self.batches) >= self.fails_at:
            raise ArithmeticError("secret")
        if self.vector is not None:
            return np.tile(np.array(self.vector, dtype=np.float32), (len(token_ids), 1))
        rows = [
            [zlib.crc32(bytes(str((row, at)), "ascii")) % 97 for at in range(DIMENSIONS)] for row in self.batches[-1]
        ]
        return np.array(rows, dtype=np.float32)


def ranker() -> Ranker:
    """Return a ranker that prefers central and early sentences."""
    weights = np.zeros((1, len(FEATURES)), dtype=np.float32)
    weights[0, [0, 3]] = 1.0
    own, before, after = np.zeros((3, 1, DIMENSIONS), dtype=np.float32)
    return Ranker(weights, own, before, after, spread=0.0, redundancy=0.5)


def flat_profile(median_s: float, *, by_batch: bool = False) -> ProfileDocument:
    """Return a profile with equal times for any number of tokens, in proportion to the rows if `by_batch`."""
    cells = tuple(cell(batch, n, median_s * (batch if by_batch else 1)) for batch in (1, 2, 4, 8) for n in (16, 64))
    return ProfileDocument(threads=1, measured_on="nothing", cells=cells)


_SAME: dict[str, object] = {"texts": 1, "data_set": "by hand"}
_VARIANT: dict[str, Any] = {"family": "fake", "precision": Precision.INT8, "pad_token_id": PAD}


def writer_manifest(
    window: int = 64,
    encode_s: float = 0.02,
    step_s: float = 0.01,
    output_tokens: float = 8.0,
    *,
    sharing: bool = False,
    **rules: object,
) -> Seq2SeqManifest:
    """Return the manifest of an encoder-decoder like the fake one, or the one whose texts step together.

    `rules` are of its generation.
    """
    given: dict[str, object] = {"max_new_tokens": 24, "num_beams": 4, **rules}
    return manifest_of(
        Seq2SeqManifest,
        "scribe",
        "summarize",
        **_VARIANT,
        max_tokens=window,
        profile=flat_profile(encode_s),
        step_profile=flat_profile(step_s, by_batch=True),
        company_profile=flat_profile(step_s, by_batch=True) if sharing else None,
        generation=GenerationRules.model_validate({"decoder_start_token_id": START, "eos_token_ids": (END,), **given}),
        output_tokens=output_tokens,
        verification={**_SAME, "same_tokens": 1, "same_tokens_floor": 1, "rouge_l_to_source": 1},
        self_test=(GoldenSummary(text="a", token_ids=(1,), written=(1,)),),
    )


def reader_manifest(window: int = 32, batch_s: float = 0.01, sentences: int = 3) -> ExtractiveManifest:
    """Return the manifest of a sentence encoder like the fake one."""
    return manifest_of(
        ExtractiveManifest,
        "scribe",
        "summarize",
        **_VARIANT,
        max_tokens=window,
        profile=flat_profile(batch_s),
        sentences=sentences,
        verification={**_SAME, "same_choice": 1, "same_choice_floor": 1, "least_cosine": 1},
        self_test=SELF_TEST,
    )


CONDENSED = WritingResult("done", Generation("stop", 1, 1, 1, 1, 1, 0.0), InputReport(1, 1, False))


def through(condensing: WritingJob) -> WritingResult | Failure:
    """Step a text to its end, alone."""
    while not condensing.step():
        pass
    assert condensing.outcome is not None
    return condensing.outcome


def in_steps(room: TextBudget, count: int, run: Callable[[], object], step_s: float = 0.01) -> WritingJob:
    """Return a text of this many steps, each of which calls `run` and is forecast to take `step_s`."""

    def way() -> Steps:
        for left in range(count, 0, -1):
            room.left_s = left * step_s
            if not room.fits(step_s):
                break
            run()
            room.left_s = (left - 1) * step_s
            yield None
        return CONDENSED

    room.left_s = count * step_s
    return WritingJob(room, way())
