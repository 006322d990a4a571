"""Laws of odd classifiers: each is exported and answers as transformers' pipeline, or one sentence says why not."""

from __future__ import annotations

import json
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
from fakes import catalog
from odd_checkpoints import HEADS, MOODS, PIECES, edited, headed, make_pieces, named, pipeline_scores, varied
from processors import needs_int8
from small_checkpoints import WINDOW, make_checkpoint, sentences

from deployments.engines.base import padded
from deployments.replica.classify import ClassifierReplica, OpenClassifier, open_classifier
from deployments.replica.tokens import Encoded
from exporters.errors import ExportFailed, SourceRefused, VariantRefused
from exporters.export import export
from exporters.plan import Settings, VariantPlan
from exporters.preparing.job import ExportJob, run_job
from exporters.sources.source import resolve_source
from gateway.model.manifest import ClassifierManifest, Precision
from gateway.model.messages import Answer, Work
from gateway.tasks.classify import CLASSIFY, ClassifyBody, ClassifyParameters, LabelScore

pytestmark = [pytest.mark.export, pytest.mark.usefixtures("warm")]
LONG = "i loved the plot . " + "the film was a film and it was a film . " * 20 + "awful acting and cold food"
TEXTS = [*(one.text for one in sentences(12, seed=5)), "ok", "caf\u00e9 \u2014 na\u00efve \U0001f600", LONG]


