"""A generator's replica: reads prompts, and answers with what was written by the deadline."""

from __future__ import annotations

import asyncio
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from pathlib import Path

from deployments.engines.base import CausalEngine
from deployments.engines.opening import CAUSAL_FILES, open_causal_engine
from deployments.replica.generate.prompts import TEMPLATE_FILE, Prompts
from deployments.replica.generate.writing import Scribe, write_on
from deployments.replica.golden import check_written
from deployments.replica.kinds import ReplicaKind
from deployments.replica.tokens import TOKENIZER_FILE
from deployments.replica.writing.answers import Begun, WritingReplica
from deployments.replica.writing.beam_search import GOLDEN_TOKENS
from deployments.replica.writing.job import TextBudget, WritingResult
from gateway.catalogs.catalog import CatalogEntry
from gateway.model.deadline import Clock
from gateway.model.messages import Failure
from gateway.tasks.generate import CausalManifest, GeneratedText, GenerateParameters

READ_AT_ONCE = 2000
"""Characters that are read on the event loop: in about 1 ms."""


@dataclass(frozen=True)
class OpenCausal:
    """A decoder-only checkpoint that has passed its checks, ready to serve."""

    manifest: CausalManifest
    engine: CausalEngine
    prompts: Prompts


class GeneratorReplica(WritingReplica[GenerateParameters]):
    """Serves one decoder-only checkpoint."""

    def __init__(self, entry: CatalogEntry, scribe: Scribe, max_queued_inputs: int, clock: Clock) -> None:
        together, memory = scribe.together(), scribe.memory(entry)
        super().__init__(entry, max_queued_inputs, clock, GenerateParameters, GeneratedText, together, memory)
        self._scribe = scribe

    async def begin(
        self, inputs: Sequence[str], parameters: GenerateParameters, budget: Callable[[], TextBudget]
    ) -> Sequence[Begun] | Failure:
        """Reads the prompts, and makes a job of each; a conversation is one prompt."""
        prompts = await self._read(inputs, parameters)
        if isinstance(prompts, Failure):
            return prompts
        repeated = inputs if parameters.full_text and not parameters.roles else [""] * len(prompts)
        return [
            Begun(self._scribe.begin(prompt, parameters, budget()), repeated=text)
            for prompt, text in zip(prompts, repeated, strict=True)
        ]

    def too_little(self, written: WritingResult) -> bool:
        """True if nothing was written by the deadline."""
        return written.generation.finish_reason == "deadline" and not written.text

    async def _read(self, texts: Sequence[str], parameters: GenerateParameters) -> list[list[int]] | Failure:
        """Reads prompts: short ones at once, long ones on a thread, since they would hold up everybody."""
        if sum(map(len, texts)) <= READ_AT_ONCE:
            return self._scribe.read(texts, parameters)
        return await asyncio.to_thread(self._scribe.read, texts, parameters)


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
