"""A classifier's replica: sets the deadline, tokenises, runs batches and scores labels."""

from __future__ import annotations

import asyncio
import math
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from functools import partial
from itertools import islice
from pathlib import Path

import msgspec
from tokenizers import Encoding, Tokenizer

from deployments.engines.base import Engine, Logits, guarded
from deployments.engines.opening import ONNX_FILE, open_engine
from deployments.replica.batcher import Batcher, Row, Scored
from deployments.replica.kinds import ReplicaKind
from deployments.replica.tokens import TOKENIZER_FILE, TextEncoder
from deployments.replica.totals import Totals
from deployments.replica.variant import VariantRejected, check_answers, open_variant
from gateway.catalogs.catalog import CatalogEntry
from gateway.model.deadline import Clock
from gateway.model.manifest import ClassifierManifest
from gateway.model.messages import (
    Answer,
    Failure,
    FailureKind,
    InputReport,
    LoadReport,
    ReplicaTimings,
    Work,
    parameters_of,
)
from gateway.model.profile import LatencyProfile
from gateway.tasks.classify import ClassifyParameters, FunctionToApply, LabelScore, Truncation


@dataclass(frozen=True, slots=True)
class Encoded:
    """One text's token ids, cut to the window, and the `tokens_total` before the cut, specials included in both."""

    token_ids: list[int]
    tokens_total: int

    @property
    def kept(self) -> int:
        """How many tokens go to the engine."""
        return len(self.token_ids)

    @property
    def truncated(self) -> bool:
        """True if the text has more tokens than were kept."""
        return self.tokens_total > len(self.token_ids)


READ_CHARACTERS = 16
"""Characters of a text that are tokenised at first, for each token of the window: 20 ms for 8,192 dots, the worst seen.

English has four to five characters a token, so that most texts that are cut are counted exactly.
"""


class LabelScorer:
    """Tokenises texts and scores labels from logits. Safe to use from many threads, since it never changes."""

    def __init__(self, tokenizer: Tokenizer, labels: tuple[str, ...], window: int, pad_id: int = 0) -> None:
        """Takes a tokenizer that truncates at `window` and does not pad, as `open` makes it."""
        self._encoder = TextEncoder(tokenizer)
        self.labels = labels
        self.window = window
        self.pad_id = pad_id

    @classmethod
    def open(cls, tokenizer_file: Path, labels: tuple[str, ...], window: int, pad_id: int = 0) -> LabelScorer:
        """Loads a tokenizer.json, and replaces its truncation and padding by a cut at the window."""
        tokenizer = Tokenizer.from_file(str(tokenizer_file))
        tokenizer.no_padding()
        tokenizer.enable_truncation(window, stride=0, strategy="longest_first", direction="right")
        return cls(tokenizer, labels, window, pad_id)

    def encode(self, text: str, truncation: Truncation) -> Encoded | Failure:
        """Tokenises a text and cuts it to the window; TOO_LONG if it is longer and truncation is `error`.

        Reads only as much of a text as overfills the window, and estimates the rest, so that no text holds the replica
        for long.
        """
        characters = READ_CHARACTERS * self.window
        encoding, total = self._read(text[:characters])
        while total <= self.window and characters < len(text):
            characters *= 4
            encoding, total = self._read(text[:characters])
        if characters < len(text):
            total = math.ceil(total * len(text) / characters)
        if total > self.window and truncation == "error":
            return Failure(FailureKind.TOO_LONG, "over the checkpoint's window", total, self.window)
        return Encoded(encoding.ids, total)

    def _read(self, text: str) -> tuple[Encoding, int]:
        """Encodes a text within the window, and counts all of its tokens.

        One pass does both: the tokenizer returns what it cut off as overflow, in pieces with special tokens of their
        own, which are not counted again.
        """
        encoding = self._encoder.encode(text)
        total = len(encoding.ids)
        if total >= self.window:
            total += sum(len(piece) - sum(piece.special_tokens_mask) for piece in encoding.overflowing)
        return encoding, total

    def ids(self, text: str) -> list[int]:
        """The text's token ids, cut to the window."""
        encoded = self.encode(text, "longest_first")
        assert isinstance(encoded, Encoded), "only truncation='error' gives a failure"
        return encoded.token_ids

    def scores(self, logits: Logits, parameters: ClassifyParameters) -> tuple[LabelScore, ...]:
        """Scores labels from one row of logits: best first, at most `top_k`; equal scores keep the labels' order."""
        values = applied(parameters.function_to_apply, logits)
        best = sorted(range(len(values)), key=lambda i: -values[i])[: parameters.top_k]
        return tuple(LabelScore(self.labels[i], values[i]) for i in best)


def applied(function: FunctionToApply, logits: Logits) -> list[float]:
    """Applies a function to one row of logits in float64, without overflow for large logits."""
    row: list[float] = logits.tolist()
    match function:
        case "softmax":
            largest = max(row)
            powers = [math.exp(value - largest) for value in row]
            total = math.fsum(powers)
            return [power / total for power in powers]
        case "sigmoid":
            return [1 / (1 + math.exp(-v)) if v >= 0 else math.exp(v) / (1 + math.exp(v)) for v in row]
        case "none":
            return row


INLINE_CHARACTERS = 2_000
"""Characters of a batch up to which it is tokenised on the loop (under 0.1 ms); longer ones go to a thread."""


@dataclass(frozen=True)
class OpenClassifier:
    """A classifier that has passed its checks, ready to serve."""

    manifest: ClassifierManifest
    engine: Engine
    scorer: LabelScorer
    profile: LatencyProfile


