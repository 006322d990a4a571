"""Making a variant of an encoder-decoder: three graphs, verified by what they write, with two profiles."""

from __future__ import annotations

import random
import time
from statistics import fmean
from typing import TYPE_CHECKING

from deployments.engines.base import Seq2SeqEngine
from deployments.engines.host import read_host
from deployments.engines.opening import SEQ2SEQ_FILES, open_seq2seq_engine
from deployments.replica.summarize.abstractive import OpenSeq2Seq
from deployments.replica.summarize.beam_search import SearchRules, search_rules
from deployments.replica.tokens import TOKENIZER_FILE, TextTokens
from exporters.errors import VariantRefused
from exporters.plan import Advance, Step, Workbench
from exporters.profiling import SEED, Watch
from exporters.profiling_steps import measure_reading_and_steps
from exporters.selftest import record_writing
from exporters.texts import SummarySet, summary_set
from exporters.verify_writing import (
    MOST_TEXTS,
    VERIFIED_TOKENS,
    Written,
    compare_writing,
    source_writing,
    variant_writing,
    writing_floors,
)
from gateway.model.manifest import GenerationRules, GoldenSummary, Seq2SeqManifest
from gateway.model.profile import ProfileDocument

if TYPE_CHECKING:
    from exporters.original_writer import OriginalWriter  # imports torch


def make_seq2seq(bench: Workbench) -> Seq2SeqManifest:
    """Fills the bench's folder and gives back the manifest, not yet written. Raises what `export` raises."""
    from exporters.graph import export_seq2seq_graphs  # torch and transformers: only from here on
    from exporters.graph_files import place_graphs, scratch_folder
    from exporters.original_writer import load_original_writer

    plan = bench.plan
    original = load_original_writer(bench.source)
    rules, window, pad_id = original.rules, original.window, original.pad_id
    original.save_tokenizer(bench.folder)
    search = search_rules(rules, pad_id, beams=1, max_new_tokens=VERIFIED_TOKENS)
    texts, meant = _ask(bench, original, search)
    with scratch_folder(bench) as scratch:
        bench.progress(Step.EXPORTING, 0.0)
        export_seq2seq_graphs(original.model, scratch)
        del original  # its memory is for the quantising, and is not to weigh on the profile
        place_graphs(bench, scratch, SEQ2SEQ_FILES)
    engine = open_seq2seq_engine(plan.engine, bench.folder, plan.threads)
    tokens = TextTokens.open(bench.folder / TOKENIZER_FILE)
    said = variant_writing(engine, tokens, texts, rules.prefix, window, search, bench.advance(Step.VERIFYING))
    floors = writing_floors(plan.precision, bench.settings.floor, bench.settings.drop)
    found = compare_writing(meant, said, tokens, texts, floors)
    if found.broken is not None:
        raise VariantRefused(plan.checkpoint, plan.variant, found.broken, found.differences)
    golden = record_writing(engine, tokens, texts, rules, window, pad_id)
    profile, step_profile = _profiles(
        engine, window, golden, rules, plan.threads, bench.settings.profile_budget_s, bench.advance(Step.PROFILING)
    )
    return Seq2SeqManifest(
        **bench.shared(),
        max_tokens=window,
        pad_token_id=pad_id,
        generation=rules,
        output_tokens=max(1.0, fmean(map(len, said))),
        verification=found.verification,
        self_test=golden,
        profile=profile,
        step_profile=step_profile,
    )


def profile_seq2seq(opened: OpenSeq2Seq, threads: int, budget_s: float, advance: Advance) -> Seq2SeqManifest:
    """The variant's manifest with both profiles as measured now, on this host."""
    manifest = opened.manifest
    profile, step_profile = _profiles(
        opened.engine, manifest.max_tokens, manifest.self_test, manifest.generation, threads, budget_s, advance
    )
    return manifest.model_copy(update={"profile": profile, "step_profile": step_profile})


def _ask(bench: Workbench, original: OriginalWriter, search: SearchRules) -> tuple[SummarySet, list[Written]]:
    """What the source writes, to as many texts as there is time for."""
    texts = summary_set(bench.source).spread(MOST_TEXTS)
    budget_s = bench.settings.verification_budget_s / 2  # the other half is the variant's
    advance = bench.advance(Step.ASKING)
    return source_writing(original.encode, original.write, texts, search, time.perf_counter, budget_s, advance)


def _profiles(
    engine: Seq2SeqEngine,
    window: int,
    golden: tuple[GoldenSummary, ...],
    rules: GenerationRules,
    threads: int,
    budget_s: float,
    advance: Advance,
) -> tuple[ProfileDocument, ProfileDocument]:
    longest = max((one.token_ids for one in golden), key=len)
    watch = Watch(time.perf_counter, random.Random(SEED), budget_s, advance)
    start, kind = rules.decoder_start_token_id, read_host().kind
    return measure_reading_and_steps(engine, window, longest, start, threads, kind, watch)
