"""Making a variant of a ranker of sentences: its encoder as one graph, verified by the sentences that are chosen."""

from __future__ import annotations

import shutil
from typing import Literal

import msgspec

from deployments.engines.opening import ONNX_FILE, open_engine_named
from deployments.replica.summarize.extractive import RANKER_FILE, OpenExtractive
from deployments.replica.summarize.ranking import DEFAULT_COUNT, Ranker
from deployments.replica.tokens import TOKENIZER_FILE, TextTokens
from exporters.classifier import profile_of
from exporters.errors import SourceRefused, VariantRefused
from exporters.plan import Advance, Step, Workbench
from exporters.selftest import record_self_test
from exporters.source import EXTRACTIVE_FILE, SourceFolder
from exporters.texts import summary_set
from exporters.verify import batched
from exporters.verify_choice import MOST_TEXTS, choice_floors, compare_choice, split_texts, vectors_of
from gateway.model.manifest import ExtractiveManifest


class Recipe(msgspec.Struct, frozen=True):
    """What `extractive.json` says: the layer whose outputs are averaged (from 1; None: the last), the tokens of one
    sentence, the sentences of a summary, the ranker's file. Where the encoder lies is `exporters.source`'s to read.
    """

    schema: Literal[1] = 1
    pooling: Literal["mean"] = "mean"
    max_tokens: int = 128
    layer: int | None = None
    sentences: int = DEFAULT_COUNT
    ranker: str = RANKER_FILE


def make_extractive(bench: Workbench) -> ExtractiveManifest:
    """Fills the bench's folder and gives back the manifest, not yet written. Raises what `export` raises."""
    from exporters.graph_files import place_graphs, scratch_folder  # torch and transformers: only from here on
    from exporters.sentence_encoder import export_encoder, load_sentence_encoder

    plan = bench.plan
    recipe = read_recipe(bench.source)
    ranker = _place_ranker(bench, recipe)
    original = load_sentence_encoder(bench.source, recipe.layer, recipe.max_tokens)
    window, pad_id = original.window, original.pad_id
    if original.dimensions != ranker.dimensions:
        raise SourceRefused(
            f"{bench.source.location}: its ranker is for vectors of {ranker.dimensions} dimensions, "
            f"and its encoder gives {original.dimensions}"
        )
    original.save_tokenizer(bench.folder)
    texts = split_texts(summary_set(bench.source).spread(MOST_TEXTS))
    meant = vectors_of(texts, original.encode, original.run, bench.advance(Step.ASKING))
    with scratch_folder(bench) as scratch:
        bench.progress(Step.EXPORTING, 0.0)
        export_encoder(original, scratch / ONNX_FILE)
        del original  # its memory is not to weigh on the profile
        place_graphs(bench, scratch, (ONNX_FILE,))
    engine = open_engine_named(plan.engine, bench.folder, plan.threads)
    tokens = TextTokens.open(bench.folder / TOKENIZER_FILE)

    def encode(text: str) -> list[int]:
        return tokens.cut(tokens.encode(text), window)

    said = vectors_of(texts, encode, batched(engine, pad_id), bench.advance(Step.VERIFYING))
    floors = choice_floors(plan.precision, bench.settings.floor, bench.settings.drop)
    found = compare_choice(meant, said, texts, ranker, recipe.sentences, floors)
    if found.broken is not None:
        raise VariantRefused(plan.checkpoint, plan.variant, found.broken, found.differences)
    self_test = record_self_test(engine, encode, window, [one for text in texts.texts for one in text.sentences])
    return ExtractiveManifest(
        **bench.shared(),
        max_tokens=window,
        pad_token_id=pad_id,
        sentences=recipe.sentences,
        verification=found.verification,
        self_test=self_test,
        profile=profile_of(
            engine, window, self_test, plan.threads, bench.settings.profile_budget_s, bench.advance(Step.PROFILING)
        ),
    )


def profile_extractive(opened: OpenExtractive, threads: int, budget_s: float, advance: Advance) -> ExtractiveManifest:
    """The variant's manifest with its profile as measured now, on this host."""
    manifest = opened.manifest
    profile = profile_of(opened.engine, manifest.max_tokens, manifest.self_test, threads, budget_s, advance)
    return manifest.model_copy(update={"profile": profile})


def read_recipe(source: SourceFolder) -> Recipe:
    """The checkpoint's `extractive.json`. Raises SourceRefused, which names the field."""
    try:
        recipe = msgspec.json.decode((source.path / EXTRACTIVE_FILE).read_bytes(), type=Recipe)
    except msgspec.DecodeError as error:
        raise SourceRefused(f"{source.location}: its {EXTRACTIVE_FILE} is not as it should be: {error}") from error
    if recipe.max_tokens < 3 or recipe.sentences < 1:
        raise SourceRefused(f"{source.location}: its {EXTRACTIVE_FILE} gives no room for a sentence")
    return recipe


def _place_ranker(bench: Workbench, recipe: Recipe) -> Ranker:
    """Copies the ranker into the variant's folder, and reads it from there. Raises SourceRefused."""
    try:
        shutil.copyfile(bench.source.path / recipe.ranker, bench.folder / RANKER_FILE)
        return Ranker.load(bench.folder / RANKER_FILE)
    except (OSError, ValueError) as error:
        raise SourceRefused(f"{bench.source.location}: its ranker cannot be read: {error}") from error
