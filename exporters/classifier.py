"""Making a variant of a classifier: one graph or the weights themselves, verified by its labels."""

from __future__ import annotations

import random
import shutil
import time

from deployments.engines.base import Engine
from deployments.engines.host import read_host
from deployments.engines.opening import ONNX_FILE, open_engine_named
from deployments.replica.classify import LabelScorer, OpenClassifier
from deployments.replica.tokens import TOKENIZER_FILE
from exporters.errors import VariantRefused
from exporters.plan import Advance, Step, Workbench
from exporters.profiling import SEED, Watch, measure_profile
from exporters.selftest import record_self_test
from exporters.texts import verification_set
from exporters.verify import compare, floors_of, source_logits, variant_logits
from gateway.model.manifest import ClassifierManifest, SelfTest
from gateway.model.profile import ProfileDocument


def make_classifier(bench: Workbench) -> ClassifierManifest:
    """Fills the bench's folder and gives back the manifest, not yet written. Raises what `export` raises."""
    from exporters.graph import export_graph  # torch and transformers: only from here on
    from exporters.graph_files import place_graphs, scratch_folder
    from exporters.original import load_original

    plan = bench.plan
    original = load_original(bench.source)
    labels, window, pad_id = original.labels, original.window, original.pad_id
    original.save_tokenizer(bench.folder)
    texts = verification_set(bench.source.path).known_to(labels)
    meant = source_logits(original.encode, original.run, texts, bench.advance(Step.ASKING))
    bench.progress(Step.EXPORTING, 0.0)
    if plan.engine == "torch":
        _copy_weights(bench)
    else:
        with scratch_folder(bench) as scratch:
            export_graph(original.model, scratch)
            place_graphs(bench, scratch, (ONNX_FILE,))
    del original  # its memory is not to weigh on the profile
    engine = open_engine_named(plan.engine, bench.folder, plan.threads)
    task = LabelScorer.open(bench.folder / TOKENIZER_FILE, labels, window, pad_id)
    said = variant_logits(engine, task.ids, pad_id, texts, bench.advance(Step.VERIFYING))
    found = compare(meant, said, labels, texts, floors_of(plan.precision, bench.settings.floor, bench.settings.drop))
    if found.broken is not None:
        raise VariantRefused(plan.checkpoint, plan.variant, found.broken, found.differences)
    self_test = record_self_test(engine, task.ids, window, [one.text for one in texts.texts])
    return ClassifierManifest(
        **bench.shared(),
        labels=labels,
        max_tokens=window,
        pad_token_id=pad_id,
        verification=found.verification,
        self_test=self_test,
        profile=profile_of(
            engine, window, self_test, plan.threads, bench.settings.profile_budget_s, bench.advance(Step.PROFILING)
        ),
    )


def profile_classifier(opened: OpenClassifier, threads: int, budget_s: float, advance: Advance) -> ClassifierManifest:
    """The variant's manifest with its profile as measured now, on this host."""
    manifest = opened.manifest
    profile = profile_of(opened.engine, manifest.max_tokens, manifest.self_test, threads, budget_s, advance)
    return manifest.model_copy(update={"profile": profile})


def profile_of(
    engine: Engine, window: int, self_test: SelfTest, threads: int, budget_s: float, advance: Advance
) -> ProfileDocument:
    """The profile of an engine that runs padded batches, on this host; the golden inputs make its inputs."""
    longest = max((golden.token_ids for golden in self_test.golden), key=len)
    watch = Watch(time.perf_counter, random.Random(SEED), budget_s, advance)
    return measure_profile(engine, window, longest, threads, read_host().kind, watch)


def _copy_weights(bench: Workbench) -> None:
    """The torch engine runs the checkpoint's own files."""
    source = bench.source.path
    for file in (source / "config.json", *source.glob("*.safetensors*")):
        shutil.copyfile(file, bench.folder / file.name)
