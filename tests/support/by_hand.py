"""Catalog entries, manifests and tokenizers made by hand: what those of all kinds have in common."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any, TypeVar

from tokenizers import Tokenizer, decoders, models, normalizers, pre_tokenizers, processors

from gateway.catalogs.catalog import CatalogEntry, Quality
from gateway.model.manifest import GoldenInput, Precision, SelfTest, SourceOf, VariantManifest
from gateway.model.tier import Tier

ManifestT = TypeVar("ManifestT", bound=VariantManifest)

SOURCE = SourceOf(location="starter:by-hand", revision="", sha256="0123456789abcdef" * 4)
SELF_TEST = SelfTest(tolerance=0.1, golden=(GoldenInput(text="a", token_ids=(1,), logits=(0.0, 1.0)),))


def entry_of(
    name: str, task: str, tier: Tier, value: float = 1.0, metric: str = "accuracy", **more: Any
) -> CatalogEntry:
    """Return the entry of a checkpoint with this quality, in points; `more` are its other fields."""
    quality = Quality(metric=metric, value=value, data_set="by hand", reference="made up")
    given = {"family": "BERT", "source": SOURCE.location, "licence": "none", **more}
    return CatalogEntry(name=name, task=task, tier=tier, quality=quality, **given)


def manifest_of(kind: type[ManifestT], checkpoint: str, task: str, **more: Any) -> ManifestT:
    """Return the manifest of a variant in fp32 without files; `more` are the fields of its kind."""
    given = {"family": "BERT", "engine": "onnx", "precision": Precision.FP32, "source": SOURCE, "files": {}}
    return kind(checkpoint=checkpoint, task=task, cpu_features=(), made_with={}, **{**given, **more})


def bert_tokenizer(words: Sequence[str], **form: Any) -> Tokenizer:
    """Return an uncased tokenizer of BERT's kind over a few pieces; those in brackets are special.

    `form` says what it puts round texts and pairs, by default `[CLS] text [SEP]`.
    """
    made = Tokenizer(models.WordPiece({word: at for at, word in enumerate(words)}, unk_token="[UNK]"))
    made.normalizer = normalizers.BertNormalizer(lowercase=True)
    made.pre_tokenizer = pre_tokenizers.BertPreTokenizer()
    made.decoder = decoders.WordPiece()
    made.post_processor = processors.TemplateProcessing(
        special_tokens=[(one, words.index(one)) for one in ("[CLS]", "[SEP]")], **{"single": "[CLS] $A [SEP]", **form}
    )
    made.add_special_tokens([word for word in words if word.startswith("[")])
    return made