@dataclass(frozen=True, slots=True)
class _Read:
    """A request's inputs as token ids. `rows` are its distinct ones, and `places` has each input's row.

    Inputs of equal token ids are one row. Apart, dynamic int8 would answer them by the scale of the run that each is
    in, so that one request could hold two answers to one text.
    """

    parameters: ClassifyParameters
    encoded: Sequence[Encoded]
    rows: Sequence[Row]
    places: Sequence[int]


class ClassifierReplica:
    """Serves one classifier."""

    def __init__(self, entry: CatalogEntry, variant: OpenClassifier, max_queued_inputs: int, clock: Clock) -> None:
        self._scorer = variant.scorer
        self._clock = clock
        self.batcher = Batcher(
            variant.engine.run,
            variant.profile,
            clock,
            max_queued_inputs,
            pad_id=variant.scorer.pad_id,
            threads=entry.slots,
            niceness=entry.niceness or 0,
        )

    def start(self) -> None:
        """Opens the queue on the running loop."""
        self.batcher.start()

    async def stop(self, grace_s: float) -> None:
        """Admits no more work and finishes what it can within `grace_s` seconds."""
        await self.batcher.stop(grace_s)

    async def handle(self, batch: Sequence[Work]) -> Sequence[Answer | Failure]:
        """Answers a batch: one result for each request, in order. Cancelling it withdraws its queued inputs."""
        arrived = self._clock()
        if sum(len(text) for work in batch for text in work.inputs) <= INLINE_CHARACTERS:
            read = self._read_all(batch, arrived)
        else:
            read = await asyncio.to_thread(self._read_all, batch, arrived)
        rows = [row for one in read if isinstance(one, _Read) for row in one.rows]
        scored = iter(await self.batcher.submit(rows) if rows else ())
        return [one if isinstance(one, Failure) else self._answered(one, scored, arrived) for one in read]

    def load(self) -> LoadReport:
        """Reports the load, which goes out with every answer."""
        return self.batcher.load()

    def totals(self) -> Totals:
        """The counts since the start."""
        return self.batcher.totals

    def _read_all(self, batch: Sequence[Work], arrived: float) -> list[_Read | Failure]:
        """Reads each request. One that cannot be read, for whatever reason, fails alone."""
        return [guarded(partial(self._read, work, arrived)) for work in batch]

    def _read(self, work: Work, arrived: float) -> _Read | Failure:
        """Tokenises the inputs of a request, or gives the first failure, with the index of its input."""
        parameters, deadline = parameters_of(work, ClassifyParameters), arrived + work.remaining_s
        encoded: list[Encoded] = []
        for at, text in enumerate(work.inputs):
            one = self._scorer.encode(text, parameters.truncation)
            if isinstance(one, Failure):
                return msgspec.structs.replace(one, index=at)
            encoded.append(one)
        places: dict[tuple[int, ...], int] = {}
        for one in encoded:
            places.setdefault(tuple(one.token_ids), len(places))
        rows = [Row(token_ids, deadline, work.strict) for token_ids in places]
        return _Read(parameters, encoded, rows, [places[tuple(one.token_ids)] for one in encoded])

    def _answered(self, read: _Read, scored: Iterator[Scored | Failure], arrived: float) -> Answer | Failure:
        """Takes the next results for a request's rows, and makes its answer, or gives the first failure."""
        results = list(islice(scored, len(read.rows)))
        failed = next((one for one in results if isinstance(one, Failure)), None)
        if failed is not None:
            return failed
        of_input = [one for place in read.places if isinstance(one := results[place], Scored)]
        outputs = tuple(self._scorer.scores(one.logits, read.parameters) for one in of_input)
        return Answer(outputs, _input_report(read.encoded), _timings(of_input, self._clock() - arrived))


def _input_report(encoded: Sequence[Encoded]) -> InputReport:
    return InputReport(
        sum(one.tokens_total for one in encoded),
        sum(one.kept for one in encoded),
        any(one.truncated for one in encoded),
    )


def _timings(scored: Sequence[Scored], total_s: float) -> ReplicaTimings:
    """Counts queueing until the first batch began, and service from then to the end of the last batch."""
    if len(scored) == 1:
        one = scored[0]
        return ReplicaTimings(one.queueing_delay_s, one.service_time_s, total_s, one.batch_size)
    first_s = min(one.queueing_delay_s for one in scored)
    last_s = max(one.queueing_delay_s + one.service_time_s for one in scored)
    return ReplicaTimings(first_s, last_s - first_s, total_s, max(one.batch_size for one in scored))


def open_classifier(folder: Path, threads: int) -> OpenClassifier:
    """Opens and checks a folder that must hold a classifier. Blocking. Raises VariantRejected."""
    opened = open_variant(folder, threads)
    if not isinstance(opened, OpenClassifier):
        raise VariantRejected(opened.manifest.checkpoint, "kind", "classifier", opened.manifest.kind)
    return opened


def _open(folder: Path, manifest: ClassifierManifest, threads: int, at_once: int) -> OpenClassifier:
    task = LabelScorer.open(folder / TOKENIZER_FILE, manifest.labels, manifest.max_tokens, manifest.pad_token_id)
    engine = open_engine(folder, manifest, threads, at_once)
    check_answers(manifest.checkpoint, manifest.self_test, engine, task.ids)
    return OpenClassifier(manifest, engine, task, LatencyProfile.from_document(manifest.profile))


def _files(manifest: ClassifierManifest) -> tuple[str, ...]:
    return (TOKENIZER_FILE,) if manifest.engine == "torch" else (TOKENIZER_FILE, ONNX_FILE)


KIND = ReplicaKind(_files, _open, ClassifierReplica)
