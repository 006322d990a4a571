"""How long runs of a simulated variant take, by its samples or its profile."""

from __future__ import annotations

import math
import random
from itertools import pairwise
from pathlib import Path

import pytest
from fake_summaries import DOMAIN, GLANCE, OUTPUT_TOKENS, PER_TOKEN_S, SCRIBE, STUDY, WINDOW, catalog, manifests
from fakes import EVEN, GRAND, MEDIANS_S, SWIFT
from hypothesis import given
from hypothesis import strategies as st
from small_scenarios import Even, scenario, variant

from gateway.catalogs.catalog import Catalog, Quality
from gateway.model.manifest import MANIFEST_NAME, ClassifierManifest, write_manifest
from gateway.model.tier import Tier
from loadtests.workload.files import ScenarioError
from loadtests.workload.scenario import CatalogSource, RequestClass
from loadtests.workload.variants import ProfiledTimes, SampledTimes, Variant, catalog_of, manifest_variants, variants_of

MEASURED = SampledTimes({2: [0.012, 0.010, 0.011], 4: [0.020], 8: [0.036, 0.044]})
SAMPLES = st.dictionaries(st.integers(1, 64), st.lists(st.floats(1e-6, 10.0), min_size=1, max_size=5), min_size=1)


def test_a_median_is_that_of_its_samples_and_a_straight_line_between_two() -> None:
    """A median is that of its samples, linear between two batch sizes and beyond the last, level before the first."""
    expected = {1: 0.011, 2: 0.011, 3: 0.0155, 4: 0.020, 6: 0.030, 8: 0.040, 16: 0.080}
    assert {batch: MEASURED.median_s(batch, 7) for batch in expected} == pytest.approx(expected)


def test_a_single_batch_size_goes_on_in_proportion() -> None:
    """With a single batch size, larger batches take proportionally longer, because there is no slope."""
    one = SampledTimes({4: [0.010]})
    assert [one.median_s(batch, 1) for batch in (1, 4, 10)] == pytest.approx([0.010, 0.010, 0.025])


@given(SAMPLES)
def test_past_the_largest_batch_size_nothing_gets_quicker(samples: dict[int, list[float]]) -> None:
    """Beyond the largest batch size no batch is quicker, even if samples say so."""
    times, largest = SampledTimes(samples), max(samples)
    medians = [times.median_s(largest + more, 1) for more in (0, 1, 5, 100)]
    assert all(left <= right for left, right in pairwise(medians))


@given(SAMPLES, st.integers(1, 200), st.integers())
def test_noise_is_a_sample_over_its_median(samples: dict[int, list[float]], batch: int, seed: int) -> None:
    """The noise of a batch is a sample of the nearest measured size, divided by its median."""
    times = SampledTimes(samples)
    least = min(abs(one - batch) for one in samples)
    near = [one for one in samples if abs(one - batch) == least]
    factor = times.noise(batch, random.Random(seed))
    assert any(factor == pytest.approx(s / times.median_s(of, 1)) for of in near for s in samples[of])


@given(st.floats(0.0, 1.0), st.integers())
def test_a_profiled_run_strays_no_further_than_three_of_its_spread(sigma: float, seed: int) -> None:
    """The noise of a profiled run is within three standard deviations, since nothing beyond was measured."""
    times, chance = ProfiledTimes(Even(per_text_s=0.010), sigma), random.Random(seed)
    for _ in range(50):
        assert -3.001 * sigma <= math.log(times.noise(1, chance)) <= 3.001 * sigma


def test_the_cheapest_batch_is_the_one_that_costs_least_a_text() -> None:
    """The cheapest batch has the least time per text among sizes that the variant can form."""
    assert variant("v", 80.0, Even(fixed_s=0.008, per_text_s=0.001), max_batch=8).cheapest_s(1) == pytest.approx(0.002)


@pytest.fixture
def prepared(tmp_path: Path) -> dict[str, Path]:
    """The folders of variants for every checkpoint, as `exporters.preparing.prepare` returns them."""
    for name, made in manifests().items():
        (tmp_path / name).mkdir()
        write_manifest(tmp_path / name, made)
    return {name: tmp_path / name for name in manifests()}


@pytest.fixture
def variants(prepared: dict[str, Path]) -> dict[str, Variant]:
    """The variants of the whole catalog by name."""
    return {one.name: one for one in manifest_variants(catalog(), prepared)}


