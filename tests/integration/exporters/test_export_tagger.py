"""Taggers end to end: a real export, its proof, and replicas that answer as transformers' pipeline does."""

from __future__ import annotations

import unicodedata
from collections.abc import Sequence
from pathlib import Path
from typing import Any, get_args

import msgspec
import numpy as np
import pytest
import torch
from one_pass import assert_changed_answers_are_rejected, assert_measured_again
from processors import needs_int8
from small_checkpoints import WINDOW
from small_taggers import LABELS, make_tagger_checkpoint
from transformers import AutoModelForTokenClassification, pipeline

from deployments.engines.base import Logits
from deployments.replica.tagging.replica import OpenTagger
from deployments.replica.variant import open_variant
from exporters.errors import ExportFailed, SourceRefused, VariantRefused
from exporters.export import export
from exporters.kinds import KINDS, kind_of
from exporters.kinds.shapes import batches_of, prove_shapes
from exporters.kinds.tagger import read_aggregation
from exporters.plan import Settings, VariantPlan
from exporters.sources.source import read_object, resolve_source
from exporters.verification import batched
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


def without_marks(text: str) -> str:
    """The text without combining marks: where words are joined, the pipeline breaks them at one."""
    return "".join(one for one in text if not unicodedata.combining(one))


def bare_end(text: str, start: int, end: int) -> int:
    """The end of a place without the marks of its last letter, which the pipeline's own lacks."""
    while end > start + 1 and unicodedata.combining(text[end - 1]):
        end -= 1
    return end


def exported(
    root: Path,
    family: str = "bert",
    precision: Precision = Precision.FP32,
    floor: float | None = None,
    engine: str = "onnx",
) -> Path:
    """Export a small tagger; return the folder of its variant. The checkpoint is beside it."""
    source = make_tagger_checkpoint(root / "source", family)
    plan = VariantPlan("small", "tokens", "BERT", engine, precision)
    settings = Settings(floor=floor, profile_budget_s=0.05)
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


def assert_as_the_pipeline(variant: Path, aggregation: Aggregation, ignored: list[str]) -> None:
    """Fail unless a variant finds in each text what transformers' pipeline finds with its checkpoint."""
    tagger = opened(variant)
    theirs = pipeline(
        "token-classification",
        model=str(variant.parent / "source"),
        aggregation_strategy=aggregation,
        ignore_labels=ignored,
    )
    for text in TEXTS if aggregation in ("none", "simple") else map(without_marks, TEXTS):
        ours: list[Any] = found_in(tagger, text, aggregation, ignored)
        expected: list[Any] = theirs(text)
        assert [list(one) for one in ours] == [list(one) for one in expected]
        for one, other in zip(ours, expected, strict=True):
            assert bare_end(text, one["start"], one.pop("end")) == bare_end(text, other["start"], other.pop("end"))
            assert one.pop("score") == pytest.approx(float(other.pop("score")), abs=1e-4)
            assert one == other


@pytest.mark.parametrize("ignored", [["O"], [], ["O", "PER", "B-LOC"]], ids=str)
@pytest.mark.parametrize("aggregation", get_args(Aggregation))
def test_entities_are_those_of_the_pipeline(variant: Path, aggregation: Aggregation, ignored: list[str]) -> None:
    """Each strategy gives the entities, words, scores and places that transformers' pipeline gives."""
    assert_as_the_pipeline(variant, aggregation, ignored)


@pytest.mark.filterwarnings("ignore:Tokenizer does not support real words")
def test_bytes_are_joined_as_by_the_pipeline(tmp_path: Path) -> None:
    """Where a tokenizer knows no words but bytes, strategies of words go by spaces, as transformers has it."""
    made = exported(tmp_path, "roberta")
    for aggregation in get_args(Aggregation):
        assert_as_the_pipeline(made, aggregation, ["O"])


def test_a_tagger_that_pads_on_the_left_answers_as_the_pipeline(tmp_path: Path) -> None:
    """An XLNet, padded on the right here, finds what its pipeline finds, which pads on the left and has a type more."""
    made = exported(tmp_path, "xlnet")
    for aggregation in ("none", "simple"):
        assert_as_the_pipeline(made, aggregation, ["O"])


@pytest.mark.filterwarnings("ignore:Tokenizer does not support real words")
def test_torch_serves_a_tagger_without_a_graph(tmp_path: Path) -> None:
    """A Longformer's weights label tokens as the pipeline does."""
    with pytest.raises(ExportFailed, match="taggers and answerers are served by engine: torch"):
        exported(tmp_path / "graph", "longformer")
    assert_as_the_pipeline(exported(tmp_path, "longformer", engine="torch"), "simple", ["O"])


def test_a_variant_is_true_to_its_source(variant: Path) -> None:
    """In fp32 every token has the source's label, and logits are off by no more than rounding."""
    manifest = opened(variant).manifest
    found = manifest.verification
    assert (found.label_agreement, found.tagged_agreement, found.texts) == (1.0, 1.0, 24)
    assert found.logit_error < 1e-5 and found.tokens > found.tagged_tokens > 0
    assert (manifest.labels, manifest.max_tokens, manifest.room) == (LABELS, WINDOW, WINDOW - 2)


