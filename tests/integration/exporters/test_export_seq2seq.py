"""Laws of exporting encoder-decoders, on real architectures: a variant writes what its source writes."""

from __future__ import annotations

import json
import shutil
import subprocess
import sys
from io import StringIO
from pathlib import Path

import pytest
from processors import needs_int8
from rich.console import Console
from small_checkpoints import make_checkpoint
from small_seq2seq import LONGEST_OUTPUT, SEQ2SEQ_FAMILIES, WINDOW, articles, make_seq2seq_checkpoint

from deployments.engines.host import read_host
from deployments.replica.classify import open_classifier
from deployments.replica.summarize.abstractive import OpenSeq2Seq
from deployments.replica.variant import VariantRejected, open_variant
from deployments.replica.writing.beam_search import search_rules, source_ids, write_greedily
from exporters.cli import export_variant, plan_for, with_floor
from exporters.errors import ExportFailed, SourceRefused
from exporters.export import export, profile_again
from exporters.kinds.seq2seq import FLOORS
from exporters.plan import Settings, Step, VariantPlan
from exporters.sources.source import resolve_source
from gateway.model.manifest import MANIFEST_NAME, Precision, Seq2SeqManifest

pytestmark = [pytest.mark.export, pytest.mark.usefixtures("warm")]

ROOT = Path(__file__).parents[3]
QUICK = Settings(profile_budget_s=0.05)
LAX = Settings(profile_budget_s=0.05, floor=0.0)
"""With random weights a slight change by int8 gives another token, and so other tokens after it."""


def made(folder: Path, family: str) -> Path:
    """A tiny checkpoint of the family with verification texts of its own."""
    make_seq2seq_checkpoint(folder, family)
    texts = articles(12)
    (folder / "verification.jsonl").write_text("".join(json.dumps({"text": text}) + "\n" for text in texts))
    return folder


def exported(
    checkpoint: Path, out: Path, precision: Precision = Precision.FP32, settings: Settings = QUICK, engine: str = "onnx"
) -> Seq2SeqManifest:
    """The variant of a tiny checkpoint, hardly profiled."""
    plan = VariantPlan(checkpoint.name, "summarize", checkpoint.name, engine, precision)
    manifest = export(plan, resolve_source(str(checkpoint)), out, lambda step, share: None, settings)
    assert isinstance(manifest, Seq2SeqManifest)
    return manifest