def ranked(**ranks: int) -> Catalog:
    """The catalog with its summarizers ranked like this, whatever their values."""
    made = catalog()
    entries = [
        entry.model_copy(update={"quality": Quality(**{**entry.quality.model_dump(), "rank": ranks[entry.name]})})
        if entry.name in ranks
        else entry
        for entry in made.checkpoints
    ]
    return made.model_copy(update={"checkpoints": tuple(entries)})


def test_every_checkpoint_is_a_variant_and_the_best_of_a_task_stands_first(variants: dict[str, Variant]) -> None:
    """Every checkpoint is a variant with its quality, tier and domain; the best of a task stands first."""
    assert list(variants) == [GRAND, EVEN, SWIFT, SCRIBE, STUDY, GLANCE]
    assert (variants[GRAND].quality, variants[GRAND].tier, variants[GRAND].task) == (90.0, Tier.QUALITY, "classify")
    assert {one.domain for one in variants.values()} == {None, DOMAIN}
    assert variants[SCRIBE].domain == DOMAIN and variants[SCRIBE].task == "summarize"


def test_a_classifier_takes_what_its_profile_says(variants: dict[str, Variant]) -> None:
    """A classifier takes its profile's time by batch and tokens, with texts cut to the window."""
    for name, median_s in MEDIANS_S.items():
        one = variants[name]
        assert one.median_s(1, 16) == pytest.approx(median_s)
        assert one.median_s(4, 32) == pytest.approx(8 * median_s)
        assert one.median_s(1, 64) == one.median_s(1, 5000) == pytest.approx(4 * median_s)
        assert one.max_batch == 16


def test_summarizers_never_batch(variants: dict[str, Variant]) -> None:
    """Summarizers never batch, because their texts share the engine by time slicing."""
    assert {variants[name].max_batch for name in (GLANCE, STUDY, SCRIBE)} == {1}


def test_an_extractive_checkpoint_takes_as_long_as_reading_does(variants: dict[str, Variant]) -> None:
    """An extractive checkpoint takes the time of reading every token of every text, at least one sentence each."""
    for name, per_token_s in PER_TOKEN_S.items():
        assert variants[name].median_s(1, 400) == pytest.approx(400 * per_token_s)
        assert variants[name].median_s(3, 400) == pytest.approx(1200 * per_token_s)
        assert variants[name].median_s(1, 3) == pytest.approx(32 * per_token_s)


@pytest.mark.parametrize("tokens", [3, 29, 64, 200, WINDOW])
def test_one_that_writes_takes_reading_and_the_expected_output_with_one_beam(
    variants: dict[str, Variant], tokens: int
) -> None:
    """A seq2seq checkpoint takes the time of reading and of one step for each token of its average output."""
    read_s = 0.010 * max(tokens, 32) / 32
    step_s = 0.002 * (1 + max(tokens, 32) / 1000)
    assert variants[SCRIBE].median_s(1, tokens) == pytest.approx(read_s + OUTPUT_TOKENS * step_s)
    assert variants[SCRIBE].median_s(2, tokens) == pytest.approx(2 * (read_s + OUTPUT_TOKENS * step_s))


def test_a_text_over_the_window_is_taken_in_pieces(variants: dict[str, Variant]) -> None:
    """A text over the window is summarised in pieces, which takes much longer."""
    within, over = variants[SCRIBE].median_s(1, WINDOW), variants[SCRIBE].median_s(1, WINDOW + 1)
    assert over > 1.5 * within


def test_tokens_are_asked_for_exactly(variants: dict[str, Variant]) -> None:
    """Lengths in tokens are exact: each further token adds the time of one token."""
    times = [variants[STUDY].median_s(1, tokens) for tokens in range(40, 2000)]
    assert times == pytest.approx([tokens * PER_TOKEN_S[STUDY] for tokens in range(40, 2000)])


