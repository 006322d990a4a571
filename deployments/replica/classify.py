"""A classifier's replica: re-anchors the budget, tokenises, queues, scores. What a piece of work meets, in order."""

from __future__ import annotations

import asyncio
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

from deployments.engines.base import Engine
from deployments.engines.opening import ONNX_FILE, open_engine
from deployments.replica.batch_forming import BatchLimits
from deployments.replica.batcher import Batcher, Scored
from deployments.replica.gathering import all_or_failure
from deployments.replica.kinds import ReplicaKind
from deployments.replica.labels import TOKENIZER_FILE, ClassifyTask, Encoded
from deployments.replica.totals import Totals
from deployments.replica.variant import VariantRejected, check_answers, open_variant
from gateway.catalogs.catalog import CatalogEntry
from gateway.model.deadline import Clock
from gateway.model.manifest import ClassifierManifest
from gateway.model.messages import Answer, Failure, InputReport, LoadReport, ReplicaTimings, Work, parameters_of
from gateway.model.profile import LatencyProfile
from gateway.tasks.classify import ClassifyParameters

INLINE_CHARACTERS = 2_000
"""Texts up to this long are tokenised on the loop (under 0.1 ms); longer ones on a thread."""

BATCH_LIMITS = BatchLimits(max_batch=16, max_batch_tokens=2_048, max_padding_waste=0.15)


@dataclass(frozen=True)
class OpenClassifier:
    """A classifier that has passed its checks, ready to run."""

    manifest: ClassifierManifest
    engine: Engine
    task: ClassifyTask
    profile: LatencyProfile


class ClassifierReplica:
    """Serves one classifier."""

    def __init__(self, entry: CatalogEntry, variant: OpenClassifier, max_queued_inputs: int, clock: Clock) -> None:
        self._task = variant.task
        self._clock = clock
        self.batcher = Batcher(
            variant.engine.run,
            variant.profile,
            BATCH_LIMITS,
            clock,
            max_queued_inputs,
            pad_id=variant.task.pad_id,
            threads=entry.slots,
            niceness=entry.niceness or 0,
        )

    def start(self) -> None:
        """Opens the queue, on the running loop."""
        self.batcher.start()

    async def stop(self, grace_s: float) -> None:
        """Admits nothing more and finishes what it can within the grace."""
        await self.batcher.stop(grace_s)

    async def handle(self, work: Work) -> Answer | Failure:
        """Answers one piece of work. Cancelling it withdraws what is still queued."""
        arrived = self._clock()
        deadline = arrived + work.remaining_s
        parameters = parameters_of(work, ClassifyParameters)
        encoded = await self._encode(work.inputs, parameters)
        if isinstance(encoded, Failure):
            return encoded
        scored = await self._score(encoded, deadline, work)
        if isinstance(scored, Failure):
            return scored
        outputs = tuple(self._task.scores(one.logits, parameters) for one in scored)
        return Answer(outputs, _input_report(encoded), _timings(scored, self._clock() - arrived))

    def load(self) -> LoadReport:
        """What travels with every answer."""
        return self.batcher.load()

    def totals(self) -> Totals:
        """What was counted since the start."""
        return self.batcher.totals

    async def _encode(self, inputs: Sequence[str], parameters: ClassifyParameters) -> list[Encoded] | Failure:
        if sum(map(len, inputs)) <= INLINE_CHARACTERS:
            return self._encode_all(inputs, parameters)
        return await asyncio.to_thread(self._encode_all, inputs, parameters)

    def _encode_all(self, inputs: Sequence[str], parameters: ClassifyParameters) -> list[Encoded] | Failure:
        """Every input encoded, or the first failure."""
        encoded: list[Encoded] = []
        for text in inputs:
            one = self._task.encode(text, parameters.truncation)
            if isinstance(one, Failure):
                return one
            encoded.append(one)
        return encoded

    async def _score(self, encoded: Sequence[Encoded], deadline: float, work: Work) -> Sequence[Scored] | Failure:
        """Every input scored, or the first failure: the others are then withdrawn, since nobody gets them.

        The inputs of one request are queued together.
        """
        strict, run = work.strict, work.run
        if len(encoded) == 1:
            one = await self.batcher.submit(encoded[0].token_ids, deadline, strict, run)
            return one if isinstance(one, Failure) else (one,)
        return await all_or_failure(self.batcher.submit(one.token_ids, deadline, strict, run) for one in encoded)


def _input_report(encoded: Sequence[Encoded]) -> InputReport:
    return InputReport(
        sum(one.tokens_total for one in encoded),
        sum(one.kept for one in encoded),
        any(one.truncated for one in encoded),
    )


def _timings(scored: Sequence[Scored], total_s: float) -> ReplicaTimings:
    """Queueing until the first batch began; then from there to the end of the last."""
    if len(scored) == 1:
        one = scored[0]
        return ReplicaTimings(one.queueing_delay_s, one.service_time_s, total_s, one.batch_size)
    first_s = min(one.queueing_delay_s for one in scored)
    last_s = max(one.queueing_delay_s + one.service_time_s for one in scored)
    return ReplicaTimings(first_s, last_s - first_s, total_s, max(one.batch_size for one in scored))


def open_classifier(folder: Path, threads: int) -> OpenClassifier:
    """The same, of a folder that must hold a classifier. Blocking. Raises VariantRejected."""
    opened = open_variant(folder, threads)
    if not isinstance(opened, OpenClassifier):
        raise VariantRejected(opened.manifest.checkpoint, "kind", "classifier", opened.manifest.kind)
    return opened


def _open(folder: Path, manifest: ClassifierManifest, threads: int) -> OpenClassifier:
    task = ClassifyTask.open(folder / TOKENIZER_FILE, manifest.labels, manifest.max_tokens, manifest.pad_token_id)
    engine = open_engine(folder, manifest, threads)
    check_answers(manifest.checkpoint, manifest.self_test, engine, task.ids)
    return OpenClassifier(manifest, engine, task, LatencyProfile.from_document(manifest.profile))


def _files(manifest: ClassifierManifest) -> tuple[str, ...]:
    return (TOKENIZER_FILE, ONNX_FILE) if manifest.engine == "onnx" else (TOKENIZER_FILE,)


KIND = ReplicaKind(_files, _open, ClassifierReplica)
