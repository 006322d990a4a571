"""A generator's replica: reads prompts, lets texts share the engine step by step, and answers by the deadline."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

from deployments.engines.base import Seq2SeqEngine
from deployments.engines.opening import CAUSAL_FILES, open_causal_engine
from deployments.replica.gathering import all_or_failure, each
from deployments.replica.generate.prompts import TEMPLATE_FILE, Prompts
from deployments.replica.generate.writing import Scribe, write_on
from deployments.replica.golden import check_written
from deployments.replica.kinds import ReplicaKind
from deployments.replica.summarize.beam_search import GOLDEN_TOKENS
from deployments.replica.summarize.job import TextBudget
from deployments.replica.summarize.replica import input_report, reserve_s, timings
from deployments.replica.summarize.step_log import step_log_for
from deployments.replica.summarize.time_slicing import TimeSlicer
from deployments.replica.tokens import TOKENIZER_FILE
from deployments.replica.totals import Totals
from gateway.catalogs.catalog import CatalogEntry
from gateway.model.deadline import Clock
from gateway.model.messages import Answer, Failure, FailureKind, LoadReport, Work, parameters_of
from gateway.tasks.generate import CausalManifest, GeneratedText, GenerateParameters


@dataclass(frozen=True)
class OpenCausal:
    """A decoder-only checkpoint that has passed its checks, ready to serve."""

    manifest: CausalManifest
    engine: Seq2SeqEngine
    prompts: Prompts


class GeneratorReplica:
    """Serves one decoder-only checkpoint."""

    def __init__(self, entry: CatalogEntry, scribe: Scribe, max_queued_inputs: int, clock: Clock) -> None:
        self._scribe = scribe
        self._clock = clock
        log = step_log_for(entry.name)
        self.time_slicer = TimeSlicer(entry.slots, clock, max_queued_inputs, log, niceness=entry.niceness or 0)

    def start(self) -> None:
        """Opens the queue on the running loop."""
        self.time_slicer.start()

    async def stop(self, grace_s: float) -> None:
        """Admits no more work and finishes what it can within `grace_s` seconds."""
        await self.time_slicer.stop(grace_s)

    async def handle(self, batch: Sequence[Work]) -> Sequence[Answer | Failure]:
        """Answers a batch, each request by its deadline. The texts of all of them share the engine."""
        return await each(self._answer(work) for work in batch)

    async def _answer(self, work: Work) -> Answer | Failure:
        """Answers one request by its deadline, strict or not, with what was written by then.

        Strict work for which nothing was written fails as EXPIRED. Cancelling it stops it after the current step.
        """
        arrived = self._clock()
        parameters = parameters_of(work, GenerateParameters)
        prompts = self._scribe.read(work.inputs, parameters)
        if isinstance(prompts, Failure):
            return prompts
        deadline, reserve = arrived + work.remaining_s, reserve_s(work.remaining_s)
        begun = [
            self._scribe.begin(prompt, parameters, TextBudget(deadline, reserve, self._clock)) for prompt in prompts
        ]
        finished = await all_or_failure(self.time_slicer.submit(work.request_id, one) for one in begun)
        if isinstance(finished, Failure):
            return finished
        written = [one.summary for one in finished]
        if work.strict and any(one.generation.finish_reason == "deadline" and not one.text for one in written):
            return Failure(FailureKind.EXPIRED)
        before = work.inputs if parameters.full_text and not parameters.roles else [""] * len(written)
        return Answer(
            tuple(GeneratedText(f"{prompt}{one.text}") for prompt, one in zip(before, written, strict=True)),
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