def test_the_graph_answers_as_its_source_at_every_shape(variant: Path) -> None:
    """Logits are the source's at several lengths and batches, also beside longer rows, whose padding they have."""
    source, tagger = variant.parent / "source", opened(variant)
    model = AutoModelForTokenClassification.from_pretrained(source).eval()
    row = tagger.reader.ids(" ".join(["good", "bad", "film", "zz9"] * WINDOW))

    def meant(rows: list[list[int]]) -> Logits:
        with torch.inference_mode():
            logits: Logits = model(input_ids=torch.tensor(rows)).logits.numpy()
        return logits

    batches = batches_of(lambda length: [*row[: length - 1], row[-1]], WINDOW)
    assert {len(one) for batch in batches for one in batch} >= {5, 7, 33, WINDOW}
    prove_shapes("bert", batches, meant, batched(tagger.engine, 0))

    def padded_wrongly(rows: list[list[int]]) -> Logits:
        return meant([[*one, *[9] * (max(map(len, rows)) - len(one))] for one in rows])  # no mask: padding is read

    with pytest.raises(ExportFailed, match=r"a logit is .* off from the checkpoint's own"):
        prove_shapes("bert", batches, meant, padded_wrongly)


@pytest.mark.parametrize("precision", [pytest.param(Precision.INT8, marks=needs_int8), Precision.INT8_WEIGHTS])
def test_a_quantised_variant_serves(tmp_path: Path, precision: Precision) -> None:
    """In few bits it still has most labels of its source, repeats its golden inputs, and answers."""
    tagger = opened(exported(tmp_path, precision=precision, floor=0.8))
    assert tagger.manifest.verification.label_agreement > 0.8
    assert found_in(tagger, TEXTS[0], "simple", [])


def test_a_variant_that_finds_too_little_is_refused(tmp_path: Path) -> None:
    """Under a floor of its own it is refused, with the tokens that differ."""
    source = resolve_source(str(make_tagger_checkpoint(tmp_path / "source")))
    plan = VariantPlan("small", "tokens", "BERT", "onnx", Precision.INT8_WEIGHTS)
    with pytest.raises(VariantRefused, match=r"of the labels of \d+ tokens agree with the source") as refused:
        export(plan, source, tmp_path / "variant", lambda step, share: None, Settings(floor=1.0, profile_budget_s=0.05))
    assert all(":" in one.source and one.source != one.variant for one in refused.value.differences)
    assert refused.value.differences


@pytest.mark.parametrize("named", ["average", "AVERAGE", None])
def test_a_checkpoint_says_how_its_tokens_become_entities(tmp_path: Path, named: str | None) -> None:
    """`task_specific_params` has the strategy of requests that name none, as transformers' pipelines read it."""
    source = make_tagger_checkpoint(tmp_path / "source", aggregation=named)
    config = read_object(source / "config.json", "here")
    assert read_aggregation(config, "here") == (named.lower() if named else "simple")
    assert kind_of(source, "here") is KINDS["tagger"]
    config = {"task_specific_params": {"token-classification": {"aggregation_strategy": "best"}}}
    with pytest.raises(SourceRefused, match="aggregation_strategy 'best', which is none"):
        read_aggregation(config, "here")


def test_a_changed_graph_is_rejected(variant: Path, tmp_path: Path) -> None:
    """A replica refuses a variant whose golden inputs give other logits."""
    assert_changed_answers_are_rejected(variant, tmp_path)


def test_a_profile_can_be_measured_again(variant: Path, tmp_path: Path) -> None:
    """Measuring again changes the profile and nothing else."""
    assert_measured_again(variant, tmp_path)


def test_a_long_text_is_read_as_its_windows_say(variant: Path) -> None:
    """Each token's logits are those of the window in which it lies farther from the edge."""
    tagger = opened(variant)
    text = " ".join(["good", "bad", "film", "zz9", "plot"] * WINDOW)
    read = tagger.reader.read(text, 20)
    rows = [
        tagger.engine.run(np.asarray([row.token_ids]), np.ones((1, len(row.token_ids)), dtype=np.int64))[0]
        for row in tagger.reader.encoded(read)
    ]
    joined = tagger.reader.joined(read, rows)
    assert len(joined) == len(read.ids) and len(read.windows) > 5
    for at in range(len(read.ids)):
        windows = enumerate(read.windows)
        holding = [(min(at - start, end - 1 - at), one) for one, (start, end) in windows if start <= at < end]
        if 0 < read.windows[0][1] <= at < read.windows[-1][0]:
            far = max(room for room, _ in holding)
            options = [rows[one][1 + at - read.windows[one][0]] for room, one in holding if room >= far - 1]
            assert any(np.array_equal(joined[at], one) for one in options)
