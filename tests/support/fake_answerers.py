"""An answerer for tests: its catalog and manifest, and one open over an engine that knows words, without torch."""

from __future__ import annotations

from dataclasses import dataclass, field
from pathlib import Path

import numpy as np
from fakes import FakeClock, latency_profile, profile_document
from tokenizers import Tokenizer, models, normalizers, pre_tokenizers, processors

from deployments.engines.base import Logits, TokenIds
from deployments.replica.answering.reading import QuestionReader
from deployments.replica.answering.replica import AnswererReplica, OpenAnswerer
from gateway.catalogs.catalog import Catalog, CatalogEntry, Quality
from gateway.model.manifest import GoldenInput, Precision, SelfTest, SourceOf
from gateway.model.tier import Tier
from gateway.tasks.answer import AnswererManifest, SpanVerification

NAME = "reader"
WORDS = ("[PAD]", "[UNK]", "[CLS]", "[SEP]", "who", "ann", "lee", "bob", "and", "said", "##nie", ".", "?")
FIRST, LAST, NONE = "ann", "lee", "[CLS]"
"""Where the engine has an answer begin and end, and the token that stands for none."""

WINDOW, SPECIALS = 12, 3


def catalog() -> Catalog:
    """Return one answerer."""
    entry = CatalogEntry(
        name=NAME,
        task="answer",
        tier=Tier.QUALITY,
        family="BERT",
        source="starter:by-hand",
        quality=Quality(metric="F1", value=80.0, data_set="by hand", reference="made up"),
        licence="none",
    )
    return Catalog(name="answers", checkpoints=(entry,))


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
    return AnswererManifest(
        checkpoint=NAME,
        task="answer",
        family="BERT",
        engine="onnx",
        precision=Precision.FP32,
        source=SourceOf(location="starter:by-hand", revision="", sha256="0123456789abcdef" * 4),
        max_tokens=WINDOW,
        token_types=True,
        special_tokens=SPECIALS,
        no_answer_token=True,
        golden_question="who ?",
        files={},
        cpu_features=(),
        verification=verification,
        self_test=SelfTest(tolerance=0.1, golden=(GoldenInput(text="a", token_ids=(1,), logits=(0.0,)),)),
        profile=profile_document(0.002),
        made_with={},
    )


def manifests() -> dict[str, AnswererManifest]:
    """Return the manifests of the catalog's checkpoints."""
    return {NAME: manifest()}


def tokenizer() -> Tokenizer:
    """Return a tokenizer of BERT's kind over a few pieces, uncased."""
    made = Tokenizer(models.WordPiece({word: at for at, word in enumerate(WORDS)}, unk_token="[UNK]"))
    made.normalizer = normalizers.BertNormalizer(lowercase=True)
    made.pre_tokenizer = pre_tokenizers.BertPreTokenizer()
    made.post_processor = processors.TemplateProcessing(
        single="[CLS]:0 $A:0 [SEP]:0",
        pair="[CLS]:0 $A:0 [SEP]:0 $B:1 [SEP]:1",
        special_tokens=[("[CLS]", 2), ("[SEP]", 3)],
    )
    made.add_special_tokens(["[PAD]", "[UNK]", "[CLS]", "[SEP]"])
    return made


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
