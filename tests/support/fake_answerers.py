"""An answerer for tests: its catalog and manifest, and one open over an engine that knows words, without torch."""

from __future__ import annotations

from dataclasses import dataclass, field
from pathlib import Path

import numpy as np
from by_hand import SELF_TEST, bert_tokenizer, entry_of, manifest_of
from fakes import FakeClock, latency_profile, profile_document
from tokenizers import Tokenizer

from deployments.engines.base import Logits, TokenIds
from deployments.replica.answering.reading import QuestionReader
from deployments.replica.answering.replica import AnswererReplica, OpenAnswerer
from gateway.catalogs.catalog import Catalog
from gateway.model.tier import Tier
from gateway.tasks.answer import AnswererManifest, SpanVerification

NAME = "reader"
WORDS = ("[PAD]", "[UNK]", "[CLS]", "[SEP]", "who", "ann", "lee", "bob", "and", "said", "##nie", ".", "?")
FIRST, LAST, NONE = "ann", "lee", "[CLS]"
"""Where the engine has an answer begin and end, and the token that stands for none."""

WINDOW, SPECIALS = 12, 3


def catalog() -> Catalog:
    """Return one answerer."""
    return Catalog(name="answers", checkpoints=(entry_of(NAME, "answer", Tier.QUALITY, 80.0, "F1"),))


def manifest() -> AnswererManifest:
    """Return the manifest of the answerer, with a small window."""
    verification = SpanVerification(
        questions=1,
        windows=1,
        data_set="by hand",
        same_answers=1,
        same_answers_floor=1,
        logit_error=0,
        logit_error_ceiling=0,
        largest_logit_difference=0,
    )
    return manifest_of(
        AnswererManifest,
        NAME,
        "answer",
        max_tokens=WINDOW,
        token_types=True,
        special_tokens=SPECIALS,
        no_answer_token=True,
        golden_question="who ?",
        verification=verification,
        self_test=SELF_TEST,
        profile=profile_document(0.002),
    )


def manifests() -> dict[str, AnswererManifest]:
    """Return the manifests of the catalog's checkpoints."""
    return {NAME: manifest()}


def tokenizer() -> Tokenizer:
    """Return a tokenizer of BERT's kind over a few pieces, uncased."""
    return bert_tokenizer(WORDS, single="[CLS]:0 $A:0 [SEP]:0", pair="[CLS]:0 $A:0 [SEP]:0 $B:1 [SEP]:1")


@dataclass
class KnowingEngine:
    """An `Engine` for which answers begin at `FIRST` and end at `LAST`; keeps its rows and their types."""

    rows: list[tuple[list[int], list[int]]] = field(default_factory=list)

    def run(self, token_ids: TokenIds, attention_mask: TokenIds, token_types: TokenIds | None = None) -> Logits:
        """Compute logits (batch, tokens, 2)."""
        types = np.zeros_like(token_ids) if token_types is None else token_types
        for row, kinds, mask in zip(token_ids.tolist(), types.tolist(), attention_mask.tolist(), strict=True):
            self.rows.append((row[: sum(mask)], kinds[: sum(mask)]))
        found: Logits = np.zeros((*token_ids.shape, 2), dtype=np.float32)
        for side, word in enumerate((FIRST, LAST)):
            found[..., side] += 9 * (token_ids == WORDS.index(word)) + 3 * (token_ids == WORDS.index(NONE))
        return found


def replica(folder: Path, engine: KnowingEngine) -> AnswererReplica:
    """Return the replica of the answerer over an engine; it is not started."""
    made, file = manifest(), folder / "tokenizer.json"
    tokenizer().save(str(file))
    reader = QuestionReader.open(file, WINDOW, types=made.token_types)
    variant = OpenAnswerer(made, engine, reader, latency_profile(0.01))
    return AnswererReplica(catalog().checkpoints[0], variant, 999, FakeClock())
