"""Makes extractive variants: the encoder as one ONNX graph, verified by the sentences that the ranker chooses.

An encoder is a transformer with a masked mean over its tokens. It may belong to another checkpoint, named in the
ranker's `extractive.json`.
"""

from __future__ import annotations

import shutil
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from typing import TYPE_CHECKING, Any, Literal

import msgspec
import numpy as np

from deployments.engines.opening import ONNX_FILE, EngineSize, open_engine_named
from deployments.replica.sentences import split_sentences
from deployments.replica.summarize.extractive import RANKER_FILE, OpenExtractive
from deployments.replica.summarize.ranking import (
    DEFAULT_COUNT,
    Facts,
    Floats,
    Ranker,
    default_count,
    describe,
    unit_rows,
)
from deployments.replica.tokens import TOKENIZER_FILE, TextTokens
from exporters.errors import Difference, SourceRefused
from exporters.kinds.embedder import UNUSED_HEADS, pooled_tokens, runner
from exporters.kinds.graphs import export_vectors, place_graphs, scratch_folder
from exporters.kinds.kind import Kind, one_profile, profiled_in_one_pass, rouge, share_with_floor
from exporters.kinds.original import Original, load_original
from exporters.plan import Step, Workbench
from exporters.profiling import Advance, measure_grid
from exporters.sources.source import EXTRACTIVE_FILE, SourceFolder
from exporters.sources.texts import TextSet, summarised_texts
from exporters.verification import (
    SHOWN_CHARACTERS,
    WORST,
    Comparison,
    Encode,
    RougeL,
    RunRows,
    batched,
    lost,
    record_self_test,
    rouge_l_lost,
    run_all,
)
from gateway.model.manifest import ChoiceVerification, ExtractiveManifest, Precision

if TYPE_CHECKING:
    import torch
    from transformers import PreTrainedModel

MOST_TEXTS = 100
MOST_SENTENCES = 60
"""The most sentences of one text; both source and variant ignore the rest."""


class Description(msgspec.Struct, frozen=True):
    """The contents of `extractive.json`.

    They are the layer to average (from 1; None: the last), the tokens per sentence, the sentences per summary, and the
    ranker's file. `exporters.sources.source` reads the encoder's location.
    """

    schema: Literal[1] = 1
    pooling: Literal["mean"] = "mean"
    max_tokens: int = 128
    layer: int | None = None
    sentences: int = DEFAULT_COUNT
    ranker: str = RANKER_FILE


@dataclass(frozen=True)
class SentenceEncoder:
    """A loaded encoder with a window of one sentence; `pooled` is the model with the mean over tokens."""

    original: Original
    pooled: torch.nn.Module

    @property
    def dimensions(self) -> int:
        """The length of a sentence's vector."""
        return int(self.original.model.config.hidden_size)

    @property
    def run(self) -> RunRows:
        """What gives vectors (rows, dimensions) of a batch padded to its longest row."""
        return runner(self.original, self.pooled)


@dataclass(frozen=True)
class ChoiceFloors:
    """The least share of equal choices of sentences, and the most ROUGE-L that a variant may lose."""

    same_choice: float
    rouge_l_drop: float = 0.01


FLOORS = {
    Precision.FP32: ChoiceFloors(0.99),
    Precision.INT8: ChoiceFloors(0.85),
    Precision.INT8_WEIGHTS: ChoiceFloors(0.85),
}
"""In int8 the starters choose 98 % (one layer) and 91 % (four layers) of 126 sentences as in fp32; the others are close
seconds. 0.85 is about two standard errors lower. ROUGE-L judges the changed choices."""


@dataclass(frozen=True)
class SplitText:
    """The sentences of a text, with the features of each."""

    sentences: tuple[str, ...]
    facts: Facts


@dataclass(frozen=True)
class SplitTexts:
    """The verification texts, split into sentences; `summaries` is None if any text lacks one."""

    name: str
    texts: tuple[SplitText, ...]
    summaries: list[str] | None


