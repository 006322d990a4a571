"""A translator's replica: answers with what was translated by the deadline.

How a text is translated is the business of `translating`.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from pathlib import Path

from deployments.engines.base import Seq2SeqEngine
from deployments.engines.opening import SEQ2SEQ_FILES, open_seq2seq_engine
from deployments.replica.golden import check_written
from deployments.replica.kinds import ReplicaKind
from deployments.replica.tokens import TOKENIZER_FILE, TextTokens
from deployments.replica.translate.translating import Translator, cut_to, encoded
from deployments.replica.writing.answers import Begun, WritingReplica
from deployments.replica.writing.beam_search import write_golden
from deployments.replica.writing.job import TextBudget, WritingResult
from gateway.catalogs.catalog import CatalogEntry
from gateway.model.deadline import Clock
from gateway.model.manifest import GenerationRules
from gateway.tasks.translate import Direction, TranslateParameters, Translation, TranslatorManifest


@dataclass(frozen=True)
class OpenTranslator:
    """A translator that has passed its checks, ready to serve."""

    manifest: TranslatorManifest
    engine: Seq2SeqEngine
    tokens: TextTokens


class TranslatorReplica(WritingReplica[TranslateParameters]):
    """Serves one translator."""

    def __init__(self, entry: CatalogEntry, translator: Translator, max_queued_inputs: int, clock: Clock) -> None:
        memory = translator.memory(entry)
        super().__init__(entry, max_queued_inputs, clock, TranslateParameters, Translation, memory=memory)
        self._translator = translator

    async def begin(
        self, inputs: Sequence[str], parameters: TranslateParameters, budget: Callable[[], TextBudget]
    ) -> Sequence[Begun]:
        """Makes a job of each text."""
        return [Begun(self._translator.begin(text, parameters, budget())) for text in inputs]

    def too_little(self, written: WritingResult) -> bool:
        """True if the deadline cut the translation short."""
        return written.generation.finish_reason == "deadline"


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
