"""The replica of a checkpoint made for answers: runs questions beside the windows of their contexts, in batches."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from itertools import islice
from pathlib import Path

from deployments.engines.base import Engine, Logits
from deployments.engines.opening import graph_files, open_engine
from deployments.replica.answering.reading import QuestionReader, QuestionTooLong, ReadContext
from deployments.replica.answering.spans import found_answers
from deployments.replica.batched import BatchedReplica, batcher_of
from deployments.replica.kinds import ReplicaKind
from deployments.replica.tokens import TOKENIZER_FILE, Encoded
from deployments.replica.variant import Glimpse, check_answers
from gateway.catalogs.catalog import CatalogEntry
from gateway.model.deadline import Clock
from gateway.model.messages import Failure, FailureKind, InputReport, Work, parameters_of
from gateway.model.profile import LatencyProfile
from gateway.tasks.answer import AnswererManifest, AnswerParameters
from gateway.tasks.windows import MOST_WINDOWS


@dataclass(frozen=True)
class OpenAnswerer:
    """A checkpoint made for answers that has passed its checks, ready to serve."""

    manifest: AnswererManifest
    engine: Engine
    reader: QuestionReader
    profile: LatencyProfile


@dataclass(frozen=True, slots=True)
class _Asked:
    """What answers are made of beside logits: how they are looked for, and the contexts."""

    parameters: AnswerParameters
    contexts: Sequence[ReadContext]


class AnswererReplica(BatchedReplica[_Asked]):
    """Serves one checkpoint made for answers."""

    answers_take_long = True

    def __init__(self, entry: CatalogEntry, variant: OpenAnswerer, max_queued_inputs: int, clock: Clock) -> None:
        manifest = variant.manifest
        self._reader, self._no_answer_token = variant.reader, manifest.no_answer_token
        batcher = batcher_of(entry, variant.engine, variant.profile, manifest.pad_token_id, max_queued_inputs, clock)
        super().__init__(batcher, clock)

    def encode(self, work: Work) -> tuple[_Asked, list[Encoded]] | Failure:
        """Tokenises questions and contexts, and divides these into windows.

        TOO_LONG if a question leaves its context no room, or there are too many windows.
        """
        parameters = parameters_of(work, AnswerParameters)
        contexts: list[ReadContext] = []
        for nth, (text, at) in enumerate(zip(work.inputs, parameters.second_at, strict=True)):
            try:
                contexts.append(self._reader.read(text[:at], text[at:], parameters))
            except QuestionTooLong as refused:
                place = f"inputs[{nth}]" if len(work.inputs) > 1 else "inputs"
                return Failure(FailureKind.TOO_LONG, f"{place}.question {refused}", refused.tokens, refused.most)
        windows = [len(read.windows) for read in contexts]
        if sum(windows) > MOST_WINDOWS:
            return Failure.too_many(windows, MOST_WINDOWS, "windows")
        return _Asked(parameters, contexts), [row for read in contexts for row in self._reader.encoded(read)]

    def outputs(self, asked: _Asked, logits: Sequence[Logits]) -> tuple[object, ...]:
        """The answers in each context."""
        rows = iter(logits)
        return tuple(
            found_answers(
                read,
                list(islice(rows, len(read.windows))),
                asked.parameters,
                no_answer_token=self._no_answer_token,
            )
            for read in asked.contexts
        )

    def report(self, asked: _Asked, encoded: Sequence[Encoded]) -> InputReport:
        """All tokens of questions and contexts, each counted once, and the windows that they were taken in."""
        kept = sum(self._reader.kept(read) for read in asked.contexts)
        cut = sum(read.left_out for read in asked.contexts)
        return InputReport(kept + cut, kept, cut > 0, len(encoded))


def _open(folder: Path, manifest: AnswererManifest, threads: int, at_once: int) -> OpenAnswerer:
    reader = QuestionReader.open(folder / TOKENIZER_FILE, manifest.max_tokens, types=manifest.token_types)
    engine = open_engine(folder, manifest, threads, at_once)
    question = manifest.golden_question
    check_answers(manifest.checkpoint, manifest.self_test, Glimpse(engine), lambda text: reader.ids(question, text))
    return OpenAnswerer(manifest, engine, reader, LatencyProfile.from_document(manifest.profile))


KIND = ReplicaKind(lambda manifest: (TOKENIZER_FILE, *graph_files(manifest.engine)), _open, AnswererReplica)
