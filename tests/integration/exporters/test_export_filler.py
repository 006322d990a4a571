"""Fillers end to end: a real export, its proof, and variants that fill masks as transformers' pipeline does."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import msgspec
import pytest
from one_pass import assert_changed_answers_are_rejected, assert_measured_again
from processors import needs_int8
from small_checkpoints import WINDOW
from small_fillers import FAMILIES, make_filler_checkpoint
from transformers import pipeline

from deployments.replica.filling import OpenFiller, filled
from deployments.replica.tokens import Encoded
from deployments.replica.variant import open_variant
from exporters.errors import VariantRefused
from exporters.export import export
from exporters.kinds import KINDS, kind_of
from exporters.plan import Settings, VariantPlan
from exporters.sources.source import resolve_source
from exporters.verification import batched
from gateway.model.manifest import Precision

pytestmark = pytest.mark.export

TEXTS = [
    "the film was [MASK] , and i loved it !",
    "[MASK]",
    "a caf\u00e9 \U0001f600\U0001f468\u200d\U0001f469 in cafe\u0301 z\u0308urich...[MASK]it's warm",
    "\u4f60\u597d service\t[MASK]\n\nplot unseen-word x7-99 o\u0308 i 'm",
    "the [MASK] was [MASK] , and the plot [MASK] .",
]
"""Texts with marks, emoji of several code points, combining marks, words that the vocabulary lacks, and many masks."""


def exported(root: Path, family: str = "bert", precision: Precision = Precision.FP32, **settings: Any) -> Path:
    """Export a small filler; return the folder of its variant. The checkpoint is beside it."""
    source = make_filler_checkpoint(root / "source", family, cleans=family != "albert")
    plan = VariantPlan("small", "fill", "BERT", "onnx", precision)
    told = Settings(profile_budget_s=0.05, **settings)
    export(plan, resolve_source(str(source)), root / "variant", lambda step, share: None, told)
    return root / "variant"


@pytest.fixture(scope="module")
def variant(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A variant in fp32, and its checkpoint beside it."""
    return exported(tmp_path_factory.mktemp("filler"))


def opened(folder: Path) -> OpenFiller:
    """Open a variant with its checks."""
    found = open_variant(folder, threads=1)
    assert isinstance(found, OpenFiller)
    return found


def words_for(found: OpenFiller, texts: list[str], most: int, targets: list[str] | None = None) -> list[Any]:
    """The words for each mask of each text, all texts in one run, as they go over the wire."""
    encoded = [one for one in map(found.reader.encode, texts) if isinstance(one, Encoded)]
    assert len(encoded) == len(texts)
    rows = [one.token_ids for one in encoded]
    logits = batched(found.engine, found.manifest.pad_token_id)(rows)
    chosen = None if targets is None else found.reader.targets(targets)
    pairs = zip(rows, logits, strict=True)
    document: list[Any] = msgspec.to_builtins([filled(found.reader, row, one, most, chosen) for row, one in pairs])
    return document


def assert_as_the_pipeline(variant: Path, most: int, targets: list[str] | None = None) -> None:
    """Fail unless a variant fills the masks of each text as transformers' pipeline does with its checkpoint."""
    found, fill = opened(variant), pipeline("fill-mask", model=str(variant.parent / "source"))
    ours = words_for(found, TEXTS, most, targets)
    for text, own in zip(TEXTS, ours, strict=True):
        asked = text.replace("[MASK]", found.manifest.mask_token)
        theirs: Any = fill(asked, top_k=most, **({} if targets is None else {"targets": targets}))
        expected = theirs if isinstance(theirs[0], list) else [theirs]
        assert len(own) == len(expected)
        for one, other in zip(own, expected, strict=True):
            assert [word.pop("score") for word in one] == pytest.approx([word.pop("score") for word in other], abs=1e-4)
            assert one == other


@pytest.mark.parametrize("family", FAMILIES)
def test_every_family_fills_as_the_pipeline(tmp_path: Path, family: str) -> None:
    """Families of pieces and of bytes, with every head, give the pipeline's words, scores and texts."""
    assert_as_the_pipeline(exported(tmp_path, family), 5)


@pytest.mark.filterwarnings("ignore:The specified target")
@pytest.mark.parametrize(("most", "targets"), [(1, None), (50, None), (5, ["good", "bad", "good"]), (2, ["zzz", "it"])])
def test_parameters_do_what_they_do_in_the_pipeline(variant: Path, most: int, targets: list[str] | None) -> None:
    """Number and targets are the pipeline's; a target that is no word of the vocabulary counts by its first token."""
    assert_as_the_pipeline(variant, most, targets)


def test_either_mask_stands_for_the_checkpoint_s_own(variant: Path, tmp_path: Path) -> None:
    """`[MASK]` and `<mask>` are read alike, by checkpoints of either; other names of special tokens are text."""
    for found in (opened(variant), opened(exported(tmp_path, "roberta"))):
        both = [words_for(found, [f"the {mask} was good"], 3) for mask in ("[MASK]", "<mask>")]
        assert both[0] == both[1]
        read = found.reader.encode("good [SEP] </s> [MASK] film")
        assert isinstance(read, Encoded) and read.token_ids.count(found.reader.mask_id) == 1
        ends = {found.reader.encode("[MASK]").token_ids[-1]}  # type: ignore[union-attr]
        assert sum(one in ends for one in read.token_ids) <= 2


def test_a_variant_is_true_to_its_source(variant: Path) -> None:
    """In fp32 the likeliest words are the source's, and logits are off by no more than rounding."""
    manifest = opened(variant).manifest
    found = manifest.verification
    assert (found.same_word, found.texts) == (1.0, 24) and found.logit_error < 1e-5
    assert (manifest.max_tokens, manifest.mask_token, manifest.cleans_spaces) == (WINDOW, "[MASK]", True)


@pytest.mark.parametrize("precision", [pytest.param(Precision.INT8, marks=needs_int8), Precision.INT8_WEIGHTS])
def test_a_quantised_variant_serves(tmp_path: Path, precision: Precision) -> None:
    """In few bits it still has words of its source, repeats its golden inputs, and answers."""
    found = opened(exported(tmp_path, precision=precision, floor=0.3))
    assert found.manifest.verification.same_word > 0.3
    assert words_for(found, TEXTS, 2)


def test_a_variant_of_other_words_is_refused(tmp_path: Path) -> None:
    """Under a floor of its own it is refused, with what differs."""
    with pytest.raises(VariantRefused, match=r"have the source's likeliest word|logits are off by") as refused:
        exported(tmp_path, precision=Precision.INT8_WEIGHTS, floor=1.0)
    assert all(one.source != one.variant for one in refused.value.differences)


def test_a_checkpoint_is_known_by_its_architecture(variant: Path) -> None:
    """One whose config names a head for masks is a filler."""
    assert kind_of(variant.parent / "source", "here") is KINDS["filler"]


def test_a_changed_graph_is_rejected(variant: Path, tmp_path: Path) -> None:
    """A replica refuses a variant whose golden inputs give other logits."""
    assert_changed_answers_are_rejected(variant, tmp_path)


def test_a_profile_can_be_measured_again(variant: Path, tmp_path: Path) -> None:
    """Measuring again changes the profile and nothing else."""
    assert_measured_again(variant, tmp_path)
