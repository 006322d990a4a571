"""The variants behind a live gateway are those of its catalog, as published by `/checkpoints`."""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path

import fake_answerers
import fake_embedders
import fake_fillers
import fake_summaries
import fake_taggers
import msgspec
import pytest
from fake_summaries import GLANCE, SCRIBE, STUDY
from small_gateway import SmallGateway, Told, checkpoints

from gateway.catalogs.catalog import Catalog
from gateway.model.manifest import VariantManifest, write_manifest
from gateway.tasks import TASKS
from loadtests.generator.checkpoints import NoGateway, live_variants, variants_from
from loadtests.workload.variants import manifest_variants


def published(catalog: Catalog | None = None, replicas: int = 1) -> bytes:
    """What `/checkpoints` of a gateway over this catalog returns."""
    return checkpoints(catalog or fake_summaries.catalog(), fake_summaries.manifests(), replicas)


def folders(under: Path) -> Mapping[str, Path]:
    """The folders of the variants of that catalog, as they lie in a cache."""
    found = {name: under / name for name in fake_summaries.manifests()}
    for name, manifest in fake_summaries.manifests().items():
        found[name].mkdir()
        write_manifest(found[name], manifest)
    return found


def test_what_is_published_says_what_the_manifests_say(tmp_path: Path) -> None:
    """What `/checkpoints` publishes gives the variants that the manifests give, with times to the microsecond."""
    live = variants_from(published())
    stored = manifest_variants(fake_summaries.catalog(), folders(tmp_path))
    assert len(live) == 6
    for ours, theirs in zip(live, stored, strict=True):
        assert (ours.name, ours.task, ours.tier, ours.domain) == (theirs.name, theirs.task, theirs.tier, theirs.domain)
        assert (ours.quality, ours.max_batch) == (theirs.quality, theirs.max_batch)
        for batch, tokens in ((1, 20), (3, 60), (8, 400)):
            median_s = theirs.median_s(batch, tokens)
            assert ours.median_s(batch, tokens) == pytest.approx(median_s, rel=0.02, abs=2e-6), ours.name
        assert ours.times.sigma == pytest.approx(theirs.times.sigma, abs=0.01)


@pytest.mark.parametrize(
    ("catalog", "manifests"),
    [
        (fake_embedders.catalog(also=("similarity", "zero-shot", "answer")), fake_embedders.manifests()),
        (fake_taggers.catalog(fake_taggers.DOMAIN), fake_taggers.manifests()),
        (fake_answerers.catalog(), fake_answerers.manifests()),
        (fake_fillers.catalog(), fake_fillers.manifests()),
    ],
    ids=["embedders", "taggers", "answerers", "fillers"],
)
def test_every_kind_publishes_what_its_service_times_need(
    catalog: Catalog, manifests: Mapping[str, VariantManifest]
) -> None:
    """Each task of each kind of checkpoint has the service times of its manifest, known from `/checkpoints` alone."""
    tasks = {(one.name, task) for one in catalog.checkpoints for task in (one.task, *one.also)}
    found = variants_from(checkpoints(catalog, manifests, 1))
    assert {(one.name, one.task) for one in found} == tasks
    for one in found:
        kind = TASKS[one.task].kinds[manifests[one.name].kind]
        expected_s = kind.service_time(manifests[one.name]).run_s(1, 300)
        assert one.median_s(1, 300) == pytest.approx(expected_s, rel=0.02), (one.name, one.task)


def test_a_checkpoint_counts_no_less_than_one_it_ranks_above() -> None:
    """A checkpoint's quality is never below that of one that the catalog ranks lower, as in a simulated run."""
    catalog = fake_summaries.catalog()
    ranks = {GLANCE: (1, 43.2), STUDY: (2, 43.7), SCRIBE: (3, 40.4)}
    ranked = tuple(
        entry.model_copy(
            update={"quality": entry.quality.model_copy(update=dict(zip(("rank", "value"), rank, strict=True)))}
        )
        if (rank := ranks.get(entry.name))
        else entry
        for entry in catalog.checkpoints
    )
    found = variants_from(published(catalog.model_copy(update={"checkpoints": ranked})))
    summarizers = [(one.name, one.quality) for one in found if one.task == "summarize"]
    assert summarizers == [(SCRIBE, 43.7), (STUDY, 43.7), (GLANCE, 43.2)]


def test_a_gateway_that_is_not_ready_is_not_measured() -> None:
    """A gateway without checkpoints, or with one that has no replica up, is not measured."""
    with pytest.raises(NoGateway, match="no replica is up for swift"):
        variants_from(published(replicas=0))
    with pytest.raises(NoGateway, match="any checkpoint"):
        variants_from(b'{"checkpoints": []}')


@pytest.mark.parametrize("content", [b"<html>", b"{}", b'{"checkpoints": [{"name": "x"}]}'])
def test_what_is_no_gateway_is_told(content: bytes) -> None:
    """An answer that is not a gateway's is refused; the error names the URL and the fault."""
    with pytest.raises(NoGateway, match=r"http://there/checkpoints: not a gateway.s answer"):
        variants_from(content, "http://there")


def test_a_profile_with_holes_is_told() -> None:
    """A latency profile with missing cells is refused, because no service time can be computed from it."""
    document = msgspec.json.decode(published())
    document["checkpoints"][0]["latency_profile"]["service_time_ms"].pop()
    with pytest.raises(NoGateway, match="lacks the cells"):
        variants_from(msgspec.json.encode(document))


def test_what_is_still_to_come_is_waited_for() -> None:
    """Nothing is measured while a checkpoint is being prepared; one that will not come is left out."""
    document = msgspec.json.decode(published())
    for state in ("waiting", "preparing", "starting"):
        document["coming"] = [{"name": "late", "state": state}]
        with pytest.raises(NoGateway, match="late is still to come"):
            variants_from(msgspec.json.encode(document))
    document["coming"] = [{"name": "late", "state": "failed"}]
    assert {one.name for one in variants_from(msgspec.json.encode(document))} == set(fake_summaries.manifests())


def test_variants_are_read_from_a_running_gateway() -> None:
    """Variants are read over HTTP; a server that does not answer, or answers 404, is no gateway."""
    with SmallGateway(lambda asked: Told(body=published())).elsewhere() as url:
        assert {one.name for one in live_variants(url)} == set(fake_summaries.manifests())
    with pytest.raises(NoGateway, match="no gateway answers"):
        live_variants(url)
    with SmallGateway(lambda asked: Told(404)).elsewhere() as url, pytest.raises(NoGateway, match="404"):
        live_variants(url)
