"""Laws of translators, on real architectures with random weights: a replica writes what transformers' pipeline does."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest
from small_translators import TRANSLATORS, make_translator_checkpoint, sentences

from deployments.replica.translate.replica import OpenTranslator
from deployments.replica.translate.translating import Translator
from deployments.replica.variant import open_variant
from deployments.replica.writing.job import TextBudget, WritingResult
from exporters.errors import SourceRefused
from exporters.export import export
from exporters.plan import Settings, VariantPlan
from exporters.sources.source import resolve_source
from gateway.model.manifest import Precision
from gateway.tasks.translate import TranslateParameters, TranslatorManifest

pytestmark = [
    pytest.mark.export,
    pytest.mark.usefixtures("warm"),
    pytest.mark.filterwarnings("ignore:Recommended. pip install sacremoses", "ignore:Moving the following attributes"),
]

QUICK = Settings(profile_budget_s=0.05)
ASKED = {
    "marian": ("en", "de"),
    "marian-many": ("eng", "fra"),
    "mbart": ("en_XX", "fr_XX"),
    "mbart-50": ("en", "fr"),
    "nllb": ("en", "fra_Latn"),
    "m2m-100": ("en-US", "it"),
    "t5": ("en", "fr"),
}
"""What is asked of each family, as clients may write it."""

OWN = {"mbart": ("en_XX", "fr_XX"), "mbart-50": ("en_XX", "fr_XX"), "nllb": ("eng_Latn", "fra_Latn")}
OWN["m2m-100"] = ("en", "it")
"""The same by the checkpoint's own codes, where its pipeline must be told them."""


def exported(checkpoint: Path, out: Path) -> TranslatorManifest:
    """The variant of a tiny checkpoint in fp32, hardly profiled."""
    plan = VariantPlan(checkpoint.name, "translate", checkpoint.name, "onnx", Precision.FP32)
    manifest = export(plan, resolve_source(str(checkpoint)), out, lambda step, share: None, QUICK)
    assert isinstance(manifest, TranslatorManifest)
    return manifest


def written(translator: Translator, text: str, parameters: TranslateParameters) -> WritingResult:
    """A translation with all the time in the world."""
    job = translator.begin(text, parameters, TextBudget(1e9, 0.0, lambda: 0.0))
    while not job.step():
        pass
    assert isinstance(job.outcome, WritingResult)
    return job.outcome


def pipeline_of(checkpoint: Path, family: str) -> Any:
    """The translation pipeline of transformers, on the checkpoint itself."""
    import transformers

    told = dict(zip(("src_lang", "tgt_lang"), OWN[family], strict=True)) if family in OWN else {}
    make: Any = transformers.pipeline
    return make("translation_en_to_fr" if family == "t5" else "translation", model=str(checkpoint), **told)


@pytest.mark.parametrize("family", [*TRANSLATORS, "t5"])
def test_a_translator_writes_what_the_pipeline_writes(family: str, tmp_path: Path) -> None:
    """Greedily and with four beams, a replica's translation of a sentence is that of transformers' pipeline.

    So is that of a whole text, where it is taken as one input.
    """
    checkpoint = make_translator_checkpoint(tmp_path / family, family)
    exported(checkpoint, tmp_path / "out")
    opened = open_variant(tmp_path / "out", 1)
    assert isinstance(opened, OpenTranslator)
    translator, reference = Translator(opened.manifest, opened.engine, opened.tokens), pipeline_of(checkpoint, family)
    source, target = ASKED[family]
    mark = ">>fra<< " if family == "marian-many" else ""
    for beams in (1, 4):
        parameters = TranslateParameters(source=source, target=target, num_beams=beams)
        for text in sentences(6, seed=21):
            theirs = reference(f"{mark}{text}", num_beams=beams)[0]["translation_text"]
            ours = written(translator, text, parameters)
            assert ours.generation.beams == beams
            assert ours.text == theirs if ours.generation.finish_reason == "stop" else theirs.startswith(ours.text)
    whole = " ".join(sentences(2, seed=5))
    parameters = TranslateParameters(source=source, target=target, num_beams=1, truncation="longest_first")
    ours = written(translator, whole, parameters)
    theirs = reference(f"{mark}{whole}", num_beams=1)[0]["translation_text"]
    assert ours.generation.pieces == 1 and theirs.startswith(ours.text)


def test_a_checkpoint_that_names_no_language_is_refused(tmp_path: Path) -> None:
    """An encoder-decoder that says nowhere what it translates is refused, and told where to say so."""
    from small_seq2seq import make_seq2seq_checkpoint

    checkpoint = make_seq2seq_checkpoint(tmp_path / "bart", "bart")
    with pytest.raises(SourceRefused, match="task_specific_params"):
        exported(checkpoint, tmp_path / "out")
