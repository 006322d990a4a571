"""A tagger's replica: runs the windows of texts in batches, and answers with the entities found in them."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from itertools import islice
from pathlib import Path

from tokenizers import Tokenizer

from deployments.engines.base import Engine, Logits
from deployments.engines.opening import graph_files, open_engine
from deployments.replica.batched import BatchedReplica, batcher_of
from deployments.replica.kinds import ReplicaKind
from deployments.replica.tagging.entities import Tagger
from deployments.replica.tagging.reading import ReadText, TextReader
from deployments.replica.tokens import TOKENIZER_FILE, Encoded
from deployments.replica.variant import Glimpse, check_answers
from gateway.catalogs.catalog import CatalogEntry
from gateway.model.deadline import Clock
from gateway.model.messages import Failure, FailureKind, InputReport, Work, parameters_of
from gateway.model.profile import LatencyProfile
from gateway.tasks.tokens import TaggerManifest, TokensParameters
from gateway.tasks.windows import MOST_WINDOWS


@dataclass(frozen=True)
class OpenTagger:
    """A tagger that has passed its checks, ready to serve."""

    manifest: TaggerManifest
    engine: Engine
    reader: TextReader
    tagger: Tagger
    profile: LatencyProfile


@dataclass(frozen=True, slots=True)
class _Asked:
    """What answers are made of beside logits: how they are asked for, and the texts."""

    parameters: TokensParameters
    texts: Sequence[ReadText]


class TaggerReplica(BatchedReplica[_Asked]):
    """Serves one tagger."""

    answers_take_long = True

    def __init__(self, entry: CatalogEntry, variant: OpenTagger, max_queued_inputs: int, clock: Clock) -> None:
        manifest = variant.manifest
        self._reader, self._tagger, self._own = variant.reader, variant.tagger, manifest.aggregation_strategy
        batcher = batcher_of(entry, variant.engine, variant.profile, manifest.pad_token_id, max_queued_inputs, clock)
        super().__init__(batcher, clock)

    def encode(self, work: Work) -> tuple[_Asked, list[Encoded]] | Failure:
        """Tokenises the texts of a request, and divides them into windows; TOO_LONG if these are too many."""
        parameters = parameters_of(work, TokensParameters)
        for at, text in enumerate(work.inputs):
            if self._reader.takes_over(MOST_WINDOWS, text, parameters.stride):
                detail = f"the text has over {MOST_WINDOWS} windows, as many as a request may have"
                return Failure(FailureKind.TOO_LONG, detail, limit=MOST_WINDOWS, index=at, unit="windows")
        texts = [self._reader.read(text, parameters.stride) for text in work.inputs]
        windows = [len(read.windows) for read in texts]
        if sum(windows) > MOST_WINDOWS:
            return Failure.too_many(windows, MOST_WINDOWS, "windows")
        return _Asked(parameters, texts), [row for read in texts for row in self._reader.encoded(read)]

    def outputs(self, asked: _Asked, logits: Sequence[Logits]) -> tuple[object, ...]:
        """The entities of each text, or the text with their kinds in their place."""
        rows = iter(logits)
        return tuple(
            self._output(asked.parameters, read, list(islice(rows, len(read.windows)))) for read in asked.texts
        )

    def report(self, asked: _Asked, encoded: Sequence[Encoded]) -> InputReport:
        """All tokens of all texts, each counted once, and the windows that they were taken in."""
        tokens = sum(len(read.ids) + self._reader.specials for read in asked.texts)
        return InputReport(tokens, tokens, False, len(encoded))

    def _output(self, parameters: TokensParameters, read: ReadText, rows: Sequence[Logits]) -> object:
        logits, aggregation = self._reader.joined(read, rows), parameters.aggregation or self._own
        if parameters.redact:
            return self._tagger.redacted(read, logits, aggregation, self._own, parameters.ignored)
        return self._tagger.entities(read, logits, aggregation, parameters.ignored)


def _open(folder: Path, manifest: TaggerManifest, threads: int, at_once: int) -> OpenTagger:
    file = folder / TOKENIZER_FILE
    reader = TextReader.open(file, manifest.max_tokens)
    engine = open_engine(folder, manifest, threads, at_once)
    check_answers(manifest.checkpoint, manifest.self_test, Glimpse(engine), reader.ids)
    tagger = Tagger(Tokenizer.from_file(str(file)), manifest.labels, manifest.unknown_token_id)
    return OpenTagger(manifest, engine, reader, tagger, LatencyProfile.from_document(manifest.profile))


KIND = ReplicaKind(lambda manifest: (TOKENIZER_FILE, *graph_files(manifest.engine)), _open, TaggerReplica)
