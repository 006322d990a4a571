"""A stock client is answered as transformers' pipelines are, emoji and other scripts included: `bench clients`."""

from __future__ import annotations

import asyncio
from collections.abc import Callable
from pathlib import Path

import pytest
from served_replicas import served
from small_checkpoints import make_checkpoint
from small_embedders import make_embedder_checkpoint
from small_fillers import make_filler_checkpoint
from small_taggers import make_tagger_checkpoint

from exporters.export import export
from exporters.plan import Settings, VariantPlan
from exporters.sources.source import resolve_source
from gateway.catalogs.catalog import load_catalog
from gateway.model.manifest import Precision
from loadtests.bench.clients import COMPARISONS, DECORATIONS, Compared, compared, decorated, report_of

MADE: dict[str, tuple[Callable[..., object], str]] = {
    "classify": (make_checkpoint, "[]"),
    "embed": (make_embedder_checkpoint, "[similarity, zero-shot, answer]"),
    "tokens": (make_tagger_checkpoint, "[]"),
    "fill": (make_filler_checkpoint, "[]"),
}
ENTRY = """
  - {{name: {1}, task: {1}, also: {2}, tier: quality, family: BERT, source: {0}/{1}, licence: none, precision: [fp32],
     quality: {{metric: accuracy, value: 50.0, data_set: none, reference: made up}}}}
"""
TEXTS = 2 * len(DECORATIONS)


@pytest.mark.export
async def test_every_task_answers_a_stock_client_as_transformers_would(tmp_path: Path) -> None:
    """For each task that is compared, labels, spans, words and sentences are the source's, and scores within 0.0001."""
    for task, (make, _) in MADE.items():
        make(tmp_path / task)
        plan, settings = VariantPlan(task, task, "BERT", "onnx", Precision.FP32), Settings(profile_budget_s=0.05)
        export(
            plan, resolve_source(str(tmp_path / task)), tmp_path / f"{task}-variant", lambda step, share: None, settings
        )
    entries = "".join(ENTRY.format(tmp_path, task, also) for task, (_, also) in MADE.items())
    (tmp_path / "catalog.yaml").write_text(f"name: stock\ncheckpoints:{entries}")
    catalog = load_catalog(str(tmp_path / "catalog.yaml"))
    async with served(tmp_path, list(MADE)) as url:
        for task in COMPARISONS:
            for entry in catalog.of_task(task):
                found = await asyncio.to_thread(compared, url, task, entry, tmp_path / "cache", TEXTS, print)
                assert found.equal == found.texts > TEXTS / 4, (task, found.unequal)
                assert not found.most_off > 1e-4, task


def test_the_report_misses_what_is_under_its_floor() -> None:
    """A checkpoint with too few equal answers is a missed target, and so is a comparison of nothing."""
    good = Compared("classify", "a", "label", 0.9, 10, 9, 0.001, 0.01, [])
    bad = Compared("tokens", "b", "spans", 0.95, 10, 9, float("nan"), float("nan"), ["text: 1, the source 2"])
    assert [verdict.met for verdict in report_of([good, bad]).verdicts] == [True, False]
    assert not report_of([]).met


def test_texts_are_spread_and_decorated() -> None:
    """Texts are taken from the whole list, and each kind of ending is among them."""
    found = decorated([f"text {at}" for at in range(160)], 16)
    assert [text.split()[1] for text in found] == [str(at) for at in range(0, 160, 10)]
    assert all(any(text.endswith(end) for text in found) for end in DECORATIONS)
