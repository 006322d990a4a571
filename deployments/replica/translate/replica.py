"""A translator's replica: sets the deadline, lets texts share the engine, and answers with what was translated.

How a text is translated is the business of `translating`.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from functools import partial
from pathlib import Path

from deployments.engines.base import Seq2SeqEngine
from deployments.engines.opening import SEQ2SEQ_FILES, open_seq2seq_engine
from deployments.replica.gathering import all_or_failure, each
from deployments.replica.golden import check_written
from deployments.replica.kinds import ReplicaKind
from deployments.replica.tokens import TOKENIZER_FILE, TextTokens, well_formed
from deployments.replica.totals import Totals
from deployments.replica.translate.translating import Translator, cut_to, encoded
from deployments.replica.writing.answers import GrowingAnswer, input_report, reserve_s, timings
from deployments.replica.writing.beam_search import write_golden
from deployments.replica.writing.job import TextBudget
from deployments.replica.writing.step_log import step_log_for
from deployments.replica.writing.time_slicing import TimeSlicer
from gateway.catalogs.catalog import CatalogEntry
from gateway.model.deadline import Clock
from gateway.model.manifest import GenerationRules
from gateway.model.messages import Answer, Delta, Emit, Failure, FailureKind, LoadReport, Work, parameters_of, to_nobody
from gateway.tasks.translate import Direction, TranslateParameters, Translation, TranslatorManifest


@dataclass(frozen=True)
class OpenTranslator:
    """A translator that has passed its checks, ready to serve."""

    manifest: TranslatorManifest
    engine: Seq2SeqEngine
    tokens: TextTokens


class TranslatorReplica:
    """Serves one translator."""

    def __init__(self, entry: CatalogEntry, translator: Translator, max_queued_inputs: int, clock: Clock) -> None:
        self._translator = translator
        self._clock = clock
        log = step_log_for(entry.name)
        memory, niceness = translator.memory(entry), entry.niceness or 0
        self.time_slicer = TimeSlicer(entry.slots, clock, max_queued_inputs, log, niceness=niceness, memory=memory)

    def start(self) -> None:
        """Opens the queue on the running loop."""
        self.time_slicer.start()

    async def stop(self, grace_s: float) -> None:
        """Admits no more work and finishes what it can within `grace_s` seconds."""
        await self.time_slicer.stop(grace_s)

    async def handle(self, batch: Sequence[Work], emit: Emit = to_nobody) -> Sequence[Answer | Failure]:
        """Answers a batch, each request by its deadline. The texts of all of them share the engine.

        Of those that are streamed it emits, after each step, what of a translation is settled.
        """
        return await each(self._answer(work, partial(emit, place)) for place, work in enumerate(batch))

    async def _answer(self, work: Work, emit: Callable[[Delta], None]) -> Answer | Failure:
        """Answers one request by its deadline, strict or not, with what was translated by then.

        Strict work fails as EXPIRED if anything was not. Cancelling it stops it after the current step.
        """
        arrived = self._clock()
        parameters = parameters_of(work, TranslateParameters)
        deadline, reserve = arrived + work.remaining_s, reserve_s(work.remaining_s)
        begun = [
            self._translator.begin(text, parameters, TextBudget(deadline, reserve, self._clock)) for text in work.inputs
        ]
        growing = [GrowingAnswer(index, emit) for index in range(len(begun))]
        finished = await all_or_failure(
            self.time_slicer.submit(work.request_id, one, grown.take if work.streamed else None)
            for one, grown in zip(begun, growing, strict=True)
        )
        if isinstance(finished, Failure):
            return finished
        written = [one.summary for one in finished]
        if work.strict and any(one.generation.finish_reason == "deadline" for one in written):
            return Failure(FailureKind.EXPIRED)
        texts = [well_formed(one.text) for one in written]
        if work.streamed and not all(grown.end(text) for grown, text in zip(growing, texts, strict=True)):
            return Failure(FailureKind.ENGINE, "a translation does not begin as it was streamed")
        return Answer(
            tuple(map(Translation, texts)),
            input_report([one.input for one in written]),
            timings(finished, self._clock() - arrived),
            tuple(one.generation for one in written),
        )

    def load(self) -> LoadReport:
        """Reports the load, which goes out with every answer."""
        return self.time_slicer.load()

    def totals(self) -> Totals:
        """The counts since the start."""
        return self.time_slicer.totals


def golden_rules(rules: GenerationRules, direction: Direction) -> GenerationRules:
    """The rules of a checkpoint as they are for a direction."""
    return rules if direction.first is None else rules.model_copy(update={"forced_bos_token_id": direction.first})


def _open(folder: Path, manifest: TranslatorManifest, threads: int, at_once: int) -> OpenTranslator:
    tokens = TextTokens.open(folder / TOKENIZER_FILE)
    engine = open_seq2seq_engine(manifest.engine, folder, threads)
    direction = manifest.directions(*manifest.verified)[0]
    rules = golden_rules(manifest.generation, direction)
    check_written(
        manifest.checkpoint,
        manifest.self_test,
        lambda text: cut_to(tokens, encoded(tokens, text, direction)[0], direction, manifest.max_tokens),
        lambda ids: write_golden(engine, ids, rules, manifest.pad_token_id),
    )
    return OpenTranslator(manifest, engine, tokens)


def _serve(entry: CatalogEntry, variant: OpenTranslator, max_queued_inputs: int, clock: Clock) -> TranslatorReplica:
    translator = Translator(variant.manifest, variant.engine, variant.tokens)
    return TranslatorReplica(entry, translator, max_queued_inputs, clock)


KIND = ReplicaKind(lambda manifest: (TOKENIZER_FILE, *SEQ2SEQ_FILES), _open, _serve)
