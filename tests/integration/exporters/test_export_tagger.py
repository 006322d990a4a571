"""Taggers end to end: a real export, its proof, and replicas that answer as transformers' pipeline does."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path
from typing import Any, get_args

import msgspec
import numpy as np
import pytest
from small_taggers import make_tagger_checkpoint
from transformers import pipeline

from deployments.replica.tagging.replica import OpenTagger
from deployments.replica.variant import open_variant
from exporters.export import export
from exporters.plan import Settings, VariantPlan
from exporters.sources.source import resolve_source
from gateway.model.manifest import Precision
from gateway.tasks.tokens import Aggregation

pytestmark = pytest.mark.export

TEXTS = [
    "the film was very good, and i loved the acting!",
    "a caf\u00e9 \U0001f600\U0001f468\u200d\U0001f469\u200d\U0001f467 in cafe\u0301 z\u0308urich... it's warm",
    "\u4f60\u597d service\tfood\n\nplot unseen-word x7-99 o\u0308",
    "   ",
    "good",
]
"""Texts with marks, emoji of several code points, combining marks, words that the vocabulary lacks, and none at all."""


def exported(root: Path, precision: Precision = Precision.FP32, **making: Any) -> Path:
    """Export a small tagger; return the folder of its variant. The checkpoint is beside it."""
    source = make_tagger_checkpoint(root / "source", **making)
    plan = VariantPlan("small", "tokens", "BERT", "onnx", precision)
    settings = Settings(profile_budget_s=0.05)
    export(plan, resolve_source(str(source)), root / "variant", lambda step, share: None, settings)
    return root / "variant"


@pytest.fixture(scope="module")
def variant(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A variant in fp32, and its checkpoint beside it."""
    return exported(tmp_path_factory.mktemp("tagger"))


def opened(folder: Path) -> OpenTagger:
    """Open a variant with its checks."""
    found = open_variant(folder, threads=1)
    assert isinstance(found, OpenTagger)
    return found


def found_in(tagger: OpenTagger, text: str, aggregation: Aggregation, ignored: Sequence[str]) -> list[dict[str, Any]]:
    """The entities of a text, as they go over the wire."""
    read = tagger.reader.read(text)
    rows = [
        tagger.engine.run(np.asarray([row.token_ids]), np.ones((1, len(row.token_ids)), dtype=np.int64))[0]
        for row in tagger.reader.encoded(read)
    ]
    entities = tagger.tagger.entities(read, tagger.reader.joined(read, rows), aggregation, ignored)
    document: list[dict[str, Any]] = msgspec.to_builtins(entities)
    return document


@pytest.mark.parametrize("ignored", [["O"], [], ["O", "PER", "B-LOC"]], ids=str)
@pytest.mark.parametrize("aggregation", get_args(Aggregation))
def test_entities_are_those_of_the_pipeline(variant: Path, aggregation: Aggregation, ignored: list[str]) -> None:
    """Each strategy gives the entities, words, scores and places that transformers' pipeline gives."""
    tagger = opened(variant)
    theirs = pipeline(
        "token-classification",
        model=str(variant.parent / "source"),
        aggregation_strategy=aggregation,
        ignore_labels=ignored,
    )
    for text in TEXTS:
        ours, expected = found_in(tagger, text, aggregation, ignored), theirs(text)
        assert [list(one) for one in ours] == [list(one) for one in expected]
        for one, other in zip(ours, expected, strict=True):
            assert one.pop("score") == pytest.approx(float(other.pop("score")), abs=1e-4)
            assert one == other