def make_extractive(bench: Workbench) -> ExtractiveManifest:
    """Makes the variant in the bench's folder and returns its manifest, unwritten. Raises what `export` raises."""
    plan = bench.plan
    description = read_description(bench.source)
    ranker = _place_ranker(bench, description)
    encoder = load_sentence_encoder(bench.source, description.layer, description.max_tokens)
    window, pad_id = encoder.original.window, encoder.original.pad_id
    if encoder.dimensions != ranker.dimensions:
        raise SourceRefused(
            f"{bench.source.location}: its ranker is for vectors of {ranker.dimensions} dimensions, "
            f"and its encoder gives {encoder.dimensions}"
        )
    encoder.original.save_tokenizer(bench.folder)
    texts = split_texts(summarised_texts(bench.source).spread(MOST_TEXTS))
    meant = vectors_of(texts, encoder.original.encode, encoder.run, bench.advance(Step.ASKING))
    with scratch_folder(bench) as scratch:
        bench.progress(Step.EXPORTING, 0.0)
        export_vectors(encoder.original.model, encoder.pooled, scratch / ONNX_FILE)
        del encoder  # free its memory before profiling
        place_graphs(bench, scratch, (ONNX_FILE,))
    engine = open_engine_named(plan.engine, bench.folder, EngineSize(plan.threads, 1, window))
    tokens = TextTokens.open(bench.folder / TOKENIZER_FILE)

    def encode(text: str) -> list[int]:
        return tokens.cut(tokens.encode(text), window)

    said = vectors_of(texts, encode, batched(engine, pad_id), bench.advance(Step.VERIFYING))
    floors = floors_of(plan.precision, bench.settings.floor, bench.settings.drop)
    verification = compare_choice(meant, said, texts, ranker, description.sentences, floors).accepted(bench)
    self_test = record_self_test(engine, encode, window, [one for text in texts.texts for one in text.sentences])
    return ExtractiveManifest(
        **bench.shared(),
        max_tokens=window,
        pad_token_id=pad_id,
        sentences=description.sentences,
        verification=verification,
        self_test=self_test,
        profile=measure_grid(engine, window, self_test, plan.threads, bench.profiling()),
    )


def read_description(source: SourceFolder) -> Description:
    """Reads the checkpoint's `extractive.json`. Raises SourceRefused, which names the field."""
    try:
        description = msgspec.json.decode((source.path / EXTRACTIVE_FILE).read_bytes(), type=Description)
    except msgspec.DecodeError as error:
        raise SourceRefused(f"{source.location}: its {EXTRACTIVE_FILE} is not as it should be: {error}") from error
    if description.max_tokens < 3 or description.sentences < 1:
        raise SourceRefused(f"{source.location}: its {EXTRACTIVE_FILE} leaves no tokens for a sentence")
    return description


def _place_ranker(bench: Workbench, description: Description) -> Ranker:
    """Copies the ranker into the variant's folder and loads it. Raises SourceRefused."""
    try:
        shutil.copyfile(bench.source.path / description.ranker, bench.folder / RANKER_FILE)
        return Ranker.load(bench.folder / RANKER_FILE)
    except (OSError, ValueError) as error:
        raise SourceRefused(f"{bench.source.location}: its ranker cannot be read: {error}") from error


def load_sentence_encoder(source: SourceFolder, layer: int | None, max_tokens: int) -> SentenceEncoder:
    """Loads the encoder of a ranker's checkpoint, or the one it names, up to a layer (from 1; None: the last).

    Raises SourceRefused.
    """
    original = load_original(source.encoder, source.location, "AutoModel", "an encoder", UNUSED_HEADS)
    if layer is not None:
        _cut(original.model, layer, source.location)
    original = replace(original, window=min(max_tokens, original.window))
    return SentenceEncoder(original, pooled_tokens(original.model, ("mean",)))


def _cut(model: PreTrainedModel, layer: int, location: str) -> None:
    """Removes the layers after this one."""
    import torch

    stack: Any = getattr(model, "transformer", None) or getattr(model, "encoder", None)
    layers = getattr(stack, "layer", None)
    if not isinstance(layers, torch.nn.ModuleList) or not 1 <= layer <= len(layers):
        of = f"of {len(layers)}" if isinstance(layers, torch.nn.ModuleList) else "that has no list of layers"
        raise SourceRefused(f"{location}: its extractive.json asks for layer {layer} of an encoder {of}")
    stack.layer = layers[:layer]


def floors_of(precision: Precision, floor: float | None, drop: float) -> ChoiceFloors:
    """The floors: `floor` if given, else the precision's own."""
    return ChoiceFloors(FLOORS[precision].same_choice if floor is None else floor, drop)


def split_texts(texts: TextSet) -> SplitTexts:
    """The texts with at least one sentence, split as a replica splits them."""
    found, summaries = [], texts.answers
    kept: list[str] = []
    for at, one in enumerate(texts.texts):
        spans = split_sentences(one.text)[:MOST_SENTENCES]
        if spans:
            sentences = tuple(one.text[span.start : span.end] for span in spans)
            found.append(SplitText(sentences, describe(one.text, spans)))
            kept += [summaries[at]] if summaries else []
    return SplitTexts(texts.name, tuple(found), kept if summaries else None)