@pytest.fixture(scope="module")
def checkpoint(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A tiny DistilBERT."""
    return make_checkpoint(tmp_path_factory.mktemp("checkpoint") / "tiny")


def exported(
    checkpoint: Path,
    out: Path,
    precision: Precision = Precision.FP32,
    settings: Settings | None = None,
    engine: str = "onnx",
) -> ClassifierManifest:
    """The variant of a tiny checkpoint, hardly profiled."""
    plan = VariantPlan(checkpoint.name, "classify", "distilbert", engine, precision)
    source = resolve_source(str(checkpoint))
    manifest = export(plan, source, out, lambda step, share: None, settings or Settings(profile_budget_s=0.05))
    assert isinstance(manifest, ClassifierManifest)
    return manifest


def answers(variant: OpenClassifier, texts: list[str]) -> list[list[LabelScore]]:
    """The scores of each text, all run in one padded batch, as a request without parameters gets them."""
    encoded = [variant.scorer.encode(text, "longest_first") for text in texts]
    batch = padded([one.token_ids for one in encoded if isinstance(one, Encoded)], variant.scorer.pad_id)
    logits = variant.engine.run(batch.token_ids, batch.attention_mask)
    return [list(variant.scorer.scores(row, ClassifyParameters())) for row in logits]


def agree(ours: list[list[LabelScore]], theirs: list[list[LabelScore]], within: float) -> bool:
    """True if both have the same labels, and scores as near as that."""
    return all(
        (mine := {one.label: one.score for one in own}).keys() == {one.label for one in other}
        and all(abs(mine[one.label] - one.score) <= within for one in other)
        for own, other in zip(ours, theirs, strict=True)
    )


@pytest.mark.parametrize("head", HEADS)
def test_every_head_answers_as_the_pipeline(checkpoint: Path, tmp_path: Path, head: str) -> None:
    """Whatever a checkpoint's head is for, and wherever it cuts a text, the answer is the pipeline's."""
    odd, function = HEADS[head]
    folder = varied(checkpoint, tmp_path / "odd", odd)
    manifest = exported(folder, tmp_path / "variant")
    assert manifest.function_to_apply == function
    assert manifest.truncation_side == ("left" if head == "cut on the left" else "right")
    opened = open_classifier(tmp_path / "variant", 1)
    assert agree(answers(opened, TEXTS), pipeline_scores(folder, TEXTS, WINDOW), within=1e-4)


@needs_int8
@pytest.mark.parametrize(
    ("head", "measure"), [("regression", "error"), ("independent labels", "each_label"), ("one label", "error")]
)
def test_a_head_is_proven_by_what_it_is_for(checkpoint: Path, tmp_path: Path, head: str, measure: str) -> None:
    """A number is verified by its error and independent labels each by itself, in int8 too; no accuracy is claimed."""
    folder = varied(checkpoint, tmp_path / "odd", HEADS[head][0])
    found = exported(folder, tmp_path / "variant", Precision.INT8).verification
    assert found.measure == measure and found.accuracy is None
    assert found.label_agreement >= found.label_agreement_floor
    if measure == "each_label":
        assert found.score_difference is not None and found.score_difference_ceiling is not None
        assert 0 < found.score_difference <= found.score_difference_ceiling
    else:
        assert found.label_agreement < 1


WRONG_LABELS: dict[str, tuple[Callable[[Path], None], str]] = {
    "from one": (edited("config.json", id2label={"1": "bad", "2": "good"}), "numbers its labels 1, 2; .* from 0"),
    "with a gap": (headed([(0, 1)] * 2, id2label={"0": "bad", "2": "good"}), "numbers its labels 0, 2; .* a gap"),
    "by name": (edited("config.json", id2label={"bad": 0, "good": 1}), "has the key 'bad', which is no number"),
    "twice": (edited("config.json", id2label={"0": "x", "1": "x"}), "calls two labels 'x', 0 and 1"),
    "a list": (edited("config.json", id2label=["bad", "good"]), "is no object that has a label for each number"),
    "without text": (edited("config.json", id2label={"0": "bad", "1": []}), "has no text for label 1"),
    "of another head": (edited("config.json", **named(*MOODS)), "cannot be loaded as a classifier"),
}


@pytest.mark.parametrize("labels", WRONG_LABELS)
def test_labels_that_do_not_fit_are_refused_in_a_sentence(checkpoint: Path, tmp_path: Path, labels: str) -> None:
    """Labels that are not one distinct text for each logit are refused, and the sentence says what is wrong."""
    odd, said = WRONG_LABELS[labels]
    with pytest.raises(SourceRefused, match=said):
        exported(varied(checkpoint, tmp_path / "odd", odd), tmp_path / "variant")
    assert not (tmp_path / "variant").exists()


@needs_int8
def test_a_number_that_int8_blurs_is_refused(checkpoint: Path, tmp_path: Path) -> None:
    """A regression is refused for its error, though its best label is always right: it has only one."""
    from small_checkpoints import make_unquantisable

    def odd(folder: Path) -> None:
        HEADS["regression"][0](folder)
        make_unquantisable(folder)

    with pytest.raises(VariantRefused, match=r"its numbers explain .* of the variance of the source's on 60 texts"):
        exported(varied(checkpoint, tmp_path / "odd", odd), tmp_path / "variant", Precision.INT8)


def test_what_nobody_foresaw_is_a_sentence_too(checkpoint: Path, tmp_path: Path) -> None:
    """A fault of a library's own, here of one that raises a bare `Exception`, reaches the user without a traceback."""

    def odd(folder: Path) -> None:
        (folder / "tokenizer.json").write_text('{"added_tokens": [], "model": {"type": "Unheard"}}')

    folder = varied(checkpoint, tmp_path / "odd", odd)
    plan = VariantPlan("odd", "classify", "distilbert", "onnx", Precision.FP32)
    job = ExportJob(plan, str(folder), None, str(tmp_path / "variant"), str(tmp_path / "cache"), Settings())
    with pytest.raises(ExportFailed) as caught:
        run_job(job, lambda step, share: None)
    said = str(caught.value)
    assert said.startswith("an unexpected fault while loading: Exception: ") and said.count("\n") == 0
    assert ", from tokenization_utils_fast.py:" in said and "Traceback" not in said


FURTHER = ["albert", "electra", "xlm-roberta", "camembert", "deberta", "bart", "gpt2", "xlnet"]


@pytest.mark.parametrize("family", FURTHER)
def test_further_families_answer_as_the_pipeline(tmp_path: Path, family: str) -> None:
    """Families with shared layers, relative positions, or an answer at the end of a text are exported, and right."""
    folder = make_checkpoint(tmp_path / family, family)
    exported(folder, tmp_path / "variant")
    opened = open_classifier(tmp_path / "variant", 1)
    assert agree(answers(opened, TEXTS), pipeline_scores(folder, TEXTS, WINDOW), within=1e-4)


def test_a_family_that_reads_padding_is_refused_by_name(tmp_path: Path) -> None:
    """Where padding moves an answer, no batch can be right: the proof finds it in a batch of unlike lengths."""
    folder = make_checkpoint(tmp_path / "convbert", "convbert")
    with pytest.raises(ExportFailed, match=r"convbert cannot be served .* for a batch of \d texts of [\d, ]+ tokens a"):
        exported(folder, tmp_path / "variant")


def test_a_family_whose_graph_is_wrong_is_refused_by_name(tmp_path: Path) -> None:
    """A Longformer's graph holds for the length that it is traced with alone; the sentence says what serves it."""
    folder = make_checkpoint(tmp_path / "longformer", "longformer")
    with pytest.raises(ExportFailed, match=r"longformer has no graph .* served by engine: torch"):
        exported(folder, tmp_path / "variant")


def test_torch_serves_a_longformer_as_the_pipeline(tmp_path: Path) -> None:
    """Weights without a graph answer as the pipeline in one padded batch, with global attention on the first token."""
    folder = make_checkpoint(tmp_path / "longformer", "longformer")
    made = exported(folder, tmp_path / "variant", engine="torch")
    assert (made.engine, made.verification.label_agreement) == ("torch", 1.0)
    opened = open_classifier(tmp_path / "variant", 1)
    assert agree(answers(opened, TEXTS), pipeline_scores(folder, TEXTS, WINDOW), within=1e-4)


@pytest.mark.parametrize("engine", ["onnx", "torch"])
def test_a_family_that_needs_another_input_is_refused_by_name(tmp_path: Path, engine: str) -> None:
    """A LayoutLM would answer to text alone, but as if every word stood in one corner: what is missing is named."""
    folder = make_checkpoint(tmp_path / "layoutlm", "layoutlm")
    with pytest.raises(SourceRefused, match=r"layoutlm reads where each word stands on its page \(bbox\)"):
        exported(folder, tmp_path / "variant", engine=engine)


def test_an_xlnet_that_classifies_otherwise_is_refused(tmp_path: Path) -> None:
    """Only the state of the last token is right on either side of padding."""
    folder = make_checkpoint(tmp_path / "xlnet", "xlnet")
    edited("config.json", summary_type="mean")(folder)
    with pytest.raises(ExportFailed, match="summary_type='mean' is not served"):
        exported(folder, tmp_path / "variant")


def test_a_graph_that_leaves_out_what_the_pipeline_passes_is_refused(tmp_path: Path) -> None:
    """A GPT-2 whose tokenizer gives token types answers otherwise without them, which the proof finds."""
    folder = varied(
        make_checkpoint(tmp_path / "gpt2", "gpt2"),
        tmp_path / "odd",
        edited("tokenizer_config.json", model_input_names=["input_ids", "token_type_ids", "attention_mask"]),
    )
    with pytest.raises(ExportFailed, match="gpt2 cannot be served as it is exported: for a text of"):
        exported(folder, tmp_path / "variant")


PAIRS = [
    ("the film was good", "i hated the food"),
    ("ok", LONG),
    (LONG, "ok"),
    (LONG, f"very {LONG}"),
    ("caf\u00e9 \u2014 na\u00efve", "\U0001f600"),
]


@pytest.mark.parametrize("family", ["bert", "distilbert", "roberta", "bart", "xlnet"])
async def test_pairs_of_texts_answer_as_the_pipeline(tmp_path: Path, family: str) -> None:
    """Two texts reach a model as its own tokenizer joins them, with token types or end tokens, beside single texts."""
    folder = make_checkpoint(tmp_path / family, family)
    exported(folder, tmp_path / "variant")
    opened = open_classifier(tmp_path / "variant", 1)
    inputs: list[Any] = [{"text": one, "text_pair": other} for one, other in PAIRS]
    body = ClassifyBody.model_validate({"inputs": [TEXTS[0], *inputs, TEXTS[1], {"text": TEXTS[2]}]})
    parameters, _ = CLASSIFY.read(body)
    replica = ClassifierReplica(catalog().checkpoints[0], opened, 100, time.monotonic)
    replica.start()
    (answer,) = await replica.handle([Work("classify", tuple(body.texts()), parameters, 600.0, False, "1")])
    await replica.stop(60)
    assert isinstance(answer, Answer)
    meant = pipeline_scores(folder, [TEXTS[0], *inputs, TEXTS[1], TEXTS[2]], WINDOW)
    assert agree([list(one) for one in answer.outputs], meant, within=1e-4)


def test_token_types_that_the_tokenizer_withholds_do_not_reach_the_model(checkpoint: Path, tmp_path: Path) -> None:
    """Where a checkpoint's tokenizer gives no token types its model is told none, though its template has them."""
    assert not exported(checkpoint, tmp_path / "distilbert").token_types
    folder = make_checkpoint(tmp_path / "bert", "bert")
    assert exported(folder, tmp_path / "types").token_types
    edited("tokenizer_config.json", model_input_names=["input_ids", "attention_mask"])(folder)
    assert not exported(folder, tmp_path / "none").token_types
    scorer = open_classifier(tmp_path / "none", 1).scorer
    encoded = scorer.encode_pair("the film", "was good", "longest_first")
    assert isinstance(encoded, Encoded) and set(encoded.token_types) == {0}


@pytest.mark.parametrize("family", PIECES)
def test_a_tokenizer_of_sentencepiece_alone_is_converted(tmp_path: Path, family: str) -> None:
    """A checkpoint with a file of SentencePiece and no tokenizer.json is exported, and answers as the pipeline."""
    folder = make_pieces(tmp_path / family, family, [one.text for one in sentences(300)])
    exported(folder, tmp_path / "variant", settings=Settings(profile_budget_s=0.05, floor=0.9))
    opened = open_classifier(tmp_path / "variant", 1)
    assert agree(answers(opened, TEXTS), pipeline_scores(folder, TEXTS, WINDOW), within=1e-4)


@pytest.mark.parametrize("family", PIECES)
def test_a_file_that_is_not_sentencepieces_is_named(checkpoint: Path, tmp_path: Path, family: str) -> None:
    """What is no file of SentencePiece is refused by its name, whatever transformers makes of it."""
    file, tokenizer, _ = PIECES[family]

    def odd(folder: Path) -> None:
        (folder / "tokenizer.json").unlink()
        (folder / file).write_bytes(b"\x0a\x00")
        edited("tokenizer_config.json", tokenizer_class=tokenizer)(folder)

    with pytest.raises(SourceRefused, match=f"its {file} is no file of SentencePiece's"):
        exported(varied(checkpoint, tmp_path / "odd", odd), tmp_path / "variant")


def test_a_tokenizer_of_other_weights_is_named(checkpoint: Path, tmp_path: Path) -> None:
    """A token that the weights do not know is named before it is looked up."""

    def odd(folder: Path) -> None:
        document = json.loads((folder / "tokenizer.json").read_bytes())
        document["model"]["vocab"]["film"] = 9_999
        (folder / "tokenizer.json").write_text(json.dumps(document))

    with pytest.raises(SourceRefused, match=r"gives the token 9999, and its weights know \d+ from 0"):
        exported(varied(checkpoint, tmp_path / "odd", odd), tmp_path / "variant")
