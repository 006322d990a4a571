"""A generator's replica: reads prompts, lets texts share the engine step by step, and answers by the deadline."""

from __future__ import annotations

import asyncio
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from functools import partial
from pathlib import Path

from deployments.engines.base import CausalEngine
from deployments.engines.opening import CAUSAL_FILES, open_causal_engine
from deployments.replica.gathering import all_or_failure, each
from deployments.replica.generate.prompts import TEMPLATE_FILE, Prompts
from deployments.replica.generate.writing import Scribe, write_on
from deployments.replica.golden import check_written
from deployments.replica.kinds import ReplicaKind
from deployments.replica.tokens import TOKENIZER_FILE
from deployments.replica.totals import Totals
from deployments.replica.writing.answers import GrowingAnswer, input_report, reserve_s, timings
from deployments.replica.writing.beam_search import GOLDEN_TOKENS
from deployments.replica.writing.job import TextBudget
from deployments.replica.writing.step_log import step_log_for
from deployments.replica.writing.time_slicing import TimeSlicer
from gateway.catalogs.catalog import CatalogEntry
from gateway.model.deadline import Clock
from gateway.model.messages import Answer, Delta, Emit, Failure, FailureKind, LoadReport, Work, parameters_of, to_nobody
from gateway.tasks.generate import CausalManifest, GeneratedText, GenerateParameters

READ_AT_ONCE = 2000
"""Characters that are read on the event loop: in about 1 ms."""


@dataclass(frozen=True)
class OpenCausal:
    """A decoder-only checkpoint that has passed its checks, ready to serve."""

    manifest: CausalManifest
    engine: CausalEngine
    prompts: Prompts


class GeneratorReplica:
    """Serves one decoder-only checkpoint."""

    def __init__(self, entry: CatalogEntry, scribe: Scribe, max_queued_inputs: int, clock: Clock) -> None:
        self._scribe = scribe
        self._clock = clock
        log = step_log_for(entry.name)
        self.time_slicer = TimeSlicer(
            entry.slots,
            clock,
            max_queued_inputs,
            log,
            niceness=entry.niceness or 0,
            together=scribe.together(),
            memory=scribe.memory(entry),
        )

    def start(self) -> None:
        """Opens the queue on the running loop."""
        self.time_slicer.start()

    async def stop(self, grace_s: float) -> None:
        """Admits no more work and finishes what it can within `grace_s` seconds."""
        await self.time_slicer.stop(grace_s)

    async def handle(self, batch: Sequence[Work], emit: Emit = to_nobody) -> Sequence[Answer | Failure]:
        """Answers a batch, each request by its deadline. The texts of all of them share the engine.

        Of those that are streamed it emits, after each step, what of a text is settled.
        """
        return await each(self._answer(work, partial(emit, place)) for place, work in enumerate(batch))

    async def _answer(self, work: Work, emit: Callable[[Delta], None]) -> Answer | Failure:
        """Answers one request by its deadline, strict or not, with what was written by then.

        Strict work for which nothing was written fails as EXPIRED. Cancelling it stops it after the current step.
        """
        arrived = self._clock()
        parameters = parameters_of(work, GenerateParameters)
        prompts = await self._read(work.inputs, parameters)
        if isinstance(prompts, Failure):
            return prompts
        deadline, reserve = arrived + work.remaining_s, reserve_s(work.remaining_s)
        begun = [
            self._scribe.begin(prompt, parameters, TextBudget(deadline, reserve, self._clock)) for prompt in prompts
        ]
        repeated = work.inputs if parameters.full_text and not parameters.roles else [""] * len(begun)
        growing = [GrowingAnswer(index, emit) for index in range(len(begun))]
        finished = await all_or_failure(
            self.time_slicer.submit(work.request_id, one, partial(_told, grown, prompt) if work.streamed else None)
            for one, grown, prompt in zip(begun, growing, repeated, strict=True)
        )
        if isinstance(finished, Failure):
            return finished
        written = [one.summary for one in finished]
        if work.strict and any(one.generation.finish_reason == "deadline" and not one.text for one in written):
            return Failure(FailureKind.EXPIRED)
        texts = [f"{prompt}{one.text}" for prompt, one in zip(repeated, written, strict=True)]
        if work.streamed and not all(grown.end(text) for grown, text in zip(growing, texts, strict=True)):
            return Failure(FailureKind.ENGINE, "a text does not begin as it was streamed")
        return Answer(
            tuple(map(GeneratedText, texts)),
            input_report([one.input for one in written]),
            timings(finished, self._clock() - arrived),
            tuple(one.generation for one in written),
        )

    async def _read(self, texts: Sequence[str], parameters: GenerateParameters) -> list[list[int]] | Failure:
        """Reads prompts: short ones at once, long ones on a thread, since they would hold up everybody."""
        if sum(map(len, texts)) <= READ_AT_ONCE:
            return self._scribe.read(texts, parameters)
        return await asyncio.to_thread(self._scribe.read, texts, parameters)

    def load(self) -> LoadReport:
        """Reports the load, which goes out with every answer."""
        return self.time_slicer.load()

    def totals(self) -> Totals:
        """The counts since the start."""
        return self.time_slicer.totals


def _told(grown: GrowingAnswer, prompt: str, settled: str) -> None:
    """Emits what is settled behind the prompt that the answer repeats, if it does."""
    grown.take(f"{prompt}{settled}")


def _open(folder: Path, manifest: CausalManifest, threads: int, at_once: int) -> OpenCausal:
    prompts = Prompts.open(folder, manifest.generation.eos_token_ids)
    engine = open_causal_engine(manifest.engine, folder, threads)
    ends = manifest.generation.eos_token_ids
    check_written(
        manifest.checkpoint,
        manifest.self_test,
        prompts.of_text,
        lambda ids: write_on(engine, ids, ends, GOLDEN_TOKENS),
    )
    return OpenCausal(manifest, engine, prompts)


def _serve(entry: CatalogEntry, variant: OpenCausal, max_queued_inputs: int, clock: Clock) -> GeneratorReplica:
    scribe = Scribe(variant.manifest, variant.engine, variant.prompts)
    return GeneratorReplica(entry, scribe, max_queued_inputs, clock)


def _files(manifest: CausalManifest) -> tuple[str, ...]:
    return (TOKENIZER_FILE, *CAUSAL_FILES, *([TEMPLATE_FILE] if manifest.chat_template else []))


KIND = ReplicaKind(_files, _open, _serve)