def test_a_rank_lifts_a_quality_and_never_lowers_one(prepared: dict[str, Path]) -> None:
    """A rank raises a quality to that of the checkpoints below it, and never lowers one."""
    made = {one.name: one for one in manifest_variants(ranked(glance=3, study=2, scribe=1), prepared)}
    assert [made[name].quality for name in (SCRIBE, STUDY, GLANCE)] == [40.0, 40.0, 40.0]
    assert [name for name in made if name in (SCRIBE, STUDY, GLANCE)] == [GLANCE, STUDY, SCRIBE]
    made = {one.name: one for one in manifest_variants(ranked(glance=1, study=2, scribe=3), prepared)}
    assert [made[name].quality for name in (GLANCE, STUDY, SCRIBE)] == [20.0, 30.0, 40.0]
    assert made[GRAND].quality == 90.0


def test_spread_is_the_profiles(variants: dict[str, Variant]) -> None:
    """Runs vary as in the profile: the 95th percentile is a fifth above the median."""
    chance = random.Random(5)
    drawn = sorted(variants[GRAND].times.noise(1, chance) for _ in range(4000))
    assert drawn[3800] == pytest.approx(1.2, rel=0.02)
    assert drawn[2000] == pytest.approx(1.0, rel=0.01)
    sigma = math.log(1.2) / 1.645
    assert math.exp(-3.01 * sigma) < drawn[0] and drawn[-1] < math.exp(3.01 * sigma)


def test_a_checkpoint_that_was_not_prepared_is_told(prepared: dict[str, Path]) -> None:
    """A checkpoint that is not prepared, or whose manifest is missing or faulty, is an error that names it."""
    del prepared[EVEN]
    with pytest.raises(ScenarioError, match="even: is in the catalog, but has no variant prepared"):
        manifest_variants(catalog(), prepared)
    file = prepared[SWIFT] / MANIFEST_NAME
    prepared[EVEN] = prepared[GRAND] / "gone"
    with pytest.raises(ScenarioError, match=r"even: the manifest in .*gone cannot be read: .*No such file"):
        manifest_variants(catalog(), prepared)
    prepared[EVEN] = prepared[GRAND]
    whole = ClassifierManifest.model_validate_json(file.read_bytes())
    holed = whole.profile.model_copy(update={"cells": whole.profile.cells[1:]})
    write_manifest(prepared[SWIFT], whole.model_copy(update={"profile": holed}))
    with pytest.raises(ScenarioError, match=r"swift: the latency profile lacks the cells"):
        manifest_variants(catalog(), prepared)
    file.write_text("{", encoding="utf-8")
    with pytest.raises(ScenarioError, match=r"swift: the manifest in .* cannot be read"):
        manifest_variants(catalog(), prepared)


def test_a_scenario_has_its_variants_of_either_source(prepared: dict[str, Path], tmp_path: Path) -> None:
    """A scenario has the variants of its CSV file, or the prepared ones of its catalog that serve its tasks."""
    file = tmp_path / "p.csv"
    file.write_text("variant,quality,batch,latency_ms\nmine,80,1,10\n", encoding="utf-8")
    csv = scenario(
        catalog=CatalogSource(profile=str(file), task="summarize"),
        requests=(RequestClass(task="summarize", budget_ms=(5, 5)),),
    )
    (mine,) = variants_of(csv)
    assert (mine.name, mine.task) == ("mine", "summarize")
    starter = scenario()
    with pytest.raises(ScenarioError, match=r"by-hand: catalog.manifests: its variants must be prepared first"):
        variants_of(starter)
    folders = {"minilm-sentiment": prepared[GRAND], "distilbert-sentiment": prepared[SWIFT]}
    assert [one.name for one in variants_of(starter, folders)] == ["minilm-sentiment", "distilbert-sentiment"]


def test_a_catalog_that_lacks_a_task_is_told(tmp_path: Path) -> None:
    """A catalog that lacks a task of the scenario is refused before anything is prepared."""
    file = tmp_path / "c.yaml"
    file.write_text(
        "name: own\ncheckpoints:\n  - {name: a, task: classify, tier: quality, family: BERT, source: 'starter:a',"
        " licence: MIT, quality: {metric: m, value: 80, data_set: d, reference: r}}\n",
        encoding="utf-8",
    )
    asked = (RequestClass(budget_ms=(5, 5)), RequestClass(task="summarize", budget_ms=(5, 5)))
    with pytest.raises(ScenarioError, match=r"by-hand: requests.1.task: the catalog own has no summarize"):
        catalog_of(scenario(catalog=CatalogSource(manifests=str(file)), requests=asked))