def vectors_of(texts: SplitTexts, encode: Encode, run: RunRows, advance: Advance) -> list[Floats]:
    """For each text, the vectors of its sentences, (sentences, dimensions)."""
    rows = [encode(sentence) for text in texts.texts for sentence in text.sentences]
    vectors = run_all(rows, run, advance)
    ends = np.cumsum([len(text.sentences) for text in texts.texts])
    return np.split(vectors, ends[:-1])


def compare_choice(
    source: Sequence[Floats],
    variant: Sequence[Floats],
    texts: SplitTexts,
    ranker: Ranker,
    sentences: int,
    floors: ChoiceFloors,
) -> Comparison[ChoiceVerification]:
    """Compares the sentences chosen with the variant's vectors with the source's choice and the texts' summaries.

    At most `sentences` are chosen of each text, fewer of a short one.
    """
    counts = [min(sentences, default_count(len(text.sentences))) for text in texts.texts]

    def chosen(vectors: Sequence[Floats]) -> list[list[int]]:
        rows = zip(vectors, texts.texts, counts, strict=True)
        return [ranker.choose(one, text.facts, count) for one, text, count in rows]

    meant, said = chosen(source), chosen(variant)
    against = _against_summaries(meant, said, texts, floors)
    verification = ChoiceVerification(
        texts=len(texts.texts),
        data_set=texts.name,
        same_choice=sum(len({*m} & {*s}) for m, s in zip(meant, said, strict=True)) / sum(map(len, meant)),
        same_choice_floor=floors.same_choice,
        least_cosine=min(_least_cosine(one, other) for one, other in zip(source, variant, strict=True)),
        rouge_l=against.variant if against else None,
        source_rouge_l=against.source if against else None,
        rouge_l_drop_ceiling=against.drop_ceiling if against else floors.rouge_l_drop,
    )
    differences = [
        Difference(at, _only(m, s, text), _only(s, m, text))
        for at, (m, s, text) in enumerate(zip(meant, said, texts.texts, strict=True))
        if m != s
    ]
    finite = all(np.isfinite(vectors).all() for vectors in variant)
    return Comparison(verification, _broken(verification, finite), tuple(differences[:WORST]))


def _least_cosine(one: Floats, other: Floats) -> float:
    cosines = np.einsum("ij,ij->i", unit_rows(one), unit_rows(other))
    return float(np.clip(cosines, -1, 1).min())


def _against_summaries(
    meant: Sequence[Sequence[int]], said: Sequence[Sequence[int]], texts: SplitTexts, floors: ChoiceFloors
) -> RougeL | None:
    if not texts.summaries:
        return None

    def joined(chosen: Sequence[Sequence[int]]) -> list[str]:
        rows = zip(chosen, texts.texts, strict=True)
        return [" ".join(text.sentences[at] for at in places) for places, text in rows]

    return rouge_l_lost(joined(meant), joined(said), texts.summaries, floors.rouge_l_drop)


def _broken(found: ChoiceVerification, finite: bool) -> str | None:
    if not finite:
        return "some of its vectors are not numbers"
    if found.same_choice < found.same_choice_floor:
        return (
            f"{found.same_choice:.2%} of the sentences that the source chooses from {found.texts} texts are chosen "
            f"by the variant, under the floor of {found.same_choice_floor:.2%}"
        )
    return lost(found)


def _only(mine: Sequence[int], its: Sequence[int], text: SplitText) -> str:
    """The first sentence that only one of the two chooses."""
    at = next((place for place in mine if place not in its), None)
    return "(nothing more)" if at is None else text.sentences[at][:SHOWN_CHARACTERS]


def _agreement(manifest: ExtractiveManifest) -> Mapping[str, str]:
    found = manifest.verification
    return {
        "same choice": share_with_floor(found.same_choice, found.same_choice_floor, found.texts),
        "least cosine": f"{found.least_cosine:.3f}",
        "ROUGE-L": rouge(found.rouge_l),
        "source ROUGE-L": rouge(found.source_rouge_l),
    }


EXTRACTIVE: Kind[ExtractiveManifest, OpenExtractive] = Kind(
    name="extractive",
    described="a ranker of sentences",
    task="summarize",
    engines=("onnx",),
    recognises=lambda path, config: (path / EXTRACTIVE_FILE).exists(),
    make=make_extractive,
    profile=profiled_in_one_pass,
    agreement=_agreement,
    profiles=one_profile,
)