@pytest.fixture(scope="module")
def bart(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A tiny BART."""
    return made(tmp_path_factory.mktemp("checkpoints") / "bart", "bart")


@pytest.fixture(scope="module")
def variant(bart: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The fp32 variant of the tiny BART."""
    out = tmp_path_factory.mktemp("variants") / "bart"
    exported(bart, out)
    return out


@pytest.fixture
def copy(variant: Path, tmp_path: Path) -> Path:
    """A copy of the variant that a test may change."""
    return shutil.copytree(variant, tmp_path / "variant")


def opened(folder: Path) -> OpenSeq2Seq:
    """The variant in the folder, self-test passed."""
    one = open_variant(folder, threads=1)
    assert isinstance(one, OpenSeq2Seq)
    return one


@pytest.mark.parametrize("family", [family for family in SEQ2SEQ_FAMILIES if family != "bart"])
def test_every_family_writes_as_its_source(tmp_path: Path, family: str) -> None:
    """Every family writes its source's tokens in fp32, and the variant opens as the manifest says."""
    manifest = exported(made(tmp_path / family, family), tmp_path / "variant")
    assert manifest.verification.same_tokens == 1.0
    assert manifest.verification.rouge_l_to_source == 1.0
    assert opened(tmp_path / "variant").manifest == manifest


def test_a_bart_writes_as_its_source_by_its_own_rules(variant: Path) -> None:
    """BART's generation config is in the manifest, and new texts are written by its rules."""
    one = opened(variant)
    manifest = one.manifest
    assert manifest.verification.same_tokens == 1.0 and manifest.verification.rouge_l is None
    rules = manifest.generation
    assert (rules.decoder_start_token_id, rules.eos_token_ids, rules.forced_bos_token_id) == (2, (2,), 0)
    assert (rules.num_beams, rules.length_penalty, rules.no_repeat_ngram_size) == (4, 2.0, 3)
    assert (rules.max_new_tokens, rules.min_new_tokens) == (LONGEST_OUTPUT - 1, 5)
    assert (manifest.max_tokens, manifest.pad_token_id, manifest.task) == (WINDOW, 1, "summarize")
    assert {cell.batch for cell in manifest.profile.cells} == {1}
    assert {cell.batch for cell in manifest.step_profile.cells} == {1, 2, 4, 8}
    assert 1 <= manifest.output_tokens <= LONGEST_OUTPUT
    ids = source_ids(one.tokens, articles(1, seed=5)[0], rules.prefix, manifest.max_tokens)
    written = write_greedily(one.engine, ids, search_rules(rules, manifest.pad_token_id))
    assert 0 < len(written) < LONGEST_OUTPUT and isinstance(one.tokens.decode(written), str)


@needs_int8
def test_random_weights_pass_int8_where_the_floor_is_lowered_by_name(
    bart: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Random weights pass int8 only if the floor is lowered by name, and the manifest has that floor.

    Weights too large for an ONNX file are kept and digested beside it.
    """
    monkeypatch.setattr("exporters.kinds.graphs.LARGEST_FILE", 0)
    manifest = exported(bart, tmp_path / "variant", Precision.INT8, LAX)
    assert manifest.verification.same_tokens < FLOORS[Precision.INT8].same_tokens
    assert manifest.verification.same_tokens_floor == 0.0
    assert manifest.cpu_features == (read_host().dot_product,)
    assert "encoder_model.onnx.data" in manifest.files
    assert opened(tmp_path / "variant").manifest == manifest


@pytest.mark.parametrize("name", ["encoder_model.onnx", "decoder_model.onnx", "decoder_with_past_model.onnx"])
def test_a_changed_graph_is_found_by_its_digest(copy: Path, name: str) -> None:
    """A graph that differs by one bit is found by its digest."""
    content = bytearray((copy / name).read_bytes())
    content[len(content) // 2] ^= 1
    (copy / name).write_bytes(content)
    with pytest.raises(VariantRejected, match=f"{name}: expected sha256"):
        open_variant(copy, 1)


def test_a_variant_that_writes_otherwise_is_rejected(copy: Path) -> None:
    """A variant is rejected if its token ids differ or its text differs early; a late difference may be rounding."""
    document = json.loads((copy / MANIFEST_NAME).read_bytes())
    written = document["self_test"][0]["written"]
    written[-1] += 1
    (copy / MANIFEST_NAME).write_text(json.dumps(document))
    open_variant(copy, 1)
    for golden in document["self_test"]:
        golden["written"][1] += 1
    (copy / MANIFEST_NAME).write_text(json.dumps(document))
    with pytest.raises(VariantRejected, match="tokens written"):
        open_variant(copy, 1)
    document["self_test"][1]["token_ids"][0] += 1
    (copy / MANIFEST_NAME).write_text(json.dumps(document))
    with pytest.raises(VariantRejected, match="golden input 1, token ids"):
        open_variant(copy, 1)


def test_a_classifier_s_place_takes_no_writer(variant: Path) -> None:
    """A seq2seq variant is rejected where a classifier is expected."""
    with pytest.raises(VariantRejected, match="kind: expected classifier, got seq2seq"):
        open_classifier(variant, 1)


def test_a_kind_that_does_not_serve_the_task_is_refused(bart: Path, tmp_path: Path) -> None:
    """A kind that does not serve the task, or an engine other than ONNX, is refused before anything is loaded."""
    told: list[Step] = []
    plan, source = VariantPlan("x", "classify", "BART", "onnx", Precision.FP32), resolve_source(str(bart))
    with pytest.raises(SourceRefused, match="is an encoder-decoder, which serves the task 'summarize'; the task of x"):
        export(plan, source, tmp_path / "out", lambda step, share: told.append(step))
    assert told == []
    classifier = make_checkpoint(tmp_path / "bert")
    with pytest.raises(SourceRefused, match="is a classifier, which serves the tasks 'classify' and 'zero-shot'"):
        exported(classifier, tmp_path / "out")
    with pytest.raises(ExportFailed, match="torch engine runs classifiers, answerers, taggers only"):
        exported(bart, tmp_path / "out", engine="torch")


OPENED = """
import sys
from pathlib import Path
from deployments.replica.variant import open_variant
open_variant(Path(sys.argv[1]), 1)
assert not {"torch", "transformers", "optimum", "onnx", "rouge_score"} & set(sys.modules), "only the runtime is needed"
assert "deployments.replica.summarize.ranking" not in sys.modules, "no ranker is needed to write"
"""


def test_a_replica_that_writes_imports_no_torch(variant: Path) -> None:
    """A replica of a seq2seq checkpoint imports ONNX Runtime, the tokenizer and the search, and no torch."""
    subprocess.run([sys.executable, "-c", OPENED, str(variant)], check=True, cwd=ROOT)


def test_the_commands_tell_the_kind_and_print_both_profiles(bart: Path, tmp_path: Path) -> None:
    """The commands find the task by the checkpoint's files, print both profiles, and report a lowered floor."""
    assert plan_for(str(bart), None, Precision.FP32).task == "summarize"
    console = Console(file=StringIO(), width=160, record=True)
    judged = with_floor(QUICK, 0.5, console)
    assert export_variant(str(bart), None, Precision.FP32, None, tmp_path, judged, console)
    (folder,) = (tmp_path / "variants" / "bart").glob("onnx-fp32-????????????")
    again = profile_again(folder, 2, lambda step, share: None, 0.05)
    assert isinstance(again, Seq2SeqManifest)
    assert (again.profile.threads, again.step_profile.threads) == (2, 2)
    shown = console.export_text()
    assert "floor 0.5 replaces the kind" in shown and "(floor 50.0%)" in shown
    assert "reading and first step" in shown and "each later step" in shown
    with pytest.raises(ExportFailed, match="from 0 to 1"):
        with_floor(QUICK, 1.5, console)
